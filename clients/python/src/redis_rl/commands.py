"""Every command as a value: its words, the key that routes it, and how to read its reply. No connection here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from .decision import Decision, MultiDecision
from .rule import Duration, Rule, duration_word

T = TypeVar("T")
Word = str | bytes | int
Key = str | bytes


@dataclass(frozen=True)
class Command(Generic[T]):
    """A command that is ready to be sent."""

    words: tuple[Word, ...]
    key: Key
    """The first key: in a cluster all are in its slot."""
    read: Callable[[Any], T]


@dataclass(frozen=True)
class Lease:
    """A lease that is held."""

    id: bytes
    units: int
    left: float
    """The seconds until it runs out, unless it is renewed."""


@dataclass(frozen=True)
class Throttled:
    """The reply of RL.THROTTLE, which is redis-cell's."""

    limited: bool
    limit: int
    remaining: int
    retry_after: int
    """Whole seconds; -1 if granted, or if it never is."""
    reset_after: int


def _decision(reply: Any) -> Decision:
    return Decision.from_reply(reply)


def _perhaps(reply: Any) -> Decision | None:
    return None if reply is None else Decision.from_reply(reply)


def _several(reply: Any) -> tuple[Decision | None, ...]:
    return tuple(_perhaps(one) for one in reply)


def _number(reply: Any) -> int:
    return int(reply)


def _text(value: Any) -> Any:
    return value.decode() if isinstance(value, bytes) else value


def _map(reply: Any) -> dict[str, Any] | None:
    """A map in RESP3, a flat array in RESP2."""
    if reply is None:
        return None
    pairs = reply.items() if isinstance(reply, Mapping) else zip(reply[::2], reply[1::2], strict=True)
    return {_text(name): _text(value) for name, value in pairs}


def _leases(reply: Any) -> list[Lease]:
    return [Lease(id.encode() if isinstance(id, str) else id, int(units), ms / 1000) for id, units, ms in reply]


def decide(
    key: Key,
    rule: Rule,
    *,
    cost: int | None = None,
    partial: bool = False,
    force: bool = False,
    at: int | None = None,
) -> Command[Decision]:
    """The rule's own command: RL.SLIDING and the like, RL.ACQUIRE for CONCURRENCY."""
    name = "ACQUIRE" if rule.algorithm == "CONCURRENCY" else rule.algorithm
    options = (["PARTIAL"] if partial else []) + (["FORCE"] if force else [])
    return Command((f"RL.{name}", key, *rule.words(cost), *options, *_at(at)), key, _decision)


def multi(
    limits: Sequence[tuple[Key, Rule]], *, cost: int | None = None, force: bool = False, at: int | None = None
) -> Command[MultiDecision]:
    """RL.MULTI. `cost` is what is taken of each rule that does not state its own."""
    words: list[Word] = ["RL.MULTI", len(limits), *(key for key, _ in limits)]
    for _, rule in limits:
        words += [rule.algorithm, *rule.words(cost)]
    words += ["FORCE"] if force else []
    return Command((*words, *_at(at)), limits[0][0], MultiDecision.from_reply)


def peek(key: Key, *, cost: int | None = None, at: int | None = None) -> Command[Decision | None]:
    """RL.PEEK."""
    options: tuple[Word, ...] = () if cost is None else ("COST", cost)
    return Command(("RL.PEEK", key, *options, *_at(at)), key, _perhaps)


def info(key: Key, *, at: int | None = None) -> Command[dict[str, Any] | None]:
    """RL.INFO."""
    return Command(("RL.INFO", key, *_at(at)), key, _map)


def refund(key: Key, units: int, *, at: int | None = None) -> Command[Decision | None]:
    """RL.REFUND."""
    return Command(("RL.REFUND", key, units, *_at(at)), key, _perhaps)


def settle(
    keys: Sequence[Key], reserved: int, used: int, *, at: int | None = None
) -> Command[tuple[Decision | None, ...]]:
    """RL.SETTLE."""
    return Command(("RL.SETTLE", len(keys), *keys, reserved, used, *_at(at)), keys[0], _several)


def reset(keys: Sequence[Key]) -> Command[int]:
    """RL.RESET."""
    return Command(("RL.RESET", *keys), keys[0], _number)


def renew(key: Key, ttl: Duration, ids: Sequence[str | bytes], *, at: int | None = None) -> Command[int]:
    """RL.RENEW."""
    return Command(("RL.RENEW", key, duration_word(ttl), *ids, *_at(at)), key, _number)


def release(key: Key, ids: Sequence[str | bytes], *, at: int | None = None) -> Command[int]:
    """RL.RELEASE."""
    return Command(("RL.RELEASE", key, *ids, *_at(at)), key, _number)


def leases(key: Key, *, count: int | None = None, at: int | None = None) -> Command[list[Lease]]:
    """RL.LEASES."""
    options: tuple[Word, ...] = () if count is None else ("COUNT", count)
    return Command(("RL.LEASES", key, *options, *_at(at)), key, _leases)


def throttle(key: Key, max_burst: int, count: int, period: int, quantity: int = 1) -> Command[Throttled]:
    """RL.THROTTLE."""

    def read(reply: Any) -> Throttled:
        limited, *numbers = reply
        return Throttled(limited == 1, *(int(number) for number in numbers))

    return Command(("RL.THROTTLE", key, max_burst, count, period, quantity), key, read)


def _at(at: int | None) -> tuple[Word, ...]:
    return () if at is None else ("AT", at)
