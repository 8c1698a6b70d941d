/** Every command, over every client library, alone and with a cluster. */

import assert from "node:assert/strict";
import { before, describe, it } from "node:test";

import { BusyError, Client, LeaseLostError, Rule } from "redis-rl";

import { cluster, single } from "./connections.js";
import { TestServer, calls, sleep, startCluster, until } from "./server.js";

describe("alone", () => {
  let server: TestServer;
  before(async () => {
    server = await TestServer.start();
  });

  for (const [name, connect] of Object.entries(single)) {
    describe(name, () => {
      let client: Client;
      before(async () => {
        client = new Client(await connect(server.port));
        await server.admin().flushall();
      });

      it("each algorithm takes units, and says so in milliseconds", async () => {
        const first = { allowed: true, limit: 5, remaining: 4, wait: 0 };
        const [bucket, queue] = [
          await client.tokenBucket("b", 5, [5, 60_000]),
          await client.leakyBucket("q", 5, "5/m"),
        ];
        const [fixed, sliding] = [await client.fixedWindow("f", 5, "1m"), await client.sliding("s", 5, 60_000)];
        const log = await client.slidingLog("l", 5, "1m");
        assert.deepEqual(bucket, { ...first, reset: 12_000 });
        assert.deepEqual(queue, { ...first, reset: 12_000 });
        for (const one of [fixed, sliding, log]) assert.deepEqual(one, { ...first, reset: 60_000 });
        const calendar = await client.fixedWindow("c", 5, "month", { align: "-8h" });
        assert.ok(calendar.allowed && calendar.reset <= 31 * 86_400_000, JSON.stringify(calendar));
      });

      it("a denial has a wait, one that never is granted has none", async () => {
        const denied = await client.sliding("s", 5, "1m", { cost: 5, buckets: 16 });
        assert.ok(!denied.allowed && denied.wait !== null && denied.wait > 50_000 && denied.wait <= 60_000);
        assert.equal((await client.sliding("s", 5, "1m", { cost: 6 })).wait, null);
      });

      it("partial takes what there is, force more than there is", async () => {
        assert.equal((await client.tokenBucket("p", 5, [1, 60_000], { cost: 9, partial: true })).granted, 5);
        assert.equal((await client.tokenBucket("p", 5, [1, 60_000], { cost: 9, force: true })).allowed, true);
        assert.ok((await client.tokenBucket("p", 5, [1, 60_000])).wait! > 9 * 60_000);
      });

      it("several limits are one decision", async () => {
        const limits = [
          ["{m}:s", Rule.sliding(9, "1m")],
          ["{m}:d", Rule.fixedWindow(2, "1d")],
        ] as const;
        const granted = await client.multi(limits, { cost: 2 });
        assert.deepEqual([granted.allowed, granted.wait, granted.refused], [true, 0, -1]);
        assert.deepEqual(
          granted.limits.map((one) => one.remaining),
          [7, 0],
        );
        const refused = await client.multi(limits);
        assert.deepEqual([refused.allowed, refused.refused], [false, 1]);
        assert.deepEqual(
          refused.limits.map((one) => one.allowed),
          [true, false],
        );
        assert.equal(refused.limits[0]?.remaining, 7);
        assert.equal((await client.multi(limits, { force: true })).allowed, true);
        const own = await client.multi([["{m}:o", Rule.sliding(9, "1m").costing(3).block("5m", 2)]]);
        assert.equal(own.limits[0]?.remaining, 6);
      });

      it("looking, undoing and settling", async () => {
        assert.equal(await client.peek("nobody"), null);
        assert.equal(await client.info("nobody"), null);
        assert.equal(await client.refund("nobody", 1), null);
        await client.fixedWindow("u", 10, "1m", { cost: 8 });
        assert.equal((await client.peek("u", { cost: 3 }))?.allowed, false);
        assert.equal((await client.refund("u", 3))?.remaining, 5);
        const settled = await client.settle(["u", "nobody"], 5, 1);
        assert.deepEqual([settled[0]?.remaining, settled[1]], [9, null]);
        assert.equal((await client.settle("u", 1, 4))[0]?.remaining, 6);
        const info = await client.info("u");
        assert.deepEqual([info?.["algorithm"], info?.["used"], info?.["window_us"]], ["FIXEDWINDOW", 4, 60_000_000]);
        assert.equal(await client.reset("u", "nobody"), 1);
      });

      it("leases are acquired, renewed, listed and released", async () => {
        assert.equal((await client.acquire("jobs", 2, "30s", "a")).remaining, 1);
        assert.equal((await client.acquire("jobs", 2, 30_000, Buffer.from("b"))).remaining, 0);
        assert.equal((await client.acquire("jobs", 2, "30s", "c")).allowed, false);
        assert.equal(await client.renew("jobs", "60s", ["a", "c"]), 1);
        const leases = await client.leases("jobs", { count: 9 });
        assert.deepEqual(
          leases.map(({ id, units }) => [id, units]),
          [
            ["b", 1],
            ["a", 1],
          ],
        );
        assert.equal(await client.release("jobs", "a"), 1);
        assert.equal(await client.release("jobs", ["a", "b"]), 1);
        assert.deepEqual(await client.leases("jobs"), []);
      });

      it("redis-cell's command", async () => {
        const reply = { limited: false, limit: 16, remaining: 15, retryAfter: null, resetAfter: 2 };
        assert.deepEqual(await client.throttle("cell", 15, 30, 60), reply);
      });

      it("a key may be any bytes, and a refusal is the server's own", async () => {
        const key = Buffer.from([0xff, 0, 0x0a]);
        assert.equal((await client.sliding(key, 5, "1m")).remaining, 4);
        assert.equal((await client.peek(key))?.remaining, 4);
        await assert.rejects(client.fixedWindow(key, 5, "1m"), /WRONGTYPE:? the key holds a SLIDING limiter/);
        await assert.rejects(client.sliding("k", 5, "1y"), RangeError);
        await assert.rejects(client.sliding("k", 5, "1m", { cost: 1.5 }), RangeError);
        await assert.rejects(client.sliding("k", 5, "1m", { at: 1 }), /rl.client-clock/);
      });

      it("a hundred at once get exactly the limit", async () => {
        const all = await Promise.all(Array.from({ length: 100 }, () => client.sliding("many", 17, "1h")));
        assert.equal(all.filter((one) => one.allowed).length, 17);
      });
    });
  }
});

