"""A middleware for ASGI applications: Starlette, FastAPI, Litestar, Django over ASGI and others.

A request that is refused gets a 429 with Retry-After and a problem+json body; one that is granted gets the header
fields. What is not HTTP passes.
"""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

from .fields import FORMS, PROBLEM_TYPE, FieldError, Form
from .identity import IdentityError, Trust, identify
from .keys import KeyPartError
from .limiter import AsyncLimiter, Outcome
from .rule import Rule

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]
App = Callable[[Any, Receive, Send], Awaitable[None]]
Identify = Callable[[Scope], "str | Awaitable[str | None] | None"]
"""Who a request is counted for, as `redis_rl.key_part` makes it; None: nobody, let it pass."""


def address(scope: Scope, trust: Trust = Trust()) -> str:
    """Who a request is counted for by its address, through trusted proxies alone."""
    client = scope.get("client")
    headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]]
    return identify(client[0] if client else None, headers, trust)


async def check(limiter: AsyncLimiter, scope: Scope, who: Identify, cost: int = 1) -> Outcome | None:
    """The outcome for a request, after the delay of a leaky bucket; None if it is counted for nobody."""
    try:
        found = who(scope)
        key = await found if inspect.isawaitable(found) else found
    except (IdentityError, KeyPartError) as error:
        return limiter.unidentified(error)
    if key is None:
        return None
    outcome = await limiter.check(key, cost)
    if outcome.wait:
        await asyncio.sleep(outcome.wait)
    return outcome


class RateLimitMiddleware:
    """Limits all requests of an application.

    Give it a `limiter`, or a `url` and `rules`, and options of `redis_rl.AsyncLimiter`. `who` says who a request is
    counted for: by default its address, through the proxies that `trust` names. `cost` is the units a request takes.
    """

    def __init__(
        self,
        app: App,
        /,
        limiter: AsyncLimiter | None = None,
        *,
        url: str | None = None,
        rules: Mapping[str, Rule] | None = None,
        who: Identify | None = None,
        trust: Trust = Trust(),
        form: Form = "draft-11",
        cost: Callable[[Scope], int] | int = 1,
        **options: Any,
    ) -> None:
        if form not in FORMS:
            raise FieldError("bad-form", f"form must be one of {', '.join(FORMS)}, not {form!r}")
        if limiter is None:
            if url is None or rules is None:
                raise ValueError("give a limiter, or a url and rules")
            limiter = AsyncLimiter.from_url(url, rules, **options)
        self.app = app
        self.limiter = limiter
        self._who: Identify = who or (lambda scope: address(scope, trust))
        self._form: Form = form
        self._cost = cost

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a request on, or refuses it."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        cost = self._cost(scope) if callable(self._cost) else self._cost
        outcome = await check(self.limiter, scope, self._who, cost)
        if outcome is None:
            return await self.app(scope, receive, send)
        fields = [(name.lower().encode(), value.encode()) for name, value in outcome.fields(self._form)]
        if outcome.allowed:
            return await self.app(scope, receive, _adding(send, fields))
        body = json.dumps(outcome.problem()).encode()
        fields += [(b"content-type", PROBLEM_TYPE.encode()), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": outcome.status, "headers": fields})
        await send({"type": "http.response.body", "body": body})
        return None


def _adding(send: Send, fields: list[tuple[bytes, bytes]]) -> Send:
    async def adding(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", ()), *fields]}
        await send(message)

    return adding
