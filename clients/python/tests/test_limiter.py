"""What surrounds a decision: floods, shadow mode, and a server that is away, stopped, killed or restarted."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from redis.exceptions import DataError, ResponseError
from servers import Cluster, Server, wait_until

from redis_rl import (
    AsyncLimiter,
    Decision,
    DenialCache,
    IdentityError,
    Limiter,
    LocalLimiter,
    MultiDecision,
    Outcome,
    Rule,
    Trust,
    connect,
    connect_async,
)
from redis_rl.breaker import Breaker

FIVE = {"burst": Rule.sliding(5, "1h")}
TWO = {"burst": Rule.sliding(5, "1h"), "daily": Rule.fixed_window(3, "1d")}


def limiters(url: str, rules: dict[str, Rule], **options: Any) -> Any:
    """Both kinds, as functions that check."""
    limiter = Limiter.from_url(url, rules, **options)
    yield limiter, limiter.check
    loop = asyncio.new_event_loop()

    async def make() -> AsyncLimiter:
        return AsyncLimiter.from_url(url, rules, prefix="async", **options)

    other = loop.run_until_complete(make())

    async def checked(*args: Any) -> Outcome:
        # The loop of an application runs all the time, and sees that a server has closed a connection.
        for _ in range(3):
            await asyncio.sleep(0)
        return await other.check(*args)

    yield other, lambda *args: loop.run_until_complete(checked(*args))
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()


def test_one_rule_is_one_command(server: Server) -> None:
    for limiter, check in limiters(server.url, FIVE, timeout=30):
        outcomes = [check("user:42") for _ in range(6)]
        assert [outcome.allowed for outcome in outcomes] == [True] * 5 + [False]
        assert [outcome.status for outcome in outcomes[4:]] == [200, 429]
        assert outcomes[0].fields() == [("RateLimit-Policy", '"burst";q=5;w=3600'), ("RateLimit", '"burst";r=4')]
        assert dict(outcomes[5].fields())["Retry-After"] == "3600"
        assert outcomes[5].problem()["violated-policies"] == ["burst"]
        assert limiter.counters == {"redis": 6, "denied": 1}
    assert server.calls() == {"RL.SLIDING": 12}
    assert sorted(server.connection.keys()) == [b"async:{user:42}:burst", b"rl:{user:42}:burst"]


def test_several_rules_are_one_command_and_a_refusal_charges_nothing(server: Server) -> None:
    for _, check in limiters(server.url, TWO, timeout=30):
        outcomes = [check("user:42", 1) for _ in range(4)]
        assert [outcome.allowed for outcome in outcomes] == [True] * 3 + [False]
        assert dict(outcomes[3].fields())["RateLimit"] == '"burst";r=2, "daily";r=0;t=86400'
        assert outcomes[3].problem()["violated-policies"] == ["daily"]
    assert server.calls() == {"RL.MULTI": 8}


def test_all_limits_of_a_client_are_in_one_slot(cluster: Cluster) -> None:
    for limiter, check in limiters(f"redis+cluster://{cluster.addresses}", TWO, timeout=30):
        for number in range(20):
            assert check(f"user:{number}").source == "redis"
        assert limiter.counters == {"redis": 20}


def test_a_flood_reaches_the_server_once_per_wait(server: Server) -> None:
    for limiter, check in limiters(server.url, FIVE, timeout=30):
        outcomes = [check("user:42") for _ in range(10_005)]
        assert sum(outcome.allowed for outcome in outcomes) == 5
        assert limiter.counters == {"redis": 6, "cache": 9_999, "denied": 10_000}
        assert outcomes[-1].problem()["violated-policies"] == ["burst"]
    assert server.calls() == {"RL.SLIDING": 12}


def test_a_settlement_or_a_reset_ends_a_remembered_denial(server: Server) -> None:
    limiter = Limiter.from_url(server.url, FIVE, timeout=30)
    assert limiter.check("user:42", 5).allowed
    assert not limiter.check("user:42").allowed
    limiter.settle("user:42", 5, 3)
    assert limiter.check("user:42", 2).allowed
    assert not limiter.check("user:42").allowed
    assert limiter.reset("user:42") == 1
    assert limiter.check("user:42").allowed


def test_a_block_after_several_denials_is_not_kept_from_the_server(server: Server) -> None:
    limiter = Limiter.from_url(server.url, {"login": Rule.sliding(1, "1m").block("1h", after=3)}, timeout=30)
    waits = [limiter.check("user:42").decision for _ in range(4)]
    assert [decision.wait > 60 for decision in waits if decision and decision.wait is not None] == [
        False,
        False,
        False,
        True,
    ]


def denial(wait: float | None, cost: int = 1) -> MultiDecision:
    return MultiDecision.of([Decision(False, 5, 0, wait, 9.0)])


def test_a_denial_is_remembered_until_its_wait_is_over_and_not_longer() -> None:
    cache = DenialCache()
    cache.add("a", 1, denial(2.0), 100.0)
    rows = [(100.0, 2.0), (101.5, 0.5), (101.999, 0.001)]
    for now, wait in rows:
        found = cache.get("a", 1, now)
        assert found is not None
        assert found.wait == pytest.approx(wait)
        assert found.limits[0].reset == pytest.approx(7.0 + wait)
    assert cache.get("a", 1, 102.0) is None
    assert len(cache) == 0


def test_a_denial_stands_for_the_same_cost_for_others_the_wait_is_another() -> None:
    cache = DenialCache()
    cache.add("a", 3, denial(2.0), 100.0)
    assert [cache.get("a", cost, 101.0) is None for cost in (2, 3, 4)] == [True, False, True]


def test_a_denial_that_may_be_older_than_a_refund_is_not_remembered() -> None:
    cache = DenialCache()
    sent = time.monotonic()
    cache.forget("a")
    cache.add("a", 1, denial(2.0), sent)
    assert cache.get("a", 1, sent) is None
    later = time.monotonic() + 1
    cache.add("a", 1, denial(2.0), later)
    assert cache.get("a", 1, later) is not None


def test_a_grant_and_a_denial_without_an_end_are_not_remembered() -> None:
    cache = DenialCache()
    cache.add("a", 1, denial(None), 100.0)
    cache.add("b", 1, MultiDecision.of([Decision(True, 5, 4, 0.0, 9.0)]), 100.0)
    assert len(cache) == 0


def test_what_is_remembered_is_bounded() -> None:
    cache = DenialCache(1000)
    for number in range(100_000):
        cache.add(f"user:{number}", 1, denial(60.0), 100.0)
        assert cache.get("user:0", 1, 100.0) is not None
    # The least recently used went first.
    assert (len(cache), cache.get("user:1", 1, 100.0)) == (1000, None)


def test_a_limiter_in_the_process_is_bounded() -> None:
    local = LocalLimiter(FIVE, size=1000)
    for number in range(10_000):
        local.decide(f"user:{number}", 1, 100.0)
    assert len(local) == 1000


@pytest.mark.parametrize("rule", [Rule.sliding(50, 10), Rule.sliding_log(50, 10), Rule.fixed_window(50, 10)])
def test_the_limiter_in_the_process_grants_its_part_and_no_more_in_any_window(rule: Rule) -> None:
    local = LocalLimiter({"burst": rule}, instances=5)
    granted = [at / 10 for at in range(1000) if local.decide("a", 1, at / 10).allowed]
    assert len(granted) >= 60
    for start in granted:
        assert sum(start <= at < start + 10 for at in granted) <= 10


def test_units_that_share_an_entry_leave_with_its_last() -> None:
    local = LocalLimiter({"burst": Rule.sliding(10, 10)})
    assert local.decide("a", 1, 100.0).allowed
    assert local.decide("a", 9, 100.5).allowed
    assert [local.decide("a", 1, now).allowed for now in (110.0, 110.4, 110.5)] == [False, False, True]


def test_the_limiter_in_the_process_says_when_it_grants() -> None:
    for rule in (Rule.sliding(3, 10), Rule.token_bucket(3, "3/10")):
        local = LocalLimiter({"burst": rule})
        assert [local.decide("a", 1, 100.0).limits[0].remaining for _ in range(3)] == [2, 1, 0]
        denied = local.decide("a", 2, 100.0)
        assert not denied.allowed
        assert denied.wait is not None
        assert not local.decide("a", 2, 100.0 + denied.wait - 0.01).allowed
        assert local.decide("a", 2, 100.0 + denied.wait + 0.001).allowed
        assert local.decide("a", 4, 100.0).wait is None


def test_a_queue_in_the_process_delays() -> None:
    local = LocalLimiter({"queue": Rule.leaky_bucket(3, "1/2")})
    assert [local.decide("a", 1, 100.0).wait for _ in range(3)] == [0, 2, 4]
    assert not local.decide("a", 1, 100.0).allowed


def test_the_limiter_in_the_process_takes_all_or_nothing() -> None:
    local = LocalLimiter(TWO)
    assert [local.decide("a", 1, 100.0).allowed for _ in range(4)] == [True, True, True, False]
    assert local.decide("a", 0, 100.0).limits[0].remaining == 2


@pytest.mark.parametrize(
    ("fail", "allowed", "statuses"),
    [("open", [True] * 4, {200}), ("closed", [False] * 4, {503}), ("local", [True, True, False, False], {200, 429})],
)
def test_what_happens_while_the_server_is_away(
    own_server: Server, fail: Any, allowed: list[bool], statuses: set[int]
) -> None:
    events: list[tuple[Any, ...]] = []
    options = {"fail": fail, "instances": 2, "on_event": lambda *event: events.append(event)}
    own_server.kill()
    for limiter, check in limiters(own_server.url, {"burst": Rule.sliding(4, "1h")}, **options):
        outcomes: list[Outcome] = [check("user:42") for _ in range(4)]
        assert [outcome.allowed for outcome in outcomes] == allowed
        assert {outcome.status for outcome in outcomes} == statuses
        assert {outcome.source for outcome in outcomes} == {fail}
        assert limiter.counters[fail] == 4
        assert sum(event == fail for event, _, _ in events) == 4
        assert all(who == "user:42" for _, who, _ in events)
        if fail == "closed":
            assert outcomes[0].fields() == [("Retry-After", "1")]
            assert outcomes[0].problem()["type"].endswith("#temporary-reduced-capacity")  # type: ignore[attr-defined]
        if fail == "open":
            assert outcomes[0].fields() == []
        events.clear()


def is_asked(check: Callable[[str], Outcome]) -> bool:
    return check("user:42").source == "redis"


def has_asked(limiter: Limiter, times: int) -> bool:
    return limiter.counters.get("redis", 0) > times


def slowest(check: Callable[[str], Outcome], count: int) -> float:
    """The 99th percentile of what a request waits."""
    took = []
    for _ in range(count):
        began = time.perf_counter()
        check("user:42")
        took.append(time.perf_counter() - began)
    return sorted(took)[count * 99 // 100]


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_a_server_that_goes_away_costs_one_timeout_and_no_restart_of_the_application(
    own_server: Server, how: str
) -> None:
    for limiter, check in limiters(own_server.url, {"many": Rule.token_bucket(10**9, 10**6)}, timeout=1):
        assert check("user:42").source == "redis"
        own_server.stop() if how == "stop" else own_server.kill()
        # The one that waits for it. A busy machine may take longer, never less.
        began = time.perf_counter()
        assert check("user:42").source == "open"
        assert time.perf_counter() - began >= 0.99 or how == "kill"
        assert limiter.breaker.is_open
        # Over a second, so it is asked again meanwhile: in the background.
        end = time.monotonic() + 1.5
        took = []
        while time.monotonic() < end:
            took.append(slowest(check, 200))
        # Nobody waits for the server. (A busy machine may delay some, but not all.)
        assert max(took) < 0.9
        assert min(took) < 0.002
        own_server.go_on() if how == "stop" else own_server.start()
        wait_until(partial(is_asked, check))


def test_a_killed_server_is_noticed_when_it_is_back(own_server: Server) -> None:
    for limiter, check in limiters(own_server.url, FIVE, timeout=30):
        assert check("user:42").source == "redis"
        own_server.kill()
        assert check("user:42").source == "open"
        own_server.start()
        wait_until(partial(is_asked, check))
        assert not limiter.breaker.is_open


def test_a_restart_between_two_requests_costs_no_error(own_server: Server) -> None:
    for limiter, check in limiters(own_server.url, FIVE, timeout=30):
        assert check("user:42").source == "redis"
        own_server.kill()
        own_server.start()
        assert check("user:42").source == "redis"
        assert limiter.counters == {"redis": 2}


@pytest.mark.parametrize("library", ["redis", "valkey"])
def test_a_late_reply_is_nobody_elses(own_server: Server, library: str) -> None:
    async def work() -> None:
        connection = connect_async(own_server.url, implementation=library, timeout=30)
        impatient = AsyncLimiter(connection, FIVE, timeout=0.2)
        patient = AsyncLimiter(connection, {"seven": Rule.sliding(7, "1h")}, timeout=30)
        assert (await patient.check("user:42")).source == "redis"
        own_server.stop()
        # It was sent, and will be answered when nobody waits any more.
        assert (await impatient.check("user:42")).source == "open"
        own_server.go_on()
        for remaining in (5, 4, 3):
            decision = (await patient.check("user:42")).decision
            assert decision is not None
            assert (decision.limits[0].limit, decision.limits[0].remaining) == (7, remaining)

    asyncio.run(work())


def test_threads_under_load_see_a_server_come_back(own_server: Server) -> None:
    limiter = Limiter.from_url(own_server.url, {"many": Rule.token_bucket(10**9, 10**6)})
    done = threading.Event()
    errors: list[BaseException] = []

    def load() -> None:
        try:
            while not done.is_set():
                assert limiter.check("user:42").allowed
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=load) for _ in range(8)]
    for thread in threads:
        thread.start()
    try:
        for change in (own_server.kill, own_server.start, own_server.stop, own_server.go_on):
            before = limiter.counters.get("redis", 0)
            change()
            if change in (own_server.kill, own_server.stop):
                wait_until(lambda: limiter.breaker.is_open)
            else:
                wait_until(partial(has_asked, limiter, before + 100))
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert errors == []


def test_a_refusal_of_one_call_does_not_open_the_breaker(server: Server) -> None:
    server.connection.set("rl:{user:42}:burst", "text")
    server.connection.set("async:{user:42}:burst", "text")
    for limiter, check in limiters(server.url, FIVE, timeout=30):
        assert check("user:42").source == "open"
        assert check("user:1").source == "redis"
        assert not limiter.breaker.is_open


def test_a_fault_of_the_program_is_no_outage(server: Server) -> None:
    limiter = Limiter.from_url(server.url, FIVE, timeout=30)
    with pytest.raises(DataError):
        limiter.check("user:42", object())  # type: ignore[arg-type]
    with pytest.raises(DataError):
        asyncio.run(AsyncLimiter.from_url(server.url, FIVE, timeout=30).check("user:42", object()))  # type: ignore[arg-type]


def test_one_of_many_probes_once_an_interval() -> None:
    breaker = Breaker(interval=60)
    assert not breaker.is_open
    breaker.failed()
    calls: list[int] = []
    for _ in range(100):
        breaker.probe(lambda: calls.append(1))
    assert (calls, breaker.is_open) == ([], True)
    breaker.interval = 0
    breaker.probe(lambda: calls.append(1))
    wait_until(lambda: not breaker.is_open)
    assert calls == [1]


def test_a_refusal_is_an_answer_to_a_probe() -> None:
    def refused() -> None:
        raise ResponseError("NOPERM")

    async def refused_too() -> None:
        raise ResponseError("NOPERM")

    async def work() -> None:
        task = breaker.probe_async(refused_too)
        assert task is not None
        await task

    breaker = Breaker(interval=0)
    breaker.failed()
    breaker.probe(refused)
    wait_until(lambda: not breaker.is_open)
    breaker.failed()
    asyncio.run(work())
    assert not breaker.is_open


def test_shadow_mode_decides_and_counts_and_lets_pass(server: Server) -> None:
    events: list[str] = []
    for limiter, check in limiters(
        server.url, FIVE, timeout=30, shadow=True, on_event=lambda event, *_: events.append(event)
    ):
        outcomes = [check("user:42") for _ in range(7)]
        assert [outcome.allowed for outcome in outcomes] == [True] * 7
        assert [outcome.decision.allowed for outcome in outcomes if outcome.decision] == [True] * 5 + [False] * 2
        assert all(outcome.fields() == [] for outcome in outcomes)
        assert limiter.counters == {"redis": 6, "cache": 1, "denied": 2, "shadow": 2}
    assert events == ["shadow"] * 4


def test_a_client_that_cannot_be_identified_shares_no_key(server: Server) -> None:
    error = IdentityError("no-header", "the proxy sends no header")
    opened = Limiter.from_url(server.url, FIVE).unidentified(error)
    closed = Limiter.from_url(server.url, FIVE, fail="closed").unidentified(error)
    assert (opened.status, closed.status, server.calls()) == (200, 503, {})


@pytest.mark.parametrize(
    ("rules", "options"),
    [
        ({}, {}),
        ({"größe": Rule.sliding(5, 60)}, {}),
        ({"jobs": Rule.concurrency(5, 60, "a")}, {}),
        ({"burst": Rule.sliding(5, 60)}, {"fail": "ajar"}),
    ],
)
def test_a_wrong_setup_is_refused_at_once(rules: Any, options: Any) -> None:
    with pytest.raises(ValueError):
        Limiter.from_url("redis://127.0.0.1:1", rules, **options)


def test_a_wrong_url_is_refused_at_once() -> None:
    for url in ("redis+carrier-pigeon://a:1", "redis+cluster://a"):
        with pytest.raises(ValueError):
            connect(url)
    with pytest.raises(IdentityError):
        Trust(count=1, cidrs=("10.0.0.0/8",))
