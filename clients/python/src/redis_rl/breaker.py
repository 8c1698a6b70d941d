"""A circuit breaker: after a call that failed nobody waits for the server until it answers again.

Once a second it is asked in the background, by a thread or a task of its own, so that no request waits for it.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable

_AWAY = (
    "ConnectionError",
    "TimeoutError",
    "ClusterError",
    "SlotNotCoveredError",
    "RedisClusterException",
    "ValkeyClusterException",
)


class Unavailable(Exception):
    """The server did not answer a moment ago, and it is not asked again yet."""


def is_away(error: BaseException) -> bool:
    """Whether an error says that the server is away, and not that it refused one call."""
    if isinstance(error, OSError | asyncio.TimeoutError | Unavailable):
        return True
    # redis-py and valkey-py have these under the same names; neither need be installed.
    return not _names(error).isdisjoint(_AWAY)


def is_from_server(error: BaseException) -> bool:
    """Whether an error comes from the server or the way to it, and not from the program."""
    if is_away(error):
        return True
    names = _names(error)
    return "DataError" not in names and not names.isdisjoint(("RedisError", "ValkeyError"))


def _names(error: BaseException) -> set[str]:
    return {base.__name__ for base in type(error).__mro__ if base.__module__.split(".")[0] in ("redis", "valkey")}


class Breaker:
    """Open after a failure, until a probe succeeds."""

    def __init__(self, interval: float = 1.0) -> None:
        self.interval = interval
        self._open = False
        self._probed = 0.0
        self._lock = threading.Lock()

    @property
    def is_open(self) -> bool:
        """Whether nobody is to ask the server."""
        return self._open

    def failed(self) -> None:
        """A call failed because the server is away."""
        with self._lock:
            if not self._open:
                self._probed = time.monotonic()
            self._open = True

    def succeeded(self) -> None:
        """The server answered."""
        self._open = False

    def _due(self) -> bool:
        """Whether to probe now: one of those who ask gets True, once an interval."""
        with self._lock:
            now = time.monotonic()
            if not self._open or now - self._probed < self.interval:
                return False
            # Also the latest start of the next one, should this probe die with its process or loop.
            self._probed = now
            return True

    def probe(self, call: Callable[[], object]) -> None:
        """If the breaker is open and it is time, makes the call in a thread. It closes the breaker if it succeeds."""
        if not self._open or not self._due():
            return

        def run() -> None:
            try:
                call()
            except Exception as error:
                if is_away(error):
                    return
            # A refusal is an answer, too.
            self.succeeded()

        threading.Thread(target=run, name="redis-rl probe", daemon=True).start()

    def probe_async(self, call: Callable[[], Awaitable[object]]) -> asyncio.Task[None] | None:
        """The same in a task; the caller keeps it alive."""
        if not self._open or not self._due():
            return None

        async def run() -> None:
            try:
                await call()
            except Exception as error:
                if is_away(error):
                    return
            self.succeeded()

        return asyncio.create_task(run())
