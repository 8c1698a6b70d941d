/**
 * Limiters for rate-limiter-flexible, by its door for limiters of one's own (RateLimiterCompatibleAbstract): so they
 * work in RateLimiterQueue, BurstyRateLimiter, RLWrapperTimeouts and as an insuranceLimiter. A refusal charges nothing.
 */

import { RateLimiterCompatibleAbstract, RateLimiterRes } from "rate-limiter-flexible";

import type { Connection } from "./connection.js";
import type { Decision } from "./decision.js";
import { type Fail, Guard, type GuardOptions, type GuardSetup } from "./guard.js";
import { limitKey, tagOf } from "./keys.js";
import type { KeyedRule } from "./local.js";
import { type Algorithm, LONGEST, MOST, type Rule, ruleOf } from "./rule.js";

/** Options of a limiter, by the library's own names. */
export interface RateLimiterRedisRlOptions extends GuardOptions {
  /** The connection. */
  readonly storeClient: Connection;
  /** The limit. */
  readonly points: number;
  /** Seconds; 0 never ends (3650 days). */
  readonly duration: number;
  /** Seconds that the limiter is closed after a refusal: by default 0. */
  readonly blockDuration?: number | undefined;
  /** Closes it later: `points` + 3 after three refusals in a row. By default after the first. */
  readonly blockOnConsumed?: number | undefined;
  /** Delay what is granted, so that it is spread over the duration. */
  readonly execEvenly?: boolean | undefined;
  /** The shortest such delay in milliseconds: by default duration / points. */
  readonly execEvenlyMinDelayMs?: number | undefined;
  /** One for each limiter: by default `rlflx`. */
  readonly keyPrefix?: string | undefined;
  /** By default `sliding`. */
  readonly algorithm?: Algorithm | undefined;
  /** Turns the denial cache on. Whatever it says, what was refused is remembered until its wait is over. */
  readonly inMemoryBlockOnConsumed?: number | undefined;
  /** These two are taken and not needed: each kind of connection is known, and a server that is away is, too. */
  readonly useRedisPackage?: boolean | undefined;
  readonly rejectIfRedisNotReady?: boolean | undefined;
  /** What to use while the server is away. */
  readonly insuranceLimiter?: RateLimiterCompatibleAbstract | undefined;
  /** While the server is away, if there is no `insuranceLimiter`: by default `error`, which rejects. */
  readonly fail?: Fail | "error" | undefined;
}

/** The library's options of a call. */
export interface CallOptions {
  /** Another duration, in seconds. */
  readonly customDuration?: number;
}

type Id = string | number;

/** Options of RateLimiterRedis that cannot mean here what they mean there. */
const REFUSED = {
  inMemoryBlockDuration: "blockDuration closes the limiter, for all processes",
  customIncrTtlLuaScript: "no script is run; `algorithm` takes a function that makes the rule",
};

// The library's types have properties where the class has accessors to override.
const Base = RateLimiterCompatibleAbstract as unknown as new () => object;

/** A limiter of redis-rl with rate-limiter-flexible's interface. */
export class RateLimiterRedisRl extends Base implements RateLimiterCompatibleAbstract {
  points: number;
  /** Seconds. */
  duration: number;
  /** How often each source decided, and each event happened. */
  readonly counters: Readonly<Record<string, number>>;
  /** What a union of this limiter decides with. */
  readonly setup: GuardSetup;
  readonly #guard: Guard;
  readonly #options: RateLimiterRedisRlOptions;
  #blockDuration: number;
  #execEvenly: boolean;

