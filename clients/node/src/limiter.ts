/** A limiter for an application of your own: rules under their names, and what to answer. */

import type { Connection } from "./connection.js";
import type { MultiDecision } from "./decision.js";
import { type Fields, type Form, type Limit, type Problem, checkName, fields, named, problem } from "./fields.js";
import { type Fail, Guard, type GuardOptions, type Source } from "./guard.js";
import type { Client } from "./client.js";
import { limitKey } from "./keys.js";
import type { KeyedRule } from "./local.js";
import type { Rule } from "./rule.js";

/** Options of a limiter. */
export interface LimiterOptions extends GuardOptions {
  /** The first part of each key: by default `rl`. */
  readonly prefix?: string | undefined;
  /** What to do while the server is away: by default `open`. */
  readonly fail?: Fail | undefined;
  /** Decide, count and report, but let everything pass. */
  readonly shadow?: boolean | undefined;
}

/** Whether a request may go ahead, and what to answer. */
export class Outcome {
  constructor(
    /** In shadow mode always true. */
    readonly allowed: boolean,
    /** Who decided: the server (`redis`), a remembered denial (`cache`), or what stands in while it is away. */
    readonly source: Source,
    /** `null` if nobody decided: `open` or `closed`. */
    readonly decision: MultiDecision | null = null,
    readonly limits: readonly Limit[] = [],
    readonly shadow: boolean = false,
  ) {}

  /** The HTTP status: 200, 429, or 503 if the server is away and the limiter fails closed. */
  get status(): 200 | 429 | 503 {
    if (this.allowed) return 200;
    return this.decision === null ? 503 : 429;
  }

  /** Granted by a leaky bucket: the milliseconds to wait before going ahead. Otherwise 0. */
  get wait(): number {
    return this.decision?.allowed === true ? (this.decision.wait ?? 0) : 0;
  }

  /** The header fields of the response; none if nobody decided, or in shadow mode. */
  fields(form?: Form, now?: number): Fields {
    if (this.shadow) return [];
    if (this.decision === null) return this.allowed ? [] : [["Retry-After", "1"]];
    return fields(this.limits, form, now);
  }

  /** The body of a refusal, of the type application/problem+json. */
  problem(): Problem {
    return problem(this.limits, this.decision === null ? "temporary-reduced-capacity" : "quota-exceeded");
  }
}

/** Decides rules for clients, all of them in one call. */
export class Limiter {
  readonly client: Client;
  /** How often each source decided, and each event happened. */
  readonly counters: Readonly<Record<string, number>>;
  readonly #guard: Guard;
  readonly #rules: readonly (readonly [string, Rule])[];
  readonly #prefix: string;
  readonly #fail: Fail;
  readonly #shadow: boolean;

  /** `rules` are under the names of their policies, as `{ burst: Rule.sliding(10, "1s") }`. */
  constructor(connection: Connection, rules: Readonly<Record<string, Rule>>, options: LimiterOptions = {}) {
    this.#rules = Object.entries(rules);
    if (this.#rules.length === 0) throw new RangeError("a limiter needs a rule");
    for (const [name, rule] of this.#rules) {
      checkName(name);
      if (rule.algorithm === "CONCURRENCY") {
        throw new RangeError(`${name}: a lease is held, not counted: use the client's withLease()`);
      }
    }
    this.#prefix = options.prefix ?? "rl";
    this.#fail = options.fail ?? "open";
    this.#shadow = options.shadow ?? false;
    const { onEvent } = options;
    const shadowed =
      onEvent &&
      ((...[event, who, error]: Parameters<typeof onEvent>) => {
        onEvent(event === "denied" ? "shadow" : event, who, error);
      });
    this.#guard = new Guard(connection, {
      ...options,
      fail: this.#fail,
      onEvent: this.#shadow ? shadowed : onEvent,
    });
    this.client = this.#guard.client;
    this.counters = this.#guard.counters;
  }

  /** Decides all rules for a client at once: all grant, or nothing is taken from any. */
  async check(who: string, cost = 1): Promise<Outcome> {
    const { source, decision } = await this.#guard.decide(who, this.#keyed(who), cost);
    if (decision === null) return new Outcome(source === "open" || this.#shadow, source, null, [], this.#shadow);
    return new Outcome(decision.allowed || this.#shadow, source, decision, named(this.#rules, decision), this.#shadow);
  }

  /** The outcome for a request of which nobody knows whom to count it for: `open` lets it pass, else it is a 503. */
  unidentified(error: unknown): Outcome {
    const open = this.#fail === "open";
    this.#guard.count("unidentified");
    this.#guard.event("unidentified", null, error);
    this.#guard.log("cannot say who a request is counted for", error);
    return new Outcome(open || this.#shadow, open ? "open" : "closed", null, [], this.#shadow);
  }

  /** The keys of a client's limits, in the order of the rules. */
  keys(who: string): string[] {
    return this.#rules.map(([name]) => limitKey(this.#prefix, who, name));
  }

  /** Gives back or charges the difference between what was reserved and what was used, on all limits. */
  async settle(who: string, reserved: number, used: number): Promise<void> {
    await this.client.settle(this.keys(who), reserved, used);
    this.#guard.denials.forget(who);
  }

  /** Forgets a client: how many limits it had. */
  async reset(who: string): Promise<number> {
    const count = await this.client.reset(...this.keys(who));
    this.#guard.denials.forget(who);
    return count;
  }

  #keyed(who: string): KeyedRule[] {
    return this.#rules.map(([name, rule]) => ({ key: limitKey(this.#prefix, who, name), rule }));
  }
}
