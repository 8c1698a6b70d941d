"""Each library's own Redis store and redis-rl's, side by side, as a Markdown table on standard output.

    round trips, bytes   a request that is granted, header fields on
    requests/s           the two stores take turns, ten requests each; medians over the turns
    most granted         units in the fullest window of 2 s, of 10, to a client that waits for the edge of a window
    charged              units that a refused request costs: one of 6, of 10 with 4 left;
                         with several limits, what those that would have granted lose to the one that refuses

RL_MODULE and RL_SERVER name the module and the server, as for test.sh.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

sys.path.insert(0, str(Path(__file__).parent / "tests"))
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "django_settings")

import django
import flask
import flask_limiter
import slowapi
from django.test import override_settings
from fastapi import FastAPI, Request, Response
from limits import RateLimitItemPerHour, RateLimitItemPerSecond, parse
from limits.storage import storage_from_string
from limits.strategies import STRATEGIES
from redis.connection import AbstractConnection
from servers import Server
from starlette.testclient import TestClient

# Before the import below replaces them.
OWN: dict[str, Any] = dict(STRATEGIES)

import redis_rl.flask
import redis_rl.slowapi

OURS: dict[str, Any] = dict(STRATEGIES)

ROUNDS = 150
REQUESTS = 10
WARM_UP = 20
COUNTED = 100
WINDOW = 2.0
TEN = RateLimitItemPerSecond(10, 2)
ONE_LIMIT = "1000000/hour"
THREE_LIMITS = f"{ONE_LIMIT};1000000/day;1000000/month"

Ask = Callable[[], object]


@dataclass
class Store:
    """A library with one of the two stores."""

    name: str
    ask: Ask
    granted: str = ""
    charged: str = ""


def round_trips(server: Server, ask: Ask) -> tuple[float, float]:
    """Round trips and bytes to the server for each request."""
    for _ in range(WARM_UP):
        ask()  # connections, scripts
    sent = [0]
    send = AbstractConnection.send_packed_command

    def counting(self: Any, *args: Any, **options: Any) -> Any:
        sent[0] += 1
        return send(self, *args, **options)

    with patch.object(AbstractConnection, "send_packed_command", counting):
        before = read_bytes(server)
        asking = read_bytes(server) - before
        for _ in range(COUNTED):
            ask()
        read = read_bytes(server) - before - 2 * asking
    return (sent[0] - 3) / COUNTED, read / COUNTED


def read_bytes(server: Server) -> int:
    return int(server.connection.info("stats")["total_net_input_bytes"])


def speed(ask: Ask) -> float:
    began = time.perf_counter()
    for _ in range(REQUESTS):
        ask()
    return REQUESTS / (time.perf_counter() - began)


def rows(server: Server, library: str, stores: list[Store]) -> Iterator[str]:
    speeds: dict[str, list[float]] = {store.name: [] for store in stores}
    figures = {store.name: round_trips(server, store.ask) for store in stores}
    for _ in range(ROUNDS):
        for store in stores:
            speeds[store.name].append(speed(store.ask))
    for store in stores:
        trips, size = figures[store.name]
        cells = (library, store.name, f"{trips:g}", f"{size:.0f}", f"{median(speeds[store.name]):,.0f}")
        yield f"| {' | '.join((*cells, store.granted, store.charged))} |"


def most_granted(hit: Callable[[], bool]) -> str:
    """Under one hit, a pause nearly to the window's end, and then as many as there can be: the most in any window."""
    began = time.monotonic()
    granted = [began] if hit() else []
    time.sleep(WINDOW - 0.1)
    while time.monotonic() < began + 3 * WINDOW:
        if hit():
            granted.append(time.monotonic())
        time.sleep(0.002)
    # Times of this process: a hundredth of a second of leeway.
    return str(max(sum(start <= at < start + WINDOW - 0.01 for at in granted) for start in granted))


def charged(strategy: Any) -> str:
    item = RateLimitItemPerHour(10)
    strategy.hit(item, "cost", cost=6)
    assert not strategy.hit(item, "cost", cost=6)
    return f"{4 - sum(strategy.hit(item, 'cost') for _ in range(4))} of the 4 left"


