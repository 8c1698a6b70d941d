/** The client: a typed method for each command, over a connection of your own. */

import { type Connection, type Send, sender } from "./connection.js";
import {
  type Decision,
  type MultiDecision,
  integer,
  integers,
  readDecision,
  readDecisionOrNull,
  readMultiDecision,
} from "./decision.js";
import { type LeaseOptions, type Lease, withLease } from "./lease.js";
import { type Duration, type LeaseId, type Rate, Rule, type Word, durationWord, integerWord } from "./rule.js";

/** A key is any text or bytes. */
export type Key = string | Buffer;

/** A time of your own, in microseconds since 1970: for tests alone. */
export interface AtOption {
  readonly at?: number | undefined;
}

/** The units of a request. */
export interface CostOption extends AtOption {
  readonly cost?: number | undefined;
}

/** Options of a decision. */
export interface DecideOptions extends CostOption {
  /** Take what is there, up to `cost`. */
  readonly partial?: boolean | undefined;
  /** Always grant, even above the limit: for a cost that is already incurred. */
  readonly force?: boolean | undefined;
}

/** What RL.INFO describes. Names and units are the server's own. */
export type Info = Readonly<Record<string, string | number>>;

/** A lease that is held. */
export interface HeldLease {
  readonly id: string;
  readonly units: number;
  /** Milliseconds until it runs out. */
  readonly left: number;
}

/** redis-cell's reply, in seconds. */
export interface Throttled {
  readonly limited: boolean;
  readonly limit: number;
  readonly remaining: number;
  /** `null` if it is granted, or never is. */
  readonly retryAfter: number | null;
  readonly resetAfter: number;
}

/** Every command of redis-rl. */
export class Client {
  readonly #send: Send;

  constructor(
    /** ioredis, iovalkey, node-redis 5 or @valkey/valkey-glide. */
    readonly connection: Connection,
  ) {
    this.#send = sender(connection);
  }

  async #run<T>(read: (reply: unknown) => T, key: Key, words: readonly Word[], options: AtOption = {}): Promise<T> {
    const at = options.at === undefined ? [] : ["AT", integerWord("at", options.at)];
    return read(await this.#send([...words, ...at], key));
  }

  /** Decides a rule by its own command. */
  async decide(key: Key, rule: Rule, options: DecideOptions = {}): Promise<Decision> {
    const command = rule.algorithm === "CONCURRENCY" ? "ACQUIRE" : rule.algorithm;
    const words: Word[] = [`RL.${command}`, key, ...rule.words(options.cost)];
    if (options.partial === true) words.push("PARTIAL");
    if (options.force === true) words.push("FORCE");
    return this.#run(readDecision, key, words, options);
  }

  /** RL.TOKENBUCKET: takes units from a bucket that refills at a rate. */
  async tokenBucket(key: Key, capacity: number, rate: Rate, options?: DecideOptions): Promise<Decision> {
    return this.decide(key, Rule.tokenBucket(capacity, rate), options);
  }

  /** RL.LEAKYBUCKET: queues units that drain at a rate. Granted: sleep for `wait`, then go ahead. */
  async leakyBucket(key: Key, capacity: number, rate: Rate, options?: DecideOptions): Promise<Decision> {
    return this.decide(key, Rule.leakyBucket(capacity, rate), options);
  }

  /** RL.FIXEDWINDOW: counts units per window, or per calendar `day`, `week`, `month` or `year`. */
  async fixedWindow(
    key: Key,
    limit: number,
    window: Duration,
    options: DecideOptions & { readonly align?: Duration } = {},
  ): Promise<Decision> {
    return this.decide(key, Rule.fixedWindow(limit, window, options.align), options);
  }

  /** RL.SLIDING: counts units in a sliding window, in bounded memory. */
  async sliding(
    key: Key,
    limit: number,
    window: Duration,
    options: DecideOptions & { readonly buckets?: number } = {},
  ): Promise<Decision> {
    return this.decide(key, Rule.sliding(limit, window, options.buckets), options);
  }

  /** RL.SLIDINGLOG: counts units in a sliding window, to the microsecond. */
  async slidingLog(key: Key, limit: number, window: Duration, options?: DecideOptions): Promise<Decision> {
    return this.decide(key, Rule.slidingLog(limit, window), options);
  }

  /**
   * RL.MULTI: decides several limits at once; all grant, or nothing is taken from any. `cost` is what is taken of each
   * rule that does not state its own.
   */
  async multi(
    limits: readonly (readonly [key: Key, rule: Rule])[],
    options: CostOption & { readonly force?: boolean } = {},
  ): Promise<MultiDecision> {
    const rules = limits.flatMap(([, rule]) => [rule.algorithm, ...rule.words(options.cost)]);
    const words: Word[] = ["RL.MULTI", String(limits.length), ...limits.map(([key]) => key), ...rules];
    if (options.force === true) words.push("FORCE");
    return this.#run(readMultiDecision, limits[0]?.[0] ?? "", words, options);
  }

  /** RL.PEEK: what a request would get; takes nothing. `null` if there is no limiter, or an idle one. */
  async peek(key: Key, options: CostOption = {}): Promise<Decision | null> {
    const cost = options.cost === undefined ? [] : ["COST", integerWord("the cost", options.cost)];
    return this.#run(readDecisionOrNull, key, ["RL.PEEK", key, ...cost], options);
  }

