"""Several limits of one request in one RL.MULTI: all grant, or nothing is taken from any.

A framework on top of `limits` asks for each limit by itself, in a loop that it does not let go. So what the loop is
going to ask is announced before, and decided as a whole when the first of it is asked for.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from limits import RateLimitItem

if TYPE_CHECKING:
    from .limits import Kind, RedisRLStorage

MOST = 128
"""The keys that RL.MULTI takes."""


@dataclass(frozen=True)
class Hit:
    """A limit that will be asked for."""

    item: RateLimitItem
    identifiers: tuple[str, ...]
    cost: int
    tests: bool = False
    """It will only be tested: what it costs is taken after the response, if at all."""

    @cached_property
    def key(self) -> str:
        """The library's key of it."""
        return self.item.key_for(*self.identifiers)


_announced: ContextVar[Together | None] = ContextVar("redis_rl_together", default=None)


class Together:
    """The limits of a request, which are decided when the first is asked for."""

    def __init__(self, storage: RedisRLStorage, kind: Kind, hits: Sequence[Hit]) -> None:
        self._storage = storage
        self._kind = kind
        self._hits = hits
        self._answers: dict[tuple[str, bool], bool] | None = None

    @contextlib.contextmanager
    def announced(self) -> Iterator[None]:
        """What is asked for within this is decided as a whole."""
        token = _announced.set(self)
        try:
            yield
        finally:
            _announced.reset(token)

    def _answer(self, key: str, tests: bool) -> bool | None:
        if self._answers is None:
            if not any((hit.key, hit.tests) == (key, tests) for hit in self._hits):
                return None
            self._answers = self._decide()
        return self._answers.pop((key, tests), None)

    def _decide(self) -> dict[tuple[str, bool], bool]:
        tested = [hit for hit in self._hits if hit.tests]
        taken = [hit for hit in self._hits if not hit.tests]
        answers = {(hit.key, True): self._looks_granted(hit) for hit in tested}
        if all(answers.values()) and taken:
            decision = self._storage.take_all(
                self._kind, [(hit.key, hit.item.amount, hit.item.get_expiry(), hit.cost) for hit in taken]
            )
            if self._kind == "leaky" and decision.allowed and decision.wait:
                time.sleep(decision.wait)
            found = [limit.allowed for limit in decision.limits]
        else:
            # One refuses already: nothing is to be taken from the others.
            found = [self._looks_granted(hit) for hit in taken]
        return answers | {(hit.key, False): allowed for hit, allowed in zip(taken, found, strict=True)}

    def _looks_granted(self, hit: Hit) -> bool:
        found = self._storage.look(self._kind, hit.key, fresh=True, cost=hit.cost)
        return hit.cost <= hit.item.amount if found is None else found.allowed


def answer(key: str, tests: bool) -> bool | None:
    """What was decided about a limit that was announced; None for another one."""
    together = _announced.get()
    return None if together is None else together._answer(key, tests)
