"""The storage for `limits`, by itself and through flask-limiter and slowapi over HTTP."""

from __future__ import annotations

import asyncio
import threading
import time
from functools import partial
from typing import Any

import flask
import flask_limiter
import httpx
import pytest
import slowapi
from fastapi import FastAPI, Request, Response
from limits import RateLimitItemPerHour, RateLimitItemPerMinute, RateLimitItemPerSecond, parse
from limits.aio.strategies import STRATEGIES as ASYNC_STRATEGIES
from limits.errors import StorageError
from limits.storage import MemoryStorage, storage_from_string
from limits.strategies import STRATEGIES, FixedWindowRateLimiter
from servers import Cluster, Replicated, Server, wait_until
from slowapi.errors import RateLimitExceeded
from starlette.testclient import TestClient

import redis_rl.limits
from redis_rl import Unavailable

SYNC: dict[str, Any] = dict(STRATEGIES)
ASYNC: dict[str, Any] = dict(ASYNC_STRATEGIES)
ALL = sorted(STRATEGIES)
COMMANDS = {
    "fixed-window": "RL.FIXEDWINDOW",
    "leaky-bucket": "RL.LEAKYBUCKET",
    "moving-window": "RL.SLIDINGLOG",
    "sliding-window-counter": "RL.SLIDING",
    "token-bucket": "RL.TOKENBUCKET",
}
FIVE = RateLimitItemPerHour(5)


class Blocking:
    """An asynchronous strategy as if it were a synchronous one, so that one test serves both."""

    def __init__(self, strategy: Any, loop: asyncio.AbstractEventLoop) -> None:
        self.strategy = strategy
        self.loop = loop

    def __getattr__(self, name: str) -> Any:
        return lambda *args, **options: self.loop.run_until_complete(getattr(self.strategy, name)(*args, **options))


def both(url: str, strategy: str, **options: Any) -> Any:
    """The strategy, synchronous and asynchronous, on storages that the library made of a URI."""
    options = {"timeout": 30, **options}
    url = url.replace("redis", "redis-rl", 1)
    storage = storage_from_string(url, **options)
    yield SYNC[strategy](storage), storage
    loop = asyncio.new_event_loop()
    other = storage_from_string(f"async+{url}", key_prefix="ASYNC", **options)
    yield Blocking(ASYNC[strategy](other), loop), Blocking(other, loop)
    loop.close()


def test_the_strategies_are_those_of_the_library_and_two_more() -> None:
    assert ALL == sorted(COMMANDS) == sorted(ASYNC_STRATEGIES)


@pytest.mark.parametrize("name", [name for name in ALL if name != "leaky-bucket"])
def test_each_strategy_is_one_command_a_request_stats_included(server: Server, name: str) -> None:
    for strategy, _ in both(server.url, name):
        server.forget_calls()
        rows = []
        for _ in range(6):
            granted = strategy.hit(FIVE, "user", "route")
            rows.append((granted, strategy.get_window_stats(FIVE, "user", "route").remaining))
        assert rows == [(True, 4), (True, 3), (True, 2), (True, 1), (True, 0), (False, 0)]
        assert server.calls() == {COMMANDS[name]: 6}
        # Another client, and another limit, have their own.
        assert strategy.hit(FIVE, "other", "route")
        assert strategy.hit(RateLimitItemPerMinute(5), "user", "route")


@pytest.mark.parametrize("name", [name for name in ALL if name != "leaky-bucket"])
def test_a_denied_cost_is_not_kept(server: Server, name: str) -> None:
    ten = RateLimitItemPerHour(10)
    for strategy, _ in both(server.url, name):
        assert [strategy.hit(ten, "user", cost=cost) for cost in (6, 6, 1, 4)] == [True, False, True, False]
        assert strategy.test(ten, "user", cost=3)
        assert not strategy.test(ten, "user", cost=4)
        assert not strategy.hit(ten, "other", cost=11)
        assert not strategy.test(ten, "other", cost=11)
        assert strategy.test(ten, "other", cost=10)
        assert strategy.get_window_stats(ten, "user").remaining == 3


@pytest.mark.parametrize("name", ALL)
def test_a_key_may_be_used_by_all_strategies_and_is_cleared_for_all(server: Server, name: str) -> None:
    for strategy, storage in both(server.url, name):
        for other in sorted({*ALL} - {"leaky-bucket"}):
            if isinstance(strategy, Blocking):
                Blocking(ASYNC[other](storage.strategy), storage.loop).hit(FIVE, "user", cost=5)
            else:
                SYNC[other](storage).hit(FIVE, "user", cost=5)
        strategy.clear(FIVE, "user")
        assert strategy.get_window_stats(FIVE, "user").remaining == 5
        assert strategy.hit(FIVE, "user")


