/** Keys: identifiers that nobody can forge, and one hash tag for all limits of a client. */

import { createHash, createHmac } from "node:crypto";

const LONGEST = 64;
const HASH = /^(sha256|hmac)-/;

/** There is nothing to make a key of: everybody without a value would share one. */
export class KeyPartError extends Error {
  override readonly name = "KeyPartError";
  readonly code = "no-value";
}

/** How an identifier becomes part of a key. */
export interface KeyPartOptions {
  /** Whether it is a secret, like an API key: then it is hashed. */
  readonly secret?: boolean | undefined;
  /** Hashes with HMAC, for identifiers that could be guessed. */
  readonly pepper?: string | Buffer | undefined;
}

/**
 * The part of a key that names a client, like `user:42`. A secret is hashed, and so is what is longer than 64 bytes, or
 * reads like a hash and could be taken for that of another identifier; other bytes than letters, digits and
 * `- . _ ~ @ +` are escaped.
 */
export function keyPart(kind: string, value: string | Buffer, options: KeyPartOptions = {}): string {
  const data = Buffer.from(value);
  if (data.length === 0) throw new KeyPartError(`an empty ${kind}: everybody without one would share a key`);
  if (options.secret !== true && standsAsItIs(data)) return `${kind}:${escape(data)}`;
  return `${kind}:${hash(data, options.pepper)}`;
}

/** The key of one limit of one client. The client is the hash tag, so all its limits are in one slot. */
export function limitKey(prefix: string, who: string, name: string): string {
  return `${prefix}:{${who}}:${escape(Buffer.from(name))}`;
}

/** Any text as a hash tag: short, and without braces. */
export function tagOf(text: string): string {
  const data = Buffer.from(text);
  return data.length > 0 && standsAsItIs(data) ? escape(data) : hash(data, undefined);
}

function standsAsItIs(data: Buffer): boolean {
  return data.length <= LONGEST && !HASH.test(data.toString("latin1"));
}

function hash(data: Buffer, pepper: string | Buffer | undefined): string {
  const [name, hasher] =
    pepper === undefined ? ["sha256", createHash("sha256")] : ["hmac", createHmac("sha256", pepper)];
  return `${name}-${hasher.update(data).digest("hex").slice(0, 32)}`;
}

function escape(data: Buffer): string {
  const plain = /^[\w.~@+-]$/;
  return Array.from(data, (byte) => {
    const character = String.fromCharCode(byte);
    return plain.test(character) ? character : `%${byte.toString(16).toUpperCase().padStart(2, "0")}`;
  }).join("");
}
