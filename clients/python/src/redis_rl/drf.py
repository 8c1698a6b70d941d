"""Throttles for Django REST framework: its own classes, decided by the server.

Scopes and rates are the framework's settings. What they need besides is in the setting REDIS_RL:

    REDIS_RL = {"URL": "redis://localhost:6379"}

Without it the URL is that of the default cache. Other entries: ALGORITHM (`sliding`, the default, `sliding-log`,
`fixed-window` or `token-bucket`), TRUST (the arguments of `redis_rl.Trust`; by default NUM_PROXIES is its count),
TIMEOUT, PREFIX, FAIL, INSTANCES, DENIAL_CACHE, SHADOW and ON_EVENT (see `redis_rl.Limiter`), CONNECTION (one of
your own instead of the URL).
"""

from __future__ import annotations

import threading
from typing import Any, ClassVar

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed
from rest_framework import throttling
from rest_framework.exceptions import APIException
from rest_framework.settings import api_settings

from .breaker import Breaker
from .connect import TIMEOUT, connect
from .identity import IdentityError, Trust, identify
from .keys import KeyPartError, key_part
from .limiter import Limiter, Outcome
from .rule import Rule

__all__ = ["AnonRateThrottle", "ScopedRateThrottle", "SimpleRateThrottle", "UserRateThrottle"]

_ALGORITHMS = ("sliding", "sliding-log", "fixed-window", "token-bucket")
_OPTIONS = ("PREFIX", "FAIL", "INSTANCES", "DENIAL_CACHE", "SHADOW", "ON_EVENT")
_OTHERS = ("URL", "CONNECTION", "TIMEOUT", "ALGORITHM", "TRUST")


def _rule(algorithm: str, requests: int, seconds: int) -> Rule:
    if algorithm == "sliding":
        return Rule.sliding(requests, seconds)
    if algorithm == "sliding-log":
        return Rule.sliding_log(requests, seconds)
    if algorithm == "fixed-window":
        return Rule.fixed_window(requests, seconds)
    if algorithm == "token-bucket":
        return Rule.token_bucket(requests, (max(1, requests), seconds))
    raise ImproperlyConfigured(f"algorithm must be one of {', '.join(_ALGORITHMS)}, not {algorithm!r}")


class _Setup:
    """What the settings say, made once: one connection, and a limiter for each scope and rate."""

    def __init__(self) -> None:
        given = dict(getattr(settings, "REDIS_RL", {}))
        if unknown := sorted(set(given) - {*_OPTIONS, *_OTHERS}):
            raise ImproperlyConfigured(f"REDIS_RL has no entry {', '.join(unknown)}")
        self.algorithm = given.get("ALGORITHM", "sliding")
        trust: dict[str, Any] = given.get("TRUST", {"count": api_settings.NUM_PROXIES or 0})
        self.trust = Trust(**{**trust, "cidrs": tuple(trust.get("cidrs", ()))})
        self._options = {"denial_cache": 0, **{name.lower(): given[name] for name in _OPTIONS if name in given}}
        self._connection = given.get("CONNECTION") or connect(self._url(given), timeout=given.get("TIMEOUT", TIMEOUT))
        self._breaker = Breaker()
        self._limiters: dict[tuple[str, str, int, int], Limiter] = {}
        self._lock = threading.Lock()

    @staticmethod
    def _url(given: dict[str, Any]) -> str:
        location = given.get("URL") or settings.CACHES["default"].get("LOCATION")
        url = location[0] if isinstance(location, list | tuple) and location else location
        if not isinstance(url, str) or not url.startswith(("redis", "valkey", "unix")):
            raise ImproperlyConfigured('say where the server is: REDIS_RL = {"URL": "redis://host:port"}')
        return url

    def limiter(self, name: str, algorithm: str | None, requests: int, seconds: int) -> Limiter:
        key = (name, algorithm or self.algorithm, requests, seconds)
        with self._lock:
            if (known := self._limiters.get(key)) is None:
                known = Limiter(self._connection, {name: _rule(*key[1:])}, **self._options)
                # They share a server, so what one finds out serves all.
                known.breaker = self._breaker
                self._limiters[key] = known
        return known


_setup: _Setup | None = None
_setup_lock = threading.Lock()


def _get() -> _Setup:
    global _setup
    with _setup_lock:
        if _setup is None:
            _setup = _Setup()
        return _setup


def _changed(*, setting: str, **_: object) -> None:
    global _setup
    if setting in ("REDIS_RL", "REST_FRAMEWORK", "CACHES"):
        _setup = None


setting_changed.connect(_changed)


class ServiceUnavailable(APIException):
    """The server is away, and FAIL is `closed`."""

    status_code = 503
    default_detail = "The limit of this request cannot be checked at the moment."
    default_code = "service_unavailable"
    wait = 1


class _Throttle:
    """In front of one of the framework's throttles: the server decides instead of a list in the cache."""

    algorithm: ClassVar[str | None] = None
    """Another algorithm than the setting's, for this throttle."""

    rate: Any
    scope: Any
    num_requests: Any
    duration: Any
    outcome: Outcome | None = None
    """What was decided."""

    def allow_request(self, request: Any, view: Any) -> bool:
        """Whether the request may go ahead: one command."""
        if self.rate is None:
            return True
        setup = _get()
        limiter = setup.limiter(self.scope or type(self).__name__, self.algorithm, self.num_requests, self.duration)
        try:
            key = self.get_cache_key(request, view)  # type: ignore[attr-defined]
            if key is None:
                return True
            self.outcome = limiter.check(key_part("drf", key))
        except (IdentityError, KeyPartError) as error:
            self.outcome = limiter.unidentified(error)
        if self.outcome.status == 503:
            raise ServiceUnavailable
        return self.outcome.allowed

    def wait(self) -> float | None:
        """The seconds until this request is granted; None if it never is."""
        decision = self.outcome.decision if self.outcome else None
        return decision.wait if decision else None

    def get_ident(self, request: Any) -> str:
        """Who an anonymous request is counted for: its address, through trusted proxies alone."""
        return identify(request.META.get("REMOTE_ADDR"), request.headers.items(), _get().trust)


class SimpleRateThrottle(_Throttle, throttling.SimpleRateThrottle):
    """For throttles of your own: override `get_cache_key`."""


class AnonRateThrottle(_Throttle, throttling.AnonRateThrottle):
    """Limits clients that are not authenticated, by address."""


class UserRateThrottle(_Throttle, throttling.UserRateThrottle):
    """Limits users, and clients that are not authenticated by address."""


# The framework's class finds the rate, and then ours decides.
class ScopedRateThrottle(throttling.ScopedRateThrottle, SimpleRateThrottle):
    """Limits views that have a `throttle_scope`."""
