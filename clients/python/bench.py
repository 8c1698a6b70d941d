"""Each library's own Redis store and redis-rl's, side by side, as a Markdown table.

RL_MODULE and RL_SERVER name the module and the server, as for test.sh.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

sys.path.insert(0, str(Path(__file__).parent / "tests"))
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "django_settings")

import django
import flask
import flask_limiter
from django.test import override_settings
from fastapi import FastAPI, Request, Response
from limits import RateLimitItemPerSecond
from limits.storage import storage_from_string
from limits.strategies import (
    FixedWindowRateLimiter,
    MovingWindowRateLimiter,
    SlidingWindowCounterRateLimiter,
)
from redis.connection import AbstractConnection
from servers import Server
from slowapi import Limiter
from starlette.testclient import TestClient

import redis_rl.limits

REQUESTS = 2000
TEN = RateLimitItemPerSecond(10, 2)
WINDOW = 2.0
OWN: dict[str, Any] = {
    "fixed-window": FixedWindowRateLimiter,
    "moving-window": MovingWindowRateLimiter,
    "sliding-window-counter": SlidingWindowCounterRateLimiter,
}
OURS = dict(redis_rl.limits.strategies.STRATEGIES)
MANY = "1000000/hour"


def round_trips(server: Server, ask: Callable[[], object]) -> tuple[float, float, int]:
    """Round trips and bytes to the server for each request, and requests a second."""
    for _ in range(20):
        ask()  # connections, scripts
    sent = [0]
    send = AbstractConnection.send_packed_command

    def counting(self: Any, *args: Any, **options: Any) -> Any:
        sent[0] += 1
        return send(self, *args, **options)

    before = server.connection.info("stats")["total_net_input_bytes"]
    began = time.perf_counter()
    for _ in range(REQUESTS):
        ask()
    took = time.perf_counter() - began
    read = server.connection.info("stats")["total_net_input_bytes"] - before
    with patch.object(AbstractConnection, "send_packed_command", counting):
        for _ in range(100):
            ask()
    return sent[0] / 100, read / REQUESTS, round(REQUESTS / took)


def most_granted(hit: Callable[[], bool]) -> int:
    """Under one hit, a pause nearly to the window's end, and then as many as there can be: the most in any window."""
    began = time.monotonic()
    granted = [began] if hit() else []
    time.sleep(WINDOW - 0.1)
    while time.monotonic() < began + 3 * WINDOW:
        if hit():
            granted.append(time.monotonic())
        time.sleep(0.002)
    # Times of this process: a hundredth of a second of leeway.
    return max(sum(start <= at < start + WINDOW - 0.01 for at in granted) for start in granted)


def charged(strategy: Any) -> int:
    """The units that a refused request of 6 costs, of 10 units with 4 left."""
    item = RateLimitItemPerSecond(10, 3600)
    strategy.hit(item, "cost", cost=6)
    assert not strategy.hit(item, "cost", cost=6)
    return 4 - sum(strategy.hit(item, "cost") for _ in range(4))


def flask_client(uri: str, strategy: str, limit: str) -> Callable[[], object]:
    app = flask.Flask("bench")
    limiter = flask_limiter.Limiter(lambda: "u", app=app, storage_uri=uri, strategy=strategy, headers_enabled=True)
    app.add_url_rule("/", view_func=limiter.limit(limit)(lambda: "hello"))
    client = app.test_client()
    return lambda: client.get("/")


def slow_client(uri: str, strategy: str) -> Callable[[], object]:
    limiter = Limiter(lambda: "u", storage_uri=uri, strategy=strategy, headers_enabled=True)
    app = FastAPI()
    app.state.limiter = limiter

    async def index(request: Request, response: Response) -> str:
        return "hello"

    app.get("/")(limiter.limit(MANY)(index))
    client = TestClient(app)
    return lambda: client.get("/")


def rows(server: Server) -> Iterator[tuple[Any, ...]]:
    # A busy machine must not end it: the timeout is long.
    ours = f"{server.url}?socket_timeout=30".replace("redis", "redis-rl", 1)
    for name, own in OWN.items():
        theirs = patch.dict(redis_rl.limits.strategies.STRATEGIES, {name: own})
        for store, uri, kind in (("its own", server.url, own), ("redis-rl", ours, OURS[name])):
            for limit, title in ((MANY, "1 limit"), (f"{MANY};1000000/day;1000000/month", "3 limits")):
                server.connection.flushall()
                if kind is own:
                    theirs.start()
                figures = round_trips(server, flask_client(uri, name, limit))
                if kind is own:
                    theirs.stop()
                strategy = kind(storage_from_string(uri))
                faults = (
                    (most_granted(lambda s=strategy: s.hit(TEN, "u")), charged(strategy)) if limit == MANY else "  "
                )
                yield (f"flask-limiter, {name}, {title}", store, *figures, *faults)
        for store, uri, kind in (("its own", server.url, own), ("redis-rl", ours, OURS[name])):
            server.connection.flushall()
            with patch.dict(redis_rl.limits.strategies.STRATEGIES, {name: kind}):
                yield (f"slowapi, {name}, 1 limit", store, *round_trips(server, slow_client(uri, name)), "", "")
    yield from throttles(server)


def throttles(server: Server) -> Iterator[tuple[Any, ...]]:
    django.setup()
    import test_drf
    from rest_framework import throttling
    from rest_framework.test import APIRequestFactory

    from redis_rl import drf

    cache = {"default": {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": server.url}}
    request = APIRequestFactory().get("/")
    for store, base in (("its own", throttling.AnonRateThrottle), ("redis-rl", drf.AnonRateThrottle)):
        server.connection.flushall()
        # Its own keeps a list of all requests of the window: so the limit is one that is granted.
        throttle = type("Throttle", (base,), {"rate": "3000/hour"})
        with override_settings(CACHES=cache, REDIS_RL={"TIMEOUT": 30}):
            view = test_drf.view(throttle)
            yield (
                "djangorestframework, 3000/hour",
                store,
                *round_trips(server, lambda v=view: v(request)),
                "",
                "",
            )


def main() -> None:
    server = Server()
    print("| | store | round trips | bytes to the server | requests/s | most granted, of 10 | charged for a refusal |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    try:
        for title, store, trips, size, speed, granted, charge in rows(server):
            print(f"| {title} | {store} | {trips:g} | {size:.0f} | {speed:,} | {granted} | {charge} |", flush=True)
    finally:
        server.end()


if __name__ == "__main__":
    main()
