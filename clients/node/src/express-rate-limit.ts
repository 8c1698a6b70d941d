/**
 * A store for express-rate-limit, and so for express-slow-down and hono-rate-limiter, which have the same interface.
 *
 * The library counts hits and compares them with its limit afterwards. This store knows the limit, lets the server
 * decide, and says so in the library's terms: a grant is the units used so far; a denial is one more than the limit,
 * and its `resetTime` is the moment at which the request will be granted, which makes Retry-After exact.
 */

import { AsyncLocalStorage } from "node:async_hooks";

import type { Connection } from "./connection.js";
import type { Decision } from "./decision.js";
import { Guard, type Fail, type GuardOptions, type Verdict } from "./guard.js";
import { type Algorithm, MOST, type Rule, ruleOf } from "./rule.js";

/** Options of the store. */
export interface ExpressStoreOptions extends GuardOptions {
  /** The first part of each key, one for each limiter: by default `rl-express:`. */
  readonly prefix?: string | undefined;
  /** By default `sliding`. A leaky bucket delays each request until its turn. */
  readonly algorithm?: Algorithm | undefined;
  /**
   * The limit of a key, if the library's `limit` is a function: the library asks that only after the store has counted.
   * Without this such requests are counted in a fixed window, denied ones too, as in the library's own store.
   */
  readonly limit?: ((key: string) => number | Promise<number>) | undefined;
  /** While the server is away: by default `error`, which leaves it to the library's `passOnStoreError`. */
  readonly fail?: Fail | "error" | undefined;
}

/** What the library gives to a store. */
interface LibraryOptions {
  readonly windowMs: number;
  readonly limit?: unknown;
  readonly skipFailedRequests?: boolean;
  readonly skipSuccessfulRequests?: boolean;
}

/** What a store answers. */
interface ClientInfo {
  totalHits: number;
  resetTime: Date | undefined;
}

/** What `decrement` must know of the request that it belongs to. */
interface Charge {
  readonly key: string;
  charged: boolean;
}

/** `store: new RedisRlStore(redis)`. */
export class RedisRlStore {
  /** Keys are shared by all processes. */
  readonly localKeys = false;
  readonly prefix: string;
  /** How often each source decided, and each event happened. */
  readonly counters: Readonly<Record<string, number>>;
  readonly #options: ExpressStoreOptions;
  readonly #charges = new AsyncLocalStorage<Charge>();
  readonly #guard: Guard;
  #windowMs = 60_000;
  #limit: number | undefined;
  /** Whether the library will give units back. */
  #refunds = true;

  constructor(connection: Connection, options: ExpressStoreOptions = {}) {
    this.prefix = options.prefix ?? "rl-express:";
    this.#options = options;
    this.#guard = new Guard(connection, { ...options, fail: options.fail ?? "error" });
    this.counters = this.#guard.counters;
  }

  /** Called once by the library. */
  init(options: LibraryOptions): void {
    this.#windowMs = options.windowMs;
    // express-slow-down says 0, and wants to know how many there were. 0 denies all in express-rate-limit: so it does.
    this.#limit = typeof options.limit === "number" && options.limit > 0 ? options.limit : undefined;
    this.#refunds = options.skipFailedRequests === true || options.skipSuccessfulRequests === true;
    // Other processes will give units back, too.
    if (this.#refunds && this.#options.denialCache === undefined) this.#guard.denials.disable();
    if (this.#counts && !isWindow(this.#options.algorithm)) {
      throw new TypeError("a bucket must know the limit of a key: give the store `limit`, too");
    }
  }

  /** Whether the library decides, and the store only counts. */
  get #counts(): boolean {
    return this.#limit === undefined && this.#options.limit === undefined;
  }

  async #rule(key: string): Promise<Rule> {
    const { algorithm, limit } = this.#options;
    if (this.#counts) return ruleOf(algorithm ?? "fixed-window", MOST, this.#windowMs);
    const most = limit === undefined ? (this.#limit ?? 0) : await limit(key);
    return ruleOf(algorithm ?? "sliding", most, this.#windowMs);
  }

  /** Takes a unit, if there is one. */
  async increment(key: string): Promise<ClientInfo> {
    // Set before anything is awaited: so it is what the library's own continuations see, decrement among them.
    const charge: Charge = { key, charged: false };
    // Node makes every promise of a process a little slower as soon as one context is entered: only where it is needed.
    if (this.#refunds) this.#charges.enterWith(charge);
    const rule = await this.#rule(key);
    const full = this.prefix + key;
    const verdict = await this.#guard.decide(full, [{ key: full, rule }]);
    const decision = verdict.decision?.limits[0];
    if (decision === undefined) return this.#undecided(verdict);
    charge.charged = decision.allowed && verdict.source === "redis";
    if (decision.allowed && decision.wait !== null && decision.wait > 0) await sleep(decision.wait);
    return this.#info(decision);
  }

  #undecided({ source }: Verdict): ClientInfo {
    if (source === "open") return { totalHits: 1, resetTime: new Date(Date.now() + this.#windowMs) };
    return { totalHits: Number.MAX_SAFE_INTEGER, resetTime: new Date(Date.now() + 1000) };
  }

  #info({ allowed, limit, remaining, wait, reset }: Decision): ClientInfo {
    if (allowed) return { totalHits: Math.max(1, limit - remaining), resetTime: new Date(Date.now() + reset) };
    const resetTime = wait === null ? undefined : new Date(Date.now() + wait);
    return { totalHits: limit + 1, resetTime };
  }

  /** Gives a unit back: for `skipFailedRequests` and `skipSuccessfulRequests`. */
  async decrement(key: string): Promise<void> {
    const charge = this.#charges.getStore();
    // The library calls this for denied requests as well, which took nothing.
    if (charge?.key === key && !charge.charged) return;
    const full = this.prefix + key;
    await this.#guard.give(full, () => this.#guard.client.refund(full, 1));
  }

  /** How many hits count now. Takes nothing. */
  async get(key: string): Promise<ClientInfo | undefined> {
    const full = this.prefix + key;
    const decision = await this.#guard.run(full, () => this.#guard.client.peek(full));
    if (decision === null) return undefined;
    const { limit, remaining, reset } = decision;
    return { totalHits: limit - remaining, resetTime: new Date(Date.now() + reset) };
  }

  /** Forgets a client. */
  async resetKey(key: string): Promise<void> {
    const full = this.prefix + key;
    await this.#guard.give(full, () => this.#guard.client.reset(full));
  }
}

function isWindow(algorithm: Algorithm | undefined): boolean {
  return algorithm === undefined || algorithm === "fixed-window" || algorithm === "sliding";
}

function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
