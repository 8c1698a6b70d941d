/** A limit as an application states it: an algorithm with its arguments, and the words it is on the wire. */

/** Milliseconds, or the server's own words: `"500ms"`, `"1m"`, `"7d"` (`"60"` is seconds there). */
export type Duration = number | string;
/** Units per second; or units per duration, as `"100/1m"` or `[100, 60_000]`. */
export type Rate = number | string | readonly [units: number, per: Duration];
/** A lease's id: 1 to 64 bytes. */
export type LeaseId = string | Buffer;
/** One argument of a command. */
export type Word = string | Buffer;

const UNITS: Readonly<Record<string, number>> = { us: 0.001, ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 };
const DAY = 86_400_000;
/** [w of the header fields, the longest there is], of a calendar window. */
const CALENDAR: Readonly<Record<string, readonly [number | undefined, number]>> = {
  day: [DAY, DAY],
  week: [7 * DAY, 7 * DAY],
  month: [undefined, 31 * DAY],
  year: [undefined, 366 * DAY],
};

/** A duration in milliseconds. */
export function milliseconds(duration: Duration): number {
  if (typeof duration === "number") {
    if (!Number.isFinite(duration)) throw new RangeError("a duration is a finite number of milliseconds");
    return duration;
  }
  const [, digits, unit] = /^\s*(-?\d+(?:\.\d+)?)([a-z]*)\s*$/.exec(duration) ?? [];
  const factor = UNITS[unit === "" ? "s" : (unit ?? "?")];
  if (digits === undefined || factor === undefined) {
    throw new RangeError(`a duration is milliseconds, or 500ms, 60s, 1m, 12h, 7d; not ${JSON.stringify(duration)}`);
  }
  return Number(digits) * factor;
}

/** A duration as the server reads it. Its own words stand as they are. */
export function durationWord(duration: Duration): string {
  if (typeof duration === "string") return duration;
  const whole = milliseconds(duration);
  return Number.isInteger(whole) ? `${whole}ms` : `${Math.round(whole * 1000)}us`;
}

function rateWord(rate: Rate): string {
  if (typeof rate === "string") return rate;
  if (typeof rate !== "number") return `${integerWord("units", rate[0])}/${durationWord(rate[1])}`;
  const word = String(rate);
  if (!/^\d+(\.\d+)?$/.test(word)) throw new RangeError(`a rate is a number, or like 100/1m; not ${word}`);
  return word;
}

/** An integer as a word: JavaScript writes large ones with an exponent. */
export function integerWord(name: string, value: number): string {
  if (!Number.isSafeInteger(value) || value < 0) throw new RangeError(`${name} must be a whole number, not ${value}`);
  return String(value);
}

interface Parts {
  readonly algorithm: string;
  readonly limit: number;
  readonly args: readonly Word[];
  readonly cost?: number | undefined;
  readonly blocking?: readonly string[] | undefined;
  readonly quota?: number | undefined;
  readonly window?: number | undefined;
  readonly unit?: string | undefined;
  readonly span: number;
}

/** A limit. Make one with `Rule.sliding(100, "1m")` and the like. Rules never change: each method makes a new one. */
export class Rule {
  /** As RL.MULTI names it: `SLIDING` and the like. */
  readonly algorithm: string;
  /** The limit or capacity. */
  readonly limit: number;
  /** What `q` of the header fields says, if it is not the limit. */
  readonly quota: number | undefined;
  /** What `w` says, in milliseconds; unknown for months and years. */
  readonly window: number | undefined;
  /** What `qu` says: `requests`, `content-bytes` or `concurrent-requests`. */
  readonly unit: string;
  /** The milliseconds that the limit counts over, for the limiter in the process. */
  readonly span: number;
  /** The units that a request takes of this limit, if it states its own. */
  readonly cost: number | undefined;
  /** The rule as text: two rules are the same limit if these are equal. */
  readonly id: string;
  readonly #args: readonly Word[];
  readonly #blocking: readonly string[];

  private constructor(parts: Parts) {
    this.algorithm = parts.algorithm;
    this.limit = parts.limit;
    this.quota = parts.quota;
    this.window = parts.window;
    this.unit = parts.unit ?? "requests";
    this.span = parts.span;
    this.cost = parts.cost;
    this.#args = [integerWord("the limit", parts.limit), ...parts.args];
    this.#blocking = parts.blocking ?? [];
    this.id = [this.algorithm, ...this.words()].join(" ");
  }

