/**
 * What to answer: header fields and the body of a refusal, from one place.
 *
 * draft-11 is draft-ietf-httpapi-ratelimit-headers-11. After a denial `t` is Retry-After: the time within which no more
 * than `r` units can be used. It comes from the wait, not from the reset, which is when all units are back.
 */

import type { Decision, MultiDecision } from "./decision.js";
import type { Rule } from "./rule.js";

/** The forms of header fields. */
export type Form = "draft-11" | "draft-6" | "draft-7" | "x-ratelimit";
/** What a refusal is for. */
export type Kind = "quota-exceeded" | "temporary-reduced-capacity" | "abnormal-usage-detected";
/** Names and values of header fields, in order. */
export type Fields = [name: string, value: string][];

/** The body of a refusal. */
export interface Problem {
  readonly type: string;
  readonly title: string;
  readonly status: number;
  readonly "violated-policies"?: readonly string[];
}

/** The media type of that body. */
export const PROBLEM_TYPE = "application/problem+json";

const FORMS: readonly Form[] = ["draft-11", "draft-6", "draft-7", "x-ratelimit"];
const TYPE = "https://iana.org/assignments/http-problem-types#";
const PROBLEMS: Readonly<Record<Kind, readonly [status: number, title: string]>> = {
  "quota-exceeded": [429, "Request cannot be satisfied as assigned quota has been exceeded"],
  "temporary-reduced-capacity": [503, "Request cannot be satisfied due to temporary server capacity constraints"],
  "abnormal-usage-detected": [429, "Request not satisfied due to detection of abnormal request pattern"],
};

/** What is asked for cannot be written as header fields. */
export class FieldError extends Error {
  override readonly name = "FieldError";
  constructor(
    /** `bad-name` or `bad-form`. */
    readonly code: "bad-name" | "bad-form",
    message: string,
  ) {
    super(message);
  }
}

/** One limit of a decision, under the name of its policy. */
export interface Limit {
  readonly name: string;
  readonly decision: Decision;
  /** By default the limit. */
  readonly quota?: number | undefined;
  /** Milliseconds. */
  readonly window?: number | undefined;
  /** By default `requests`. */
  readonly unit?: string | undefined;
}

/** The limits of a decision under the names of their rules. */
export function named(rules: readonly (readonly [name: string, rule: Rule])[], decision: MultiDecision): Limit[] {
  return decision.limits.map((one, at) => {
    const [name = "", rule] = rules[at] ?? [];
    return { name, decision: one, quota: rule?.quota, window: rule?.window, unit: rule?.unit };
  });
}

/** The name as it is, if a field can hold it: printable ASCII. */
export function checkName(name: string): string {
  if (!/^[\x20-\x7e]*$/.test(name)) throw new FieldError("bad-name", "the name of a limit is printable ASCII");
  return name;
}

/** The longest wait of the limits that refuse, in seconds; `null` if none does, or one of them never grants. */
export function retryAfter(limits: readonly Limit[]): number | null {
  const waits = limits.filter((limit) => !limit.decision.allowed).map((limit) => limit.decision.wait);
  if (waits.length === 0 || waits.includes(null)) return null;
  return seconds(Math.max(...waits.map((wait) => wait ?? 0)));
}

/** The header fields for the limits of one decision. `now` is the time since 1970 in ms, for `x-ratelimit`. */
export function fields(limits: readonly Limit[], form: Form = "draft-11", now: number = Date.now()): Fields {
  const wait = retryAfter(limits);
  const found = write(limits, form, now);
  if (wait !== null) found.push(["Retry-After", String(wait)]);
  return found;
}

/** The body of a refusal, of the type application/problem+json. */
export function problem(limits: readonly Limit[], kind: Kind = "quota-exceeded"): Problem {
  const [status, title] = PROBLEMS[kind];
  const body = { type: TYPE + kind, title, status };
  if (kind === "temporary-reduced-capacity") return body;
  const violated = limits.filter((limit) => !limit.decision.allowed).map((limit) => limit.name);
  return { ...body, "violated-policies": violated };
}

function write(limits: readonly Limit[], form: Form, now: number): Fields {
  if (!FORMS.includes(form)) throw new FieldError("bad-form", `form must be one of ${FORMS.join(", ")}`);
  if (form === "draft-11") return draft11(limits);
  const { limit, remaining, reset } = tightest(limits);
  if (form === "x-ratelimit") {
    return [
      ["X-RateLimit-Limit", String(limit)],
      ["X-RateLimit-Remaining", String(remaining)],
      ["X-RateLimit-Reset", String(seconds(now + reset))],
    ];
  }
  const policy = limits.map((one) => `${quota(one)}${parameter("w", wholeSeconds(one.window))}`).join(", ");
  if (form === "draft-7") {
    const state = `limit=${limit}, remaining=${remaining}, reset=${seconds(reset)}`;
    return [
      ["RateLimit-Policy", policy],
      ["RateLimit", state],
    ];
  }
  return [
    ["RateLimit-Policy", policy],
    ["RateLimit-Limit", String(limit)],
    ["RateLimit-Remaining", String(remaining)],
    ["RateLimit-Reset", String(seconds(reset))],
  ];
}

function draft11(limits: readonly Limit[]): Fields {
  const policies: string[] = [];
  const states: string[] = [];
  for (const one of limits) {
    const { allowed, remaining, wait } = one.decision;
    const name = quoted(checkName(one.name));
    const unit = one.unit === undefined || one.unit === "requests" ? undefined : quoted(checkName(one.unit));
    const window = parameter("w", wholeSeconds(one.window));
    policies.push(`${name};q=${quota(one)}${window}${parameter("qu", unit)}`);
    states.push(`${name};r=${remaining}${parameter("t", allowed || wait === null ? undefined : seconds(wait))}`);
  }
  return [
    ["RateLimit-Policy", policies.join(", ")],
    ["RateLimit", states.join(", ")],
  ];
}

function quoted(text: string): string {
  return `"${text.replace(/["\\]/g, "\\$&")}"`;
}

function parameter(name: string, value: string | number | undefined): string {
  return value === undefined ? "" : `;${name}=${value}`;
}

function quota(limit: Limit): number {
  return limit.quota ?? limit.decision.limit;
}

function seconds(ms: number): number {
  return Math.ceil(ms / 1000);
}

function wholeSeconds(ms: number | undefined): number | undefined {
  return ms !== undefined && ms > 0 && ms % 1000 === 0 ? ms / 1000 : undefined;
}

/** Forms with one set of numbers show the limit with the longest wait, or else the one with least left. */
function tightest(limits: readonly Limit[]): { limit: number; remaining: number; reset: number } {
  const decisions = limits.map((limit) => limit.decision);
  const refusing = decisions.filter((one) => !one.allowed);
  const rank = (one: Decision) => (refusing.length > 0 ? -(one.wait ?? Infinity) : one.remaining);
  const candidates = refusing.length > 0 ? refusing : decisions;
  const [first, ...others] = candidates;
  if (first === undefined) return { limit: 0, remaining: 0, reset: 0 };
  const found = others.reduce((best, one) => (rank(one) < rank(best) ? one : best), first);
  return { limit: found.limit, remaining: found.remaining, reset: (found.allowed ? null : found.wait) ?? found.reset };
}