  /** RL.INFO: describes a limiter, in the server's own names and units. */
  async info(key: Key, options?: AtOption): Promise<Info | null> {
    return this.#run(readInfo, key, ["RL.INFO", key], options);
  }

  /** RL.REFUND: gives units back. */
  async refund(key: Key, units: number, options?: AtOption): Promise<Decision | null> {
    return this.#run(readDecisionOrNull, key, ["RL.REFUND", key, integerWord("units", units)], options);
  }

  /** RL.SETTLE: gives back or charges the difference between what was reserved and what was used, on every key. */
  async settle(
    keys: Key | readonly Key[],
    reserved: number,
    used: number,
    options?: AtOption,
  ): Promise<(Decision | null)[]> {
    const all = isKey(keys) ? [keys] : keys;
    const units = [integerWord("reserved", reserved), integerWord("used", used)];
    const read = (reply: unknown) => array(reply).map(readDecisionOrNull);
    return this.#run(read, all[0] ?? "", ["RL.SETTLE", String(all.length), ...all, ...units], options);
  }

  /** RL.RESET: deletes limiters; how many there were. */
  async reset(...keys: Key[]): Promise<number> {
    return this.#run(integer, keys[0] ?? "", ["RL.RESET", ...keys]);
  }

  /** RL.THROTTLE: a token bucket with redis-cell's arguments and reply. `period` is whole seconds. */
  async throttle(
    key: Key,
    maxBurst: number,
    count: number,
    period: number,
    quantity: number = 1,
    options?: AtOption,
  ): Promise<Throttled> {
    const numbers = [maxBurst, count, period, quantity].map((number) => integerWord("each number", number));
    return this.#run(readThrottled, key, ["RL.THROTTLE", key, ...numbers], options);
  }

  /** RL.ACQUIRE: acquires a lease. Most will want `withLease`, which renews and releases it, too. */
  async acquire(key: Key, limit: number, ttl: Duration, id: LeaseId, options: CostOption = {}): Promise<Decision> {
    return this.decide(key, Rule.concurrency(limit, ttl, id), { cost: options.cost, at: options.at });
  }

  /** RL.RENEW: renews leases; how many of them were still held. */
  async renew(key: Key, ttl: Duration, ids: LeaseId | readonly LeaseId[], options?: AtOption): Promise<number> {
    const all = isKey(ids) ? [ids] : ids;
    return this.#run(integer, key, ["RL.RENEW", key, durationWord(ttl), ...all], options);
  }

  /** RL.RELEASE: gives leases back; how many of them were still held. */
  async release(key: Key, ids: LeaseId | readonly LeaseId[], options?: AtOption): Promise<number> {
    const all = isKey(ids) ? [ids] : ids;
    return this.#run(integer, key, ["RL.RELEASE", key, ...all], options);
  }

  /** RL.LEASES: the leases that are held, the soonest to run out first. Ids are read as UTF-8. */
  async leases(key: Key, options: AtOption & { readonly count?: number } = {}): Promise<HeldLease[]> {
    const count = options.count === undefined ? [] : ["COUNT", integerWord("count", options.count)];
    return this.#run(readLeases, key, ["RL.LEASES", key, ...count], options);
  }

  /**
   * Runs a body that holds a lease, which is renewed at a third of its `ttl` and always released. If it is lost, the
   * body's `signal` is aborted. Rejects with BusyError if everything is held.
   */
  withLease<T>(
    key: Key,
    limit: number,
    ttl: Duration,
    body: (lease: Lease) => Promise<T> | T,
    options?: LeaseOptions,
  ): Promise<T> {
    return withLease(this, key, limit, ttl, body, options);
  }
}

function isKey(keys: Key | readonly Key[]): keys is Key {
  return typeof keys === "string" || Buffer.isBuffer(keys);
}

function array(reply: unknown): unknown[] {
  if (!Array.isArray(reply)) throw new TypeError("the server's reply is no array");
  return reply;
}

function readThrottled(reply: unknown): Throttled {
  const [limited, limit = 0, remaining = 0, retryAfter = -1, resetAfter = 0] = integers(reply);
  return { limited: limited === 1, limit, remaining, retryAfter: retryAfter < 0 ? null : retryAfter, resetAfter };
}

function readLeases(reply: unknown): HeldLease[] {
  return array(reply).map((row) => {
    const [id, units, left] = array(row);
    return { id: String(id), units: integer(units), left: integer(left) };
  });
}

/** A flat array in RESP2; in RESP3 a Map, an object, or glide's array of `{ key, value }`. */
function readInfo(reply: unknown): Info | null {
  if (reply === null || reply === undefined) return null;
  const value = (item: unknown) => (typeof item === "number" ? item : String(item));
  return Object.fromEntries(pairs(reply).map(([key, item]) => [String(key), value(item)]));
}

function pairs(reply: unknown): (readonly [unknown, unknown])[] {
  if (reply instanceof Map) return [...(reply as Map<unknown, unknown>)];
  if (!Array.isArray(reply)) return Object.entries(reply as object);
  const items = reply as unknown[];
  if (typeof items[0] === "object" && items[0] !== null && "key" in items[0]) {
    return (items as { key: unknown; value: unknown }[]).map(({ key, value }) => [key, value]);
  }
  return items.flatMap((item, at) => (at % 2 === 0 ? [[item, items[at + 1]] as const] : []));
}
