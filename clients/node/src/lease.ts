/**
 * Leases that are held while a body runs: renewed at a third of their ttl, and released whatever happens.
 *
 * A renewal that fails is tried again a third later. If the lease may run out before the next one, it is lost: the body
 * is to stop, while there is still a third of the ttl to stop in.
 */

import { randomBytes } from "node:crypto";

import { within } from "./breaker.js";
import type { Client, Key } from "./client.js";
import type { Decision } from "./decision.js";
import { type Duration, type LeaseId, milliseconds } from "./rule.js";

/** Everything is held. `decision.wait` is the longest it takes until something is free. */
export class BusyError extends Error {
  override readonly name = "BusyError";
  constructor(readonly decision: Decision) {
    super(`all ${decision.limit} are held`);
  }
}

/** The lease is lost or about to run out: somebody else may get it. */
export class LeaseLostError extends Error {
  override readonly name = "LeaseLostError";
}

/** What a body gets. */
export interface Lease {
  readonly id: LeaseId;
  /** Aborted if the lease is lost, or the signal of the options is. */
  readonly signal: AbortSignal;
}

/** Options of a lease. */
export interface LeaseOptions {
  /** The units that are held: by default 1. */
  readonly cost?: number | undefined;
  /** The id of the holder: by default a new one. */
  readonly id?: LeaseId | undefined;
  /** Aborts the body's signal, too. */
  readonly signal?: AbortSignal | undefined;
}

/** Runs a body that holds a lease. Rejects with BusyError if everything is held, LeaseLostError if it was lost. */
export async function withLease<T>(
  client: Client,
  key: Key,
  limit: number,
  ttl: Duration,
  body: (lease: Lease) => Promise<T> | T,
  options: LeaseOptions = {},
): Promise<T> {
  // 16 bytes take no more memory in the server than a shorter id.
  const id = options.id ?? randomBytes(12).toString("base64url");
  const third = milliseconds(ttl) / 3;
  options.signal?.throwIfAborted();
  const sent = performance.now();
  const release = async (): Promise<void> => {
    // If it cannot be released it runs out by itself.
    await within(third, () => client.release(key, id)).catch(() => undefined);
  };
  const decision = await client.acquire(key, limit, ttl, id, { cost: options.cost }).catch(async (error: unknown) => {
    // It may have been acquired all the same, and nobody else would release it.
    await release();
    throw error;
  });
  if (!decision.allowed) throw new BusyError(decision);

  const stop = new AbortController();
  const abort = () => {
    stop.abort(options.signal?.reason);
  };
  options.signal?.addEventListener("abort", abort);
  if (options.signal?.aborted === true) abort();

  // From before the call: the server's ttl begins later.
  let until = sent + 3 * third;
  let lost: LeaseLostError | undefined;
  let timer: NodeJS.Timeout | undefined;
  const renew = async (): Promise<void> => {
    const before = performance.now();
    try {
      const held = await within(third, () => client.renew(key, ttl, id));
      until = held > 0 ? before + 3 * third : 0;
    } catch {
      // An error says nothing about the lease: it lasts until then at least.
    }
    if (timer === undefined) return;
    if (performance.now() + third > until) {
      lost = new LeaseLostError("the lease is lost");
      stop.abort(lost);
    } else schedule();
  };
  const schedule = (): void => {
    timer = setTimeout(() => void renew(), third);
  };
  schedule();

  try {
    const result = await body({ id, signal: stop.signal });
    // A body that did not heed its signal ran without a lease.
    if (lost !== undefined) throw lost;
    return result;
  } finally {
    clearTimeout(timer);
    timer = undefined;
    options.signal?.removeEventListener("abort", abort);
    await release();
  }
}
