/** Sentinel: a failover under load, with every library that speaks to sentinels: @valkey/valkey-glide does not. */

import assert from "node:assert/strict";
import { it } from "node:test";

import { Redis } from "ioredis";
import { Redis as Valkey } from "iovalkey";
import { createSentinel } from "redis";
import { type Connection, Limiter, Rule } from "redis-rl";

import { TestServer, finally_, sleep, until } from "./server.js";

const host = "127.0.0.1";

it("a failover under load: nobody waits, nothing is granted twice, and nobody restarts anything", async () => {
  const primary = await TestServer.start();
  const replica = await TestServer.start(`replicaof ${host} ${primary.port}`, "repl-diskless-sync-delay 0");
  const promoted = replica.admin();
  await until("a replica in step", async () => /master_link_status:up/.test(await promoted.info("replication")));
  const watch = `sentinel monitor primary ${host} ${primary.port} 1`;
  const settings = ["sentinel down-after-milliseconds primary 500", "sentinel failover-timeout primary 3000"];
  const sentinel = await TestServer.start("sentinel", watch, ...settings);
  const asked = sentinel.admin();
  await until("a sentinel that knows the replica", async () => {
    return ((await asked.call("SENTINEL", "REPLICAS", "primary")) as unknown[]).length === 1;
  });

  const sentinels = [{ host, port: sentinel.port }];
  const ioredis = new Redis({ sentinels, name: "primary", sentinelRetryStrategy: () => 50 });
  const iovalkey = new Valkey({ sentinels, name: "primary", sentinelRetryStrategy: () => 50 });
  const nodeRedis = createSentinel({ name: "primary", sentinelRootNodes: sentinels, scanInterval: 200 });
  finally_(() => {
    ioredis.disconnect();
    iovalkey.disconnect();
    nodeRedis.destroy();
  });
  ioredis.on("error", () => undefined);
  iovalkey.on("error", () => undefined);
  nodeRedis.on("error", () => undefined);
  await nodeRedis.connect();

  const connections: Record<string, Connection> = { ioredis, iovalkey, nodeRedis };
  const limiters = Object.entries(connections).map(([name, connection]) => ({
    name,
    limiter: new Limiter(connection, { hourly: Rule.fixedWindow(10, "1h") }, { denialCache: 0, timeout: 500 }),
  }));
  for (const { name, limiter } of limiters) {
    for (let at = 0; at < 6; at += 1) assert.equal((await limiter.check(name)).source, "redis", name);
  }
  await until("the replica to have all", async () => (await promoted.keys("rl:*")).length === 3);
  for (const { name } of limiters) {
    await until(`${name} on the replica`, async () => {
      return ((await promoted.call("RL.PEEK", `rl:{${name}}:hourly`)) as number[])[2] === 4;
    });
  }

  await primary.kill();
  let passed = 0;
  await until("decisions of the new primary", async () => {
    // Under load: each is asked all the time.
    const sources = await Promise.all(limiters.map(async ({ limiter }) => (await limiter.check("load", 0)).source));
    passed += sources.filter((source) => source === "open").length;
    await sleep(1);
    return sources.every((source) => source === "redis");
  });
  assert.ok(passed > 0);
  // What was granted before is counted still.
  for (const { name, limiter } of limiters) {
    const granted = [];
    for (let at = 0; at < 6; at += 1) granted.push((await limiter.check(name)).allowed);
    assert.deepEqual(granted, [true, true, true, true, false, false], name);
  }
});