def test_the_limit_of_any_window_is_kept(server: Server) -> None:
    two_seconds = RateLimitItemPerSecond(10, 2)
    for strategy, _ in both(server.url, "sliding-window-counter"):
        began = time.monotonic()
        granted = []
        # A burst at the end of a window, and then as fast as it goes.
        strategy.hit(two_seconds, "user")
        granted.append(began)
        time.sleep(1.8)
        while time.monotonic() < began + 4.5:
            sent = time.monotonic()
            if strategy.hit(two_seconds, "user"):
                granted.append(sent)
            time.sleep(0.005)
        assert len(granted) >= 11
        # Times of this process: a grant may be older than it looks, so a hundredth of leeway.
        for start in granted:
            assert sum(start <= at < start + 1.99 for at in granted) <= 10


def keys(server: Server) -> list[bytes]:
    return list(server.ask("KEYS", "*"))


def test_a_reset_time_is_not_too_early(server: Server) -> None:
    for strategy, _ in both(server.url, "moving-window"):
        for _ in range(6):
            strategy.hit(FIVE, "user")
        left = [server.ask("RL.PEEK", key)[3] for key in keys(server)]
        now = time.time()
        reset = strategy.get_window_stats(FIVE, "user").reset_time
        assert reset == int(reset)
        assert now + min(left) / 1000 <= reset <= now + 3602


def test_stats_without_a_request_before_ask_the_server_and_take_nothing(server: Server) -> None:
    for strategy, storage in both(server.url, "token-bucket", stats_max_age=0):
        assert strategy.get_window_stats(FIVE, "user").remaining == 5
        strategy.hit(FIVE, "user", cost=2)
        assert [strategy.get_window_stats(FIVE, "user").remaining for _ in range(3)] == [3, 3, 3]
        assert storage.check()


def test_a_leaky_bucket_paces(server: Server) -> None:
    ten = RateLimitItemPerSecond(10)
    for strategy, _ in both(server.url, "leaky-bucket"):
        began = time.monotonic()
        assert all(strategy.hit(ten, "user") for _ in range(6))
        # The first goes ahead at once, each of the others a tenth of a second later.
        assert time.monotonic() - began >= 0.49


def test_the_librarys_own_classes_work_with_the_storage(server: Server) -> None:
    storage = storage_from_string(server.url.replace("redis", "redis-rl"), timeout=30)
    strategy = FixedWindowRateLimiter(storage)
    server.forget_calls()
    assert [strategy.hit(FIVE, "user") for _ in range(6)] == [True] * 5 + [False]
    assert strategy.get_window_stats(FIVE, "user").remaining == 0
    assert server.calls() == {"RL.FIXEDWINDOW": 6}


@pytest.mark.parametrize("name", ALL)
def test_another_storage_has_the_librarys_own_strategies(name: str) -> None:
    memory = MemoryStorage()
    strategy = SYNC[name](memory)
    assert [strategy.hit(FIVE, "user") for _ in range(6)] == [True] * 5 + [False]
    assert not strategy.test(FIVE, "user")
    assert strategy.get_window_stats(FIVE, "user").remaining == 0

    async def other() -> list[bool]:
        strategy = ASYNC[name](storage_from_string("async+memory://"))
        assert await strategy.test(FIVE, "user")
        await strategy.get_window_stats(FIVE, "user")
        return [await strategy.hit(FIVE, "user") for _ in range(6)]

    assert asyncio.run(other()) == [True] * 5 + [False]


def test_reset_forgets_the_keys_with_the_prefix_and_no_others(server: Server) -> None:
    server.connection.set("LIMITSX", 1)
    server.connection.set("user:42", 1)
    for strategy, storage in both(server.url, "fixed-window"):
        for number in range(20):
            strategy.hit(FIVE, str(number))
        assert storage.reset() == 20
        assert strategy.get_window_stats(FIVE, "1").remaining == 5
    assert sorted(keys(server)) == [b"LIMITSX", b"user:42"]


def test_remembered_denials_reach_the_server_once(server: Server) -> None:
    for strategy, _ in both(server.url, "sliding-window-counter", denial_cache=100):
        server.forget_calls()
        assert sum(strategy.hit(FIVE, "user") for _ in range(1000)) == 5
        assert server.calls() == {"RL.SLIDING": 6}
        strategy.clear(FIVE, "user")
        assert strategy.hit(FIVE, "user")


