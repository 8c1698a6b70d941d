"""slowapi's `Limiter`, which decides all limits of a route in one command: all grant, or nothing is taken.

    from redis_rl.slowapi import Limiter

Everything else is slowapi's own. With another storage it does what slowapi does.
"""

from __future__ import annotations

import copy
import inspect
from functools import cache
from typing import Any

import slowapi
from starlette.requests import Request

from .limits import together
from .together import Hit

__all__ = ["Limiter"]


class Limiter(slowapi.Limiter):
    """slowapi's own, but for how several limits are asked for.

    In a cluster, limits of different clients or scopes may be on different nodes: those are asked for one by one.
    """

    # This overrides the method that loops over the limits: it is private, and of a class with the same name. Should a
    # version of slowapi not have it, limits are asked for one by one.
    def __evaluate_limits(self, request: Request, endpoint: str, limits: list[Any]) -> None:
        limits = [_once(limit) for limit in limits]
        hits = [hit for limit in limits if (hit := self._hit(request, endpoint, limit)) is not None]
        with together(self.limiter, hits):
            super().__evaluate_limits(request, endpoint, limits)

    def _hit(self, request: Request, endpoint: str, limit: Any) -> Hit | None:
        """What slowapi is going to ask for."""
        exempt = limit.is_exempt(request) if limit._exempt_when_takes_request else limit.is_exempt()
        if exempt or (limit.methods is not None and request.method.lower() not in limit.methods):
            return None
        scope = (limit.scope or endpoint) + (f":{request.method}" if limit.per_method else "")
        takes_request = "request" in inspect.signature(limit.key_func).parameters
        key = limit.key_func(request) if takes_request else limit.key_func()
        if not (key and scope):
            return None
        prefix = (self._key_prefix,) if self._key_prefix else ()
        cost = limit.cost(request) if callable(limit.cost) else limit.cost
        return Hit(limit.limit, (*prefix, key, scope), cost)


def _once(limit: Any) -> Any:
    """The limit with an application's functions called once, though two ask for what they say."""
    limit = copy.copy(limit)
    for name in ("key_func", "exempt_when", "cost"):
        if callable(value := getattr(limit, name)):
            setattr(limit, name, cache(value))
    return limit
