"""What the server decided, in seconds. `None` stands for never.

A reply is five integers: allowed, limit, remaining, wait_ms, reset_ms; with PARTIAL a sixth, the units granted.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

Reply = tuple[int, int, int, int, int]
"""The five integers as the server sends them."""


@dataclass(frozen=True)
class Decision:
    """One limit's decision."""

    allowed: bool
    limit: int
    remaining: int
    """The units that could be taken right now."""
    wait: float | None
    """Denied: the seconds until this same request is granted; None: it never is, because its cost is above
    the limit. Granted: the delay before going ahead, 0 for every limiter but a leaky bucket."""
    reset: float
    """The seconds until the limiter is idle, if nothing more is taken."""
    granted: int | None = None
    """The units granted, if PARTIAL was asked for."""

    @classmethod
    def from_reply(cls, reply: Sequence[int]) -> Decision:
        """The decision that a reply of five or six integers means."""
        allowed, limit, remaining, wait_ms, reset_ms = (int(number) for number in reply[:5])
        return cls(
            allowed=allowed == 1,
            limit=limit,
            remaining=remaining,
            wait=None if wait_ms < 0 else wait_ms / 1000,
            reset=reset_ms / 1000,
            granted=int(reply[5]) if len(reply) > 5 else None,
        )

    @property
    def wait_ms(self) -> int:
        """The wait as the server sends it: -1 for never."""
        return -1 if self.wait is None else round(self.wait * 1000)

    @property
    def reply(self) -> Reply:
        """The five integers again."""
        return (
            int(self.allowed),
            self.limit,
            self.remaining,
            self.wait_ms,
            round(self.reset * 1000),
        )

    def later(self, seconds: float) -> Decision:
        """The same decision as it reads some seconds later, if nothing happened in between."""
        return replace(
            self,
            wait=None if self.wait is None else max(0.0, self.wait - seconds),
            reset=max(0.0, self.reset - seconds),
        )


@dataclass(frozen=True)
class MultiDecision:
    """Several limits' decision: all grant, or nothing is taken from any."""

    allowed: bool
    wait: float | None
    """Denied: the seconds until all limits grant; None: one of them never does. Granted: the longest delay."""
    refused: int | None
    """The first limit that refuses, counted from 0."""
    limits: tuple[Decision, ...]

    @classmethod
    def from_reply(cls, reply: Sequence[Any]) -> MultiDecision:
        """The decision that RL.MULTI's reply means."""
        allowed, wait_ms, refused, *limits = reply
        return cls(
            allowed=allowed == 1,
            wait=None if wait_ms < 0 else wait_ms / 1000,
            refused=None if refused < 0 else refused,
            limits=tuple(Decision.from_reply(limit) for limit in limits),
        )

    @classmethod
    def of(cls, limits: Iterable[Decision]) -> MultiDecision:
        """What limits that were decided together amount to."""
        limits = tuple(limits)
        refusing = [index for index, limit in enumerate(limits) if not limit.allowed]
        waits = [limits[index].wait for index in refusing or range(len(limits))]
        return cls(
            allowed=not refusing,
            wait=None if None in waits else max((wait for wait in waits if wait), default=0.0),
            refused=refusing[0] if refusing else None,
            limits=limits,
        )

    def later(self, seconds: float) -> MultiDecision:
        """The same decision as it reads some seconds later, if nothing happened in between."""
        return replace(
            self,
            wait=None if self.wait is None else max(0.0, self.wait - seconds),
            limits=tuple(limit.later(seconds) for limit in self.limits),
        )
