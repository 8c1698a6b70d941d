"""The ASGI middleware and the FastAPI dependency, over HTTP with a real server."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import Depends, FastAPI, Request
from servers import Cluster, Server, wait_until
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from redis_rl import AsyncLimiter, FieldError, Rule, Trust, key_part
from redis_rl.asgi import RateLimitMiddleware
from redis_rl.fastapi import RateLimit, use_problem_json

FIVE = {"burst": Rule.sliding(5, "1h")}
TWO = {"burst": Rule.sliding(5, "1h"), "daily": Rule.fixed_window(3, "1d")}


@contextmanager
def serving(app: Any) -> Iterator[httpx.Client]:
    """The application on a port of loopback."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", proxy_headers=False))
    thread = threading.Thread(target=server.run)
    thread.start()
    wait_until(lambda: server.started)
    try:
        port = server.servers[0].sockets[0].getsockname()[1]
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            yield client
    finally:
        server.should_exit = True
        thread.join()


def starlette_app(*arguments: Any, **options: Any) -> Any:
    async def hello(request: Any) -> PlainTextResponse:
        return PlainTextResponse("hello", headers={"X-Own": "kept"})

    async def chat(socket: WebSocket) -> None:
        await socket.accept()
        await socket.close()

    app = Starlette(routes=[Route("/", hello), WebSocketRoute("/chat", chat)])
    app.add_middleware(RateLimitMiddleware, *arguments, **options)
    return app


def test_a_middleware_limits_and_says_so(server: Server) -> None:
    with serving(starlette_app(url=server.url, rules=FIVE, timeout=30)) as client:
        responses = [client.get("/") for _ in range(7)]
    assert [response.status_code for response in responses] == [200] * 5 + [429] * 2
    first, last = responses[0], responses[5]
    assert (first.text, first.headers["X-Own"]) == ("hello", "kept")
    assert first.headers["RateLimit-Policy"] == '"burst";q=5;w=3600'
    assert first.headers["RateLimit"] == '"burst";r=4'
    assert "Retry-After" not in first.headers
    wait = last.headers["Retry-After"]
    assert last.headers["RateLimit"] == f'"burst";r=0;t={wait}'
    assert 0 < int(wait) <= 3600
    assert last.headers["Content-Type"] == "application/problem+json"
    assert last.json()["violated-policies"] == ["burst"]
    # The second denial was remembered.
    assert server.calls() == {"RL.SLIDING": 6}


def test_several_limits_are_one_command(server: Server) -> None:
    with serving(starlette_app(url=server.url, rules=TWO, timeout=30)) as client:
        responses = [client.get("/") for _ in range(4)]
    assert [response.status_code for response in responses] == [200] * 3 + [429]
    assert responses[0].headers["RateLimit"] == '"burst";r=4, "daily";r=2'
    assert responses[3].headers["RateLimit"].startswith('"burst";r=2, "daily";r=0;t=')
    assert responses[3].json()["violated-policies"] == ["daily"]
    assert server.calls() == {"RL.MULTI": 4}


@pytest.mark.parametrize(
    ("form", "name", "value"),
    [
        ("draft-6", "RateLimit-Remaining", "4"),
        ("draft-7", "RateLimit", "limit=5, remaining=4, reset=3600"),
        ("x-ratelimit", "X-RateLimit-Remaining", "4"),
    ],
)
def test_older_forms(server: Server, form: Any, name: str, value: str) -> None:
    with serving(starlette_app(url=server.url, rules=FIVE, timeout=30, form=form)) as client:
        assert client.get("/").headers[name] == value


def test_forged_headers_are_nobody_else_and_clients_of_a_proxy_are_told_apart(server: Server) -> None:
    app = starlette_app(url=server.url, rules=FIVE, timeout=30, trust=Trust(cidrs=("127.0.0.0/8",)))
    with serving(app) as client:
        forged = [client.get("/", headers={"X-Forwarded-For": f"1.1.1.{n}, 203.0.113.9"}) for n in range(6)]
        apart = [client.get("/", headers={"X-Forwarded-For": f"203.0.114.{n}"}) for n in range(6)]
        nobody = [client.get("/") for _ in range(9)]
    assert [response.status_code for response in forged] == [200] * 5 + [429]
    assert [response.status_code for response in apart] == [200] * 6
    # The proxy sends no header: the setup is wrong, and nobody shares a key.
    assert [response.status_code for response in nobody] == [200] * 9
    keys = server.ask("KEYS", "*")
    assert sorted(keys)[0] == b"rl:{ip:203.0.113.9}:burst"
    assert len(keys) == 7


def test_who_it_is_may_be_said_and_nobody_passes(server: Server) -> None:
    async def who(scope: Any) -> str | None:
        headers = dict(scope["headers"])
        return None if b"x-free" in headers else key_part("key", headers.get(b"x-api-key", b""), secret=True)

    app = starlette_app(url=server.url, rules=FIVE, timeout=30, who=who, cost=lambda scope: 2, fail="closed")
    with serving(app) as client:
        found = [client.get("/", headers={"X-Api-Key": "secret"}).status_code for _ in range(3)]
        assert found == [200, 200, 429]
        assert client.get("/", headers={"X-Api-Key": "another"}).headers["RateLimit"] == '"burst";r=3'
        assert "RateLimit" not in client.get("/", headers={"X-Free": "1"}).headers
        # Nobody to count it for, and it is to fail closed.
        assert client.get("/").status_code == 503
    assert b"secret" not in b"".join(server.ask("KEYS", "*"))


