/**
 * A limiter in the process, for while the server is away.
 *
 * Windows are counted as the server's RL.SLIDING does: units of a sixteenth of the window share an entry that leaves
 * with its last. So no span of one window passes more than the limit. Buckets drain a level. Each process applies its
 * part of the limit, so together they stay within it.
 */

import { type Decision, type MultiDecision, combine } from "./decision.js";
import type { Rule } from "./rule.js";

const BUCKETS = 16;

/** Units that were taken. Of a bucket there is one, which is drained at `until`. */
interface Entry {
  readonly first: number;
  until: number;
  units: number;
}

/** A limit as it is asked for: a key and its rule. */
export interface KeyedRule {
  readonly key: string;
  readonly rule: Rule;
}

/** Rules, each with its limit divided by the number of instances (1 at least). The least recently used keys go. */
export class LocalLimiter {
  readonly #states = new Map<string, Entry[]>();

  constructor(
    private readonly instances: number = 1,
    private readonly size: number = 10_000,
  ) {}

  /** How many keys are known. */
  get length(): number {
    return this.#states.size;
  }

  /** All rules grant, or nothing is taken from any. `now` is a monotonic clock's. */
  decide(limits: readonly KeyedRule[], cost: number, now: number): MultiDecision {
    const looks = limits.map(({ key, rule }) => {
      const entries = this.#entries(key, now);
      const units = rule.cost ?? cost;
      return { rule, entries, units, decision: this.#look(rule, entries, units, now) };
    });
    const decision = combine(looks.map((look) => look.decision));
    if (!decision.allowed) return decision;
    for (const { rule, entries, units } of looks) this.#take(rule, entries, units, now);
    return combine(
      looks.map(({ decision: one, units }) => ({ ...one, remaining: Math.max(0, one.remaining - units) })),
    );
  }

  #entries(key: string, now: number): Entry[] {
    const entries = (this.#states.get(key) ?? []).filter((entry) => entry.until > now);
    this.#states.delete(key);
    this.#states.set(key, entries);
    if (this.#states.size > this.size) {
      const [oldest] = this.#states.keys();
      if (oldest !== undefined) this.#states.delete(oldest);
    }
    return entries;
  }

  #limit(rule: Rule): number {
    return rule.limit === 0 ? 0 : Math.max(1, Math.floor(rule.limit / this.instances));
  }

  #look(rule: Rule, entries: readonly Entry[], cost: number, now: number): Decision {
    const limit = this.#limit(rule);
    const reset = Math.max(0, (entries[entries.length - 1]?.until ?? now) - now);
    let level: number;
    let wait = 0;
    if (isBucket(rule)) {
      level = (reset * limit) / rule.span || 0;
      wait = limit === 0 ? 0 : ((level + cost - limit) * rule.span) / limit;
    } else {
      level = entries.reduce((sum, entry) => sum + entry.units, 0);
      let excess = level + cost - limit;
      for (const entry of entries) {
        if (excess <= 0) break;
        wait = entry.until - now;
        excess -= entry.units;
      }
    }
    // Rounding errors of a level are far below a thousandth of a unit.
    const allowed = cost === 0 || level + cost <= limit + 1e-3;
    const delay = rule.algorithm === "LEAKYBUCKET" && cost > 0 ? reset : 0;
    return {
      allowed,
      limit,
      remaining: Math.max(0, Math.floor(limit - level + 1e-3)),
      wait: allowed ? Math.ceil(delay) : cost > limit ? null : Math.ceil(wait),
      reset: Math.ceil(reset),
    };
  }

  #take(rule: Rule, entries: Entry[], cost: number, now: number): void {
    if (cost === 0) return;
    const last = entries[entries.length - 1];
    if (isBucket(rule)) {
      const until = Math.max(now, last?.until ?? now) + (cost * rule.span) / this.#limit(rule);
      entries.splice(0, entries.length, { first: now, until, units: cost });
    } else if (last !== undefined && now - last.first < rule.span / BUCKETS) {
      last.until = now + rule.span;
      last.units += cost;
    } else {
      entries.push({ first: now, until: now + rule.span, units: cost });
    }
  }
}

function isBucket(rule: Rule): boolean {
  return rule.algorithm.endsWith("BUCKET");
}
