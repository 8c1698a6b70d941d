/** The server did not answer a moment ago, and it is not asked again yet. */
export class UnavailableError extends Error {
  override readonly name = "UnavailableError";
}

/** The server did not answer in time. The call may have been counted. */
export class TimeoutError extends Error {
  override readonly name = "TimeoutError";
}

/**
 * A circuit breaker: after a call that failed nobody waits for the server until it answers again. Once a second it is
 * asked in the background, so that no request waits for it.
 */
export class Breaker {
  #open = false;
  #asked = 0;

  constructor(private readonly interval: number = 1000) {}

  /** Whether nobody is to ask the server. */
  get isOpen(): boolean {
    return this.#open;
  }

  /** A call failed because the server is away. */
  failed(): void {
    if (!this.#open) this.#asked = performance.now();
    this.#open = true;
  }

  /** The server answered. */
  succeeded(): void {
    this.#open = false;
  }

  /** If the breaker is open and it is time, makes the call. It closes the breaker if the server answers. */
  probe(call: () => Promise<unknown>, isAway: (error: unknown) => boolean): void {
    const now = performance.now();
    if (!this.#open || now - this.#asked < this.interval) return;
    this.#asked = now;
    call().then(
      () => {
        this.succeeded();
      },
      (error: unknown) => {
        // A refusal is an answer, too.
        if (!isAway(error)) this.succeeded();
      },
    );
  }
}

/** Resolves as the call does, or rejects with TimeoutError. An answer that comes later still calls `answered`. */
export function within<T>(ms: number, call: () => Promise<T>, answered?: () => void): Promise<T> {
  return new Promise((resolve, reject) => {
    let late = false;
    const timer = setTimeout(() => {
      // A process that was busy itself has replies waiting: they are read before this.
      setImmediate(() => {
        late = true;
        reject(new TimeoutError(`the server did not answer within ${ms} ms`));
      });
    }, ms);
    call().then(
      (value) => {
        clearTimeout(timer);
        if (late) answered?.();
        resolve(value);
      },
      (error: unknown) => {
        clearTimeout(timer);
        reject(error instanceof Error ? error : new Error(String(error)));
      },
    );
  });
}
