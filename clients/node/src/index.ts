/** Rate limits of redis-rl: a client for its commands, and what surrounds a decision in an application. */

export { Breaker, TimeoutError, UnavailableError } from "./breaker.js";
export { Client } from "./client.js";
export type { AtOption, CostOption, DecideOptions, HeldLease, Info, Key, Throttled } from "./client.js";
export type { Connection, GlideConnection, IoredisConnection, NodeRedisConnection } from "./connection.js";
export type { Decision, MultiDecision } from "./decision.js";
export { DenialCache } from "./denials.js";
export { FieldError, PROBLEM_TYPE, fields, problem, retryAfter } from "./fields.js";
export type { Fields, Form, Kind, Limit, Problem } from "./fields.js";
export type { Event, Fail, GuardOptions, Hook, Source } from "./guard.js";
export { IdentityError, Trust, clientAddress, identify } from "./identity.js";
export type { HeaderList, IdentityCode, TrustOptions } from "./identity.js";
export { KeyPartError, keyPart, limitKey } from "./keys.js";
export type { KeyPartOptions } from "./keys.js";
export { BusyError, LeaseLostError } from "./lease.js";
export type { Lease, LeaseOptions } from "./lease.js";
export { Limiter, Outcome } from "./limiter.js";
export type { LimiterOptions } from "./limiter.js";
export { LocalLimiter } from "./local.js";
export type { KeyedRule } from "./local.js";
export { middleware, requestAddress } from "./middleware.js";
export type { MiddlewareOptions } from "./middleware.js";
export { Rule } from "./rule.js";
export type { Algorithm, Duration, LeaseId, Rate, Word } from "./rule.js";
