/**
 * Who is it? The address that a request is counted for, through trusted proxies alone.
 *
 * Proxies append what they see to the right, and clients write what they like to the left. So the list is read from
 * the right, and nothing to the left of the client is ever looked at. An address that cannot be determined is an error
 * of the setup: it must not become one key for everybody.
 */

import { isIPv4, isIPv6 } from "node:net";

/** What is wrong. */
export type IdentityCode = "bad-address" | "no-header" | "too-few-hops" | "bad-setup";

/** It cannot be said who a request is counted for. */
export class IdentityError extends Error {
  override readonly name = "IdentityError";
  constructor(
    /** `bad-address`, `no-header`, `too-few-hops` or `bad-setup`. */
    readonly code: IdentityCode,
    message: string,
  ) {
    super(message);
  }
}

/** Which proxies are trusted: a number of them, or their ranges; by default none. */
export interface TrustOptions {
  /** How many proxies stand in front of the application. */
  readonly count?: number | undefined;
  /** The ranges of their addresses. */
  readonly cidrs?: readonly string[] | undefined;
  /** Where they write what they see: by default `x-forwarded-for`. */
  readonly header?: "x-forwarded-for" | "forwarded" | undefined;
  /** How much of an IPv4 address makes a client: by default 32. */
  readonly prefix4?: number | undefined;
  /** How much of an IPv6 address makes a client: by default 64. */
  readonly prefix6?: number | undefined;
}

/** Header fields in the order received: `[["X-Forwarded-For", "203.0.113.9"]]`. */
export type HeaderList = Iterable<readonly [name: string, value: string]>;

/** 4 or 16 bytes. */
type Address = Uint8Array;

interface Network {
  readonly address: Address;
  readonly prefix: number;
}

/** Trusted proxies, checked. Make one at start: a wrong setup is reported there. */
export class Trust {
  readonly count: number;
  readonly header: string;
  readonly prefix4: number;
  readonly prefix6: number;
  readonly #networks: readonly Network[];

  constructor(options: TrustOptions = {}) {
    const { count = 0, cidrs = [], prefix4 = 32, prefix6 = 64 } = options;
    const header: string = options.header ?? "x-forwarded-for";
    if (!Number.isInteger(count) || count < 0 || (count > 0 && cidrs.length > 0)) {
      throw new IdentityError("bad-setup", "trust a number of proxies, 0 or more, or their ranges; not both");
    }
    if (header !== "x-forwarded-for" && header !== "forwarded") {
      throw new IdentityError("bad-setup", "header must be x-forwarded-for or forwarded");
    }
    if (!isPrefix(prefix4, 32) || !isPrefix(prefix6, 128)) {
      throw new IdentityError("bad-setup", "prefix4 must be from 0 to 32, and prefix6 from 0 to 128");
    }
    this.count = count;
    this.header = header;
    this.prefix4 = prefix4;
    this.prefix6 = prefix6;
    this.#networks = cidrs.map(network);
  }

  /** Whether any proxy is trusted. */
  get any(): boolean {
    return this.count > 0 || this.#networks.length > 0;
  }

  /** Whether an address is one of a trusted proxy. */
  has(address: Uint8Array): boolean {
    return this.#networks.some((one) => equal(one.address, masked(address, one.prefix)));
  }
}

const NOBODY = new Trust();

/** The address of the client, as the outermost trusted proxy saw it. */
export function clientAddress(remote: string | null | undefined, headers: HeaderList, trust: Trust = NOBODY): string {
  return format(find(remote, headers, trust));
}

/** The part of a key that names the client by its address, like `ip:203.0.113.9` or `ip:2001:db8::/64`. */
export function identify(remote: string | null | undefined, headers: HeaderList, trust: Trust = NOBODY): string {
  const address = find(remote, headers, trust);
  const prefix = address.length === 4 ? trust.prefix4 : trust.prefix6;
  const bare = format(masked(address, prefix));
  return prefix === address.length * 8 ? `ip:${bare}` : `ip:${bare}/${prefix}`;
}

function find(remote: string | null | undefined, headers: HeaderList, trust: Trust): Address {
  if (!trust.any) return parse(remote);
  const hops = read(headers, trust.header);
  if (trust.count > 0) return byCount(hops, trust.count);
  let address = parse(remote);
  let walked = false;
  while (trust.has(address)) {
    const hop = hops.next();
    if (hop.done === true) {
      if (walked) break;
      throw new IdentityError("no-header", `the proxy ${String(remote)} is trusted but sends no ${trust.header}`);
    }
    walked = true;
    address = parse(hop.value);
  }
  return address;
}

function byCount(hops: Iterator<string>, count: number): Address {
  let client = "";
  for (let number = 0; number < count; number += 1) {
    const hop = hops.next();
    if (hop.done === true) {
      const code = number === 0 ? "no-header" : "too-few-hops";
      throw new IdentityError(code, `${count} proxies are trusted, and the header has ${number} entries`);
    }
    client = hop.value;
  }
  return parse(client);
}

