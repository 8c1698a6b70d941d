/**
 * Each library's own Redis store and redis-rl's, side by side, as a Markdown table: what bench.sh runs.
 *
 * All is measured over HTTP in the library's own framework. The two stores of a library take turns, so that what a busy
 * machine does to one it does to the other: it is their ratio that counts.
 */

import "reflect-metadata";

import { Agent, request } from "node:http";

import { ThrottlerStorageRedisService } from "@nest-lab/throttler-storage-redis";
import rateLimitPlugin, { type RateLimitPluginOptions } from "@fastify/rate-limit";
import { Controller, Get, Module } from "@nestjs/common";
import { APP_GUARD, NestFactory } from "@nestjs/core";
import { ThrottlerGuard, ThrottlerModule, type ThrottlerStorage } from "@nestjs/throttler";
import express, { type Response } from "express";
import { type Store, rateLimit } from "express-rate-limit";
import Fastify from "fastify";
import { type Command, Redis } from "ioredis";
import type { Server } from "node:http";
import { RateLimiterRedis, RateLimiterUnion } from "rate-limiter-flexible";
import { type RedisReply, RedisStore } from "rate-limit-redis";
import { Client } from "redis-rl";
import { RedisRlStore } from "redis-rl/express-rate-limit";
import { redisRlStore } from "redis-rl/fastify-rate-limit";
import { RedisRlThrottlerStorage } from "redis-rl/nestjs-throttler";
import { RateLimiterRedisRl, RateLimiterRedisRlUnion } from "redis-rl/rate-limiter-flexible";

import { serve, urlOf } from "./http.js";
import { TestServer, cleanUp, finally_, sleep } from "./server.js";

const WINDOW = 2000;
const HOUR = 3_600_000;
const MANY = 1_000_000;

/** A busy machine must not end a measurement, and every denial is to reach the server. */
const OPTIONS = { timeout: 30_000, denialCache: 0 } as const;

/** Starts an application that allows one user so many requests in a window. Resolves with its URL. */
type Start = (redis: Redis, limit: number, windowMs: number) => Promise<string>;

interface Row {
  readonly library: string;
  readonly own: Start;
  readonly ours: Start;
  /** What denials cost, if it is not the user's own units that are to be shown. */
  readonly charged?: (redis: Redis, start: Start) => Promise<string>;
}

const rows: Row[] = [
  {
    library: "express-rate-limit",
    own: startExpress((redis) => {
      const send = (command: string, ...args: string[]) => redis.call(command, ...args) as Promise<RedisReply>;
      return new RedisStore({ sendCommand: send });
    }),
    ours: startExpress((redis) => new RedisRlStore(redis, OPTIONS)),
  },
  {
    library: "@fastify/rate-limit",
    own: startFastify((redis) => ({ redis })),
    ours: startFastify((redis) => ({ store: redisRlStore(redis, OPTIONS) })),
  },
  {
    library: "@nestjs/throttler",
    own: startNest((redis) => new ThrottlerStorageRedisService(redis)),
    ours: startNest((redis) => new RedisRlThrottlerStorage(redis, OPTIONS)),
  },
  {
    library: "rate-limiter-flexible",
    own: startFlexible((redis, limit, duration) => flexible(redis, "person", limit, duration)),
    ours: startFlexible((redis, limit, duration) => flexibleRl(redis, "person", limit, duration)),
  },
  {
    library: "rate-limiter-flexible, a union of two",
    own: startFlexible((redis, limit, duration) => {
      const organisation = flexible(redis, "organisation", MANY, 3600);
      return new RateLimiterUnion(flexible(redis, "person", limit, duration), organisation);
    }),
    ours: startFlexible((redis, limit, duration) => {
      const organisation = flexibleRl(redis, "organisation", MANY, 3600);
      return new RateLimiterRedisRlUnion(flexibleRl(redis, "person", limit, duration), organisation);
    }),
    charged: organisationCharged,
  },
];

function startExpress(store: (redis: Redis) => Store): Start {
  return (redis, limit, windowMs) => {
    const limiter = rateLimit({ windowMs, limit, store: store(redis), keyGenerator: () => "u" });
    const app = express().use(limiter);
    app.get("/", (_, response) => void response.send("ok"));
    return serve(app);
  };
}

