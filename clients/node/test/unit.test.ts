/** What needs no server. */

import assert from "node:assert/strict";
import { describe, it, mock } from "node:test";

import {
  Breaker,
  Client,
  DenialCache,
  IdentityError,
  type KeyedRule,
  LocalLimiter,
  type MultiDecision,
  Rule,
  Trust,
  identify,
} from "redis-rl";

describe("Rule", () => {
  const rows: [Rule, string, (number | undefined)?, (number | undefined)?][] = [
    [Rule.sliding(100, "1m"), "SLIDING 100 1m", undefined, 60_000],
    [Rule.sliding(100, 1500, 32), "SLIDING 100 1500ms BUCKETS 32", undefined, 1500],
    [Rule.sliding(1, 0.25), "SLIDING 1 250us", undefined, 0.25],
    [Rule.slidingLog(3, "1d"), "SLIDINGLOG 3 1d", undefined, 86_400_000],
    [Rule.fixedWindow(5, "60"), "FIXEDWINDOW 5 60", undefined, 60_000],
    [Rule.fixedWindow(5, "day", "-8h"), "FIXEDWINDOW 5 day ALIGN -8h", undefined, 86_400_000],
    [Rule.fixedWindow(5, "month"), "FIXEDWINDOW 5 month", undefined, undefined],
    [Rule.tokenBucket(10, 2), "TOKENBUCKET 10 2", 2, 1000],
    [Rule.tokenBucket(10, 0.5), "TOKENBUCKET 10 0.5", undefined, undefined],
    [Rule.tokenBucket(10, "100/m"), "TOKENBUCKET 10 100/m", 100, 60_000],
    [Rule.tokenBucket(10, [100, 60_000]), "TOKENBUCKET 10 100/60000ms", 100, 60_000],
    [Rule.leakyBucket(10, "5/250ms"), "LEAKYBUCKET 10 5/250ms", 5, 250],
    [Rule.concurrency(2, "30s", "me"), "CONCURRENCY 2 30s me", undefined, undefined],
    [Rule.sliding(1e12, "1m").costing(5), "SLIDING 1000000000000 1m COST 5", undefined, 60_000],
    [Rule.sliding(5, "1m").block("10m", 3), "SLIDING 5 1m BLOCK 10m AFTER 3", undefined, 60_000],
  ];
  for (const [rule, words, quota, window] of rows) {
    it(words, () => {
      assert.deepEqual([rule.id, rule.quota, rule.window], [words, quota, window]);
    });
  }

  it("what the server would refuse is refused", () => {
    for (const wrong of [
      () => Rule.sliding(1.5, "1m"),
      () => Rule.sliding(-1, "1m"),
      () => Rule.sliding(5, "1 minute"),
      () => Rule.sliding(5, NaN),
      () => Rule.tokenBucket(5, 1e-9),
      () => Rule.tokenBucket(5, 0),
      () => Rule.tokenBucket(5, "m"),
    ]) {
      assert.throws(wrong, RangeError);
    }
    assert.throws(() => new Client({} as never), TypeError);
  });
});

/** A denial of one limit. */
function denial(wait: number | null): MultiDecision {
  const one = { allowed: false, limit: 5, remaining: 0, wait, reset: 9000 };
  return { allowed: false, wait, refused: 0, limits: [one] };
}

describe("DenialCache", () => {
  it("remembers a denial until its wait is over, and never longer", () => {
    const cache = new DenialCache();
    cache.add("k", "r", 1, denial(1000), 100);
    assert.equal(cache.get("k", "r", 1, 100)?.wait, 1000);
    const later = cache.get("k", "r", 1, 700.5);
    assert.deepEqual([later?.wait, later?.limits[0]?.wait, later?.limits[0]?.reset], [400, 400, 8400]);
    assert.equal(cache.get("k", "r", 1, 1099.9)?.wait, 1);
    assert.equal(cache.get("k", "r", 1, 1100), null);
    assert.equal(cache.length, 0);
  });

  it("stands for requests of the same cost under the same rules: for others the wait is another", () => {
    const cache = new DenialCache();
    cache.add("k", "r", 3, denial(1000), 0);
    assert.equal(cache.get("k", "r", 2, 1), null);
    assert.equal(cache.get("k", "r", 4, 1), null);
    assert.equal(cache.get("k", "bigger plan", 3, 1), null);
    assert.ok(cache.get("k", "r", 3, 1));
  });

  it("does not remember a denial that may be older than a refund", () => {
    const cache = new DenialCache();
    const sent = performance.now();
    cache.forget("k");
    cache.add("k", "r", 1, denial(1000), sent);
    assert.equal(cache.length, 0);
    const later = performance.now() + 1;
    cache.add("k", "r", 1, denial(1000), later);
    assert.ok(cache.get("k", "r", 1, later));
  });

  it("remembers no grant, and no denial without an end", () => {
    const cache = new DenialCache();
    cache.add("a", "r", 1, denial(null), 0);
    cache.add("b", "r", 1, { ...denial(5), allowed: true }, 0);
    assert.equal(cache.length, 0);
  });

  it("is bounded, and the least recently used goes first", () => {
    const cache = new DenialCache(100);
    for (let at = 0; at < 100_000; at += 1) {
      cache.add(`k${at}`, "r", 1, denial(1000), 0);
      assert.ok(at === 0 || cache.get("k0", "r", 1, 1) !== null);
      if (at % 1000 === 0) assert.ok(cache.length <= 100);
    }
    assert.equal(cache.length, 100);
    assert.equal(cache.get("k500", "r", 1, 1), null);
    cache.forget("k0");
    assert.equal(cache.get("k0", "r", 1, 1), null);
    cache.forget();
    assert.equal(cache.length, 0);
    const none = new DenialCache(0);
    none.add("k", "r", 1, denial(1000), 0);
    assert.equal(none.length, 0);
  });
});