@pytest.mark.parametrize("name", ALL)
def test_a_cluster(cluster: Cluster, name: str) -> None:
    for strategy, storage in both(f"redis+cluster://{cluster.addresses}", name):
        for number in range(10):
            assert strategy.hit(FIVE, f"{{{number}}}")
            assert strategy.get_window_stats(FIVE, f"{{{number}}}").remaining == 4
        strategy.clear(FIVE, "{0}")
        assert storage.reset() == 9


def test_a_failover_under_load(replicated: Replicated) -> None:
    """Both libraries, both ways."""
    url = f"redis-rl+sentinel://{replicated.addresses}/main"
    million = RateLimitItemPerSecond(1_000_000)
    done = threading.Event()
    granted = {(library, way): 0 for library in ("redis", "valkey") for way in ("sync", "async")}
    faults: list[Exception] = []

    def load(library: str) -> None:
        strategy = SYNC["token-bucket"](storage_from_string(url, timeout=1, implementation=library))
        while not done.is_set():
            try:
                granted[library, "sync"] += strategy.hit(million, "user")
            except strategy.storage.base_exceptions:
                time.sleep(0.01)
            except Exception as error:
                faults.append(error)

    async def load_async(library: str) -> None:
        storage: Any = storage_from_string(f"async+{url}", timeout=1, implementation=library)
        strategy = ASYNC["token-bucket"](storage)
        while not done.is_set():
            try:
                granted[library, "async"] += await strategy.hit(million, "user")
            except strategy.storage.base_exceptions:
                await asyncio.sleep(0.01)
            except Exception as error:
                faults.append(error)
        await storage.storage.aclose()

    threads = []
    for library in ("redis", "valkey"):
        threads += [threading.Thread(target=load, args=(library,)) for _ in range(2)]
        threads += [threading.Thread(target=lambda name=library: asyncio.run(load_async(name)))]
    for thread in threads:
        thread.start()
    try:
        wait_until(lambda: min(granted.values()) > 10)
        replicated.primary.kill()
        wait_until(lambda: replicated.replica.connection.info("replication")["role"] == "master")
        before = dict(granted)
        wait_until(lambda: all(granted[one] > before[one] + 100 for one in granted))
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert faults == []


def test_a_server_that_is_away_raises_at_once_and_is_asked_again(own_server: Server) -> None:
    url = own_server.url.replace("redis", "redis-rl")
    for wrapped, expected in ((True, StorageError), (False, Unavailable)):
        strategy = SYNC["fixed-window"](storage_from_string(url, wrap_exceptions=wrapped, timeout=30))
        assert strategy.hit(FIVE, "user")
        own_server.kill()
        with pytest.raises((*strategy.storage.base_exceptions, StorageError)):
            strategy.hit(FIVE, "user")
        with pytest.raises(expected):
            strategy.hit(FIVE, "user")
        assert not strategy.storage.check()
        own_server.start()
        wait_until(partial(works, strategy))


def works(strategy: Any) -> bool:
    try:
        return bool(strategy.hit(FIVE, "user"))
    except (StorageError, *strategy.storage.base_exceptions):
        return False


def test_the_async_storage_recovers_too(own_server: Server) -> None:
    async def work() -> None:
        storage = storage_from_string(own_server.url.replace("redis", "async+redis-rl"), timeout=1)
        strategy = ASYNC["fixed-window"](storage)
        assert await strategy.hit(FIVE, "user")
        own_server.stop()
        with pytest.raises(asyncio.TimeoutError):
            await strategy.hit(FIVE, "user")
        with pytest.raises(Unavailable):
            await strategy.hit(FIVE, "user")
        own_server.go_on()
        for _ in range(6000):
            try:
                assert await strategy.hit(FIVE, "user")
                return
            except Unavailable:
                await asyncio.sleep(0.01)
        raise AssertionError("waited in vain")

    asyncio.run(work())


# ---- flask-limiter


def flask_app(url: str, strategy: str, limit: str = "5/hour", **options: Any) -> Any:
    app = flask.Flask("shop")
    limiter = flask_limiter.Limiter(
        lambda: flask.request.headers.get("X-User", "nobody"),
        app=app,
        storage_uri=url.replace("redis", "redis-rl"),
        storage_options={"timeout": 30},
        strategy=strategy,
        headers_enabled=True,
        **options,
    )

    @app.get("/")
    @limiter.limit(limit)
    def index() -> str:
        return "hello"

    return app


