"""Several limits of a route in one RL.MULTI, through flask-limiter and slowapi over HTTP."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

import flask
import flask_limiter
import pytest
import slowapi
from fastapi import FastAPI, Request, Response
from flask_limiter import ApplicationLimit, MetaLimit
from limits.strategies import STRATEGIES
from servers import Cluster, Server, wait_until
from slowapi.errors import RateLimitExceeded
from starlette.testclient import TestClient

import redis_rl.flask
import redis_rl.slowapi

THREE = "3/minute;5/hour;100/day"
ALL = sorted(name for name in STRATEGIES if name != "leaky-bucket")
ATOMIC = pytest.mark.parametrize("name", ALL)


def storage(url: str, **options: Any) -> dict[str, Any]:
    return {
        "storage_uri": url.replace("redis", "redis-rl", 1),
        "storage_options": {"timeout": 30, **options},
        "headers_enabled": True,
    }


def flask_client(url: str, limit: str, kind: Any = redis_rl.flask.Limiter, **options: Any) -> Any:
    app = flask.Flask("shop")
    more = options.pop("storage_options", {})
    limiter = kind(lambda: flask.request.headers.get("X-User", "u"), app=app, **storage(url, **more), **options)
    app.add_url_rule("/", "index", limiter.limit(limit)(lambda: "hello"))
    return app.test_client()


def slow_client(url: str, limit: str, **options: Any) -> TestClient:
    limiter = redis_rl.slowapi.Limiter(lambda: "u", **storage(url), **options)
    app = FastAPI()
    app.state.limiter = limiter
    app.add_exception_handler(RateLimitExceeded, slowapi._rate_limit_exceeded_handler)  # type: ignore[arg-type]

    async def index(request: Request, response: Response) -> str:
        return "hello"

    app.get("/")(limiter.limit(limit)(index))
    return TestClient(app)


FRAMEWORKS = pytest.mark.parametrize("client", [flask_client, slow_client])


def left(server: Server, limit: str) -> int | None:
    """What remains of one of the limits."""
    (key,) = server.connection.keys(f"*{limit}*")
    found = server.ask("RL.PEEK", key)
    return int(found[2])


@FRAMEWORKS
@ATOMIC
def test_three_limits_are_one_command_and_a_refusal_charges_none(
    server: Server, client: Callable[..., Any], name: str
) -> None:
    ask = client(server.url, THREE, strategy=name)
    server.forget_calls()
    responses = [ask.get("/") for _ in range(6)]
    assert [response.status_code for response in responses] == [200] * 3 + [429] * 3
    assert [int(response.headers["X-RateLimit-Remaining"]) for response in responses] == [2, 1, 0, 0, 0, 0]
    assert server.calls() == {"RL.MULTI": 6}
    assert [left(server, limit) for limit in ("5/1/hour", "100/1/day")] == [2, 97]


@FRAMEWORKS
def test_a_longer_limit_that_refuses_charges_no_shorter_one(server: Server, client: Callable[..., Any]) -> None:
    ask = client(server.url, "100/minute;2/hour", strategy="sliding-window-counter")
    responses = [ask.get("/") for _ in range(5)]
    assert [response.status_code for response in responses] == [200] * 2 + [429] * 3
    # The header fields are those of the limit that refused.
    assert {response.headers["X-RateLimit-Limit"] for response in responses[2:]} == {"2"}
    assert left(server, "100/1/minute") == 98


def test_flask_limiter_alone_charges_the_shorter_one(server: Server) -> None:
    """What the limiter is for; should flask-limiter do it by itself one day, this fails."""
    client = flask_client(server.url, "100/minute;2/hour", flask_limiter.Limiter, strategy="sliding-window-counter")
    server.forget_calls()
    assert [client.get("/").status_code for _ in range(5)] == [200] * 2 + [429] * 3
    assert server.calls() == {"RL.SLIDING": 10}
    assert left(server, "100/1/minute") == 95


@FRAMEWORKS
def test_a_hundred_at_once_get_exactly_the_limit(server: Server, client: Callable[..., Any]) -> None:
    statuses: list[int] = []
    # slowapi asks in the loop of its application: each has one of its own.
    ask = [client(server.url, "1000/minute;30/hour", strategy="moving-window") for _ in range(100)]
    threads = [threading.Thread(target=lambda one=one: statuses.append(one.get("/").status_code)) for one in ask]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [200] * 30 + [429] * 70
    assert left(server, "1000/1/minute") == 970


@FRAMEWORKS
def test_in_a_cluster_the_limits_of_a_client_are_in_one_slot(cluster: Cluster, client: Callable[..., Any]) -> None:
    ask = client(f"redis+cluster://{cluster.addresses}", "3/minute;5/hour", strategy="fixed-window", key_prefix="a")
    for one in cluster.servers:
        one.forget_calls()
    assert [ask.get("/").status_code for _ in range(4)] == [200] * 3 + [429]
    assert [one.calls() for one in cluster.servers if one.calls()] == [{"RL.MULTI": 4}]
    for one in cluster.servers:
        one.connection.flushall()


def test_in_a_cluster_limits_in_several_slots_are_asked_for_one_by_one(cluster: Cluster) -> None:
    app = flask.Flask("shop")
    limiter = redis_rl.flask.Limiter(lambda: "u", app=app, **storage(f"redis+cluster://{cluster.addresses}"))
    index = limiter.limit("5/hour", key_func=lambda: "another")(lambda: "hello")
    app.add_url_rule("/", "index", limiter.limit("3/minute")(index))
    client = app.test_client()
    for one in cluster.servers:
        one.forget_calls()
    assert [client.get("/").status_code for _ in range(4)] == [200] * 3 + [429]
    calls = sum((Counter(one.calls()) for one in cluster.servers), Counter())
    assert calls == {"RL.FIXEDWINDOW": 7}
    for one in cluster.servers:
        one.connection.flushall()


def test_a_remembered_denial_of_several_limits_reaches_the_server_once(server: Server) -> None:
    client = flask_client(server.url, THREE, strategy="fixed-window", storage_options={"denial_cache": 100})
    server.forget_calls()
    assert [client.get("/").status_code for _ in range(1000)] == [200] * 3 + [429] * 997
    assert server.calls() == {"RL.MULTI": 4}


def test_the_application_falls_back_and_recovers(own_server: Server) -> None:
    client = flask_client(own_server.url, THREE, strategy="fixed-window", in_memory_fallback=["2/hour"])
    assert client.get("/").headers["X-RateLimit-Limit"] == "3"
    own_server.kill()
    assert [client.get("/").status_code for _ in range(3)] == [200, 200, 429]
    own_server.start()
    wait_until(lambda: client.get("/").headers["X-RateLimit-Limit"] == "3")


def test_another_storage_does_what_the_library_does() -> None:
    app = flask.Flask("shop")
    limiter = redis_rl.flask.Limiter(lambda: "u", app=app, storage_uri="memory://")
    app.add_url_rule("/", "index", limiter.limit(THREE)(lambda: "hello"))
    client = app.test_client()
    assert [client.get("/").status_code for _ in range(4)] == [200] * 3 + [429]


def test_a_leaky_bucket_sleeps_once(server: Server) -> None:
    client = flask_client(server.url, "10/second;5/second", strategy="leaky-bucket")
    server.forget_calls()
    slept: list[float] = []
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("redis_rl.together.time.sleep", slept.append)
        assert [client.get("/").status_code for _ in range(2)] == [200, 200]
    # The longer of the two delays, and not their sum.
    assert len(slept) == 1
    assert 0.1 < slept[0] <= 0.2
    assert server.calls() == {"RL.MULTI": 2}


# ---- what the library promises besides: the same, whichever of its limiters is used


def everything(kind: Any, url: str, prefix: str) -> tuple[Any, list[Any]]:
    """An application that uses all that flask-limiter has, and what its functions were called for."""
    app = flask.Flask("shop")
    log: list[Any] = []

    def logged(name: str, value: Any) -> Callable[..., Any]:
        def function(*args: Any) -> Any:
            log.append(name)
            return value(*args) if callable(value) else value

        return function

    def breached(name: str) -> Callable[[Any], None]:
        return lambda limit: log.append((name, str(limit.limit), limit.breached, limit.remaining))

    limiter = kind(
        lambda: flask.request.headers.get("X-User", "u"),
        app=app,
        application_limits=[ApplicationLimit("40/minute"), ApplicationLimit("90/hour")],
        default_limits=["20/minute", "50/hour"],
        meta_limits=[MetaLimit("6/hour")],
        strategy="fixed-window",
        on_breach=breached("on_breach"),
        **storage(url, key_prefix=prefix),
    )

    def route(path: str, *limits: Any, methods: tuple[str, ...] = ("GET",)) -> None:
        view: Any = lambda: (flask.request.args.get("say", "hello"), int(flask.request.args.get("status", 200)))  # noqa: E731
        view.__name__ = path.strip("/")
        for limit in limits:
            view = limit(view)
        app.add_url_rule(path, path.strip("/"), view, methods=list(methods))

    def cost() -> int:
        return int(flask.request.args.get("cost", 1))

    limit: Any = limiter.limit
    route("/default")
    route("/costly", limit("9/minute;12/hour", cost=logged("cost", cost)))
    route("/key", limit("3/minute;50/hour", key_func=logged("key", lambda: flask.request.headers.get("X-Key", ""))))
    exempt = logged("exempt", lambda: "X-Free" in flask.request.headers)
    route("/exempt", limit("2/minute;50/hour", exempt_when=exempt))
    route("/methods", limit("2/minute;9/hour", methods=["POST"]), limit("30/hour"), methods=("GET", "POST"))
    route("/each", limit("2/minute;9/hour", per_method=True), methods=("GET", "POST"))
    shared = limiter.shared_limit("4/minute;60/hour", scope=logged("scope", lambda endpoint: "pair"))
    route("/first", shared)
    route("/second", shared, limit("30/hour"))
    deduct = logged("deduct", lambda response: response.status_code == 400)
    route("/failures", limit("2/minute;9/hour", deduct_when=deduct, cost=logged("cost", cost)), limit("30/hour"))
    answered = lambda found: flask.make_response("slow down", 418)  # noqa: E731
    route("/answer", limit("2/minute;9/hour", on_breach=answered, error_message="no"))
    route("/kept", limit("30/minute;40/hour", override_defaults=False))
    return app.test_client(), log


# Each path with headers, and how often. A limit that refuses is the shortest of its route, or has no other beside that
# the library would charge: there the two differ on purpose.
VISITS: list[tuple[str, str, dict[str, str], int]] = [
    ("GET", "/default", {}, 3),
    ("GET", "/costly?cost=4", {}, 3),
    ("GET", "/costly?cost=1", {}, 2),
    ("GET", "/key", {"X-Key": "a"}, 4),
    ("GET", "/key", {"X-Key": ""}, 4),
    ("GET", "/exempt", {"X-Free": "1"}, 3),
    ("GET", "/exempt", {}, 3),
    ("GET", "/methods", {}, 3),
    ("POST", "/methods", {}, 3),
    ("GET", "/each", {}, 3),
    ("POST", "/each", {}, 2),
    ("GET", "/first", {"X-User": "b"}, 2),
    ("GET", "/second", {"X-User": "b"}, 3),
    ("GET", "/failures?status=200", {"X-User": "c"}, 3),
    ("GET", "/failures?status=400", {"X-User": "c"}, 3),
    ("GET", "/answer", {"X-User": "d"}, 3),
    ("GET", "/kept", {"X-User": "e"}, 3),
    # The seventh refusal of one client: the limit of limits.
    ("GET", "/answer", {"X-User": "d"}, 9),
]


def test_everything_that_flask_limiter_promises_is_kept(server: Server) -> None:
    seen = []
    for kind, prefix in ((flask_limiter.Limiter, "theirs"), (redis_rl.flask.Limiter, "ours")):
        client, log = everything(kind, server.url, prefix)
        found = []
        for method, path, headers, times in VISITS:
            for _ in range(times):
                log.clear()
                response = client.open(path, method=method, headers=headers)
                fields = [response.headers.get(f"X-RateLimit-{name}") for name in ("Limit", "Remaining")]
                hooks = [entry for entry in log if isinstance(entry, tuple) or entry == "deduct"]
                asked = Counter(entry for entry in log if entry not in hooks)
                found.append(((path, response.status_code, response.text, *fields, hooks), asked))
        seen.append(found)
    assert {status for (_, status, *_), _ in seen[1]} == {200, 400, 418, 429}
    assert "6" in {limit for (_, _, _, limit, *_), _ in seen[1]}, "the limit of limits"
    for (theirs, their_asked), (ours, our_asked) in zip(*seen, strict=True):
        assert ours == theirs
        # No function of the application is called more often, but for two: with `deduct_when` the cost, and after a
        # refusal those of the limits behind it.
        if ours[1] == 200 and "failures" not in ours[0]:
            assert our_asked == their_asked


def test_a_conditional_limit_that_refuses_charges_no_other(server: Server) -> None:
    app = flask.Flask("shop")
    limiter = redis_rl.flask.Limiter(lambda: "u", app=app, strategy="token-bucket", **storage(server.url))
    index = limiter.limit("2/hour", deduct_when=lambda response: True)(lambda: "hello")
    app.add_url_rule("/", "index", limiter.limit("100/minute;1000/day")(index))
    client = app.test_client()
    assert [client.get("/").status_code for _ in range(5)] == [200] * 2 + [429] * 3
    assert left(server, "100/1/minute") == 98


def test_all_that_refuse_are_reported_if_the_first_does_not_end_it(server: Server) -> None:
    breached: list[str] = []
    app = flask.Flask("shop")
    limiter = redis_rl.flask.Limiter(
        lambda: "u",
        app=app,
        fail_on_first_breach=False,
        on_breach=lambda limit: breached.append(str(limit.limit)),
        **storage(server.url),
    )
    app.add_url_rule("/", "index", limiter.limit("2/minute;2/hour;50/day")(lambda: "hello"))
    client = app.test_client()
    assert [client.get("/").status_code for _ in range(3)] == [200] * 2 + [429]
    assert breached == ["2 per 1 minute", "2 per 1 hour"]


def test_slowapis_functions_are_called_once_and_its_limits_apply(server: Server) -> None:
    log: list[str] = []

    def logged(name: str, value: Any) -> Any:
        def function(request: Request) -> Any:
            log.append(name)
            return value(request)

        return function

    limiter = redis_rl.slowapi.Limiter(lambda: "u", default_limits=["4/minute"], key_prefix="p", **storage(server.url))
    app = FastAPI()
    app.state.limiter = limiter
    app.add_exception_handler(RateLimitExceeded, slowapi._rate_limit_exceeded_handler)  # type: ignore[arg-type]

    async def index(request: Request, response: Response) -> str:
        return "hello"

    exempt = logged("exempt", lambda request: "X-Free" in request.headers)
    cost = logged("cost", lambda request: int(request.query_params.get("cost", 1)))
    key = logged("key", lambda request: request.headers.get("X-User", "u"))
    one = limiter.limit("9/minute;50/hour", key_func=key, cost=cost, exempt_when=exempt)(index)
    app.get("/")(limiter.limit("3/minute", methods=["post"], override_defaults=False)(one))
    with TestClient(app) as client:
        server.forget_calls()
        found = [client.get(f"/?cost={cost}").status_code for cost in (4, 4, 4, 1)]
        assert found == [200, 200, 429, 200]
        assert log == ["exempt", "key", "cost", "exempt", "key", "cost"] * 4
        assert [client.get("/", headers={"X-Free": "1"}).status_code for _ in range(9)] == [200] * 9
        assert server.calls() == {"RL.MULTI": 4}
