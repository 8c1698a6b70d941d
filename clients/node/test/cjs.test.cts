/** CommonJS, with types. */

import assert = require("node:assert/strict");
import { it } from "node:test";

import redisRl = require("redis-rl");
import express = require("redis-rl/express-rate-limit");
import fastify = require("redis-rl/fastify-rate-limit");
import flexible = require("redis-rl/rate-limiter-flexible");
import nest = require("redis-rl/nestjs-throttler");
import { RateLimiterCompatibleAbstract } from "rate-limiter-flexible";

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
