/**
 * Denials that are remembered in the process, so that a flood for one key reaches the server once per wait.
 *
 * A denial stands until its wait is over, if nothing is given back in between. So it is remembered until then, from the
 * moment before the call: never longer. It answers requests of the same cost under the same rules, for which alone its
 * wait is true. One that was asked for before something was given back may know nothing of that, and is not remembered.
 * What is remembered is bounded; the least recently used goes first.
 */

import { type MultiDecision, later } from "./decision.js";

interface Denial {
  readonly rules: string;
  readonly decision: MultiDecision;
  readonly cost: number;
  readonly since: number;
  readonly until: number;
}

/** Denials by key. `size` 0 remembers nothing. */
export class DenialCache {
  // A Map keeps the order of insertion: what is used is inserted again.
  readonly #denials = new Map<string, Denial>();

  #size: number;

  #forgot = -Infinity;

  constructor(size: number = 10_000) {
    this.#size = size;
  }

  /** Remembers nothing from now on. */
  disable(): void {
    this.#size = 0;
    this.forget();
  }

  /** How many are remembered. */
  get length(): number {
    return this.#denials.size;
  }

  /** Remembers a denial under these rules. `sent` is the time before the call, on a monotonic clock. */
  add(key: string, rules: string, cost: number, decision: MultiDecision, sent: number): void {
    // One that never grants has no end: limits may change.
    if (this.#size <= 0 || decision.allowed || decision.wait === null) return;
    if (sent <= this.#forgot) return;
    this.#denials.delete(key);
    this.#denials.set(key, { rules, decision, cost, since: sent, until: sent + decision.wait });
    if (this.#denials.size > this.#size) {
      const [oldest] = this.#denials.keys();
      if (oldest !== undefined) this.#denials.delete(oldest);
    }
  }

  /** The denial that stands for a request of this cost under these rules. */
  get(key: string, rules: string, cost: number, now: number): MultiDecision | null {
    const known = this.#denials.get(key);
    if (known === undefined) return null;
    if (known.until <= now) {
      this.#denials.delete(key);
      return null;
    }
    if (cost !== known.cost || known.rules !== rules) return null;
    this.#denials.delete(key);
    this.#denials.set(key, known);
    return later(known.decision, now - known.since);
  }

  /** Forgets a key, or all of them: after a refund or a reset. */
  forget(key?: string): void {
    this.#forgot = performance.now();
    if (key === undefined) this.#denials.clear();
    else this.#denials.delete(key);
  }
}
