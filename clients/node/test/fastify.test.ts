/** The store in @fastify/rate-limit, over HTTP. */

import assert from "node:assert/strict";
import { beforeEach, describe, it } from "node:test";

import rateLimit, { type RateLimitPluginOptions } from "@fastify/rate-limit";
import Fastify, { type FastifyInstance } from "fastify";
import { Redis } from "ioredis";
import { type FastifyStoreOptions, redisRlStore } from "redis-rl/fastify-rate-limit";

import { get, near, number, statuses, urlOf } from "./http.js";
import { TestServer, calls, finally_, until, writes } from "./server.js";

const server = await TestServer.start();
const admin = server.admin();
const redis = new Redis(server.port);
finally_(() => {
  redis.disconnect();
});

const keyGenerator = (request: { headers: Record<string, unknown> }) => String(request.headers["user"] ?? "nobody");

/** An application with the plugin, and a route beside those that are given. */
async function app(
  options: RateLimitPluginOptions,
  storeOptions: FastifyStoreOptions = {},
  routes: (application: FastifyInstance) => void = () => undefined,
) {
  const application = Fastify();
  await application.register(rateLimit, {
    store: redisRlStore(redis, { timeout: 5000, ...storeOptions }),
    timeWindow: "1 minute",
    keyGenerator,
    ...options,
  });
  application.get("/", () => "ok");
  routes(application);
  await application.listen({ port: 0, host: "127.0.0.1" });
  return { url: await urlOf(application.server), application };
}

beforeEach(async () => {
  await admin.flushall();
  await admin.config("RESETSTAT");
});

