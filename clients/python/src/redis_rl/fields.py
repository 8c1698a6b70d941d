"""What to answer: header fields and the body of a refusal, from one place.

draft-11 is draft-ietf-httpapi-ratelimit-headers-11. After a denial `t` is Retry-After: the time within which no
more than `r` units can be used. It comes from the wait, not from the reset, which is when all units are back.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from .decision import Decision, MultiDecision
from .rule import Rule

Form = Literal["draft-11", "draft-6", "draft-7", "x-ratelimit"]
Kind = Literal["quota-exceeded", "temporary-reduced-capacity", "abnormal-usage-detected"]
FORMS: tuple[Form, ...] = ("draft-11", "draft-6", "draft-7", "x-ratelimit")

_TYPE = "https://iana.org/assignments/http-problem-types#"
_PROBLEMS: dict[Kind, tuple[int, str]] = {
    "quota-exceeded": (429, "Request cannot be satisfied as assigned quota has been exceeded"),
    "temporary-reduced-capacity": (
        503,
        "Request cannot be satisfied due to temporary server capacity constraints",
    ),
    "abnormal-usage-detected": (
        429,
        "Request not satisfied due to detection of abnormal request pattern",
    ),
}
PROBLEM_TYPE = "application/problem+json"


class FieldError(ValueError):
    """What is asked for cannot be written as header fields."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        """bad-name or bad-form."""


@dataclass(frozen=True)
class Limit:
    """One limit of a decision, under the name of its policy."""

    name: str
    decision: Decision
    quota: int | None = None
    window: float | None = None
    unit: str = "requests"

    @classmethod
    def of(cls, name: str, rule: Rule, decision: Decision) -> Limit:
        """The limit that a rule states, as it was decided."""
        return cls(name, decision, rule.quota, rule.window, rule.unit)


def check_name(name: str) -> str:
    """The name as it is, if a field can hold it: printable ASCII."""
    if not (name.isascii() and name.isprintable()):
        raise FieldError("bad-name", f"the name of a limit is printable ASCII, not {name!r}")
    return name


def seconds_up(seconds: float) -> int:
    """Whole seconds, rounded up, of a number that was whole milliseconds."""
    return math.ceil(round(seconds * 1000) / 1000)


def retry_after(limits: Sequence[Limit]) -> int | None:
    """The longest wait of the limits that refuse; None if nothing is refused, or one of them never grants."""
    waits = [limit.decision.wait for limit in limits if not limit.decision.allowed]
    if not waits or None in waits:
        return None
    return seconds_up(max(wait for wait in waits if wait is not None))


def fields(limits: Sequence[Limit], form: Form = "draft-11", now: float | None = None) -> list[tuple[str, str]]:
    """The header fields for the limits of one decision. `now` is the time since 1970, for `x-ratelimit`."""
    if form == "draft-11":
        found = _draft_11(limits)
    elif form == "draft-6":
        limit, remaining, reset = _tightest(limits)
        found = [
            ("RateLimit-Policy", _policies(limits)),
            ("RateLimit-Limit", str(limit)),
            ("RateLimit-Remaining", str(remaining)),
            ("RateLimit-Reset", str(seconds_up(reset))),
        ]
    elif form == "draft-7":
        limit, remaining, reset = _tightest(limits)
        found = [
            ("RateLimit-Policy", _policies(limits)),
            ("RateLimit", f"limit={limit}, remaining={remaining}, reset={seconds_up(reset)}"),
        ]
    elif form == "x-ratelimit":
        if now is None:
            raise FieldError("bad-form", "x-ratelimit says when, and needs to know what time it is")
        limit, remaining, reset = _tightest(limits)
        found = [
            ("X-RateLimit-Limit", str(limit)),
            ("X-RateLimit-Remaining", str(remaining)),
            ("X-RateLimit-Reset", str(seconds_up(now + reset))),
        ]
    else:
        raise FieldError("bad-form", f"form must be one of {', '.join(FORMS)}, not {form!r}")
    wait = retry_after(limits)
    return found if wait is None else [*found, ("Retry-After", str(wait))]


def problem(limits: Sequence[Limit], kind: Kind = "quota-exceeded") -> dict[str, object]:
    """The body of a refusal, of the type application/problem+json."""
    status, title = _PROBLEMS[kind]
    body: dict[str, object] = {"type": _TYPE + kind, "title": title, "status": status}
    if kind != "temporary-reduced-capacity":
        body["violated-policies"] = [limit.name for limit in limits if not limit.decision.allowed]
    return body


def named(rules: dict[str, Rule], decision: MultiDecision) -> list[Limit]:
    """The limits of a decision under the names of their rules."""
    return [Limit.of(name, rule, one) for (name, rule), one in zip(rules.items(), decision.limits, strict=True)]


def _draft_11(limits: Sequence[Limit]) -> list[tuple[str, str]]:
    policies, states = [], []
    for limit in limits:
        decision = limit.decision
        name = check_name(limit.name).replace("\\", "\\\\").replace('"', '\\"')
        policy = f'"{name}";q={_quota(limit)}'
        if (window := _whole(limit.window)) is not None:
            policy += f";w={window}"
        if limit.unit != "requests":
            policy += f';qu="{limit.unit}"'
        state = f'"{name}";r={decision.remaining}'
        if not decision.allowed and decision.wait is not None:
            state += f";t={seconds_up(decision.wait)}"
        policies.append(policy)
        states.append(state)
    return [("RateLimit-Policy", ", ".join(policies)), ("RateLimit", ", ".join(states))]


def _policies(limits: Sequence[Limit]) -> str:
    windows = [(limit, _whole(limit.window)) for limit in limits]
    return ", ".join(f"{_quota(limit)}" + (f";w={window}" if window is not None else "") for limit, window in windows)


def _quota(limit: Limit) -> int:
    return limit.decision.limit if limit.quota is None else limit.quota


def _whole(seconds: float | None) -> int | None:
    return int(seconds) if seconds and seconds == int(seconds) else None


def _tightest(limits: Sequence[Limit]) -> tuple[int, int, float]:
    """Forms with one set of numbers show the limit with the longest wait, or else the one with least left."""
    refusing = [limit.decision for limit in limits if not limit.decision.allowed]
    if refusing:
        worst = max(refusing, key=lambda one: math.inf if one.wait is None else one.wait)
        return worst.limit, worst.remaining, worst.reset if worst.wait is None else worst.wait
    least = min((limit.decision for limit in limits), key=lambda one: one.remaining)
    return least.limit, least.remaining, least.reset