  constructor(options: RateLimiterRedisRlOptions) {
    super();
    if (!Number.isFinite(options.points)) throw new RangeError("points must be a finite number");
    if (!(options.duration >= 0)) throw new RangeError("duration must be a number of seconds, 0 or more");
    for (const [option, instead] of Object.entries(REFUSED)) {
      if (option in options) throw new TypeError(`${option} is not supported: ${instead}`);
    }
    this.#options = options;
    this.points = options.points;
    this.duration = options.duration;
    this.#blockDuration = options.blockDuration ?? 0;
    this.#execEvenly = options.execEvenly ?? false;
    // An insurance takes over where the error would be thrown.
    const fail = options.insuranceLimiter === undefined ? (options.fail ?? "error") : "error";
    // Other processes may reward or delete: so denials are remembered only if asked for.
    const remembered = (options.inMemoryBlockOnConsumed ?? 0) > 0 ? undefined : 0;
    this.setup = { ...options, fail, denialCache: options.denialCache ?? remembered };
    this.#guard = new Guard(options.storeClient, this.setup);
    this.counters = this.#guard.counters;
  }

  get keyPrefix(): string {
    return this.#options.keyPrefix ?? "rlflx";
  }

  /** Seconds. */
  get blockDuration(): number {
    return this.#blockDuration;
  }

  set blockDuration(value: number) {
    this.#blockDuration = value;
  }

  get execEvenly(): boolean {
    return this.#execEvenly;
  }

  set execEvenly(value: boolean) {
    this.#execEvenly = value;
  }

  /** The connection, which a union's limiters share. */
  get storeClient(): Connection {
    return this.#options.storeClient;
  }

  /** The key in the server. All limiters of one id are in one slot of a cluster. */
  getKey(key: Id): string {
    return limitKey("rl", tagOf(String(key)), this.keyPrefix);
  }

  /** The key and the rule that `consume` decides. */
  keyed(key: Id, options: CallOptions = {}): KeyedRule {
    const rule = this.#rule(options);
    const blocking = Math.min(this.blockDuration * 1000, LONGEST);
    const after = Math.max(1, (this.#options.blockOnConsumed ?? 0) - rule.limit);
    return { key: this.getKey(key), rule: blocking >= 1 ? rule.block(blocking, after > 1 ? after : undefined) : rule };
  }

  #rule(options: CallOptions = {}): Rule {
    const { customDuration } = options;
    const seconds = customDuration !== undefined && customDuration >= 0 ? customDuration : this.duration;
    return ruleOf(this.#options.algorithm ?? "sliding", this.points, milliseconds(seconds));
  }

  /** Takes points. Rejects with a RateLimiterRes if there are not enough, and takes none. */
  async consume(key: Id, pointsToConsume = 1, options: CallOptions = {}): Promise<RateLimiterRes> {
    const points = checkPoints(pointsToConsume);
    return this.#insured("consume", [key, points, options], async () => {
      const limit = this.keyed(key, options);
      const { source, decision } = await this.#guard.decide(limit.key, [limit], points);
      const one = decision?.limits[0];
      if (one === undefined) {
        if (source === "open") return new RateLimiterRes(this.points, 0, 0, false);
        throw refusal(new RateLimiterRes(0, 1000, this.points + points, false));
      }
      const res = resultOf(one, points);
      if (!one.allowed) throw refusal(res);
      await sleep((one.wait ?? 0) + this.#delay(res));
      return res;
    });
  }

  /** The library's own spread over the duration. */
  #delay(res: RateLimiterRes): number {
    if (!this.execEvenly || this.points <= 0 || res.msBeforeNext <= 0 || res.isFirstInDuration) return 0;
    const shortest = this.#options.execEvenlyMinDelayMs ?? Math.ceil((this.duration * 1000) / this.points);
    const even = Math.ceil(res.msBeforeNext / (res.remainingPoints + 2));
    const delay = even < shortest ? res.consumedPoints * shortest : even;
    Object.assign(res, { msBeforeNext: Math.max(res.msBeforeNext - delay, 0) });
    return delay;
  }

