/** The storage in @nestjs/throttler, over HTTP. */

import "reflect-metadata";

import assert from "node:assert/strict";
import { beforeEach, describe, it } from "node:test";

import { Controller, Get, Module } from "@nestjs/common";
import { APP_GUARD, NestFactory } from "@nestjs/core";
import { SkipThrottle, Throttle, ThrottlerGuard, ThrottlerModule, type ThrottlerOptions } from "@nestjs/throttler";
import { Redis } from "ioredis";
import type { Server } from "node:http";
import { RedisRlThrottlerStorage, type ThrottlerStorageOptions } from "redis-rl/nestjs-throttler";

import { get, near, number, statuses, urlOf } from "./http.js";
import { TestServer, calls, finally_, until, writes } from "./server.js";

const server = await TestServer.start();
const admin = server.admin();
const redis = new Redis(server.port);
finally_(() => {
  redis.disconnect();
});

/** An application with the guard; the tracker is what the request says. */
async function app(throttlers: ThrottlerOptions[], options: ThrottlerStorageOptions = {}, connection = redis) {
  @Controller()
  class Controls {
    @Get()
    root() {
      return "ok";
    }

    @Get("own")
    @Throttle({ default: { limit: 4, ttl: 3_600_000 } })
    own() {
      return "ok";
    }

    @Get("free")
    @SkipThrottle()
    free() {
      return "ok";
    }
  }
  const storage = new RedisRlThrottlerStorage(connection, { timeout: 5000, ...options });
  const getTracker = (request: Record<string, any>) => Promise.resolve(request["headers"]["user"] ?? "nobody");
  @Module({
    imports: [ThrottlerModule.forRoot({ throttlers, storage, getTracker })],
    controllers: [Controls],
    providers: [{ provide: APP_GUARD, useClass: ThrottlerGuard }],
  })
  class Application {}

  const application = await NestFactory.create(Application, { logger: false });
  await application.listen(0, "127.0.0.1");
  finally_(() => application.close());
  return { url: await urlOf(application.getHttpServer() as Server), storage };
}

beforeEach(async () => {
  await admin.flushall();
  await admin.config("RESETSTAT");
});

describe("@nestjs/throttler", () => {
  it("grants the limit in one command each, and says what remains", async () => {
    const { url } = await app([{ limit: 3, ttl: 60_000 }]);
    const first = await get(url);
    assert.deepEqual([number(first, "x-ratelimit-limit"), number(first, "x-ratelimit-remaining")], [3, 2]);
    assert.equal(number(first, "x-ratelimit-reset"), 60);
    assert.deepEqual(await statuses(url, 3), [200, 200, 429]);
    const denied = await get(url);
    near(number(denied, "retry-after"), 60);
    assert.deepEqual(await statuses(url, 1, { user: "other" }), [200]);
    // The second denial was remembered.
    assert.deepEqual(await calls(admin), { "rl.sliding": 5 });
  });

  it("blockDuration closes the limiter, and a flood doesn't prolong it", async () => {
    const { url } = await app([{ limit: 1, ttl: 300, blockDuration: 3_600_000 }], { denialCache: 0 });
    await get(url);
    assert.equal(number(await get(url), "retry-after"), 3600);
    await until("the window to be over", async () => {
      const [, , , wait, reset] = (await admin.call("RL.PEEK", (await admin.keys("*"))[0]!)) as number[];
      return wait === reset;
    });
    const before = await writes(admin);
    assert.deepEqual(await statuses(url, 5), [429, 429, 429, 429, 429]);
    assert.equal(await writes(admin), before);
  });

  it("by default the library blocks for the ttl", async () => {
    const { url } = await app([{ limit: 1, ttl: 1200 }]);
    await get(url);
    const started = Date.now();
    const wait = number(await get(url), "retry-after");
    assert.equal(wait, 2);
    await until("the announced time", () => Date.now() >= started + wait * 1000);
    assert.deepEqual(await statuses(url, 1), [200]);
  });

  it("without a block Retry-After is when a unit comes back, and a denial writes nothing", async () => {
    const { url } = await app([{ limit: 2, ttl: 60_000, blockDuration: 0 }], { denialCache: 0 });
    await statuses(url, 2);
    const before = await writes(admin);
    near(number(await get(url), "retry-after"), 60);
    assert.equal(await writes(admin), before);
  });

  it("named throttlers have a limiter each, and a route its own limits", async () => {
    const { url } = await app([
      { name: "short", limit: 2, ttl: 10_000 },
      { name: "default", limit: 3, ttl: 60_000 },
    ]);
    const first = await get(url);
    assert.deepEqual([number(first, "x-ratelimit-remaining-short"), number(first, "x-ratelimit-remaining")], [1, 2]);
    assert.deepEqual(await statuses(url, 2), [200, 429]);
    const own = await get(`${url}own`);
    assert.equal(number(own, "x-ratelimit-limit"), 4);
    assert.deepEqual((await calls(admin))["rl.sliding"], 7);
  });

  it("a route that is skipped is free", async () => {
    const { url } = await app([{ limit: 1, ttl: 60_000 }]);
    assert.deepEqual(await statuses(`${url}free`, 3), [200, 200, 200]);
    assert.deepEqual(await calls(admin), {});
  });

  it("a ttl or a limit of 0 is no error", async () => {
    assert.deepEqual(await statuses((await app([{ limit: 3, ttl: 0 }])).url, 1), [200]);
    assert.deepEqual(await statuses((await app([{ limit: 0, ttl: 60_000 }], { prefix: "zero:" })).url, 2), [429, 429]);
  });

  it("a token bucket", async () => {
    const { url } = await app([{ limit: 60, ttl: 60_000, blockDuration: 0 }], { algorithm: "token-bucket" });
    const first = await get(url);
    assert.equal(number(first, "x-ratelimit-reset"), 1);
    assert.equal((await statuses(url, 70)).includes(429), true);
  });

  it("a hundred at once get exactly the limit", async () => {
    const { url } = await app([{ limit: 17, ttl: 3_600_000 }]);
    const all = await Promise.all(Array.from({ length: 100 }, () => get(url)));
    assert.equal(all.filter((answer) => answer.status === 200).length, 17);
  });

  it("the server is away: requests pass, or what is said", async () => {
    const away = new Redis(1, { retryStrategy: () => null, lazyConnect: true, enableOfflineQueue: false });
    away.on("error", () => undefined);
    const run = async (fail: ThrottlerStorageOptions["fail"]) =>
      statuses((await app([{ limit: 2, ttl: 60_000 }], { fail }, away)).url, 3);
    assert.deepEqual(await run(undefined), [200, 200, 200]);
    assert.deepEqual(await run("closed"), [429, 429, 429]);
    assert.deepEqual(await run("local"), [200, 200, 429]);
    assert.deepEqual(await run("error"), [500, 500, 500]);
  });
});
