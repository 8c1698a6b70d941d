/** The store in express-rate-limit, express-slow-down and hono-rate-limiter, over HTTP. */

import assert from "node:assert/strict";
import { beforeEach, describe, it } from "node:test";

import { serve as serveHono } from "@hono/node-server";
import express, { type Request } from "express";
import { type Options, type Store, rateLimit } from "express-rate-limit";
import { slowDown } from "express-slow-down";
import { Hono } from "hono";
import { type Store as HonoStore, rateLimiter } from "hono-rate-limiter";
import { Redis } from "ioredis";
import type { Server } from "node:http";
import { Rule } from "redis-rl";
import { type ExpressStoreOptions, RedisRlStore } from "redis-rl/express-rate-limit";

import { get, near, number, serve, statuses, urlOf } from "./http.js";
import { TestServer, calls, finally_, sleep, until, writes } from "./server.js";

const server = await TestServer.start();
const admin = server.admin();
const redis = new Redis(server.port);
finally_(() => {
  redis.disconnect();
});

/** An application with the limiter, and how often it was reached. */
async function app(options: Partial<Options>, storeOptions: ExpressStoreOptions = {}) {
  const store = new RedisRlStore(redis, { timeout: 5000, ...storeOptions });
  const application = express();
  const limiter = rateLimit({ windowMs: 60_000, store, standardHeaders: "draft-6", ...options });
  const reached = { times: 0 };
  application.use(limiter);
  application.get("/", (request, response) => {
    reached.times += 1;
    response.status(Number(request.query["status"] ?? 200)).send("ok");
  });
  return { url: await serve(application), store, limiter, reached };
}

/** Where the key is what the request says. */
const byUser = { keyGenerator: (request: Request) => request.get("user") ?? "nobody" };

beforeEach(async () => {
  await admin.flushall();
  await admin.config("RESETSTAT");
});

