"""Every command, over every kind of connection."""

from __future__ import annotations

import asyncio
import threading
import time
from datetime import timedelta
from typing import Any

import pytest
from servers import Cluster, Replicated, Server, wait_until

from redis_rl import (
    AsyncClient,
    Busy,
    Client,
    Decision,
    LeaseLost,
    MultiDecision,
    Rule,
    connect,
    connect_async,
)
from redis_rl.rule import microseconds, rate_word

LIBRARIES = ["redis", "valkey"]


class Blocking:
    """An AsyncClient as if it were a Client, so that one test serves both."""

    def __init__(self, url: str, **options: Any) -> None:
        self.loop = asyncio.new_event_loop()
        self.connection = self.run(self.make(url, options))
        self.client = AsyncClient(self.connection)

    @staticmethod
    async def make(url: str, options: dict[str, Any]) -> Any:
        return connect_async(url, **options)

    def run(self, work: Any) -> Any:
        return self.loop.run_until_complete(work)

    def __getattr__(self, name: str) -> Any:
        return lambda *args, **options: self.run(getattr(self.client, name)(*args, **options))

    def close(self) -> None:
        self.run(self.connection.aclose())
        self.loop.close()


def each_client(url: str) -> Any:
    """Both libraries, both ways. A busy machine must not fail a test: the timeout is long."""
    for library in LIBRARIES:
        connection = connect(url, implementation=library, timeout=30)
        yield Client(connection)
        connection.close()
        client = Blocking(url, implementation=library, timeout=30)
        yield client
        client.close()


AT = 1_800_000_000_000_000


def every_command(client: Any, tag: str) -> None:
    """Each command replies as docs/commands.md says."""

    def key(name: str) -> str:
        return f"{{{tag}}}:{name}"

    decision = client.token_bucket(key("bucket"), 10, "10/1h")
    assert (decision.allowed, decision.limit, decision.remaining, decision.wait) == (True, 10, 9, 0)
    partial = client.token_bucket(key("bucket"), 10, (10, "1h"), cost=20, partial=True)
    assert (partial.granted, partial.remaining) == (9, 0)
    assert client.token_bucket(key("bucket"), 10, "10/1h", cost=5, force=True).allowed
    denied = client.token_bucket(key("bucket"), 10, "10/1h", cost=11)
    assert (denied.allowed, denied.wait) == (False, None)

    assert client.leaky_bucket(key("queue"), 2, "1/m").wait == 0
    delay = client.leaky_bucket(key("queue"), 2, "1/m").wait
    assert 0 < delay <= 60

    assert client.fixed_window(key("fixed"), 5, timedelta(hours=1), cost=2).remaining == 3
    assert client.fixed_window(key("month"), 5, "month", align="-8h").remaining == 4
    assert client.sliding(key("sliding"), 5, 3600, buckets=32).remaining == 4
    assert client.info(key("sliding"))["buckets"] == 32
    assert client.sliding_log(key("log"), 5, 3600.5).remaining == 4
    assert client.info(key("log"))["window_us"] == 3_600_500_000
    assert client.decide(key("log"), Rule.sliding_log(5, 3600.5), cost=4).remaining == 0

    rules = [
        (key("multi:s"), Rule.token_bucket(10, "10/1m")),
        (key("multi:d"), Rule.fixed_window(5000, "1d").costing(4000)),
        (key("multi:c"), Rule.concurrency(2, "30s", b"a")),
    ]
    multi = client.multi(rules)
    assert isinstance(multi, MultiDecision)
    assert (multi.allowed, multi.wait, multi.refused) == (True, 0, None)
    assert [one.remaining for one in multi.limits] == [9, 1000, 1]
    refused = client.multi(rules)
    assert (refused.allowed, refused.refused) == (False, 1)
    assert refused.wait == refused.limits[1].wait > 0
    assert client.release(key("multi:c"), b"a") == 1

    assert client.peek(key("sliding")).remaining == 4
    assert client.peek(key("nobody")) is None
    assert client.info(key("nobody")) is None
    assert client.info(key("sliding"))["algorithm"] == "SLIDING"
    assert client.refund(key("fixed"), 1).remaining == 4
    assert client.refund(key("nobody"), 1) is None
    settled, nothing = client.settle([key("fixed"), key("nobody")], 1, 3)
    assert (settled.remaining, nothing) == (2, None)
    assert client.settle(key("fixed"), 2, 1)[0].remaining == 3
    assert client.reset(key("fixed"), key("nobody")) == 1
    throttled = client.throttle(key("cell"), 15, 30, 60)
    assert (throttled.limited, throttled.limit, throttled.remaining, throttled.retry_after) == (False, 16, 15, -1)

    assert client.acquire(key("jobs"), 2, "30s", "w1").remaining == 1
    assert client.acquire(key("jobs"), 2, "30s", b"w2").allowed
    busy = client.acquire(key("jobs"), 2, "30s", "w3")
    assert not busy.allowed
    assert 0 < busy.wait <= 30
    assert client.renew(key("jobs"), "30s", "w1", "w3") == 1
    assert [(lease.id, lease.units) for lease in client.leases(key("jobs"), count=1)] == [(b"w2", 1)]
    assert client.release(key("jobs"), "w1", "w2") == 2
    assert client.leases(key("jobs")) == []

    blocked = Rule.token_bucket(1, "1/1m").block("10m", after=2)
    assert [client.decide(key("blocked"), blocked).allowed for _ in range(3)] == [True, False, False]
    assert client.peek(key("blocked")).wait > 500


