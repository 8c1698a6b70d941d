/**
 * What a limiter answers. Times are milliseconds.
 *
 * Where a request can never be granted, because its cost is above the limit, `wait` is `null` and not `Infinity`: the
 * type makes you think of it, and `setTimeout(…, Infinity)` fires at once.
 */
export interface Decision {
  /** Whether it is granted. */
  readonly allowed: boolean;
  /** The limit or capacity of this call. */
  readonly limit: number;
  /** The units that could be taken right now. */
  readonly remaining: number;
  /**
   * Denied: how long until this same request is granted, if nobody else takes anything; `null` if it never is.
   * Granted: how long to wait before going ahead, which is 0 for everything but a leaky bucket.
   */
  readonly wait: number | null;
  /** How long until the limiter is idle, if nothing more is taken. */
  readonly reset: number;
  /** With `partial`: the units that were granted. */
  readonly granted?: number;
}

/** What RL.MULTI answers: all limits grant, or nothing is taken from any. */
export interface MultiDecision {
  readonly allowed: boolean;
  /** The longest delay of those that grant, or the longest wait of those that refuse; `null`: never. */
  readonly wait: number | null;
  /** The index of the first limit that refused, or -1. */
  readonly refused: number;
  /** What each limit alone answers, in order. */
  readonly limits: readonly Decision[];
}

/** Five or six integers of a reply. */
export function readDecision(reply: unknown): Decision {
  const [allowed, limit, remaining, wait, reset, granted] = integers(reply);
  if (reset === undefined) throw new TypeError("the server's reply is no decision: five integers were expected");
  const decision: Decision = {
    allowed: allowed === 1,
    limit: limit ?? 0,
    remaining: remaining ?? 0,
    wait: milliseconds(wait),
    reset,
  };
  return granted === undefined ? decision : { ...decision, granted };
}

/** A reply that is nil if there is no limiter. */
export function readDecisionOrNull(reply: unknown): Decision | null {
  return reply === null || reply === undefined ? null : readDecision(reply);
}

/** The reply of RL.MULTI. */
export function readMultiDecision(reply: unknown): MultiDecision {
  if (!Array.isArray(reply)) throw new TypeError("the server's reply is no array");
  const [allowed, wait, refused] = integers(reply.slice(0, 3));
  return {
    allowed: allowed === 1,
    wait: milliseconds(wait),
    refused: refused ?? -1,
    limits: reply.slice(3).map(readDecision),
  };
}

/** The decision of several limits, from the decision of each. */
export function combine(limits: readonly Decision[]): MultiDecision {
  const refused = limits.findIndex((one) => !one.allowed);
  const counted = refused < 0 ? limits : limits.filter((one) => !one.allowed);
  const never = counted.some((one) => one.wait === null);
  const wait = never ? null : Math.max(...counted.map((one) => one.wait ?? 0));
  return { allowed: refused < 0, wait, refused, limits };
}

/** The same decision as it stands some milliseconds later. */
export function later(decision: MultiDecision, elapsed: number): MultiDecision {
  const less = (time: number | null) => (time === null ? null : Math.max(0, Math.ceil(time - elapsed)));
  return {
    ...decision,
    wait: less(decision.wait),
    limits: decision.limits.map((one) => ({ ...one, wait: less(one.wait), reset: less(one.reset) ?? 0 })),
  };
}

function milliseconds(wait: number | undefined): number | null {
  return wait === undefined || wait < 0 ? null : wait;
}

/** Integers of a reply. Some connections give large ones as text or bigint. */
export function integers(reply: unknown): number[] {
  if (!Array.isArray(reply)) throw new TypeError("the server's reply is no array");
  return reply.map((item) => integer(item));
}

/** One integer of a reply. */
export function integer(item: unknown): number {
  const number = Number(item);
  if (item === null || !Number.isFinite(number)) throw new TypeError("the server's reply holds no integer");
  return number;
}