class Setup:
    """Applications with one of the two stores."""

    def __init__(self, name: str, uri: str, strategies: dict[str, Any], flask: Any, slow: Any) -> None:
        self.name = name
        self.uri = uri
        self.strategies = strategies
        self.flask_limiter = flask
        self.slow_limiter = slow

    def strategy(self, name: str) -> Any:
        return self.strategies[name](storage_from_string(self.uri))

    def faults(self, name: str) -> tuple[str, str]:
        strategy = self.strategy(name)
        return most_granted(lambda: strategy.hit(TEN, "u")), charged(strategy)

    def flask_client(self, name: str, limit: str) -> tuple[Any, Any]:
        app = flask.Flask("bench")
        with patch.dict(STRATEGIES, self.strategies):
            limiter = self.flask_limiter(
                lambda: "u", app=app, storage_uri=self.uri, strategy=name, headers_enabled=True
            )
        app.add_url_rule("/", "index", limiter.limit(limit)(lambda: "hello"))
        return limiter, app.test_client()

    def charged_elsewhere(self, name: str) -> str:
        """What the limit of a minute loses while the limit of an hour refuses."""
        limiter, client = self.flask_client(name, "100/minute;5/hour")
        assert [client.get("/").status_code for _ in range(6)] == [200] * 5 + [429]
        left = limiter.limiter.get_window_stats(parse("100/minute"), "u", "index").remaining
        return f"{100 - 5 - left} of another limit"

    def slow_client(self, name: str, limit: str) -> Any:
        with patch.dict(STRATEGIES, self.strategies):
            limiter = self.slow_limiter(lambda: "u", storage_uri=self.uri, strategy=name, headers_enabled=True)
        app = FastAPI()
        app.state.limiter = limiter

        async def index(request: Request, response: Response) -> str:
            return "hello"

        app.get("/")(limiter.limit(limit)(index))
        return TestClient(app)


def limits_rows(server: Server, setups: list[Setup]) -> Iterator[str]:
    for name in OWN:
        server.connection.flushall()
        faults = {setup.name: setup.faults(name) for setup in setups}

        def store(setup: Setup, client: Any, granted: str, charged: str) -> Store:
            return Store(setup.name, lambda: client.get("/"), granted, charged)

        one = [store(setup, setup.flask_client(name, ONE_LIMIT)[1], *faults[setup.name]) for setup in setups]
        yield from rows(server, f"flask-limiter, {name}", one)
        elsewhere = {setup.name: setup.charged_elsewhere(name) for setup in setups}
        three = [store(setup, setup.flask_client(name, THREE_LIMITS)[1], "", elsewhere[setup.name]) for setup in setups]
        yield from rows(server, "the same with three limits", three)
        slow = [store(setup, setup.slow_client(name, ONE_LIMIT), *faults[setup.name]) for setup in setups]
        yield from rows(server, f"slowapi, {name}", slow)
        three = [store(setup, setup.slow_client(name, THREE_LIMITS), "", "") for setup in setups]
        yield from rows(server, "the same with three limits", three)


def throttle_rows(server: Server) -> Iterator[str]:
    django.setup()
    import test_drf
    from rest_framework import throttling
    from rest_framework.test import APIRequestFactory

    from redis_rl import drf

    cache = {"default": {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": server.url}}
    request = APIRequestFactory().get("/")
    request.user = None
    server.connection.flushall()

    def store(name: str, base: Any) -> Store:
        # Its own reads and writes a list of all requests of the window: the more there are, the more bytes it takes.
        throttle = type("Throttle", (base,), {"rate": "3000/hour", "scope": "many"})
        view = test_drf.view(throttle)
        ten = type("Ten", (base,), {"rate": "10/s", "scope": "ten", "parse_rate": lambda self, rate: (10, 2)})
        granted = most_granted(lambda: ten().allow_request(request, None))
        return Store(name, lambda: view(request), granted, "0")

    with override_settings(CACHES=cache, REDIS_RL={"TIMEOUT": 30}):
        stores = [store("its own", throttling.AnonRateThrottle), store("redis-rl", drf.AnonRateThrottle)]
        yield from rows(
            server, f"Django REST framework, {WARM_UP} to {WARM_UP + COUNTED} requests in the window", stores
        )


def main() -> None:
    server = Server()
    # A busy machine must not end it: the timeout is long.
    ours = f"{server.url}?socket_timeout=30".replace("redis", "redis-rl", 1)
    setups = [
        Setup("its own", server.url, OWN, flask_limiter.Limiter, slowapi.Limiter),
        Setup("redis-rl", ours, OURS, redis_rl.flask.Limiter, redis_rl.slowapi.Limiter),
    ]
    print(
        "| library | store | round trips | bytes to the server | requests/s "
        "| most granted, of 10 | charged for a refusal |"
    )
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: |")
    try:
        for row in chain(limits_rows(server, setups), throttle_rows(server)):
            print(row, flush=True)
    finally:
        server.end()


if __name__ == "__main__":
    main()
