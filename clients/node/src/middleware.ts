/** A limiter in front of Node's own HTTP server, Express, Connect, Polka or Nest. */

import type { IncomingMessage, ServerResponse } from "node:http";

import { type Form, PROBLEM_TYPE } from "./fields.js";
import { IdentityError, Trust, type TrustOptions, identify } from "./identity.js";
import { KeyPartError } from "./keys.js";
import type { Limiter, Outcome } from "./limiter.js";

/** Options of the middleware. */
export interface MiddlewareOptions<Request extends IncomingMessage = IncomingMessage> {
  /** Who a request is counted for, like `keyPart("user", id)`: by default its address. */
  readonly who?: ((request: Request) => string | Promise<string>) | undefined;
  /** The proxies that are trusted with the address: by default none. */
  readonly trust?: TrustOptions | undefined;
  /** The units of a request: by default 1. */
  readonly cost?: ((request: Request) => number | Promise<number>) | undefined;
  /** The form of the header fields: by default `draft-11`. */
  readonly form?: Form | undefined;
}

/** Answers 429 (or 503) with header fields and a problem, or goes ahead. */
export function middleware<Request extends IncomingMessage = IncomingMessage>(
  limiter: Limiter,
  options: MiddlewareOptions<Request> = {},
): (request: Request, response: ServerResponse, next: (error?: unknown) => void) => void {
  const trust = new Trust(options.trust);
  const whoIs = options.who ?? ((request: Request) => requestAddress(request, trust));

  const check = async (request: Request): Promise<Outcome> => {
    let who: string;
    try {
      who = await whoIs(request);
    } catch (error) {
      if (!(error instanceof IdentityError || error instanceof KeyPartError)) throw error;
      return limiter.unidentified(error);
    }
    return limiter.check(who, options.cost === undefined ? 1 : await options.cost(request));
  };

  return (request, response, next) => {
    check(request).then((outcome) => {
      for (const [name, value] of outcome.fields(options.form)) response.setHeader(name, value);
      if (!outcome.allowed) refuse(response, outcome);
      else if (outcome.wait > 0) setTimeout(next, outcome.wait);
      else next();
    }, next);
  };
}

/** The part of a key that names a request's client by its address. Throws IdentityError. */
export function requestAddress(request: IncomingMessage, trust?: Trust): string {
  const raw = request.rawHeaders;
  const headers = raw.flatMap((name, at) => (at % 2 === 0 ? [[name, raw[at + 1] ?? ""] as const] : []));
  return identify(request.socket.remoteAddress, headers, trust);
}

function refuse(response: ServerResponse, outcome: Outcome): void {
  response.statusCode = outcome.status;
  response.setHeader("Content-Type", PROBLEM_TYPE);
  response.end(JSON.stringify(outcome.problem()));
}
