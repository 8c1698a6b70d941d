/** CommonJS, with types. */

import assert = require("node:assert/strict");
import { it } from "node:test";

import redisRl = require("redis-rl");
import express = require("redis-rl/express-rate-limit");
import fastify = require("redis-rl/fastify-rate-limit");
import flexible = require("redis-rl/rate-limiter-flexible");
import nest = require("redis-rl/nestjs-throttler");
import { RateLimiterCompatibleAbstract } from "rate-limiter-flexible";
import ts = require("typescript");

it("every entry can be required, and has types", () => {
  const rule: redisRl.Rule = redisRl.Rule.sliding(5, "1m");
  assert.equal(rule.id, "SLIDING 5 1m");
  const connection: redisRl.Connection = { call: () => Promise.resolve([1, 5, 4, 0, 1000]) };
  assert.equal(new express.RedisRlStore(connection).prefix, "rl-express:");
  assert.equal(typeof fastify.redisRlStore(connection), "function");
  assert.equal(typeof new nest.RedisRlThrottlerStorage(connection).increment, "function");
  const limiter = new flexible.RateLimiterRedisRl({ storeClient: connection, points: 5, duration: 1 });
  assert.ok(limiter instanceof RateLimiterCompatibleAbstract);
});

it("every entry has types however TypeScript resolves modules", () => {
  const { CommonJS, ESNext } = ts.ModuleKind;
  const { Node10, Node16, NodeNext, Bundler } = ts.ModuleResolutionKind;
  for (const entry of [
    "",
    "/express-rate-limit",
    "/fastify-rate-limit",
    "/nestjs-throttler",
    "/rate-limiter-flexible",
  ]) {
    for (const moduleResolution of [Node10, Node16, NodeNext, Bundler]) {
      for (const mode of [CommonJS, ESNext] as const) {
        const name = `redis-rl${entry}`;
        const found = ts.resolveModuleName(name, __filename, { moduleResolution }, ts.sys, undefined, undefined, mode);
        const file = found.resolvedModule?.resolvedFileName ?? "none";
        assert.match(
          file,
          new RegExp(`/${entry === "" ? "index" : entry.slice(1)}\\.d\\.ts$`),
          `${name} ${moduleResolution}`,
        );
      }
    }
  }
});