describe("express-rate-limit", () => {
  it("grants the limit, and says what remains", async () => {
    const { url, reached } = await app({ limit: 3, ...byUser });
    const first = await get(url);
    assert.deepEqual([number(first, "ratelimit-limit"), number(first, "ratelimit-remaining")], [3, 2]);
    near(number(first, "ratelimit-reset"), 60);
    assert.deepEqual(await statuses(url, 4), [200, 200, 429, 429]);
    assert.deepEqual(await statuses(url, 1, { user: "other" }), [200]);
    assert.equal(reached.times, 4);
  });

  it("asks in one command, and once for each wait", async () => {
    const { url } = await app({ limit: 3, ...byUser });
    await statuses(url, 9);
    // 3 grants and a denial, which is remembered.
    assert.deepEqual(await calls(admin), { "rl.sliding": 4 });
  });

  it("a denial writes nothing", async () => {
    const { url } = await app({ limit: 3, ...byUser }, { denialCache: 0 });
    await statuses(url, 3);
    const before = await writes(admin);
    assert.deepEqual(await statuses(url, 5), [429, 429, 429, 429, 429]);
    assert.equal(await writes(admin), before);
  });

  it("Retry-After is exact: at that time it is granted", async () => {
    const { url, limiter } = await app({ limit: 2, windowMs: 1500, ...byUser }, { algorithm: "sliding-log" });
    await get(url);
    await sleep(200);
    await get(url);
    const started = Date.now();
    const denied = await get(url);
    assert.equal(denied.status, 429);
    const wait = number(denied, "retry-after");
    assert.ok(wait >= 1 && wait <= 2);
    assert.equal(number(denied, "ratelimit-reset"), wait);
    await until("the announced time", () => Date.now() >= started + wait * 1000);
    assert.equal((await get(url)).status, 200);
    assert.ok(limiter.getKey("nobody") instanceof Promise);
  });

  it("no more than the limit in any window, however requests come", async () => {
    const { url } = await app({ limit: 5, windowMs: 1000, ...byUser });
    const granted: number[] = [];
    const end = Date.now() + 3000;
    while (Date.now() < end) {
      const before = performance.now();
      if ((await get(url)).status === 200) granted.push(before);
    }
    assert.ok(granted.length >= 10, `${granted.length}`);
    for (const [at, first] of granted.entries()) {
      const sixth = granted[at + 5];
      // Moments are those of sending: what is 10 ms less may be how long the first one took.
      if (sixth !== undefined) assert.ok(sixth - first > 1000 - 50, `${sixth - first}`);
    }
  });

  const own = (limit: number, windowMs: number) => Rule.tokenBucket(limit, [1, windowMs]);
  for (const algorithm of ["sliding", "sliding-log", "fixed-window", "token-bucket", own] as const) {
    it(`${typeof algorithm === "string" ? algorithm : "a rule"}: a hundred at once get exactly the limit`, async () => {
      const { url } = await app({ limit: 17, windowMs: 3_600_000, ...byUser }, { algorithm });
      const all = await Promise.all(Array.from({ length: 100 }, () => get(url)));
      assert.equal(all.filter((answer) => answer.status === 200).length, 17);
    });
  }

  it("a leaky bucket delays requests, so that they start one after the other", async () => {
    const { url } = await app({ limit: 3, windowMs: 600, ...byUser }, { algorithm: "leaky-bucket" });
    const started = performance.now();
    const all = await Promise.all([get(url), get(url), get(url), get(url)]);
    assert.deepEqual(all.map((answer) => answer.status).sort(), [200, 200, 200, 429]);
    assert.ok(performance.now() - started >= 399);
  });

  it("a function as limit: the store counts, the library decides", async () => {
    const limit = (request: Request) => (request.get("user") === "paying" ? 4 : 2);
    const { url } = await app({ limit, ...byUser });
    assert.deepEqual(await statuses(url, 3), [200, 200, 429]);
    assert.deepEqual(await statuses(url, 5, { user: "paying" }), [200, 200, 200, 200, 429]);
  });

  it("a function as limit that the store knows: a denial writes nothing", async () => {
    const plan = (key: string) => (key === "paying" ? 4 : 2);
    const limit = (request: Request) => plan(request.get("user") ?? "");
    const { url } = await app({ limit, ...byUser }, { limit: plan, denialCache: 0 });
    assert.deepEqual(await statuses(url, 4, { user: "paying" }), [200, 200, 200, 200]);
    const before = await writes(admin);
    assert.deepEqual(await statuses(url, 3, { user: "paying" }), [429, 429, 429]);
    assert.equal(await writes(admin), before);
  });

  it("a limit of 0 denies all", async () => {
    const { url } = await app({ limit: 0, validate: false, ...byUser });
    assert.deepEqual(await statuses(url, 2), [429, 429]);
  });

  it("failed requests are given back, and a denied one, which took nothing, is not", async () => {
    const { url } = await app({ limit: 3, skipFailedRequests: true, ...byUser });
    const used = async () => Number(((await admin.call("RL.PEEK", "rl-express:nobody")) as number[] | null)?.[2] ?? 3);
    await statuses(`${url}?status=500`, 5);
    await until("all given back", async () => (await used()) === 3);
    assert.deepEqual(await statuses(url, 3), [200, 200, 200]);
    assert.deepEqual(await statuses(url, 6), [429, 429, 429, 429, 429, 429]);
    // A refund for each of the failed ones, and no more: wait for whatever is still on its way.
    await sleep(100);
    assert.deepEqual(await calls(admin), {
      "rl.sliding": 14,
      "rl.refund": 5,
      "rl.peek": (await calls(admin))["rl.peek"],
    });
    assert.equal(await used(), 0);
  });

  it("successful requests are given back", async () => {
    const { url } = await app({ limit: 2, skipSuccessfulRequests: true, ...byUser });
    assert.deepEqual(await statuses(url, 1), [200]);
    await until("a refund", async () => (await calls(admin))["rl.refund"] === 1);
    assert.deepEqual(await statuses(`${url}?status=404`, 3), [404, 404, 429]);
  });

  it("getKey looks and resetKey forgets, remembered denials too", async () => {
    const { url, limiter } = await app({ limit: 2, ...byUser });
    assert.equal(await limiter.getKey("nobody"), undefined);
    await statuses(url, 3);
    const info = await limiter.getKey("nobody");
    assert.equal(info?.totalHits, 2);
    assert.ok(info.resetTime!.getTime() > Date.now() + 50_000);
    await limiter.resetKey("nobody");
    assert.deepEqual(await statuses(url, 1), [200]);
  });

  for (const form of ["draft-7", "draft-8"] as const) {
    it(`${form} says when the request will be granted`, async () => {
      const { url } = await app({ limit: 1, standardHeaders: form, ...byUser }, { algorithm: "fixed-window" });
      await get(url);
      const denied = await get(url);
      assert.match(
        denied.headers.get("ratelimit") ?? "",
        form === "draft-7" ? /remaining=0, reset=(5\d|60)/ : /; r=0; t=(5\d|60)/,
      );
      near(number(denied, "retry-after"), 60);
    });
  }

  it("two limiters with a prefix each don't meet", async () => {
    const [one, other] = [await app({ limit: 1, ...byUser }, { prefix: "a:" }), await app({ limit: 1, ...byUser })];
    assert.deepEqual([...(await statuses(one.url, 2)), ...(await statuses(other.url, 2))], [200, 429, 200, 429]);
  });

  it("the server is away: an error is the library's to judge, or the store lets pass, refuses, or limits", async () => {
    const away = new Redis(1, { retryStrategy: () => null, lazyConnect: true, enableOfflineQueue: false });
    away.on("error", () => undefined);
    const run = async (options: Partial<Options>, fail: ExpressStoreOptions["fail"]) => {
      const store = new RedisRlStore(away, { fail });
      const quiet = { error: () => undefined, warn: () => undefined };
      const application = express().use(rateLimit({ limit: 2, windowMs: 60_000, store, logger: quiet, ...options }));
      application.get("/", (_, response) => void response.send("ok"));
      application.use(
        (error: unknown, _: unknown, response: express.Response, next: unknown) =>
          void response.sendStatus(error instanceof Error && next !== null ? 500 : 599),
      );
      return statuses(await serve(application), 3);
    };
    assert.deepEqual(await run({}, undefined), [500, 500, 500]);
    assert.deepEqual(await run({ passOnStoreError: true }, undefined), [200, 200, 200]);
    assert.deepEqual(await run({}, "open"), [200, 200, 200]);
    assert.deepEqual(await run({}, "closed"), [429, 429, 429]);
    assert.deepEqual(await run({}, "local"), [200, 200, 429]);
  });
});

