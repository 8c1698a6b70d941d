/** What stands around each call: remembered denials, a timeout, a server that is away, counters and hooks. */

import { Breaker, UnavailableError, within } from "./breaker.js";
import { Client } from "./client.js";
import { type Connection, isAway } from "./connection.js";
import { type MultiDecision, combine } from "./decision.js";
import { DenialCache } from "./denials.js";
import { type KeyedRule, LocalLimiter } from "./local.js";

/** What to do while the server is away: let pass, refuse, or limit in the process. */
export type Fail = "open" | "closed" | "local";
/** Who decided. */
export type Source = "redis" | "cache" | Fail;
/** What a hook is called with. */
export type Event = "denied" | "shadow" | "unidentified" | "error" | Fail;
/** Called with an event, the client or key, and the error if there is one. */
export type Hook = (event: Event, who: string | null, error?: unknown) => void;

/** Options of everything that decides. */
export interface GuardOptions {
  /** How long a request waits for the server, in milliseconds: by default 50. */
  readonly timeout?: number | undefined;
  /** How many processes share a limit, for `local`: by default 1. */
  readonly instances?: number | undefined;
  /** How many denials are remembered: by default 10,000. 0 if other processes give units back. */
  readonly denialCache?: number | undefined;
  /** Called for each event. */
  readonly onEvent?: Hook | undefined;
}

/** A decision and who made it. `open` and `closed` have none. */
export interface Verdict {
  readonly source: Source;
  readonly decision: MultiDecision | null;
}

/** Options of a guard. */
export interface GuardSetup extends GuardOptions {
  /** Also `error`: what calls this is to decide. */
  readonly fail: Fail | "error";
}

/** Decides over a connection, and stands in for a server that is away. */
export class Guard {
  readonly client: Client;
  readonly breaker = new Breaker();
  readonly denials: DenialCache;
  readonly local: LocalLimiter;
  /** How often each source decided, and each event happened. */
  readonly counters: Record<string, number> = {};
  readonly #timeout: number;
  readonly #fail: Fail | "error";
  readonly #onEvent: Hook | undefined;
  #logged = -Infinity;

  constructor(connection: Connection, setup: GuardSetup) {
    if (!["open", "closed", "local", "error"].includes(setup.fail)) {
      throw new RangeError("fail must be open, closed or local");
    }
    this.client = new Client(connection);
    this.denials = new DenialCache(setup.denialCache);
    this.local = new LocalLimiter(setup.instances);
    this.#timeout = setup.timeout ?? 50;
    this.#fail = setup.fail;
    this.#onEvent = setup.onEvent;
  }

  /** Decides rules for a client: all grant, or nothing is taken from any. With `fail: "error"` it may reject. */
  async decide(who: string, limits: readonly KeyedRule[], cost = 1): Promise<Verdict> {
    const id = limits.map(({ rule }) => rule.id).join(" ");
    const known = this.denials.get(who, id, cost, performance.now());
    if (known !== null) return this.#decided("cache", who, known);
    const sent = performance.now();
    let decision: MultiDecision;
    try {
      decision = await this.run(limits[0]?.key ?? "", () => this.#ask(limits, cost));
    } catch (error) {
      return this.#failed(who, limits, cost, error);
    }
    // The server must see the denials that a block is to follow.
    if (!limits.some(({ rule }) => rule.countsDenials)) this.denials.add(who, id, cost, decision, sent);
    return this.#decided("redis", who, decision);
  }

  /** Makes a call that gives something back. Denials are forgotten afterwards, for one of meanwhile may be older. */
  async give<T>(key: string, call: () => Promise<T>): Promise<T> {
    try {
      return await this.run(key, call);
    } finally {
      this.denials.forget(key);
    }
  }

  /** Makes a call in time; rejects at once while the server is away. */
  async run<T>(key: string, call: () => Promise<T>): Promise<T> {
    if (this.breaker.isOpen) {
      // A key of this client: in a cluster another node may be up.
      this.breaker.probe(() => within(this.#timeout, () => this.client.peek(key), this.#answered), isAway);
      throw new UnavailableError("the server was away a moment ago");
    }
    try {
      const value = await within(this.#timeout, call, this.#answered);
      this.breaker.succeeded();
      return value;
    } catch (error) {
      if (isAway(error)) this.breaker.failed();
      throw error;
    }
  }

  readonly #answered = (): void => {
    this.breaker.succeeded();
  };

  async #ask(limits: readonly KeyedRule[], cost: number): Promise<MultiDecision> {
    const [first, ...others] = limits;
    if (first === undefined) throw new RangeError("a decision needs a limit");
    if (others.length === 0) return combine([await this.client.decide(first.key, first.rule, costOption(cost))]);
    return this.client.multi(
      limits.map(({ key, rule }) => [key, rule] as const),
      costOption(cost),
    );
  }

  #failed(who: string, limits: readonly KeyedRule[], cost: number, error: unknown): Verdict {
    if (error instanceof RangeError || error instanceof TypeError) throw error;
    this.event(this.#fail, who, error);
    if (this.#fail === "error") throw error;
    if (!(error instanceof UnavailableError)) this.log("the limit was not checked", error);
    if (this.#fail === "local") {
      return this.#decided("local", who, this.local.decide(limits, cost, performance.now()));
    }
    this.count(this.#fail);
    return { source: this.#fail, decision: null };
  }

  #decided(source: Source, who: string, decision: MultiDecision): Verdict {
    this.count(source);
    if (!decision.allowed) {
      this.count("denied");
      this.event("denied", who);
    }
    return { source, decision };
  }

  /** Counts an event. */
  count(name: string): void {
    this.counters[name] = (this.counters[name] ?? 0) + 1;
  }

  /** Notifies the hook. */
  event(event: Event, who: string | null, error?: unknown): void {
    this.#onEvent?.(event, who, error);
  }

  /** At most once a second: a flood of requests must not become a flood of lines. */
  log(message: string, error: unknown): void {
    const now = performance.now();
    if (now - this.#logged < 1000) return;
    this.#logged = now;
    console.error(`redis-rl: ${message}: ${String(error)}`);
  }
}

/** A cost of 1 is what the server means by itself. */
function costOption(cost: number): { cost?: number } {
  return cost === 1 ? {} : { cost };
}