@pytest.mark.parametrize("protocol", [2, 3])
def test_every_command_on_one_server(server: Server, protocol: int) -> None:
    for number, client in enumerate(each_client(f"{server.url}?protocol={protocol}")):
        every_command(client, f"u{number}")


def test_every_command_in_a_cluster(cluster: Cluster) -> None:
    for number, client in enumerate(each_client(f"redis+cluster://{cluster.addresses}")):
        # Clients in each of the three nodes.
        for letter in "abc":
            every_command(client, f"{letter}{number}")


def test_a_cluster_is_not_asked_which_words_are_keys(cluster: Cluster) -> None:
    for number, client in enumerate(each_client(f"redis+cluster://{cluster.addresses}")):
        tag = f"{{getkeys{number}}}"
        limits = [(f"{tag}:a", Rule.sliding(9, 60)), (f"{tag}:b", Rule.sliding(9, 60))]
        client.multi(limits)
        for one in cluster.servers:
            one.forget_calls()
        client.multi(limits)
        assert [one.calls() for one in cluster.servers if one.calls()] == [{"RL.MULTI": 1}]
        # Not even as COMMAND GETKEYS, which calls() leaves out.
        assert not any("getkeys" in name for one in cluster.servers for name in one.connection.info("commandstats"))


def test_a_client_follows_a_failover(replicated: Replicated) -> None:
    url = f"redis+sentinel://{replicated.addresses}/main"
    clients = list(each_open_client(url))
    for client in clients:
        assert client.sliding("user:42", 100, 60).allowed
    replicated.primary.kill()
    for client in clients:

        def granted(client: Any = client) -> bool:
            try:
                return bool(client.sliding("user:42", 100, 60).allowed)
            except Exception:
                return False

        wait_until(granted)
    assert replicated.replica.connection.info("replication")["role"] == "master"
    for client in clients:
        getattr(client, "close", client.connection.close)()


def each_open_client(url: str) -> Any:
    for library in LIBRARIES:
        yield Client(connect(url, implementation=library, timeout=1))
        yield Blocking(url, implementation=library, timeout=1)