describe("a cluster of three", () => {
  let servers: TestServer[];
  before(async () => {
    servers = await startCluster();
  });

  for (const [name, connect] of Object.entries(cluster)) {
    it(`${name} sends each command to the node of its key, at once`, async () => {
      const client = new Client(await connect(servers.map((server) => server.port)));
      const admins = servers.map((server) => server.admin());
      // The first call may wait for the connection.
      await client.peek("warm");
      for (const admin of admins) await admin.config("RESETSTAT");
      const keys = Array.from({ length: 30 }, (_, at) => `${name}:${at}`);
      for (const key of keys) assert.equal((await client.sliding(key, 5, "1m")).remaining, 4);
      for (const key of keys) {
        const limits = [
          [`{${key}}:a`, Rule.sliding(5, "1m")],
          [`{${key}}:b`, Rule.fixedWindow(5, "1m")],
        ] as const;
        assert.equal((await client.multi(limits)).allowed, true);
      }
      const counts = await Promise.all(admins.map(calls));
      const sum = (command: string) => counts.reduce((all, one) => all + (one[command] ?? 0), 0);
      assert.deepEqual([sum("rl.sliding"), sum("rl.multi")], [30, 30]);
      assert.ok(
        counts.every((one) => (one["rl.sliding"] ?? 0) > 0),
        JSON.stringify(counts),
      );
      // Nobody was sent to another node.
      const errors = await Promise.all(admins.map((admin) => admin.info("errorstats")));
      assert.ok(!errors.some((text) => text.includes("MOVED")), errors.join());
    });
  }
});

