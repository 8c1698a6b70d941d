"""flask-limiter's `Limiter`, which decides all limits of a route in one command: all grant, or nothing is taken.

    from redis_rl.flask import Limiter

Everything else is flask-limiter's own. With another storage it does what flask-limiter does.
"""

from __future__ import annotations

import dataclasses
from functools import cache
from typing import Any

import flask
import flask_limiter

from .limits import together
from .together import Hit

__all__ = ["Limiter"]


class Limiter(flask_limiter.Limiter):
    """flask-limiter's own, but for how several limits are asked for.

    In a cluster, limits of different clients or scopes may be on different nodes: those are asked for one by one.
    """

    # This overrides the method that loops over the limits: it is private, and of a class with the same name. Should a
    # version of flask-limiter not have it, limits are asked for one by one.
    def __evaluate_limits(self, endpoint: str, limits: list[Any]) -> None:
        limits = [_once(limit) for limit in limits]
        hits = [hit for limit in limits if (hit := self._hit(endpoint, limit)) is not None]
        with together(self.limiter, hits):
            super().__evaluate_limits(endpoint, limits)

    def _hit(self, endpoint: str, limit: Any) -> Hit | None:
        """What flask-limiter is going to ask for."""
        if limit.is_exempt or limit.method_exempt:
            return None
        identifiers = (limit.key_func(), limit.scope_for(endpoint, flask.request.method))
        if not all(identifiers):
            return None
        prefix = (self._key_prefix,) if self._key_prefix else ()
        return Hit(limit.limit, (*prefix, *identifiers), limit.deduction_amount, tests=bool(limit.deduct_when))


def _once(limit: Any) -> Any:
    """The limit with an application's functions called once, though two ask for what they say."""
    names = ["key_func", "exempt_when", "scope"]
    # With `deduct_when`, the cost is asked for again after the response.
    names += [] if limit.deduct_when else ["cost"]
    functions = {name: cache(value) for name in names if callable(value := getattr(limit, name))}
    return dataclasses.replace(limit, **functions)
