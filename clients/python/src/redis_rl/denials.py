"""Denials that are remembered in the process, so that a flood for one key reaches the server once per wait.

A denial stands until its wait is over, if nothing is given back in between. So it is remembered until then, from
the moment before the call: never longer. It answers requests of the same cost, for which alone its wait is true. One
that was asked for before something was given back may know nothing of that, and is not remembered. What is remembered
is bounded; the least recently used goes first.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from dataclasses import dataclass

from .decision import MultiDecision


@dataclass(frozen=True)
class _Denial:
    decision: MultiDecision
    cost: int
    since: float
    until: float


class DenialCache:
    """Denials by key. Thread-safe. `size` 0 remembers nothing."""

    def __init__(self, size: int = 10_000) -> None:
        self.size = size
        self._denials: OrderedDict[str, _Denial] = OrderedDict()
        self._lock = threading.Lock()
        self._forgot = float("-inf")

    def __len__(self) -> int:
        return len(self._denials)

    def add(self, key: str, cost: int, decision: MultiDecision, sent: float) -> None:
        """Remembers a denial. `sent` is the time before the call, on a monotonic clock."""
        # One that never grants has no end: limits may change.
        if self.size == 0 or decision.allowed or decision.wait is None:
            return
        with self._lock:
            if sent <= self._forgot:
                return
            self._denials[key] = _Denial(decision, cost, sent, sent + decision.wait)
            self._denials.move_to_end(key)
            if len(self._denials) > self.size:
                self._denials.popitem(last=False)

    def get(self, key: str, cost: int, now: float) -> MultiDecision | None:
        """The denial that stands for a request of this cost."""
        with self._lock:
            known = self._denials.get(key)
            if known is None or cost != known.cost:
                return None
            if known.until <= now:
                del self._denials[key]
                return None
            self._denials.move_to_end(key)
            return known.decision.later(now - known.since)

    def forget(self, key: str | None = None) -> None:
        """Forgets a key, or all of them: after a refund or a reset."""
        with self._lock:
            self._forgot = time.monotonic()
            if key is None:
                self._denials.clear()
            else:
                self._denials.pop(key, None)