/** The entries from the right; empty ones are none. */
function* read(headers: HeaderList, name: string): Generator<string, undefined> {
  const lines = Array.from(headers).filter(([key]) => key.toLowerCase() === name);
  for (const [, line] of lines.reverse()) {
    const entries = name === "forwarded" ? splitFromRight(line, ",") : line.split(",").reverse();
    for (const entry of entries) {
      if (entry.trim() !== "") yield name === "forwarded" ? forOf(entry) : entry.trim();
    }
  }
}

/**
 * The parts between separators outside quotes, from the right. Quotes are paired from the right too: one that a client
 * leaves open must not swallow what a proxy appended.
 */
function* splitFromRight(text: string, separator: string): Generator<string> {
  let end = text.length;
  let quoted = false;
  let backslashes = 0;
  // One pass: where the run of backslashes before each quote begins would cost a square otherwise.
  const escaped = new Set<number>();
  for (let at = 0; at < text.length; at += 1) {
    if (text[at] === '"' && backslashes % 2 === 1) escaped.add(at);
    backslashes = text[at] === "\\" ? backslashes + 1 : 0;
  }
  for (let at = text.length - 1; at >= 0; at -= 1) {
    if (text[at] === '"' && !escaped.has(at)) quoted = !quoted;
    else if (text[at] === separator && !quoted) {
      yield text.slice(at + 1, end);
      end = at;
    }
  }
  yield text.slice(0, end);
}

/** The value of the parameter `for`; empty if there is none. */
function forOf(element: string): string {
  for (const pair of splitFromRight(element, ";")) {
    const at = pair.indexOf("=");
    if (at >= 0 && pair.slice(0, at).trim().toLowerCase() === "for") {
      return pair
        .slice(at + 1)
        .trim()
        .replace(/^"/, "")
        .replace(/"$/, "");
    }
  }
  return "";
}

function parse(text: string | null | undefined): Address {
  const address = tryParse((text ?? "").trim());
  if (address === null) throw new IdentityError("bad-address", `${JSON.stringify(text ?? null)} is no address`);
  return address;
}

function tryParse(text: string): Address | null {
  const [, bracketed, alone] = /^\[([^\]]*)\](?::\d{1,5})?$/.exec(text) ?? /^()([^:]*):\d{1,5}$/.exec(text) ?? [];
  const bare = (bracketed ?? "") !== "" ? bracketed : (alone ?? text);
  return bytes((bare ?? "").replace(/%.*$/, ""));
}

function bytes(text: string): Address | null {
  if (isIPv4(text)) return Uint8Array.from(text.split("."), Number);
  if (!isIPv6(text)) return null;
  const [head = "", tail] = canonical(text).split("::");
  const groups = (part: string | undefined) => (part === undefined || part === "" ? [] : part.split(":"));
  const [before, after] = [groups(head), groups(tail)];
  const zeros = Array<string>(8 - before.length - after.length).fill("0");
  const numbers = [...before, ...zeros, ...after].map((group) => parseInt(group, 16));
  const found = Uint8Array.from(numbers.flatMap((group) => [group >> 8, group & 255]));
  // An IPv4-mapped address is read as IPv4.
  const mapped = found.subarray(0, 10).every((byte) => byte === 0) && found[10] === 255 && found[11] === 255;
  return mapped ? found.slice(12) : found;
}

/** RFC 5952, which is what URLs have. */
function canonical(text: string): string {
  return new URL(`http://[${text}]/`).hostname.slice(1, -1);
}

function format(address: Address): string {
  if (address.length === 4) return address.join(".");
  const groups = Array.from({ length: 8 }, (_, at) => ((address[2 * at] ?? 0) << 8) | (address[2 * at + 1] ?? 0));
  return canonical(groups.map((group) => group.toString(16)).join(":"));
}

function network(cidr: string): Network {
  const [text = "", length, more] = cidr.trim().split("/");
  const address = bytes(text);
  const whole = address === null ? 0 : address.length * 8;
  // A range of IPv4-mapped addresses is one of IPv4.
  const offset = whole === 32 && text.includes(":") ? 96 : 0;
  const prefix = length === undefined ? whole : /^\d{1,3}$/.test(length) ? Number(length) - offset : NaN;
  if (address === null || more !== undefined || !isPrefix(prefix, whole)) {
    throw new IdentityError("bad-setup", `${JSON.stringify(cidr)} is no range of addresses`);
  }
  return { address: masked(address, prefix), prefix };
}

function isPrefix(prefix: number, most: number): boolean {
  return Number.isInteger(prefix) && prefix >= 0 && prefix <= most;
}

function masked(address: Address, prefix: number): Address {
  return address.map((byte, at) => byte & (0xff00 >> Math.min(8, Math.max(0, prefix - 8 * at))));
}

function equal(one: Address, other: Address): boolean {
  return one.length === other.length && one.every((byte, at) => byte === other[at]);
}