def test_a_queue_delays(server: Server) -> None:
    app = starlette_app(url=server.url, rules={"queue": Rule.leaky_bucket(3, 5)}, timeout=30)
    with serving(app) as client:
        took = [client.get("/").elapsed.total_seconds() for _ in range(3)]
    assert sum(took) >= 0.39


def test_a_websocket_passes() -> None:
    messages: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        messages.append(scope["type"])

    async def none() -> Any:
        return {}

    middleware = RateLimitMiddleware(app, url="redis://127.0.0.1:1", rules=FIVE)
    for kind in ("websocket", "lifespan"):
        asyncio.run(middleware({"type": kind}, none, lambda message: none()))
    assert messages == ["websocket", "lifespan"]


def test_a_hundred_at_once_get_exactly_the_limit(server: Server) -> None:
    async def ask(url: Any) -> list[int]:
        async with httpx.AsyncClient(base_url=url, timeout=60) as client:
            responses = await asyncio.gather(*(client.get("/") for _ in range(100)))
        return sorted(response.status_code for response in responses)

    rules = {"burst": Rule.sliding(30, "1h")}
    with serving(starlette_app(url=server.url, rules=rules, timeout=30)) as client:
        assert asyncio.run(ask(client.base_url)) == [200] * 30 + [429] * 70


def test_a_server_that_is_killed_stopped_and_back_under_load(own_server: Server) -> None:
    limiter: list[AsyncLimiter] = []

    def app() -> Any:
        limiter.append(AsyncLimiter.from_url(own_server.url, {"many": Rule.token_bucket(10**9, 10**6)}))
        return starlette_app(limiter[0])

    with serving(app()) as client:

        def asked() -> bool:
            response = client.get("/")
            assert response.status_code == 200
            return "RateLimit" in response.headers

        wait_until(asked)
        for away, back in ((own_server.kill, own_server.start), (own_server.stop, own_server.go_on)):
            away()
            wait_until(lambda: not asked())
            back()
            wait_until(asked)
    assert limiter[0].counters["open"] >= 2


@pytest.mark.parametrize(("fail", "status"), [("closed", 503), ("local", 429)])
def test_a_server_that_is_away(own_server: Server, fail: Any, status: int) -> None:
    own_server.kill()
    with serving(starlette_app(url=own_server.url, rules=FIVE, fail=fail, instances=5)) as client:
        responses = [client.get("/") for _ in range(3)]
    assert responses[2].status_code == status
    assert responses[2].headers["Content-Type"] == "application/problem+json"
    assert int(responses[2].headers["Retry-After"]) >= 1


def test_a_cluster(cluster: Cluster) -> None:
    app = starlette_app(
        url=f"redis+cluster://{cluster.addresses}", rules=TWO, timeout=30, prefix="asgi", trust=Trust(count=1)
    )
    with serving(app) as client:
        for number in range(10):
            headers = {"X-Forwarded-For": f"203.0.113.{number}"}
            found = [client.get("/", headers=headers).status_code for _ in range(4)]
            assert found == [200] * 3 + [429]


def fastapi_app(server: Server, problem: bool = False) -> FastAPI:
    limiter = AsyncLimiter.from_url(server.url, FIVE, timeout=30)
    other = AsyncLimiter.from_url(server.url, {"upload": Rule.sliding(2, "1h")}, timeout=30)
    app = FastAPI()
    if problem:
        use_problem_json(app)

    @app.get("/", dependencies=[Depends(RateLimit(limiter))])
    async def hello() -> str:
        return "hello"

    @app.get("/upload", dependencies=[Depends(RateLimit(other, cost=size))])
    async def upload() -> str:
        return "stored"

    @app.get("/free")
    async def free() -> str:
        return "hello"

    return app


def size(request: Request) -> int:
    return int(request.query_params["size"])


def test_a_dependency_limits_single_routes(server: Server) -> None:
    with serving(fastapi_app(server)) as client:
        responses = [client.get("/") for _ in range(6)]
        assert [response.status_code for response in responses] == [200] * 5 + [429]
        assert responses[0].headers["RateLimit"] == '"burst";r=4'
        assert int(responses[5].headers["Retry-After"]) > 0
        assert responses[5].json()["detail"]["violated-policies"] == ["burst"]
        assert [client.get("/upload?size=2").status_code, client.get("/upload?size=1").status_code] == [200, 429]
        assert [client.get("/free").status_code for _ in range(7)] == [200] * 7
    assert server.calls() == {"RL.SLIDING": 8}


def test_a_dependency_answers_with_a_problem_if_asked(server: Server) -> None:
    with serving(fastapi_app(server, problem=True)) as client:
        last = [client.get("/") for _ in range(6)][5]
    assert last.headers["Content-Type"] == "application/problem+json"
    assert json.loads(last.text)["violated-policies"] == ["burst"]
    assert "Retry-After" in last.headers


def test_a_wrong_setup_is_refused() -> None:
    limiter = AsyncLimiter.from_url("redis://127.0.0.1:1", FIVE)
    with pytest.raises(FieldError):
        RateLimit(limiter, form="draft-5")  # type: ignore[arg-type]
    for options in ({}, {"url": "redis://127.0.0.1:1"}, {"limiter": limiter, "form": "draft-5"}):
        with pytest.raises(ValueError):
            RateLimitMiddleware(starlette_app, **options)