  #with(changes: Partial<Parts>): Rule {
    const { algorithm, limit, quota, window, unit, span, cost } = this;
    const same: Parts = { algorithm, limit, quota, window, unit, span, cost, args: this.#args.slice(1) };
    return new Rule({ ...same, blocking: this.#blocking, ...changes });
  }

  /** A bucket of `capacity` units that refills at `rate`: a burst, then a steady rate. */
  static tokenBucket(capacity: number, rate: Rate): Rule {
    return Rule.#bucket("TOKENBUCKET", capacity, rate);
  }

  /** A queue of `capacity` units that drains at `rate`; a grant says how long to wait. */
  static leakyBucket(capacity: number, rate: Rate): Rule {
    return Rule.#bucket("LEAKYBUCKET", capacity, rate);
  }

  static #bucket(algorithm: string, capacity: number, rate: Rate): Rule {
    const word = rateWord(rate);
    const [units, per = "1"] = word.split("/", 2);
    // "100/m" is "100/1m".
    const window = milliseconds(/^[a-z]/.test(per) ? `1${per}` : per);
    const quota = Number(units);
    if (!(quota > 0 && window > 0)) throw new RangeError(`a rate is a number above 0, or like 100/1m; not ${word}`);
    const whole = Number.isInteger(quota);
    return new Rule({
      algorithm,
      limit: capacity,
      args: [word],
      quota: whole ? quota : undefined,
      window: whole ? window : undefined,
      span: (capacity * window) / quota,
    });
  }

  /** `limit` units in each window: a duration, or `day`, `week`, `month`, `year`. */
  static fixedWindow(limit: number, window: Duration, align?: Duration): Rule {
    const args = align === undefined ? [] : ["ALIGN", durationWord(align)];
    return Rule.#windowed("FIXEDWINDOW", limit, window, args);
  }

  /** `limit` units in every span of one window, in bounded memory. */
  static sliding(limit: number, window: Duration, buckets?: number): Rule {
    const args = buckets === undefined ? [] : ["BUCKETS", integerWord("buckets", buckets)];
    return Rule.#windowed("SLIDING", limit, window, args);
  }

  /** `limit` units in every span of one window, each back exactly on time. */
  static slidingLog(limit: number, window: Duration): Rule {
    return Rule.#windowed("SLIDINGLOG", limit, window, []);
  }

  static #windowed(algorithm: string, limit: number, window: Duration, more: readonly string[]): Rule {
    const args = [durationWord(window), ...more];
    const calendar = CALENDAR[window];
    if (calendar !== undefined) return new Rule({ algorithm, limit, args, window: calendar[0], span: calendar[1] });
    const length = milliseconds(window);
    return new Rule({ algorithm, limit, args, window: length, span: length });
  }

  /** At most `limit` units held at the same time, by leases of `ttl` under the holder's `id`. */
  static concurrency(limit: number, ttl: Duration, id: LeaseId): Rule {
    const args = [durationWord(ttl), id];
    return new Rule({ algorithm: "CONCURRENCY", limit, args, unit: "concurrent-requests", span: milliseconds(ttl) });
  }

  /** The same limit, of which a request takes that many units. */
  costing(units: number): Rule {
    return this.#with({ cost: units });
  }

  /** The same limit, which closes for `duration` after `after` denials in a row (by default 1). */
  block(duration: Duration, after?: number): Rule {
    const more = after === undefined ? [] : ["AFTER", integerWord("after", after)];
    return this.#with({ blocking: ["BLOCK", durationWord(duration), ...more] });
  }

  /** The same limit of another unit in the header fields, like `content-bytes`. */
  counting(unit: string): Rule {
    return this.#with({ unit });
  }

  /** Whether the server must see each denial, because a block begins after several. */
  get countsDenials(): boolean {
    return Number(this.#blocking[3] ?? 1) > 1;
  }

  /** What follows the algorithm's name in RL.MULTI, or the key in its own command. */
  words(cost?: number): Word[] {
    const taken = this.cost ?? cost;
    const costing = taken === undefined ? [] : ["COST", integerWord("the cost", taken)];
    return [...this.#args, ...costing, ...this.#blocking];
  }
}

/** An algorithm for those libraries that state a limit and a window; or a function that makes a rule of them. */
export type Algorithm =
  | "sliding"
  | "sliding-log"
  | "fixed-window"
  | "token-bucket"
  | "leaky-bucket"
  | ((limit: number, windowMs: number) => Rule);

/** The rule of a library's limit and window. Any number is taken: what the server would refuse is clamped. */
export function ruleOf(algorithm: Algorithm, limit: number, windowMs: number): Rule {
  const whole = Math.floor(Math.min(Math.max(limit || 0, 0), MOST));
  const window = Math.round(Math.min(Math.max(windowMs || 0, 1), LONGEST));
  if (typeof algorithm === "function") return algorithm(whole, window);
  switch (algorithm) {
    case "sliding":
      return Rule.sliding(whole, window);
    case "sliding-log":
      return Rule.slidingLog(whole, window);
    case "fixed-window":
      return Rule.fixedWindow(whole, window);
    case "token-bucket":
      return Rule.tokenBucket(whole, [Math.max(whole, 1), window]);
    case "leaky-bucket":
      return Rule.leakyBucket(whole, [Math.max(whole, 1), window]);
    default:
      throw new RangeError(`unknown algorithm: ${String(algorithm)}`);
  }
}

/** The largest limit. */
export const MOST = 1_000_000_000_000;
/** The longest duration in milliseconds. */
export const LONGEST = 3650 * DAY;
