/**
 * A storage for @nestjs/throttler: `ThrottlerModule.forRoot({ throttlers, storage })`.
 *
 * One command for each throttler; `blockDuration` is the server's BLOCK. Times in its records are whole seconds.
 */

import type { Connection } from "./connection.js";
import { type Fail, Guard, type GuardOptions } from "./guard.js";
import { type Algorithm, LONGEST, ruleOf } from "./rule.js";

/** Options of the storage. */
export interface ThrottlerStorageOptions extends GuardOptions {
  /** The first part of each key: by default `rl-nest:`. */
  readonly prefix?: string | undefined;
  /** By default `sliding`. A leaky bucket delays each request until its turn. */
  readonly algorithm?: Algorithm | undefined;
  /** While the server is away: by default `open`. The library would answer an error with a 500. */
  readonly fail?: Fail | "error" | undefined;
}

/** What the guard wants to know. */
export interface ThrottlerRecord {
  totalHits: number;
  timeToExpire: number;
  isBlocked: boolean;
  timeToBlockExpire: number;
}

/** `storage: new RedisRlThrottlerStorage(redis)`. */
export class RedisRlThrottlerStorage {
  /** How often each source decided, and each event happened. */
  readonly counters: Readonly<Record<string, number>>;
  readonly #guard: Guard;
  readonly #prefix: string;
  readonly #algorithm: Algorithm;

  constructor(connection: Connection, options: ThrottlerStorageOptions = {}) {
    this.#guard = new Guard(connection, { ...options, fail: options.fail ?? "open" });
    this.counters = this.#guard.counters;
    this.#prefix = options.prefix ?? "rl-nest:";
    this.#algorithm = options.algorithm ?? "sliding";
  }

  /** Takes a unit, if there is one. `ttl` and `blockDuration` are milliseconds. */
  async increment(
    key: string,
    ttl: number,
    limit: number,
    blockDuration: number,
    throttlerName: string,
  ): Promise<ThrottlerRecord> {
    const plain = ruleOf(this.#algorithm, limit, ttl);
    const block = Math.round(Math.min(blockDuration, LONGEST));
    const rule = block >= 1 ? plain.block(block) : plain;
    const full = `${this.#prefix}${key}:${throttlerName}`;
    const { source, decision } = await this.#guard.decide(full, [{ key: full, rule }]);
    const one = decision?.limits[0];
    if (one === undefined) {
      const isBlocked = source === "closed";
      return {
        totalHits: isBlocked ? limit + 1 : 0,
        timeToExpire: seconds(ttl),
        isBlocked,
        timeToBlockExpire: isBlocked ? 1 : 0,
      };
    }
    const { allowed, remaining, wait, reset } = one;
    if (allowed && wait !== null && wait > 0) await new Promise((resolve) => setTimeout(resolve, wait));
    return {
      totalHits: allowed ? one.limit - remaining : one.limit + 1,
      timeToExpire: seconds(reset),
      isBlocked: !allowed,
      timeToBlockExpire: allowed ? 0 : seconds(wait ?? Math.max(ttl, block)),
    };
  }
}

function seconds(ms: number): number {
  return Math.ceil(ms / 1000);
}