describe("withLease", () => {
  let server: TestServer;
  let client: Client;
  let other: Client;
  before(async () => {
    server = await TestServer.start();
    client = new Client(await single["ioredis"]!(server.port));
    other = new Client(await single["node-redis"]!(server.port));
  });

  it("holds while the body runs, renews, and releases", async () => {
    const result = await client.withLease("jobs", 1, 300, async (lease) => {
      assert.equal(String(lease.id).length, 16);
      await assert.rejects(
        client.withLease("jobs", 1, "1s", () => 1),
        BusyError,
      );
      // Longer than the ttl: it was renewed.
      await sleep(700);
      assert.equal((await other.leases("jobs")).length, 1);
      assert.equal(lease.signal.aborted, false);
      return 42;
    });
    assert.equal(result, 42);
    assert.deepEqual(await other.leases("jobs"), []);
  });

  it("renews at a third of the ttl", async () => {
    const admin = server.admin();
    await admin.config("RESETSTAT");
    const took = await client.withLease("thirds", 1, 3000, async () => {
      const started = performance.now();
      await until("three renewals", async () => (await calls(admin))["rl.renew"] === 3);
      return performance.now() - started;
    });
    // At half of the ttl it would take 4500 ms.
    assert.ok(took > 2900 && took < 4400, `${took}`);
  });

  it("aborts the body before the lease runs out if the server doesn't answer", async () => {
    const victim = await TestServer.start();
    const lonely = new Client(await single["ioredis"]!(victim.port));
    await lonely.peek("warm");
    const started = performance.now();
    const running = lonely.withLease("jobs", 1, 3000, async ({ signal }) => {
      victim.signal("SIGSTOP");
      await until("an abort", () => signal.aborted);
      assert.ok(performance.now() - started < 3000);
      victim.signal("SIGCONT");
    });
    await assert.rejects(running, LeaseLostError);
    assert.deepEqual(await lonely.leases("jobs"), []);
  });

  it("releases what may have been acquired though there was no answer", async () => {
    const sent: string[][] = [];
    const broken = {
      call: (...words: (string | Buffer)[]) => {
        sent.push(words.map(String));
        return Promise.reject(new Error("Connection is closed."));
      },
    };
    await assert.rejects(
      new Client(broken).withLease("jobs", 1, "1s", () => assert.fail("it was not acquired"), { id: "me" }),
      /closed/,
    );
    assert.deepEqual(sent[1], ["RL.RELEASE", "jobs", "me"]);
  });

  it("releases if the body fails", async () => {
    await assert.rejects(
      client.withLease("jobs", 1, "10s", () => Promise.reject(new Error("mine"))),
      /mine/,
    );
    assert.deepEqual(await other.leases("jobs"), []);
  });

  it("aborts the body if the lease is lost", async () => {
    const running = client.withLease("lost", 1, 300, async ({ id, signal }) => {
      await other.release("lost", id);
      await until("an abort", () => signal.aborted);
      signal.throwIfAborted();
    });
    await assert.rejects(running, LeaseLostError);
  });

  it("a body that doesn't heed the signal is not taken for one that held the lease", async () => {
    const running = client.withLease("lost", 1, 300, async ({ id, signal }) => {
      await other.release("lost", id);
      await until("an abort", () => signal.aborted);
      return "done";
    });
    await assert.rejects(running, LeaseLostError);
  });

  it("the caller's signal aborts the body, too", async () => {
    const stop = new AbortController();
    const running = client.withLease(
      "mine",
      1,
      "10s",
      async ({ signal }) => {
        stop.abort(new Error("enough"));
        signal.throwIfAborted();
      },
      { signal: stop.signal, cost: 1, id: "me" },
    );
    await assert.rejects(running, /enough/);
    assert.deepEqual(await other.leases("mine"), []);
  });
});