@pytest.mark.parametrize(("kind", "limit"), [("token_bucket", 50), ("sliding", 50), ("fixed_window", 50)])
def test_a_hundred_clients_on_one_key_get_exactly_the_limit(server: Server, kind: str, limit: int) -> None:
    granted: list[bool] = []

    def ask() -> None:
        client = Client(connect(server.url, timeout=30))
        take = getattr(client, kind)
        argument = "1/1d" if kind == "token_bucket" else "1d"
        granted.extend(take("one", limit, argument).allowed for _ in range(3))

    threads = [threading.Thread(target=ask) for _ in range(100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(granted), sum(granted)) == (300, limit)


def test_a_decision_reads_in_seconds() -> None:
    decision = Decision.from_reply([0, 5, 0, 1500, 2001])
    assert (decision.wait, decision.reset, decision.granted) == (1.5, 2.001, None)
    assert decision.reply == (0, 5, 0, 1500, 2001)
    assert decision.later(0.5).wait == 1.0
    assert Decision.from_reply([0, 5, 5, -1, 0]).wait is None


@pytest.mark.parametrize(
    ("duration", "us"),
    [(1, 1_000_000), (0.1, 100_000), ("500ms", 500_000), ("2d", 172_800_000_000), (timedelta(seconds=2), 2_000_000)],
)
def test_a_duration_is_exact(duration: Any, us: int) -> None:
    assert microseconds(duration) == us


@pytest.mark.parametrize("wrong", ["", "x", "1 fortnight", "1/0", "1M"])
def test_what_is_no_duration_is_refused(wrong: str) -> None:
    with pytest.raises(ValueError, match="a duration is"):
        microseconds(wrong)


def test_a_rate_is_exact() -> None:
    assert [rate_word(rate) for rate in (10, 0.1, "100/m", (5, 0.25))] == ["10", "1/10", "100/m", "5/250000us"]
    assert (Rule.token_bucket(10, "100/m").quota, Rule.token_bucket(10, "100/m").window) == (100, 60)


def test_a_lease_is_renewed_while_the_body_runs_and_released(server: Server) -> None:
    client = Client(connect(server.url, timeout=30))
    with client.lease("jobs", 1, 3) as lease:
        with pytest.raises(Busy), client.lease("jobs", 1, 3):
            pass
        left = client.leases("jobs")[0].left
        # It only falls, until it is renewed. Were it never, this would end with no lease.
        while (now := client.leases("jobs")[0].left) <= left:
            left = now
            time.sleep(0.01)
        lease.check()
    assert client.leases("jobs") == []


def test_a_lease_is_released_if_the_body_fails(server: Server) -> None:
    client = Client(connect(server.url, timeout=30))
    with pytest.raises(KeyError), client.lease("jobs", 1, 30):
        raise KeyError
    assert client.leases("jobs") == []


def test_a_body_is_told_that_its_lease_is_lost(server: Server) -> None:
    client = Client(connect(server.url, timeout=30))
    with client.lease("jobs", 1, 0.6) as lease:
        server.connection.delete("jobs")
        wait_until(lambda: lease.lost)
        with pytest.raises(LeaseLost):
            lease.check()


def test_an_async_body_is_cancelled_if_its_lease_is_lost(server: Server) -> None:
    async def work() -> None:
        client = AsyncClient(connect_async(server.url, timeout=30))
        async with client.lease("jobs", 1, 0.6):
            server.connection.delete("jobs")
            await asyncio.sleep(60)

    with pytest.raises(LeaseLost):
        asyncio.run(work())


def test_an_async_body_is_cancelled_if_the_server_is_away(own_server: Server) -> None:
    async def work() -> None:
        client = AsyncClient(connect_async(own_server.url, timeout=30))
        async with client.lease("jobs", 1, 3):
            own_server.kill()
            await asyncio.sleep(60)

    with pytest.raises(LeaseLost):
        asyncio.run(work())


def test_an_async_lease_is_renewed_and_released_even_if_the_body_is_cancelled(server: Server) -> None:
    async def body(client: AsyncClient, running: asyncio.Event) -> None:
        async with client.lease("jobs", 1, 3):
            running.set()
            await asyncio.sleep(60)

    async def work() -> None:
        client = AsyncClient(connect_async(server.url, timeout=30))
        running = asyncio.Event()
        task = asyncio.create_task(body(client, running))
        await running.wait()
        with pytest.raises(Busy):
            async with client.lease("jobs", 1, 3):
                pass
        left = (await client.leases("jobs"))[0].left
        while (now := (await client.leases("jobs"))[0].left) <= left:
            left = now
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await client.leases("jobs") == []

    asyncio.run(work())
