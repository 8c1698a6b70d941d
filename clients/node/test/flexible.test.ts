/** The limiters in rate-limiter-flexible, behind HTTP and in the library's own wrappers. */

import assert from "node:assert/strict";
import { beforeEach, describe, it } from "node:test";

import express from "express";
import { Redis } from "ioredis";
import {
  BurstyRateLimiter,
  RLWrapperTimeouts,
  RateLimiterCompatibleAbstract,
  RateLimiterMemory,
  RateLimiterQueue,
  RateLimiterRes,
} from "rate-limiter-flexible";
import { type CallOptions, RateLimiterRedisRl, RateLimiterRedisRlUnion } from "redis-rl/rate-limiter-flexible";
import type { RateLimiterRedisRlOptions, UnionResult } from "redis-rl/rate-limiter-flexible";

import { get, near, number, serve, statuses } from "./http.js";
import { TestServer, calls, finally_, sleep, until, writes } from "./server.js";

const server = await TestServer.start();
const admin = server.admin();
const redis = new Redis(server.port);
finally_(() => {
  redis.disconnect();
});

function limiterOf(options: Partial<RateLimiterRedisRlOptions> = {}): RateLimiterRedisRl {
  return new RateLimiterRedisRl({ storeClient: redis, points: 5, duration: 60, timeout: 5000, ...options });
}

/** The result that a call rejects with. */
async function refusal(call: Promise<unknown>): Promise<RateLimiterRes> {
  const refused = await call.then(
    () => assert.fail("it was granted"),
    (error: unknown) => error,
  );
  assert.ok(refused instanceof RateLimiterRes, String(refused));
  return refused;
}

beforeEach(async () => {
  await admin.flushall();
  await admin.config("RESETSTAT");
});

