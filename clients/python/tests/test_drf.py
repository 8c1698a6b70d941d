"""The throttles of Django REST framework, over HTTP."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import django
import pytest
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings
from django.urls import path
from rest_framework import throttling
from rest_framework.response import Response
from rest_framework.test import APIClient
from rest_framework.views import APIView
from servers import Cluster, Server, wait_until

from redis_rl import drf

django.setup()


class FixedThrottle(drf.UserRateThrottle):
    scope = "burst"
    algorithm = "fixed-window"


class BucketThrottle(drf.UserRateThrottle):
    rate = "4/min"
    scope = "own"
    algorithm = "token-bucket"


class LogThrottle(drf.SimpleRateThrottle):
    scope = "burst"
    algorithm = "sliding-log"

    def get_cache_key(self, request: Any, view: Any) -> str:
        return f"team_{request.headers['X-Team']}"


class View(APIView):
    def get(self, request: Any) -> Response:
        return Response("hello")


def view(throttle: Any, **more: Any) -> Any:
    one: Any = type("One", (View,), {"throttle_classes": [throttle], **more})
    return one.as_view()


urlpatterns = [
    path("anon", view(drf.AnonRateThrottle)),
    path("user", view(drf.UserRateThrottle)),
    path("uploads", view(drf.ScopedRateThrottle, throttle_scope="uploads")),
    path("unscoped", view(drf.ScopedRateThrottle)),
    path("fixed", view(FixedThrottle)),
    path("bucket", view(BucketThrottle)),
    path("log", view(LogThrottle)),
]


@pytest.fixture
def url(server: Server) -> Iterator[str]:
    with override_settings(REDIS_RL={"URL": server.url, "TIMEOUT": 30}):
        yield server.url


def user(pk: int) -> APIClient:
    client = APIClient()
    client.force_authenticate(SimpleNamespace(pk=pk, is_authenticated=True))
    return client


def statuses(client: APIClient, path: str, count: int, **headers: str) -> list[int]:
    return [client.get(path, headers=headers).status_code for _ in range(count)]


def test_addresses_users_and_scopes_have_limits_of_their_own(url: str, server: Server) -> None:
    assert statuses(APIClient(), "/anon", 4) == [200] * 3 + [429]
    assert statuses(user(1), "/anon", 9) == [200] * 9
    assert statuses(user(1), "/user", 6) == [200] * 5 + [429]
    assert statuses(user(2), "/user", 6) == [200] * 5 + [429]
    assert statuses(user(1), "/uploads", 3) == [200] * 2 + [429]
    assert statuses(user(1), "/unscoped", 9) == [200] * 9
    assert server.calls() == {"RL.SLIDING": 4 + 6 + 6 + 3}


def test_retry_after_is_the_true_wait(url: str, server: Server) -> None:
    client = user(1)
    responses = [client.get("/bucket") for _ in range(5)]
    assert [response.status_code for response in responses] == [200] * 4 + [429]
    # A unit comes back every 15 s.
    (key,) = server.ask("KEYS", "*")
    left = server.ask("RL.PEEK", key)[3] / 1000
    assert left <= int(responses[4].headers["Retry-After"]) <= 15


def test_a_throttle_may_have_an_algorithm_and_a_key_of_its_own(url: str, server: Server) -> None:
    assert statuses(user(1), "/fixed", 5) == [200] * 4 + [429]
    assert statuses(APIClient(), "/log", 5, **{"X-Team": "a}b"}) == [200] * 4 + [429]
    assert statuses(APIClient(), "/log", 1, **{"X-Team": "b"}) == [200]
    assert server.calls() == {"RL.FIXEDWINDOW": 5, "RL.SLIDINGLOG": 6}


def test_a_hundred_at_once_get_exactly_the_limit(url: str) -> None:
    found: list[int] = []
    threads = [threading.Thread(target=lambda: found.append(user(7).get("/user").status_code)) for _ in range(100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == [200] * 5 + [429] * 95


@pytest.mark.parametrize(
    ("trust", "granted"),
    [
        # Who writes what he likes to the left of what the proxy appended is nobody else for it.
        ({"count": 1}, 3),
        ({"cidrs": ["127.0.0.0/8"]}, 3),
        # Without a trusted proxy the header counts for nothing.
        ({}, 3),
    ],
)
def test_a_forged_header_is_nobody_else(server: Server, trust: dict[str, Any], granted: int) -> None:
    with override_settings(REDIS_RL={"URL": server.url, "TIMEOUT": 30, "TRUST": trust}):
        found = [
            APIClient().get("/anon", headers={"X-Forwarded-For": f"1.1.1.{number}, 203.0.113.9"}).status_code
            for number in range(6)
        ]
    assert sorted(found) == [200] * granted + [429] * (6 - granted)


def test_clients_behind_a_trusted_proxy_are_told_apart(server: Server) -> None:
    with override_settings(REDIS_RL={"URL": server.url, "TIMEOUT": 30, "TRUST": {"count": 1}}):
        found = [
            APIClient().get("/anon", headers={"X-Forwarded-For": f"203.0.113.{number}"}).status_code
            for number in range(6)
        ]
    assert found == [200] * 6


@pytest.mark.parametrize(("fail", "status"), [("open", 200), ("closed", 503)])
def test_a_proxy_that_sends_no_header_is_not_one_client(server: Server, fail: str, status: int) -> None:
    with override_settings(REDIS_RL={"URL": server.url, "TRUST": {"count": 1}, "FAIL": fail}):
        assert statuses(APIClient(), "/anon", 9) == [status] * 9
    assert server.calls() == {}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [200] * 6),
        ({"FAIL": "closed"}, [503] * 6),
        ({"FAIL": "local", "INSTANCES": 2}, [200] * 2 + [429] * 4),
    ],
)
def test_a_server_that_is_away_and_comes_back(own_server: Server, options: dict[str, Any], expected: list[int]) -> None:
    with override_settings(REDIS_RL={"URL": own_server.url, "TIMEOUT": 30, **options}):
        assert statuses(user(1), "/user", 1) == [200]
        own_server.kill()
        began = time.monotonic()
        assert statuses(user(2), "/user", 6) == expected
        assert time.monotonic() - began < 30
        own_server.start()

        def asked() -> bool:
            user(3).get("/user")
            return bool(own_server.connection.exists("rl:{drf:throttle_user_3}:user"))

        wait_until(asked)


def test_shadow_mode_lets_pass(server: Server) -> None:
    events: list[str] = []
    options = {"URL": server.url, "TIMEOUT": 30, "SHADOW": True, "ON_EVENT": lambda event, *_: events.append(event)}
    with override_settings(REDIS_RL=options):
        assert statuses(user(1), "/user", 7) == [200] * 7
    assert events == ["shadow"] * 2


def test_remembered_denials(server: Server) -> None:
    with override_settings(REDIS_RL={"URL": server.url, "TIMEOUT": 30, "DENIAL_CACHE": 100}):
        assert statuses(user(1), "/user", 100).count(200) == 5
    assert server.calls() == {"RL.SLIDING": 6}


def test_a_cluster(cluster: Cluster) -> None:
    with override_settings(REDIS_RL={"URL": f"redis+cluster://{cluster.addresses}", "TIMEOUT": 30}):
        for pk in range(100, 110):
            assert statuses(user(pk), "/user", 6) == [200] * 5 + [429]


def test_the_url_is_that_of_the_default_cache_unless_it_is_said(server: Server) -> None:
    caches = {"default": {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": server.url}}
    with override_settings(CACHES=caches):
        assert statuses(user(1), "/user", 6) == [200] * 5 + [429]
    assert server.calls() == {"RL.SLIDING": 6}


@pytest.mark.parametrize(
    "setup",
    [
        {},
        {"URL": "memory://"},
        {"URL": "redis://127.0.0.1:1", "ALGORITHM": "guess"},
        {"URL": "redis://127.0.0.1:1", "FALE": "open"},
        {"URL": "redis://127.0.0.1:1", "FAIL": "ajar"},
        {"URL": "redis://127.0.0.1:1", "TRUST": {"count": -1}},
    ],
)
def test_a_wrong_setup_is_refused(setup: dict[str, Any]) -> None:
    with override_settings(REDIS_RL=setup), pytest.raises((ImproperlyConfigured, ValueError)):
        user(1).get("/user")


def test_the_throttles_are_the_frameworks_own() -> None:
    pairs = [
        (drf.AnonRateThrottle, throttling.AnonRateThrottle),
        (drf.UserRateThrottle, throttling.UserRateThrottle),
        (drf.ScopedRateThrottle, throttling.ScopedRateThrottle),
    ]
    assert all(issubclass(ours, theirs) for ours, theirs in pairs)
