"""A limiter in the process, for while the server is away.

Windows are counted as the server's RL.SLIDING does: units of a sixteenth of the window share an entry that leaves
with its last. So no span of one window passes more than the limit. Buckets drain a level. Each process applies its
part of the limit, so together they stay within it.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping

from .decision import Decision, MultiDecision
from .rule import Rule

_BUCKETS = 16


class LocalLimiter:
    """Rules, each with its limit divided by the number of instances (1 at least). Thread-safe and bounded."""

    def __init__(self, rules: Mapping[str, Rule], instances: int = 1, size: int = 10_000) -> None:
        self._rules = {
            name: (rule, max(1, rule.limit // instances) if rule.limit else 0, rule.span)
            for name, rule in rules.items()
        }
        self._size = size
        self._states: OrderedDict[str, dict[str, list[list[float]]]] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._states)

    def decide(self, who: str, cost: int, now: float) -> MultiDecision:
        """All rules grant, or nothing is taken from any."""
        with self._lock:
            states = self._states.setdefault(who, {})
            self._states.move_to_end(who)
            if len(self._states) > self._size:
                self._states.popitem(last=False)
            costs = {name: cost if rule.cost is None else rule.cost for name, (rule, _, _) in self._rules.items()}
            found = {name: self._look(name, states.setdefault(name, []), costs[name], now) for name in self._rules}
            decision = MultiDecision.of(found.values())
            if not decision.allowed:
                return decision
            for name in self._rules:
                self._take(name, states[name], costs[name], now)
            return MultiDecision.of(self._granted(found[name], costs[name]) for name in self._rules)

    def _is_bucket(self, name: str) -> bool:
        return self._rules[name][0].algorithm.endswith("BUCKET")

    def _look(self, name: str, entries: list[list[float]], cost: int, now: float) -> Decision:
        """What a request would get. An entry is [first, until, units]; of a bucket, one that drains."""
        rule, limit, span = self._rules[name]
        entries[:] = [entry for entry in entries if entry[1] > now]
        reset = entries[-1][1] - now if entries else 0.0
        if self._is_bucket(name):
            level = reset * limit / span
            delay = reset if rule.algorithm == "LEAKYBUCKET" else 0.0
            wait = (level + cost - limit) * span / limit if limit else 0.0
        else:
            level, delay, wait = sum(units for _, _, units in entries), 0.0, 0.0
            excess = level + cost - limit
            for _, until, units in entries:
                if excess > 0:
                    wait, excess = until - now, excess - units
        # Rounding errors of a level are far below a thousandth of a unit.
        allowed = cost == 0 or level + cost <= limit + 1e-3
        remaining = max(0, int(limit - level + 1e-3))
        never = not allowed and cost > limit
        return Decision(allowed, limit, remaining, None if never else delay if allowed else wait, reset)

    def _take(self, name: str, entries: list[list[float]], cost: int, now: float) -> None:
        _, limit, span = self._rules[name]
        if not cost:
            return
        if self._is_bucket(name):
            until = max(now, entries[-1][1] if entries else now) + cost * span / limit
            entries[:] = [[now, until, 0.0]]
        elif entries and now - entries[-1][0] < span / _BUCKETS:
            entries[-1][1:] = [now + span, entries[-1][2] + cost]
        else:
            entries.append([now, now + span, float(cost)])

    @staticmethod
    def _granted(before: Decision, cost: int) -> Decision:
        return Decision(True, before.limit, max(0, before.remaining - cost), before.wait, before.reset)