describe("LocalLimiter", () => {
  const keyed = (rule: Rule, key = "k"): KeyedRule[] => [{ key, rule }];

  it("no span of a window passes more than the limit", () => {
    const local = new LocalLimiter();
    const granted: number[] = [];
    // A fixed seed, and steps from 0 to 40 ms.
    let seed = 7;
    for (let now = 0; now < 20_000; now += (seed = (seed * 48271) % 2147483647) % 41) {
      if (local.decide(keyed(Rule.sliding(5, 1000)), 1, now).allowed) granted.push(now);
    }
    assert.ok(granted.length > 80, `${granted.length}`);
    for (const [at, first] of granted.entries()) {
      const sixth = granted[at + 5];
      if (sixth !== undefined) assert.ok(sixth - first >= 1000);
    }
  });

  it("a denied request is granted at its wait, and not before", () => {
    for (const rule of [Rule.sliding(3, 1000), Rule.fixedWindow(3, 1000), Rule.tokenBucket(3, 10)]) {
      const local = new LocalLimiter();
      for (let at = 0; at < 3; at += 1) assert.ok(local.decide(keyed(rule), 1, at).allowed);
      const { wait } = local.decide(keyed(rule), 1, 10);
      assert.ok(wait !== null && wait > 0);
      assert.equal(local.decide(keyed(rule), 1, 10 + wait - 2).allowed, false, rule.id);
      assert.equal(local.decide(keyed(rule), 1, 10 + wait).allowed, true, rule.id);
    }
  });

  it("a leaky bucket tells when to start", () => {
    const local = new LocalLimiter();
    const rule = Rule.leakyBucket(3, 10);
    assert.deepEqual(
      [1, 2, 3].map(() => local.decide(keyed(rule), 1, 0).wait),
      [0, 100, 200],
    );
    assert.equal(local.decide(keyed(rule), 1, 0).allowed, false);
  });

  it("several limits: all grant, or nothing is taken from any", () => {
    const local = new LocalLimiter();
    const limits = [...keyed(Rule.sliding(2, 1000), "a"), ...keyed(Rule.sliding(9, 1000), "b")];
    const remaining = [1, 2, 3, 4].map(() => local.decide(limits, 1, 0).limits[1]?.remaining);
    assert.deepEqual(remaining, [8, 7, 7, 7]);
    assert.equal(local.decide(limits, 1, 0).refused, 0);
  });

  it("each of four instances applies a quarter, and 1 at least; 0 stays 0", () => {
    const grants = (limit: number, local = new LocalLimiter(4)) =>
      Array.from({ length: 30 }, () => local.decide(keyed(Rule.sliding(limit, 1000)), 1, 0)).filter(
        (one) => one.allowed,
      );
    assert.deepEqual([grants(20).length, grants(3).length, grants(0).length], [5, 1, 0]);
  });

  it("is bounded", () => {
    const local = new LocalLimiter(1, 100);
    for (let at = 0; at < 1000; at += 1) local.decide(keyed(Rule.sliding(5, 1000), `k${at}`), 1, 0);
    assert.equal(local.length, 100);
  });
});

describe("Breaker", () => {
  it("asks once an interval, and closes at an answer, a refusal too", async () => {
    const breaker = new Breaker(0);
    let asked = 0;
    const ask = (answer: () => Promise<unknown>) => {
      breaker.probe(
        () => {
          asked += 1;
          return answer();
        },
        (error) => error === "away",
      );
    };
    ask(() => Promise.resolve());
    assert.equal(asked, 0);
    breaker.failed();
    ask(() => Promise.reject("away" as never));
    await new Promise(setImmediate);
    assert.deepEqual([asked, breaker.isOpen], [1, true]);
    ask(() => Promise.reject("refused" as never));
    await new Promise(setImmediate);
    assert.deepEqual([asked, breaker.isOpen], [2, false]);
    // Once a second, unless it is said otherwise.
    const clock = mock.method(performance, "now", () => 5000);
    const usual = new Breaker();
    usual.failed();
    for (const now of [5999, 6000, 6500, 7000]) {
      clock.mock.mockImplementation(() => now);
      usual.probe(
        () => Promise.resolve((asked += 1)).then(() => Promise.reject("away" as never)),
        (error) => error === "away",
      );
    }
    clock.mock.restore();
    assert.equal(asked, 4);
    const slow = new Breaker(3_600_000);
    slow.failed();
    slow.probe(
      () => assert.fail("asked too early"),
      () => true,
    );
    assert.equal(slow.isOpen, true);
  });
});

describe("identify", () => {
  it("a header of 64 KB that is made to be slow is read at once", () => {
    const trust = new Trust({ cidrs: ["10.0.0.0/8"], header: "forwarded" });
    for (const evil of ['\\"'.repeat(32_000), "for=10.0.0.1,".repeat(5000), '"'.repeat(64_000), "=;".repeat(32_000)]) {
      const started = performance.now();
      try {
        identify("10.0.0.1", [["Forwarded", evil]], trust);
      } catch (error) {
        assert.ok(error instanceof IdentityError);
      }
      assert.ok(performance.now() - started < 1000);
    }
  });
});