describe("express-slow-down", () => {
  it("delays what is more than delayAfter, by how many there were", async () => {
    const application = express();
    const seen: number[] = [];
    const store: Store = new RedisRlStore(redis, { prefix: "slow:", timeout: 5000 });
    application.use(slowDown({ windowMs: 60_000, delayAfter: 2, delayMs: (hits) => hits * 10, store }));
    application.get("/", (request, response) => {
      const { used, delay } = (request as unknown as { slowDown: { used: number; delay: number } }).slowDown;
      seen.push(used, delay);
      response.send("ok");
    });
    assert.deepEqual(await statuses(await serve(application), 4), [200, 200, 200, 200]);
    assert.deepEqual(seen, [1, 0, 2, 0, 3, 30, 4, 40]);
  });
});

describe("hono-rate-limiter", () => {
  it("is limited, and failed requests are given back", async () => {
    const store: HonoStore = new RedisRlStore(redis, { prefix: "hono:", timeout: 5000 });
    const application = new Hono();
    const keyGenerator = () => "all";
    application.use(rateLimiter({ windowMs: 60_000, limit: 2, keyGenerator, store, skipFailedRequests: true }));
    application.get("/", (context) => context.text("ok", context.req.query("status") === "500" ? 500 : 200));
    const url = await urlOf(serveHono({ fetch: application.fetch, port: 0, hostname: "127.0.0.1" }) as Server);
    assert.deepEqual(await statuses(`${url}?status=500`, 3), [500, 500, 500]);
    assert.deepEqual(await statuses(url, 4), [200, 200, 429, 429]);
    const denied = await get(url);
    near(number(denied, "retry-after"), 60);
    assert.equal((await calls(admin))["rl.refund"], 3);
  });
});
