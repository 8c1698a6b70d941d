"""Leases that are held while a body runs: renewed at a third of their ttl, and released whatever happens.

A renewal that fails is tried again a third later. If the lease may run out before the next one, it is lost: the
body is to stop, while there is still a third of the ttl to stop in.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
import uuid
from types import TracebackType
from typing import TYPE_CHECKING

from .commands import Key
from .decision import Decision
from .rule import Duration, microseconds

if TYPE_CHECKING:
    from .client import AsyncClient, Client


class Busy(Exception):
    """Everything is held. `decision.wait` is the longest it takes until something is free."""

    def __init__(self, key: Key, decision: Decision) -> None:
        super().__init__(f"all {decision.limit} are held: {key!r}")
        self.decision = decision


class LeaseLost(Exception):
    """The lease is lost or about to run out: stop, somebody else may get it."""


class _Lease:
    def __init__(self, key: Key, limit: int, ttl: Duration, *, cost: int, id: str | bytes | None) -> None:
        self.key = key
        self.limit = limit
        self.ttl = microseconds(ttl) / 1_000_000
        self.cost = cost
        # 16 bytes take no more memory in the server than a shorter id.
        self.id = uuid.uuid4().bytes if id is None else id
        self._until = 0.0

    @property
    def _third(self) -> float:
        return self.ttl / 3

    def _renewed(self, sent: float, held: int) -> None:
        # From before the call: the server's ttl begins later.
        self._until = sent + self.ttl if held else 0.0

    def _is_lost(self) -> bool:
        return time.monotonic() + self._third > self._until


class Held(_Lease):
    """A lease for the body of a `with` statement, which calls `check()` now and then."""

    def __init__(
        self, client: Client, key: Key, limit: int, ttl: Duration, *, cost: int, id: str | bytes | None
    ) -> None:
        super().__init__(key, limit, ttl, cost=cost, id=id)
        self._client = client
        self._lost = threading.Event()
        self._done = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def lost(self) -> bool:
        """Whether the body must stop."""
        return self._lost.is_set()

    def check(self) -> None:
        """Raises LeaseLost if the body must stop. Call it more often than every third of the ttl."""
        if self.lost:
            raise LeaseLost(f"the lease is lost: {self.key!r}")

    def __enter__(self) -> Held:
        sent = time.monotonic()
        decision = self._client.acquire(self.key, self.limit, self.ttl, self.id, cost=self.cost)
        if not decision.allowed:
            raise Busy(self.key, decision)
        self._renewed(sent, 1)
        self._thread = threading.Thread(target=self._renew, name="redis-rl lease", daemon=True)
        self._thread.start()
        return self

    def _renew(self) -> None:
        while not self._done.wait(self._third):
            sent = time.monotonic()
            # An error says nothing about the lease: it lasts until then at least.
            with contextlib.suppress(Exception):
                self._renewed(sent, self._client.renew(self.key, self.ttl, self.id))
            if self._is_lost():
                self._lost.set()
                return

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        if self._thread is not None:
            self._thread.join()
        # If it cannot be released it runs out by itself.
        with contextlib.suppress(Exception):
            self._client.release(self.key, self.id)


class AsyncHeld(_Lease):
    """A lease for the body of an `async with` statement, which is cancelled if the lease is lost."""

    def __init__(
        self, client: AsyncClient, key: Key, limit: int, ttl: Duration, *, cost: int, id: str | bytes | None
    ) -> None:
        super().__init__(key, limit, ttl, cost=cost, id=id)
        self._client = client
        self._task: asyncio.Task[None] | None = None
        self.lost = False
        """Whether the body must stop."""

    async def __aenter__(self) -> AsyncHeld:
        body = asyncio.current_task()
        assert body is not None
        sent = time.monotonic()
        try:
            decision = await self._client.acquire(self.key, self.limit, self.ttl, self.id, cost=self.cost)
        except asyncio.CancelledError:
            # It may have been acquired: nobody else would release it.
            await asyncio.shield(self._release())
            raise
        if not decision.allowed:
            raise Busy(self.key, decision)
        self._renewed(sent, 1)
        self._task = asyncio.create_task(self._renew(body))
        return self

    async def _renew(self, body: asyncio.Task[object]) -> None:
        while True:
            await asyncio.sleep(self._third)
            sent = time.monotonic()
            # A call may not outlast the lease. An error says nothing about it: it lasts until then at least.
            with contextlib.suppress(Exception):
                held = await asyncio.wait_for(self._client.renew(self.key, self.ttl, self.id), self._third)
                self._renewed(sent, held)
            if self._is_lost():
                self.lost = True
                body.cancel()
                return

    async def _release(self) -> None:
        # If it cannot be released it runs out by itself.
        with contextlib.suppress(Exception):
            await asyncio.wait_for(self._client.release(self.key, self.id), self._third)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._task is not None:
            self._task.cancel()
        await asyncio.shield(self._release())
        if self.lost and kind is not None and issubclass(kind, asyncio.CancelledError):
            # The cancellation is ours and ends here, unless somebody else wants one, too.
            task = asyncio.current_task()
            if task is None or not hasattr(task, "uncancel") or task.uncancel() == 0:
                raise LeaseLost(f"the lease is lost: {self.key!r}") from None