describe("RateLimiterRedisRl", () => {
  it("is one of the library's limiters", () => {
    const limiter: RateLimiterCompatibleAbstract = limiterOf();
    assert.ok(limiter instanceof RateLimiterCompatibleAbstract);
    assert.equal(limiter.keyPrefix, "rlflx");
  });

  it("in an application: grants the points, and says when there are more", async () => {
    const limiter = limiterOf({ points: 3 });
    const application = express();
    application.get("/", (request, response) => {
      limiter.consume(request.get("user") ?? "nobody").then(
        () => response.send("ok"),
        (res: RateLimiterRes) => response.set("Retry-After", `${Math.ceil(res.msBeforeNext / 1000)}`).sendStatus(429),
      );
    });
    const url = await serve(application);
    assert.deepEqual(await statuses(url, 4), [200, 200, 200, 429]);
    near(number(await get(url), "retry-after"), 60);
    assert.deepEqual(await statuses(url, 1, { user: "other" }), [200]);
    assert.deepEqual(await calls(admin), { "rl.sliding": 6 });
  });

  it("consume: points are all or nothing, and a refusal charges nothing", async () => {
    const limiter = limiterOf();
    const first = await limiter.consume("u", 2);
    assert.deepEqual([first.remainingPoints, first.consumedPoints, first.isFirstInDuration], [3, 2, true]);
    assert.ok(first.msBeforeNext > 50_000 && first.msBeforeNext <= 60_000);
    assert.equal((await limiter.consume("u", 1)).isFirstInDuration, false);
    const before = await writes(admin);
    for (let times = 0; times < 3; times += 1) {
      const refused = await refusal(limiter.consume("u", 4));
      assert.deepEqual([refused.remainingPoints, refused.consumedPoints], [2, 7]);
    }
    assert.equal(await writes(admin), before);
    assert.equal((await limiter.consume("u", 2)).remainingPoints, 0);
    assert.equal((await refusal(limiter.consume("u", 6))).msBeforeNext, -1);
    await assert.rejects(limiter.consume("u", 0.5), RangeError);
  });

  it("penalty takes more than there is, reward gives back", async () => {
    const limiter = limiterOf();
    assert.equal((await limiter.penalty("u", 7)).consumedPoints, 7);
    await refusal(limiter.consume("u"));
    assert.equal((await limiter.reward("u", 1)).consumedPoints, 6);
    const rewarded = await limiter.reward("u", 2);
    assert.deepEqual([rewarded.consumedPoints, rewarded.remainingPoints], [4, 1]);
    assert.equal((await limiter.consume("u")).remainingPoints, 0);
    assert.equal((await limiter.reward("nobody")).remainingPoints, 5);
  });

  it("get looks, delete forgets", async () => {
    const limiter = limiterOf();
    assert.equal(await limiter.get("u"), null);
    assert.equal(await limiter.delete("u"), false);
    await limiter.consume("u", 2);
    const found = await limiter.get("u");
    assert.deepEqual([found?.consumedPoints, found?.remainingPoints], [2, 3]);
    assert.equal(await limiter.delete("u"), true);
    assert.equal(await limiter.get("u"), null);
  });

  it("set makes it so many, and more than the points closes the limiter", async () => {
    const limiter = limiterOf();
    await limiter.consume("u", 1);
    const set = await limiter.set("u", 4, 30);
    assert.deepEqual([set.consumedPoints, set.msBeforeNext], [4, 30_000]);
    assert.equal((await limiter.get("u"))?.consumedPoints, 4);
    assert.equal((await limiter.consume("u")).remainingPoints, 0);
    await limiter.set("u", 0, 30);
    assert.equal(await limiter.get("u"), null);
    await limiter.set("u", 9, 3600);
    assert.ok((await refusal(limiter.consume("u"))).msBeforeNext > 3_500_000);
  });

  it("block closes the limiter, for as long as it says, and the next block replaces it", async () => {
    const limiter = limiterOf();
    await limiter.block("u", 3600);
    const found = await limiter.get("u");
    assert.deepEqual([found?.consumedPoints, found?.remainingPoints], [6, 0]);
    const refused = await refusal(limiter.consume("u"));
    assert.ok(refused.msBeforeNext > 3_500_000 && refused.msBeforeNext <= 3_600_000);
    assert.equal((await limiter.block("u", 0.2)).msBeforeNext, 200);
    await until("the end of the block", () =>
      limiter.consume("u").then(
        () => true,
        () => false,
      ),
    );
    assert.equal((await limiter.block("u", 0)).msBeforeNext, -1);
    assert.equal((await refusal(limiter.consume("u"))).msBeforeNext, -1);
    assert.equal(await limiter.delete("u"), true);
    assert.equal((await limiter.consume("u")).remainingPoints, 4);
  });

  it("blockDuration closes the limiter after a refusal", async () => {
    const limiter = limiterOf({ points: 1, duration: 0.3, blockDuration: 3600 });
    await limiter.consume("u");
    assert.equal((await refusal(limiter.consume("u"))).msBeforeNext, 3_600_000);
    await sleep(350);
    assert.ok((await refusal(limiter.consume("u"))).msBeforeNext > 3_590_000);
    assert.equal((await limiter.get("u"))?.consumedPoints, 2);
  });

  it("a duration may be another one for a call, or less than a second", async () => {
    const options: CallOptions = { customDuration: 1000 };
    assert.ok((await limiterOf().consume("custom", 1, options)).msBeforeNext > 900_000);
    assert.ok((await limiterOf({ duration: 0.5 }).consume("short")).msBeforeNext <= 500);
  });

  it("what never ends is -1", async () => {
    const limiter = limiterOf({ points: 1, duration: 0 });
    assert.equal((await limiter.consume("u")).msBeforeNext, -1);
    assert.equal((await refusal(limiter.consume("u"))).msBeforeNext, -1);
    assert.equal((await limiter.get("u"))?.msBeforeNext, -1);
    await limiter.block("v", 0);
    assert.deepEqual([(await limiter.get("v"))?.consumedPoints, (await limiter.get("v"))?.msBeforeNext], [2, -1]);
    await limiter.set("w", 12, 0);
    assert.equal((await limiter.get("w"))?.msBeforeNext, -1);
  });

  it("blockOnConsumed: the block begins after so many refusals in a row", async () => {
    const limiter = limiterOf({ points: 1, blockDuration: 3600, blockOnConsumed: 4 });
    await limiter.consume("u");
    const waits = [];
    for (let times = 0; times < 3; times += 1) waits.push((await refusal(limiter.consume("u"))).msBeforeNext > 60_000);
    assert.deepEqual(waits, [false, false, true]);
  });

  it("RateLimiterRedis's other options are taken, or refused at once", async () => {
    const limiter = limiterOf({ points: 1, inMemoryBlockOnConsumed: 1, useRedisPackage: true });
    await limiter.consume("u");
    for (let times = 0; times < 9; times += 1) await refusal(limiter.consume("u"));
    assert.deepEqual(await calls(admin), { "rl.sliding": 2 });
    limiter.deleteInMemoryBlockedAll();
    await refusal(limiter.consume("u"));
    assert.deepEqual(await calls(admin), { "rl.sliding": 3 });
    for (const option of ["inMemoryBlockDuration", "customIncrTtlLuaScript"]) {
      assert.throws(() => limiterOf({ [option]: "10" }), new RegExp(`${option} is not supported`));
    }
    assert.equal((await limiterOf().consume("digits", "2" as never)).consumedPoints, 2);
  });

  it("execEvenly delays what is granted", async () => {
    const limiter = limiterOf({ points: 4, duration: 1, execEvenly: true });
    await limiter.consume("u");
    const started = performance.now();
    const second = await limiter.consume("u");
    assert.ok(performance.now() - started >= 249, `${performance.now() - started}`);
    assert.ok(second.msBeforeNext < 1000);
  });

  it("limiters with a keyPrefix each don't meet, and keys can't be forged", async () => {
    const [a, b] = [limiterOf({ keyPrefix: "a" }), limiterOf({ keyPrefix: "b" })];
    await a.consume("u", 5);
    assert.equal((await b.consume("u", 5)).remainingPoints, 0);
    assert.equal(a.getKey("u"), "rl:{u}:a");
    assert.equal(a.getKey("x}:b"), "rl:{x%7D%3Ab}:a");
  });

  it("with the denial cache a flood reaches the server once", async () => {
    const limiter = limiterOf({ denialCache: 100 });
    await limiter.consume("u", 5);
    for (let times = 0; times < 50; times += 1) await refusal(limiter.consume("u"));
    assert.deepEqual(await calls(admin), { "rl.sliding": 2 });
    await limiter.reward("u", 1);
    assert.equal((await limiter.consume("u")).remainingPoints, 0);
  });

  it("the library's wrappers take it", async () => {
    const queue = new RateLimiterQueue(limiterOf({ points: 1, duration: 0.2 }) as never);
    const started = performance.now();
    await Promise.all([queue.removeTokens(1, "q"), queue.removeTokens(1, "q")]);
    assert.ok(performance.now() - started >= 199);
    const bursty = new BurstyRateLimiter(
      limiterOf({ points: 1, keyPrefix: "usual" }) as never,
      limiterOf({ points: 2, keyPrefix: "burst" }) as never,
    );
    for (let times = 0; times < 3; times += 1) await bursty.consume("u");
    await refusal(bursty.consume("u"));
    const wrapped = new RLWrapperTimeouts({ limiter: limiterOf({ keyPrefix: "timed" }), timeoutMs: 5000 } as never);
    assert.equal((await wrapped.consume("u")).remainingPoints, 4);
  });

  it("the server is away: it rejects, or an insurance takes over, or what is said", async () => {
    const away = new Redis(1, { retryStrategy: () => null, lazyConnect: true, enableOfflineQueue: false });
    away.on("error", () => undefined);
    await assert.rejects(limiterOf({ storeClient: away }).consume("u"), (error) => error instanceof Error);
    const insuranceLimiter = new RateLimiterMemory({ points: 2, duration: 60 }) as never;
    const insured = limiterOf({ storeClient: away, insuranceLimiter });
    assert.equal((await insured.consume("u")).remainingPoints, 1);
    assert.equal((await insured.get("u"))?.consumedPoints, 1);
    assert.equal((await limiterOf({ storeClient: away, fail: "open" }).consume("u")).remainingPoints, 5);
    assert.equal((await refusal(limiterOf({ storeClient: away, fail: "closed" }).consume("u"))).msBeforeNext, 1000);
    const local = limiterOf({ storeClient: away, fail: "local", points: 1 });
    await local.consume("u");
    await refusal(local.consume("u"));
  });
});