  /** Takes points even if there are not enough: what is above the limit is paid back before anything is granted. */
  async penalty(key: Id, points = 1, options: CallOptions = {}): Promise<RateLimiterRes> {
    const cost = checkPoints(points);
    return this.#insured("penalty", [key, cost, options], async () => {
      const name = this.getKey(key);
      const forced = { cost, force: true };
      const one = await this.#guard.run(name, () => this.#guard.client.decide(name, this.#rule(options), forced));
      // What is above the limit is a debt, which the decision doesn't show.
      return (one.remaining > 0 ? null : await this.#look(name)) ?? resultOf(one, cost);
    });
  }

  /** Gives points back, as many as are consumed at most. */
  async reward(key: Id, points = 1, options: CallOptions = {}): Promise<RateLimiterRes> {
    const units = checkPoints(points);
    return this.#insured("reward", [key, units, options], async () => {
      const name = this.getKey(key);
      const one = await this.#guard.give(name, () => this.#guard.client.refund(name, units));
      if (one !== null && one.remaining === 0) return (await this.#look(name)) ?? resultOf(one, 0);
      return one === null ? new RateLimiterRes(this.points, 0, 0, false) : resultOf(one, 0);
    });
  }

  /** What is consumed; `null` if nothing is. While the limiter is closed that is more than `points`. */
  async get(key: Id, options: CallOptions = {}): Promise<RateLimiterRes | null> {
    return this.#insured("get", [key, options], () => this.#look(this.getKey(key)));
  }

  async #look(name: string): Promise<RateLimiterRes | null> {
    const info = await this.#guard.run(name, () => this.#guard.client.info(name));
    if (info === null) return null;
    const [used, remaining] = [Number(info.used), Number(info.remaining)];
    const [wait, reset] = [Number(info.wait_ms), Number(info.reset_ms)];
    const blocked = Number(info.blocked_ms ?? 0);
    if (blocked > 0) return new RateLimiterRes(0, ending(blocked), Math.max(used, this.points + 1), false);
    return new RateLimiterRes(remaining, ending(remaining > 0 ? reset : wait), used, false);
  }

  /** Makes `points` what is consumed, for the duration at most. More than the limit closes it for `secDuration`. */
  async set(key: Id, points: number, secDuration: number, options: CallOptions = {}): Promise<RateLimiterRes> {
    const cost = checkPoints(points);
    return this.#insured("set", [key, cost, secDuration, options], async () => {
      const seconds = secDuration >= 0 ? secDuration : this.duration;
      await this.#replace(key, cost, seconds);
      return new RateLimiterRes(0, seconds > 0 ? seconds * 1000 : -1, cost, false);
    });
  }

  /** Closes the limiter for some seconds; 0: until it is deleted (3650 days). */
  async block(key: Id, secDuration: number, options: CallOptions = {}): Promise<RateLimiterRes> {
    return this.#insured("block", [key, secDuration, options], async () => {
      const points = Math.max(0, this.points) + 1;
      await this.#replace(key, points, secDuration);
      return new RateLimiterRes(0, secDuration > 0 ? secDuration * 1000 : -1, points, false);
    });
  }

  /** Forgets what is consumed, takes that many points, and closes the limiter if they are too many. */
  async #replace(key: Id, points: number, seconds: number): Promise<void> {
    const name = this.getKey(key);
    const { client } = this.#guard;
    const rule = ruleOf(this.#options.algorithm ?? "sliding", this.points, milliseconds(seconds));
    // Without waiting for each other: a connection keeps the order, and there is little between them.
    await this.#guard.give(name, async () => {
      const calls: Promise<unknown>[] = [client.reset(name)];
      if (points > 0) calls.push(client.decide(name, rule, { cost: Math.min(points, MOST), force: true }));
      if (points > this.points) {
        // A block begins with a denial: of more than can ever be granted.
        const blocking = rule.block(milliseconds(seconds));
        calls.push(client.decide(name, blocking, { cost: Math.min(rule.limit + 1, MOST) }));
      }
      await Promise.all(calls);
    });
  }

  /** Forgets the key; whether there was one. */
  async delete(key: Id, options: CallOptions = {}): Promise<boolean> {
    return this.#insured("delete", [key, options], async () => {
      const name = this.getKey(key);
      return (await this.#guard.give(name, () => this.#guard.client.reset(name))) > 0;
    });
  }

  /** Forgets what the process remembers of refusals. */
  deleteInMemoryBlockedAll(): void {
    this.#guard.denials.forget();
  }

  async #insured<T>(method: Method, args: unknown[], call: () => Promise<T>): Promise<T> {
    try {
      return await call();
    } catch (error) {
      const { insuranceLimiter } = this.#options;
      if (insuranceLimiter === undefined || error instanceof RateLimiterRes) throw error;
      const insured = insuranceLimiter as unknown as Record<Method, (...args: unknown[]) => Promise<T>>;
      return insured[method](...args);
    }
  }
}