function startFastify(store: (redis: Redis) => RateLimitPluginOptions): Start {
  return async (redis, max, timeWindow) => {
    const app = Fastify();
    await app.register(rateLimitPlugin, { max, timeWindow, keyGenerator: () => "u", ...store(redis) });
    app.get("/", () => "ok");
    await app.listen({ port: 0, host: "127.0.0.1" });
    return urlOf(app.server);
  };
}

function startNest(store: (redis: Redis) => ThrottlerStorage): Start {
  return async (redis, limit, ttl) => {
    @Controller()
    class Controls {
      @Get()
      root() {
        return "ok";
      }
    }
    const getTracker = () => Promise.resolve("u");
    @Module({
      imports: [ThrottlerModule.forRoot({ throttlers: [{ limit, ttl }], storage: store(redis), getTracker })],
      controllers: [Controls],
      providers: [{ provide: APP_GUARD, useClass: ThrottlerGuard }],
    })
    class Application {}
    const app = await NestFactory.create(Application, { logger: false });
    await app.listen(0, "127.0.0.1");
    return urlOf(app.getHttpServer() as Server);
  };
}

/** What the two libraries' limiters and unions have in common. */
interface Consumer {
  consume(key: string): Promise<unknown>;
}

function startFlexible(make: (redis: Redis, limit: number, duration: number) => Consumer): Start {
  return (redis, limit, windowMs) => {
    const limiter = make(redis, limit, windowMs / 1000);
    const app = express();
    app.get("/", (_, response: Response) => {
      limiter.consume("u").then(
        () => response.send("ok"),
        () => response.sendStatus(429),
      );
    });
    return serve(app);
  };
}

function flexible(storeClient: Redis, keyPrefix: string, points: number, duration: number): RateLimiterRedis {
  return new RateLimiterRedis({ storeClient, keyPrefix, points, duration });
}

function flexibleRl(storeClient: Redis, keyPrefix: string, points: number, duration: number): RateLimiterRedisRl {
  return new RateLimiterRedisRl({ storeClient, keyPrefix, points, duration, ...OPTIONS });
}

const agent = new Agent({ keepAlive: true });

/** Whether a request is granted. */
function hit(url: string): Promise<boolean> {
  return new Promise((resolve, reject) => {
    const sent = request(url, { agent }, (response) => {
      response.resume().on("end", () => {
        const { statusCode } = response;
        if (statusCode === 200 || statusCode === 429) resolve(statusCode === 200);
        else reject(new Error(`${url} answered ${statusCode}`));
      });
    });
    sent.on("error", reject).end();
  });
}

async function hits(url: string, times: number): Promise<number> {
  let granted = 0;
  for (let at = 0; at < times; at += 1) granted += Number(await hit(url));
  return granted;
}

/** Round trips and bytes to the server for each request. What is sent while another command is away joins its trip. */
async function sent(redis: Redis, url: string): Promise<[trips: number, bytes: number]> {
  const times = 500;
  // Connections, scripts.
  await hits(url, 20);
  const [send, plain] = [redis.sendCommand, Object.hasOwn(redis, "sendCommand")];
  let [trips, away] = [0, 0];
  redis.sendCommand = (command: Command, ...more) => {
    if (away === 0) trips += 1;
    away += 1;
    const back = () => (away -= 1);
    command.promise.then(back, back);
    return send.call(redis, command, ...more);
  };
  const before = await received();
  await hits(url, times);
  const bytes = (await received()) - before;
  if (plain) redis.sendCommand = send;
  else Reflect.deleteProperty(redis, "sendCommand");
  return [trips / times, bytes / times];
}

async function received(): Promise<number> {
  return Number(/total_net_input_bytes:(\d+)/.exec(await admin.info("stats"))?.[1]);
}

