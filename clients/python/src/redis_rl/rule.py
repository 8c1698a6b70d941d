"""A limit as an application states it: an algorithm with its arguments, and the words it is on the wire."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from fractions import Fraction

Duration = float | int | str | timedelta
"""Seconds, a timedelta, or the server's own words: "500ms", "1m", "7d"."""
Rate = float | int | str | tuple[int, Duration]
"""Units per second; or units and a duration, as "100/60" or (100, 60)."""

_UNITS = {"us": 1, "ms": 1_000, "s": 1_000_000, "m": 60_000_000, "h": 3_600_000_000}
_UNITS["d"] = 24 * _UNITS["h"]
_CALENDAR = {"day": 86_400.0, "week": 604_800.0, "month": None, "year": None}


def microseconds(duration: Duration) -> int:
    """A duration in whole microseconds."""
    if isinstance(duration, timedelta):
        return duration // timedelta(microseconds=1)
    text = str(duration).strip()
    digits = text.rstrip("abcdefghijklmnopqrstuvwxyz")
    unit = _UNITS.get(text[len(digits) :] or "s")
    try:
        exact = Fraction(digits) * (unit or 0)
    except (ValueError, ZeroDivisionError):
        unit = None
    if unit is None:
        raise ValueError(f"a duration is a number of seconds, or 500ms, 60s, 1m, 12h, 7d; not {duration!r}")
    return round(exact)


def duration_word(duration: Duration) -> str:
    """A duration as the server reads it. Its own words, like `month`, stand as they are."""
    if isinstance(duration, str):
        return duration
    return f"{microseconds(duration)}us"


def rate_word(rate: Rate) -> str:
    """A rate as the server reads it."""
    if isinstance(rate, tuple):
        return f"{rate[0]}/{duration_word(rate[1])}"
    if isinstance(rate, float):
        fraction = Fraction(str(rate))
        return f"{fraction.numerator}/{fraction.denominator}"
    return str(rate)


@dataclass(frozen=True)
class Rule:
    """A limit. Make one with `Rule.sliding(100, "1m")` and the like."""

    algorithm: str
    limit: int
    arguments: tuple[str | bytes, ...]
    """What follows the limit: a window, a rate, options of the algorithm."""
    cost: int | None = None
    blocking: tuple[str | int, ...] = ()
    quota: int | None = None
    """What `q` of the header fields says, if it is not the limit."""
    window: float | None = None
    """What `w` says, in seconds; unknown for months and years."""
    unit: str = "requests"
    """What `qu` says."""
    span: float = 0.0
    """The seconds that the limit counts over, for the limiter in the process."""

    @classmethod
    def token_bucket(cls, capacity: int, rate: Rate) -> Rule:
        """A bucket of `capacity` units that refills at `rate`: a burst, then a steady rate."""
        return cls._bucket("TOKENBUCKET", capacity, rate)

    @classmethod
    def leaky_bucket(cls, capacity: int, rate: Rate) -> Rule:
        """A queue of `capacity` units that drains at `rate`; a grant says how long to wait."""
        return cls._bucket("LEAKYBUCKET", capacity, rate)

    @classmethod
    def _bucket(cls, algorithm: str, capacity: int, rate: Rate) -> Rule:
        word = rate_word(rate)
        units, _, per = word.partition("/")
        # "100/m" is "100/1m".
        window = microseconds(f"1{per}" if per[:1].isalpha() else per or 1) / 1_000_000
        per_second = Fraction(units) / Fraction(str(window))
        whole = Fraction(units).denominator == 1
        return cls(
            algorithm,
            capacity,
            (word,),
            quota=int(Fraction(units)) if whole else None,
            window=window if whole else None,
            span=float(capacity / per_second),
        )

    @classmethod
    def fixed_window(cls, limit: int, window: Duration, align: Duration | None = None) -> Rule:
        """`limit` units in each window: a duration, or `day`, `week`, `month`, `year`."""
        words = (duration_word(window),) + (("ALIGN", duration_word(align)) if align is not None else ())
        return cls._window("FIXEDWINDOW", limit, window, words)

    @classmethod
    def sliding(cls, limit: int, window: Duration, buckets: int | None = None) -> Rule:
        """`limit` units in every span of one window, in bounded memory."""
        words = (duration_word(window),) + (("BUCKETS", str(buckets)) if buckets is not None else ())
        return cls._window("SLIDING", limit, window, words)

    @classmethod
    def sliding_log(cls, limit: int, window: Duration) -> Rule:
        """`limit` units in every span of one window, each back exactly on time."""
        return cls._window("SLIDINGLOG", limit, window, (duration_word(window),))

    @classmethod
    def _window(cls, algorithm: str, limit: int, window: Duration, words: tuple[str, ...]) -> Rule:
        if isinstance(window, str) and window in _CALENDAR:
            seconds = _CALENDAR[window]
            # The longest there are: the limiter in the process must not grant more.
            span = seconds or {"month": 31, "year": 366}[window] * 86_400.0
        else:
            seconds = span = microseconds(window) / 1_000_000
        return cls(algorithm, limit, words, window=seconds, span=span)

    @classmethod
    def concurrency(cls, limit: int, ttl: Duration, holder: str | bytes) -> Rule:
        """At most `limit` units held at the same time, by leases of `ttl` under `holder`'s id."""
        return cls("CONCURRENCY", limit, (duration_word(ttl), holder), unit="concurrent-requests")

    def costing(self, units: int) -> Rule:
        """The same limit, of which a request takes that many units."""
        return replace(self, cost=units)

    def block(self, duration: Duration, after: int | None = None) -> Rule:
        """The same limit, which closes for `duration` after `after` denials in a row (by default 1)."""
        more: tuple[str | int, ...] = () if after is None else ("AFTER", after)
        return replace(self, blocking=("BLOCK", duration_word(duration), *more))

    def counting(self, unit: str) -> Rule:
        """The same limit of another unit in the header fields, like `content-bytes`."""
        return replace(self, unit=unit)

    @property
    def counts_denials(self) -> bool:
        """Whether the server must see each denial, because a block begins after several."""
        return bool(self.blocking) and self.blocking[-2] == "AFTER" and int(self.blocking[-1]) > 1

    def words(self, cost: int | None = None) -> list[str | bytes | int]:
        """The rule in RL.MULTI, or after a key in its own command."""
        words: list[str | bytes | int] = [self.limit, *self.arguments]
        cost = self.cost if self.cost is not None else cost
        if cost is not None:
            words += ["COST", cost]
        return words + list(self.blocking)
