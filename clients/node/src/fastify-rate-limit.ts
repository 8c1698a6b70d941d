/**
 * A store for @fastify/rate-limit, which makes it itself: `store: redisRlStore(redis)`.
 *
 * The plugin compares a count with `max`. A grant is the units used so far; a denial is one more than `max`, or with
 * `ban` as many more as there were denials in a row, which the server counts for all processes.
 */

import type { Connection } from "./connection.js";
import type { Decision } from "./decision.js";
import { type Fail, Guard, type GuardOptions } from "./guard.js";
import { type Algorithm, type Duration, type Rule, ruleOf } from "./rule.js";

/** Options of the store. */
export interface FastifyStoreOptions extends GuardOptions {
  /** The first part of each key: by default `rl-fastify:`. */
  readonly prefix?: string | undefined;
  /** By default `sliding`. */
  readonly algorithm?: Algorithm | undefined;
  /** How long a ban lasts, if the plugin's `ban` is set: by default the time window. */
  readonly banDuration?: Duration | undefined;
  /** While the server is away: by default `error`, which leaves it to the plugin's `skipOnError`. */
  readonly fail?: Fail | "error" | undefined;
}

/** The plugin's parameters, of which these matter here. */
interface Parameters {
  readonly max?: unknown;
  readonly timeWindow?: unknown;
  readonly ban?: number;
  readonly groupId?: string;
  readonly continueExceeding?: boolean;
  readonly exponentialBackoff?: boolean;
  readonly routeInfo?: { readonly method?: string | string[]; readonly url?: string };
}

/** What the plugin wants to know. */
interface Count {
  current: number;
  ttl: number;
}

type Callback = (error: Error | null, result?: Count) => void;

/** What the plugin makes of the store: one for all routes, and a child for each that has parameters of its own. */
export interface FastifyStore {
  incr(key: string, callback: Callback, timeWindow: number, max: number): void;
  read(key: string, callback: Callback, timeWindow: number, max: number): void;
  child(routeOptions: object): FastifyStore;
}

/** The class to give to the plugin. */
export function redisRlStore(
  connection: Connection,
  options: FastifyStoreOptions = {},
): new (parameters: object) => FastifyStore {
  const guard = new Guard(connection, { ...options, fail: options.fail ?? "error" });
  const prefix = options.prefix ?? "rl-fastify:";
  return class extends Store {
    constructor(parameters: object) {
      super(guard, options, prefix, prefix, parameters);
    }
  };
}

class Store implements FastifyStore {
  readonly #guard: Guard;
  readonly #options: FastifyStoreOptions;
  readonly #root: string;
  readonly #prefix: string;
  /** Denials in a row beyond which a client is banned; -1 for none. */
  readonly #ban: number;
  readonly #continues: boolean;

  constructor(guard: Guard, options: FastifyStoreOptions, root: string, prefix: string, parameters: Parameters) {
    this.#guard = guard;
    this.#options = options;
    this.#root = root;
    this.#prefix = prefix;
    this.#ban = parameters.ban ?? -1;
    this.#continues = parameters.continueExceeding === true;
    if (parameters.exponentialBackoff === true) {
      throw new TypeError("exponentialBackoff is not supported: `ban` closes the limiter for `banDuration`");
    }
    if (this.#continues && this.#ban >= 0) {
      throw new TypeError("continueExceeding and ban are two penalties for the same: choose one");
    }
  }

  /** The plugin's `child`: a route with parameters of its own, or a group of routes. */
  child(routeOptions: Parameters): FastifyStore {
    const { routeInfo, groupId, max, timeWindow } = routeOptions;
    // The plugin adds a group's id to the key: so all routes of a group share one limiter.
    const route = routeInfo?.url === undefined ? undefined : `${String(routeInfo.method)}${routeInfo.url}-`;
    const part = groupId !== undefined ? "group-" : (route ?? `${String(max)}/${String(timeWindow)}-`);
    return new Store(this.#guard, this.#options, this.#root, this.#root + part, routeOptions);
  }

  /** Takes a unit, if there is one. */
  incr(key: string, callback: Callback, timeWindow: number, max: number): void {
    settle(this.#incr(this.#prefix + key, timeWindow, max), callback);
  }

  /** How many count now. Takes nothing. */
  read(key: string, callback: Callback, timeWindow: number, max: number): void {
    settle(this.#read(this.#prefix + key, timeWindow, max), callback);
  }

  #rule(timeWindow: number, max: number): Rule {
    const rule = ruleOf(this.#options.algorithm ?? "sliding", max, timeWindow);
    if (this.#ban < 0) return rule;
    return rule.block(this.#options.banDuration ?? Math.max(1, timeWindow), this.#ban + 1);
  }

  async #incr(key: string, timeWindow: number, max: number): Promise<Count> {
    const sent = performance.now();
    const rule = this.#rule(timeWindow, max);
    const { source, decision } = await this.#guard.decide(key, [{ key, rule }]);
    const one = decision?.limits[0];
    if (one === undefined || decision === null) {
      return source === "open" ? { current: 1, ttl: timeWindow } : { current: max + 1, ttl: 1000 };
    }
    if (one.allowed) {
      if (one.wait !== null && one.wait > 0) await sleep(one.wait);
      return used(one);
    }
    const ttl = one.wait ?? timeWindow;
    if (source === "local") return { current: max + 1, ttl };
    if (this.#ban >= 0) {
      // A remembered denial is a ban: others are not remembered.
      if (source === "cache") return { current: max + this.#ban + 1, ttl };
      const info = await this.#guard.run(key, () => this.#guard.client.info(key));
      const banned = Number(info?.blocked_ms ?? 0) > 0;
      if (banned) this.#guard.denials.add(key, rule.id, 1, decision, sent);
      const denials = Math.min(Number(info?.denials ?? 1), this.#ban);
      return { current: max + (banned ? this.#ban + 1 : Math.max(1, denials)), ttl };
    }
    if (this.#continues && max > 0) {
      // The whole limit is taken anew: nothing is granted for a whole window from here.
      this.#guard.denials.forget(key);
      const options = { cost: rule.limit, force: true };
      await this.#guard.run(key, () => this.#guard.client.decide(key, rule, options));
      return { current: max + 1, ttl: timeWindow };
    }
    return { current: max + 1, ttl };
  }

  async #read(key: string, timeWindow: number, max: number): Promise<Count> {
    const rule = this.#rule(timeWindow, max);
    return used(await this.#guard.run(key, () => this.#guard.client.decide(key, rule, { cost: 0 })));
  }
}

function used({ limit, remaining, reset }: Decision): Count {
  return { current: limit - remaining, ttl: reset };
}

function settle(count: Promise<Count>, callback: Callback): void {
  count.then(
    (result) => {
      callback(null, result);
    },
    (error: unknown) => {
      callback(error instanceof Error ? error : new Error(String(error)));
    },
  );
}

function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
