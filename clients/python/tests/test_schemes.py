"""Every scheme that the storage for `limits` registers, with both libraries, both ways, on real servers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from limits import RateLimitItemPerHour
from limits.aio.strategies import STRATEGIES as ASYNC_STRATEGIES
from limits.storage import storage_from_string
from limits.strategies import STRATEGIES
from servers import Certificates, Cluster, Replicated, Server, speaks_tls

import redis_rl.limits  # noqa: F401
from redis_rl import Client, connect, connect_async

FIVE = RateLimitItemPerHour(5)
SYNC: dict[str, Any] = dict(STRATEGIES)
ASYNC: dict[str, Any] = dict(ASYNC_STRATEGIES)
LIBRARIES = ("redis", "valkey")


@pytest.fixture(scope="module", params=["plain", "tls"])
def tls(request: pytest.FixtureRequest) -> Certificates | None:
    if request.param == "plain":
        return None
    if not speaks_tls():
        pytest.skip("this server was built without TLS")
    return Certificates()


@pytest.fixture(scope="module", params=["", "+sentinel", "+cluster"])
def place(request: pytest.FixtureRequest, tls: Certificates | None) -> Iterator[str]:
    """What follows `redis` or `rediss` and `-rl` in a URI."""
    servers: Any = {"": Server, "+sentinel": Replicated, "+cluster": Cluster}[request.param](tls=tls)
    if request.param == "+sentinel":
        yield f"+sentinel://{servers.addresses}/main"
    else:
        yield f"{request.param}://{getattr(servers, 'addresses', None) or servers.address}"
    servers.end()


def test_every_scheme(tls: Certificates | None, place: str) -> None:
    scheme = f"{'rediss' if tls else 'redis'}-rl{place}"
    # The scheme alone says that it is TLS.
    options: dict[str, Any] = {"ssl_ca_certs": tls.authority} if tls else {}

    async def grants(uri: str, library: str) -> list[bool]:
        storage: Any = storage_from_string(
            uri, implementation=library, timeout=30, key_prefix=f"a-{library}", **options
        )
        strategy: Any = ASYNC["sliding-window-counter"](storage)
        assert await storage.check()
        found = [await strategy.hit(FIVE, "user") for _ in range(6)]
        assert (await strategy.get_window_stats(FIVE, "user")).remaining == 0
        await storage.storage.aclose()
        return found

    for library in LIBRARIES:
        storage: Any = storage_from_string(
            scheme, implementation=library, timeout=30, key_prefix=f"s-{library}", **options
        )
        strategy: Any = SYNC["sliding-window-counter"](storage)
        assert storage.check()
        assert [strategy.hit(FIVE, "user") for _ in range(6)] == [True] * 5 + [False]
        assert strategy.get_window_stats(FIVE, "user").remaining == 0
        assert type(storage.storage).__module__.split(".")[0] == library
        assert asyncio.run(grants(f"async+{scheme}", library)) == [True] * 5 + [False]


def test_a_server_that_cannot_prove_who_it_is_is_not_believed() -> None:
    if not speaks_tls():
        pytest.skip("this server was built without TLS")
    server, other = Server(tls=Certificates()), Certificates()
    for library in LIBRARIES:
        storage: Any = storage_from_string(
            f"rediss-rl://{server.address}", implementation=library, timeout=30, ssl_ca_certs=other.authority
        )
        with pytest.raises(storage.base_exceptions, match="certificate"):
            storage.incr("user", 60)
    server.end()


@pytest.mark.parametrize("made", [connect, connect_async])
@pytest.mark.parametrize("library", LIBRARIES)
def test_what_is_for_the_server_is_for_the_sentinels_too_unless_they_have_their_own(library: str, made: Any) -> None:
    url = "rediss+sentinel://ann:sesame@127.0.0.1:1,127.0.0.1:2/main"

    async def settings(**options: Any) -> list[Any]:
        manager = made(url, implementation=library, use_replicas=True, **options).connection_pool.sentinel_manager
        return [one.connection_pool.connection_kwargs for one in manager.sentinels]

    for found in asyncio.run(settings()):
        assert (found["username"], found["password"]) == ("ann", "sesame")
    for found in asyncio.run(settings(sentinel_kwargs={"username": None, "password": None})):
        assert (found["username"], found["password"], found["socket_timeout"]) == (None, None, 0.05)


def test_a_pool_of_your_own(server: Server) -> None:
    pool = redis.ConnectionPool.from_url(server.url)
    storage: Any = storage_from_string("redis-rl://", connection_pool=pool)  # type: ignore[arg-type]
    assert storage.incr("user", 60) == 1
    assert storage.storage.connection_pool is pool
    assert Client(connect("redis://", connection_pool=pool)).peek("nobody") is None