/** Requests a second of two applications that take short turns, over eight connections. */
async function speeds(urls: readonly string[]): Promise<number[]> {
  const [done, took] = [urls.map(() => 0), urls.map(() => 0)];
  for (let round = 0; round < 42; round += 1) {
    for (const [at, url] of urls.entries()) {
      const began = performance.now();
      const one = async () => {
        while (performance.now() < began + 100) {
          await hit(url);
          // The first rounds are for connections and the compiler.
          if (round > 1) done[at]! += 1;
        }
      };
      await Promise.all(Array.from({ length: 8 }, one));
      if (round > 1) took[at]! += performance.now() - began;
    }
  }
  return done.map((requests, at) => (requests * 1000) / took[at]!);
}

/**
 * The most that any window grants to a client that knows its edges: one request opens a window, the rest of the limit
 * is taken just before it ends, and then as much as there is. Counted is what was surely within one window: from before
 * the first was sent until after the last was answered.
 */
async function mostGranted(url: string, limit: number): Promise<number> {
  const began = performance.now();
  const granted: { sent: number; answered: number }[] = [];
  const take = async () => {
    const before = performance.now();
    if (await hit(url)) granted.push({ sent: before, answered: performance.now() });
  };
  await take();
  await sleep(WINDOW - 400);
  for (let at = 1; at < limit; at += 1) await take();
  await sleep(began + WINDOW + 50 - performance.now());
  while (performance.now() < began + 3 * WINDOW) {
    await take();
    await sleep(5);
  }
  const within = granted.map((first) =>
    granted.filter((one) => one.sent >= first.sent && one.answered < first.sent + WINDOW),
  );
  return Math.max(...within.map((all) => all.length));
}

/** The units that count under the one key with this in its name, in the library's counter or in a limiter of ours. */
async function used(redis: Redis, part: string): Promise<number> {
  const keys = (await redis.keys(`*${part}*`)).filter((key) => !key.endsWith(":blocked"));
  if (keys.length !== 1) throw new Error(`one key was expected, not ${keys.join(", ")}`);
  const [key = ""] = keys;
  if ((await redis.type(key)) === "string") return Number(await redis.get(key));
  return Number((await new Client(redis).info(key))?.["used"]);
}

/** The units that each of five refused requests costs. */
async function charged(redis: Redis, start: Start): Promise<string> {
  const url = await start(redis, 10, HOUR);
  const granted = await hits(url, 15);
  if (granted !== 10) throw new Error(`${granted} of 10 were granted`);
  return `${((await used(redis, "")) - 10) / 5}`;
}

/** What fifty requests of a user who gets three cost the organisation. */
async function organisationCharged(redis: Redis, start: Start): Promise<string> {
  const granted = await hits(await start(redis, 3, HOUR), 50);
  return `${await used(redis, "organisation")} of the organisation's units for ${granted} grants`;
}

async function measure({ library, own, ours, charged: charge = charged }: Row): Promise<void> {
  const stores = ["its own", "redis-rl"].map((store, at) => {
    const redis = new Redis(server.port);
    finally_(() => {
      redis.disconnect();
    });
    return { store, redis, start: at === 0 ? own : ours };
  });
  const wide = await Promise.all(stores.map(({ redis, start }) => start(redis, MANY, HOUR)));
  const traffic: [number, number][] = [];
  for (const [at, { redis }] of stores.entries()) traffic.push(await sent(redis, wide[at]!));
  const speed = await speeds(wide);
  await admin.flushall();
  const narrow = await Promise.all(stores.map(({ redis, start }) => start(redis, 10, WINDOW)));
  const most = await Promise.all(narrow.map((url) => mostGranted(url, 10)));
  for (const [at, { store, redis, start }] of stores.entries()) {
    await admin.flushall();
    const [trips, bytes] = traffic[at]!;
    const cells = [
      library,
      store,
      trips,
      bytes.toFixed(0),
      speed[at]!.toFixed(0),
      most[at],
      await charge(redis, start),
    ];
    console.log(`| ${cells.join(" | ")} |`);
  }
  await admin.flushall();
}

const server = await TestServer.start();
const admin = server.admin();
try {
  const measured = ["round trips", "bytes to the server", "requests/s", "most granted, of 10", "charged for a refusal"];
  const titles = ["library", "store", ...measured];
  for (const line of [titles, titles.map(() => "---")]) console.log(`| ${line.join(" | ")} |`);
  for (const row of rows) await measure(row);
} finally {
  agent.destroy();
  await cleanUp();
}
