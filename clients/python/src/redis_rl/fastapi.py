"""A dependency for FastAPI: limits single routes, or routers, or whole applications.

    limiter = AsyncLimiter.from_url("redis://localhost", {"burst": Rule.sliding(100, "1m")})

    @app.get("/", dependencies=[Depends(RateLimit(limiter))])

A refusal is an HTTPException: FastAPI answers it with the header fields and the problem as `detail`. With
`use_problem_json(app)` the body is the problem itself, of the type application/problem+json.
"""

from __future__ import annotations

from collections.abc import Callable

from fastapi import FastAPI, HTTPException, Request, Response
from starlette.responses import JSONResponse

from .asgi import Identify, address, check
from .fields import FORMS, PROBLEM_TYPE, FieldError, Form
from .identity import Trust
from .limiter import AsyncLimiter, Outcome


class RateLimited(HTTPException):
    """A request was refused: 429, or 503 if the server is away and the limiter fails closed."""

    def __init__(self, outcome: Outcome, form: Form) -> None:
        super().__init__(outcome.status, outcome.problem(), dict(outcome.fields(form)))
        self.outcome = outcome


class RateLimit:
    """A dependency that limits. Its value is the outcome, or None if a request is counted for nobody."""

    def __init__(
        self,
        limiter: AsyncLimiter,
        *,
        who: Identify | None = None,
        trust: Trust = Trust(),
        form: Form = "draft-11",
        cost: Callable[[Request], int] | int = 1,
    ) -> None:
        if form not in FORMS:
            raise FieldError("bad-form", f"form must be one of {', '.join(FORMS)}, not {form!r}")
        self.limiter = limiter
        self._who: Identify = who or (lambda scope: address(scope, trust))
        self._form: Form = form
        self._cost = cost

    async def __call__(self, request: Request, response: Response) -> Outcome | None:
        """Lets a request pass, or raises RateLimited."""
        cost = self._cost(request) if callable(self._cost) else self._cost
        outcome = await check(self.limiter, request.scope, self._who, cost)
        if outcome is not None:
            if not outcome.allowed:
                raise RateLimited(outcome, self._form)
            for name, value in outcome.fields(self._form):
                response.headers[name] = value
        return outcome


def use_problem_json(app: FastAPI) -> None:
    """Makes the body of a refusal a problem of the type application/problem+json."""

    async def answer(request: Request, error: Exception) -> Response:
        assert isinstance(error, RateLimited)
        return JSONResponse(error.detail, error.status_code, error.headers, media_type=PROBLEM_TYPE)

    app.add_exception_handler(RateLimited, answer)