describe("RateLimiterRedisRlUnion", () => {
  const person = () => limiterOf({ points: 3, keyPrefix: "person" });
  const organisation = () => limiterOf({ points: 100, duration: 3600, keyPrefix: "organisation" });

  it("is one RL.MULTI, and a refusal charges nothing to any", async () => {
    const union = new RateLimiterRedisRlUnion(person(), organisation());
    for (let times = 0; times < 3; times += 1) await union.consume("u");
    const before = await writes(admin);
    for (let times = 0; times < 47; times += 1) {
      const refused = await union.consume("u").then(
        () => assert.fail("it was granted"),
        (error: UnionResult) => error,
      );
      assert.deepEqual(Object.keys(refused), ["person"]);
      assert.ok(refused["person"]!.msBeforeNext > 50_000);
    }
    assert.equal(await writes(admin), before);
    assert.deepEqual(await calls(admin), { "rl.multi": 50 });
    assert.equal((await organisation().get("u"))?.consumedPoints, 3);
  });

  it("resolves with the results under their prefixes, and shares keys with the limiters themselves", async () => {
    const union = new RateLimiterRedisRlUnion(person(), organisation());
    await person().consume("u", 2);
    const granted = await union.consume("u");
    assert.deepEqual([granted["person"]?.remainingPoints, granted["organisation"]?.remainingPoints], [0, 99]);
    await person().delete("u");
    assert.equal((await union.consume("u", 2))["person"]?.remainingPoints, 1);
  });

  it("limiters that can't be one are refused", () => {
    assert.throws(() => new RateLimiterRedisRlUnion(), RangeError);
    assert.throws(() => new RateLimiterRedisRlUnion(person(), person()), /keyPrefix each/);
    const other = limiterOf({ storeClient: new Redis(server.port, { lazyConnect: true }), keyPrefix: "other" });
    assert.throws(() => new RateLimiterRedisRlUnion(person(), other), /share a connection/);
  });
});