@pytest.mark.parametrize("name", [name for name in ALL if name != "leaky-bucket"])
def test_flask_limiter_asks_once_a_request(server: Server, name: str) -> None:
    client = flask_app(server.url, name).test_client()
    server.forget_calls()
    responses = [client.get("/") for _ in range(6)]
    assert [response.status_code for response in responses] == [200] * 5 + [429]
    assert [int(response.headers["X-RateLimit-Remaining"]) for response in responses] == [4, 3, 2, 1, 0, 0]
    assert server.calls() == {COMMANDS[name]: 6}
    wait_ms = server.ask("RL.PEEK", keys(server)[0])[3]
    assert wait_ms / 1000 <= int(responses[5].headers["Retry-After"]) <= 3602
    assert client.get("/", headers={"X-User": "another"}).status_code == 200


def test_flask_limiter_asks_once_for_each_of_several_limits(server: Server) -> None:
    client = flask_app(server.url, "sliding-window-counter", "5/minute;50/hour;100/day").test_client()
    server.forget_calls()
    assert client.get("/").headers["X-RateLimit-Remaining"] == "4"
    assert server.calls() == {"RL.SLIDING": 3}


def test_flask_limiter_falls_back_and_recovers(own_server: Server) -> None:
    app = flask_app(own_server.url, "token-bucket", in_memory_fallback=["2/hour"])
    client = app.test_client()
    assert client.get("/").headers["X-RateLimit-Limit"] == "5"
    own_server.kill()
    assert [client.get("/").status_code for _ in range(3)] == [200, 200, 429]
    own_server.start()
    wait_until(lambda: client.get("/").headers["X-RateLimit-Limit"] == "5")


def test_flask_limiter_lets_pass_if_it_is_to(own_server: Server) -> None:
    client = flask_app(own_server.url, "moving-window", swallow_errors=True).test_client()
    own_server.kill()
    assert [client.get("/").status_code for _ in range(7)] == [200] * 7


def test_flask_limiter_grants_exactly_the_limit_to_a_hundred_at_once(server: Server) -> None:
    app = flask_app(server.url, "sliding-window-counter", "30/hour")
    statuses: list[int] = []
    threads = [
        threading.Thread(target=lambda: statuses.append(app.test_client().get("/").status_code)) for _ in range(100)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [200] * 30 + [429] * 70


# ---- slowapi


def slow_app(url: str, strategy: str) -> FastAPI:
    limiter = slowapi.Limiter(
        key_func=lambda: "nobody",
        storage_uri=url.replace("redis", "redis-rl"),
        storage_options={"timeout": 30},  # type: ignore[dict-item]
        strategy=strategy,
        headers_enabled=True,
    )
    app = FastAPI()
    app.state.limiter = limiter
    app.add_exception_handler(RateLimitExceeded, slowapi._rate_limit_exceeded_handler)  # type: ignore[arg-type]

    @app.get("/async")
    @limiter.limit("5/hour")
    async def one(request: Request, response: Response) -> str:
        return "hello"

    @app.get("/sync")
    @limiter.limit("5/hour")
    def other(request: Request, response: Response) -> str:
        return "hello"

    return app


@pytest.mark.parametrize("path", ["/async", "/sync"])
@pytest.mark.parametrize("name", [name for name in ALL if name != "leaky-bucket"])
def test_slowapi_asks_once_a_request(server: Server, name: str, path: str) -> None:
    with TestClient(slow_app(server.url, name)) as client:
        server.forget_calls()
        responses: list[httpx.Response] = [client.get(path) for _ in range(6)]
    assert [response.status_code for response in responses] == [200] * 5 + [429]
    assert [int(response.headers["X-RateLimit-Remaining"]) for response in responses] == [4, 3, 2, 1, 0, 0]
    assert 3598 <= int(responses[5].headers["Retry-After"]) <= 3602 or name == "token-bucket"
    assert server.calls() == {COMMANDS[name]: 6}


def test_a_limit_of_zero_denies_everything(server: Server) -> None:
    zero = parse("0/hour")
    for name in ALL:
        for strategy, _ in both(server.url, name):
            assert not strategy.hit(zero, "user")


def test_a_key_prefix_is_read_as_it_is(server: Server) -> None:
    storage: Any = redis_rl.limits.RedisRLStorage(server.url, key_prefix="a*[b]", timeout=30)
    server.connection.set("ax[b]:{", 1)
    assert storage.incr("user", 60) == 1
    assert storage.reset() == 1
    assert keys(server) == [b"ax[b]:{"]