describe("@fastify/rate-limit", () => {
  it("grants the limit, in one command each, and says what remains", async () => {
    const { url } = await app({ max: 3 });
    const first = await get(url);
    assert.deepEqual([number(first, "x-ratelimit-limit"), number(first, "x-ratelimit-remaining")], [3, 2]);
    near(number(first, "x-ratelimit-reset"), 60);
    assert.deepEqual(await statuses(url, 3), [200, 200, 429]);
    const denied = await get(url);
    near(number(denied, "retry-after"), 60);
    assert.equal(number(denied, "x-ratelimit-remaining"), 0);
    assert.deepEqual(await statuses(url, 5), [429, 429, 429, 429, 429]);
    assert.deepEqual(await statuses(url, 1, { user: "other" }), [200]);
    assert.deepEqual(await calls(admin), { "rl.sliding": 5 });
  });

  it("a denial writes nothing", async () => {
    const { url } = await app({ max: 2 }, { denialCache: 0 });
    await statuses(url, 2);
    const before = await writes(admin);
    assert.deepEqual(await statuses(url, 4), [429, 429, 429, 429]);
    assert.equal(await writes(admin), before);
  });

  it("Retry-After is when it is granted", async () => {
    const { url } = await app({ max: 1, timeWindow: 1200 }, { algorithm: "fixed-window" });
    await get(url);
    const started = Date.now();
    const wait = number(await get(url), "retry-after");
    assert.ok(wait >= 1 && wait <= 2);
    await until("the announced time", () => Date.now() >= started + wait * 1000);
    assert.deepEqual(await statuses(url, 1), [200]);
  });

  it("a route has a window and a max of its own, which may be functions", async () => {
    const max = (request: { headers: Record<string, unknown> }) => (request.headers["user"] === "paying" ? 3 : 1);
    const { url } = await app({ max: 2 }, {}, (application) => {
      application.get("/own", { config: { rateLimit: { max: 4, timeWindow: "1 hour" } } }, () => "ok");
      application.get("/plan", { config: { rateLimit: { max, timeWindow: async () => 30_000 } } }, () => "ok");
      application.get("/free", { config: { rateLimit: false } }, () => "ok");
    });
    assert.deepEqual(await statuses(`${url}own`, 5), [200, 200, 200, 200, 429]);
    near(number(await get(`${url}own`), "retry-after"), 3600);
    assert.deepEqual(await statuses(url, 3), [200, 200, 429]);
    assert.deepEqual(await statuses(`${url}plan`, 2), [200, 429]);
    assert.deepEqual(await statuses(`${url}plan`, 4, { user: "paying" }), [200, 200, 200, 429]);
    assert.deepEqual(await statuses(`${url}free`, 5), [200, 200, 200, 200, 200]);
  });

  it("routes of a group share a limiter", async () => {
    const { url } = await app({ max: 9 }, {}, (application) => {
      const config = { rateLimit: { max: 2, timeWindow: "1 minute", groupId: "login" } };
      application.get("/a", { config }, () => "ok");
      application.get("/b", { config }, () => "ok");
    });
    assert.deepEqual([...(await statuses(`${url}a`, 1)), ...(await statuses(`${url}b`, 2))], [200, 200, 429]);
  });

  it("a ban: after so many denials in a row the server closes the limiter, for all processes", async () => {
    const options = { max: 1, ban: 2, timeWindow: 10_000 };
    const store = { banDuration: "1h", algorithm: "sliding-log" } as const;
    const [one, other] = [await app(options, store), await app(options, store)];
    assert.deepEqual(await statuses(one.url, 2), [200, 429]);
    // The other process sees the second denial; with the third, the ban begins.
    assert.deepEqual(await statuses(other.url, 2), [429, 403]);
    const banned = await get(one.url);
    assert.equal(banned.status, 403);
    near(number(banned, "retry-after"), 3600);
    // It is remembered, and lasts longer than the window.
    await admin.config("RESETSTAT");
    assert.deepEqual(await statuses(one.url, 5), [403, 403, 403, 403, 403]);
    assert.deepEqual(await calls(admin), {});
  });

  it("a grant ends the row of denials", async () => {
    const { url } = await app({ max: 1, ban: 2, timeWindow: 300 }, { banDuration: "1h" });
    for (let round = 0; round < 3; round += 1) {
      await until("a grant", async () => {
        const { status } = await get(url);
        assert.notEqual(status, 403);
        return status === 200;
      });
      assert.equal((await get(url)).status === 403, false);
      await until("the next window", async () => (await admin.call("RL.PEEK", "rl-fastify:nobody")) === null);
    }
  });

  it("continueExceeding: each denial takes the whole window anew", async () => {
    const { url } = await app({ max: 2, timeWindow: 60_000, continueExceeding: true }, { algorithm: "fixed-window" });
    await statuses(url, 2);
    const denied = await get(url);
    assert.deepEqual([denied.status, number(denied, "retry-after")], [429, 60]);
    await statuses(url, 2);
    // Three denials: each took the limit again, and what is used is paid back.
    const info = (await admin.call("RL.INFO", "rl-fastify:nobody")) as unknown[];
    assert.equal(info[info.indexOf("used") + 1], 8);
  });

  it("exponentialBackoff is refused at start", async () => {
    await assert.rejects(app({ max: 2, exponentialBackoff: true }), /exponentialBackoff is not supported/);
  });

  it("createRateLimit, and looking without taking", async () => {
    const { url } = await app({ global: false }, {}, (application) => {
      const check = application.createRateLimit({ max: 2, timeWindow: "1 minute" });
      application.get("/look", async (request) => {
        // Its types don't know of it yet.
        const looked = await check(request, { increment: false });
        return looked.isAllowed ? -1 : looked.remaining;
      });
      application.get("/take", async (request) => {
        const taken = await check(request);
        return taken.isAllowed ? "allowed" : String(taken.isExceeded);
      });
    });
    const look = async () => (await get(`${url}look`)).text;
    assert.equal(await look(), "2");
    assert.equal((await get(`${url}take`)).text, "false");
    assert.deepEqual([await look(), await look()], ["1", "1"]);
    await get(`${url}take`);
    assert.equal((await get(`${url}take`)).text, "true");
  });

  it("a hundred at once get exactly the limit", async () => {
    const { url } = await app({ max: 17, timeWindow: "1 hour" });
    const all = await Promise.all(Array.from({ length: 100 }, () => get(url)));
    assert.equal(all.filter((answer) => answer.status === 200).length, 17);
  });

  it("a max of 0 denies all", async () => {
    const { url } = await app({ max: 0 });
    const denied = await get(url);
    assert.deepEqual([denied.status, number(denied, "retry-after")], [429, 60]);
  });

  it("the server is away: an error is the plugin's to judge, or the store lets pass, refuses, or limits", async () => {
    const away = new Redis(1, { retryStrategy: () => null, lazyConnect: true, enableOfflineQueue: false });
    away.on("error", () => undefined);
    const run = async (options: RateLimitPluginOptions, fail: FastifyStoreOptions["fail"]) => {
      const { url } = await app({ max: 2, ...options, store: redisRlStore(away, { fail }) });
      const answers = [await get(url), await get(url), await get(url)];
      // With what they say, so that a failure explains itself.
      return answers.map(({ status, text }) => (status === 200 ? text : `${status}: ${text.slice(0, 200)}`));
    };
    const all = (pattern: RegExp) => (answers: string[]) =>
      assert.ok(
        answers.every((text) => pattern.test(text)),
        answers.join(" | "),
      );
    all(/^500/)(await run({}, undefined));
    all(/^ok$/)(await run({ skipOnError: true }, undefined));
    all(/^ok$/)(await run({}, "open"));
    all(/^429/)(await run({}, "closed"));
    const local = await run({}, "local");
    assert.deepEqual([...local.slice(0, 2), local[2]?.slice(0, 3)], ["ok", "ok", "429"], local.join(" | "));
  });
});