type Method = "consume" | "penalty" | "reward" | "get" | "set" | "block" | "delete";

/** What a union answers: results under the limiters' `keyPrefix`. */
export type UnionResult = Record<string, RateLimiterRes>;

/**
 * Several limiters in one decision, as RateLimiterUnion: but in one RL.MULTI, and if one refuses, nothing is charged to
 * any. They share a connection and have a `keyPrefix` each. The first one's options say what happens while the server
 * is away.
 */
export class RateLimiterRedisRlUnion {
  readonly #limiters: readonly RateLimiterRedisRl[];
  readonly #guard: Guard;

  constructor(...limiters: readonly RateLimiterRedisRl[]) {
    const [first] = limiters;
    if (first === undefined) throw new RangeError("a union needs a limiter");
    if (limiters.some((one) => one.storeClient !== first.storeClient)) {
      throw new TypeError("the limiters of a union share a connection");
    }
    if (new Set(limiters.map((one) => one.keyPrefix)).size < limiters.length) {
      throw new TypeError("the limiters of a union need a keyPrefix each");
    }
    this.#limiters = limiters;
    this.#guard = new Guard(first.storeClient, first.setup);
  }

  /** Takes points of all limiters, or rejects with the results of those that refuse. */
  async consume(key: Id, points = 1): Promise<UnionResult> {
    const cost = checkPoints(points);
    const limits = this.#limiters.map((limiter) => limiter.keyed(key));
    const { source, decision } = await this.#guard.decide(`union:${limits[0]?.key ?? ""}`, limits, cost);
    const results = this.#limiters.map(({ keyPrefix, points: most }, at) => {
      const one = decision?.limits[at];
      if (one !== undefined) return { keyPrefix, allowed: one.allowed, res: resultOf(one, cost) };
      const allowed = source === "open";
      const res = allowed ? new RateLimiterRes(most, 0, 0, false) : new RateLimiterRes(0, 1000, most + cost, false);
      return { keyPrefix, allowed, res };
    });
    const granted = results.every((one) => one.allowed);
    const shown = granted ? results : results.filter((one) => !one.allowed);
    const found = Object.fromEntries(shown.map(({ keyPrefix, res }) => [keyPrefix, res]));
    if (granted) return found;
    throw refusal(found);
  }
}

/** The library's interface rejects with results, which are no errors. */
function refusal(result: RateLimiterRes | UnionResult): Error {
  return result as unknown as Error;
}

function resultOf({ allowed, limit, remaining, wait, reset }: Decision, points: number): RateLimiterRes {
  const used = limit - remaining;
  // A refusal says what it would have been: more than the points there are.
  if (!allowed) return new RateLimiterRes(remaining, ending(wait ?? -1), used + points, false);
  return new RateLimiterRes(remaining, ending(reset), used, points > 0 && used === points);
}

/** What never ends is -1 to the library; to the server it is the longest there is, of which some may have passed. */
function ending(ms: number): number {
  return ms > LONGEST / 2 ? -1 : ms;
}

function milliseconds(seconds: number): number {
  return seconds > 0 ? Math.min(Math.max(1, Math.round(seconds * 1000)), LONGEST) : LONGEST;
}

/** The library takes digits, too, in JavaScript. */
function checkPoints(points: number | string): number {
  const number = typeof points === "string" && /^\d+$/.test(points) ? Number(points) : points;
  if (!Number.isSafeInteger(number) || Number(number) < 0) {
    throw new RangeError("points must be a whole number, 0 or more");
  }
  return Number(number);
}

async function sleep(ms: number): Promise<void> {
  if (ms > 0) await new Promise((resolve) => setTimeout(resolve, ms));
}
