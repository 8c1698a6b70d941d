"""A storage for `limits` 5, and so for flask-limiter 4 and slowapi: `redis-rl://host:port`.

Importing this module registers the schemes `redis-rl`, `rediss-rl`, each with `+sentinel` and `+cluster`, and
`async+` before any of them. It also adds the strategies `token-bucket` and `leaky-bucket`.

The library asks for a decision with one method and for its numbers with others. The reply to the first serves the
others for a second, so a request with header fields costs one round trip. The strategies of this module state the
limit in the call, so the server decides, and a denial writes nothing. With another storage they do what the
library's own do.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import AbstractContextManager
from functools import lru_cache
from typing import Any, ClassVar, Literal, TypeVar, cast

import limits.aio.storage as aio
import limits.aio.strategies as aio_strategies
from limits import RateLimitItem, strategies
from limits.errors import StorageError
from limits.storage import MovingWindowSupport, SlidingWindowCounterSupport, Storage
from limits.util import WindowStats

from . import commands
from .breaker import Breaker, Unavailable, is_away
from .client import AsyncClient, Client
from .commands import Command
from .connect import TIMEOUT, connect, connect_async
from .decision import Decision, MultiDecision
from .denials import DenialCache
from .rule import Rule
from .together import MOST, Hit, Together, answer

T = TypeVar("T")
Kind = Literal["fixed", "moving", "sliding", "token", "leaky"]
KINDS: tuple[Kind, ...] = ("fixed", "moving", "sliding", "token", "leaky")

_MOST = 10**12
_LONGEST_LOG = 100_000
_SCHEMES = [f"{base}-rl{way}" for base in ("redis", "rediss") for way in ("", "+sentinel", "+cluster")]


def _exceptions() -> tuple[type[Exception], ...]:
    found: list[type[Exception]] = [OSError, Unavailable, asyncio.TimeoutError]
    for name in ("Redis", "Valkey"):
        with contextlib.suppress(ImportError):
            module = importlib.import_module(f"{name.lower()}.exceptions")
            found += [getattr(module, f"{name}Error"), getattr(module, f"{name}ClusterException")]
    return tuple(found)


_EXCEPTIONS = _exceptions()


@lru_cache(maxsize=1024)
def rule(kind: Kind, amount: int, expiry: int) -> Rule:
    """The rule that a strategy of the library is."""
    if kind == "fixed":
        return Rule.fixed_window(amount, expiry)
    if kind == "moving" and amount <= _LONGEST_LOG:
        return Rule.sliding_log(amount, expiry)
    if kind in ("moving", "sliding"):
        return Rule.sliding(amount, expiry)
    # A rate is above 0, also of a limit of 0, which never grants.
    rate = (max(1, amount), expiry)
    return Rule.token_bucket(amount, rate) if kind == "token" else Rule.leaky_bucket(amount, rate)


class _Replies:
    """The last replies by key, for a moment: what `hit` was told serves the stats, too."""

    def __init__(self, age: float, size: int = 10_000) -> None:
        self._age = age
        self._size = size
        self._replies: OrderedDict[str, tuple[Decision, float]] = OrderedDict()
        self._lock = threading.Lock()

    def put(self, key: str, decision: Decision) -> None:
        with self._lock:
            self._replies[key] = (decision, time.monotonic())
            self._replies.move_to_end(key)
            if len(self._replies) > self._size:
                self._replies.popitem(last=False)

    def get(self, key: str) -> Decision | None:
        with self._lock:
            decision, at = self._replies.get(key, (None, 0.0))
        age = time.monotonic() - at
        return None if decision is None or age >= self._age else decision.later(age)

    def forget(self, keys: list[str] | None = None) -> None:
        with self._lock:
            for key in list(self._replies) if keys is None else keys:
                self._replies.pop(key, None)


class _Shared:
    """What both storages share: everything but the call."""

    def _set_up(self, key_prefix: str, denial_cache: int, stats_max_age: float) -> None:
        self.key_prefix = key_prefix
        self._breaker = Breaker()
        self._replies = _Replies(stats_max_age)
        self._denials = DenialCache(denial_cache)

    @property
    def base_exceptions(self) -> tuple[type[Exception], ...]:
        """What a server that is away, or that refuses a call, raises."""
        return _EXCEPTIONS

    def _error(self, error: Exception) -> Exception:
        wrap = getattr(self, "wrap_exceptions", False) and isinstance(error, self.base_exceptions)
        return StorageError(error) if wrap else error

    def _key(self, kind: Kind, key: str) -> str:
        # One slot for all limits of a client and all strategies, so that one command decides or clears several; none of
        # them meets another's limiter. The library's keys end in the three parts of a limit.
        for character in "%{}":
            key = key.replace(character, f"%{ord(character):02X}")
        client, *limit = key.rsplit("/", 3)
        if len(limit) < 3 or not client:
            client, limit = key, []
        return f"{self.key_prefix}:{{{client}}}{''.join(f'/{part}' for part in limit)}:{kind}"

    def _keys(self, key: str) -> list[str]:
        return [self._key(kind, key) for kind in KINDS]

    def _pattern(self) -> str:
        return "".join(f"\\{letter}" if letter in "*?[]\\" else letter for letter in self.key_prefix) + ":{*"

    def _denied(self, name: str, cost: int, names: Sequence[str] = ()) -> MultiDecision | None:
        """The denial that is remembered under a name, of these keys. It serves the stats, too."""
        found = self._denials.get(name, cost, time.monotonic())
        if found is not None:
            self._reply(names or [name], found)
        return found

    def _reply(self, names: Sequence[str], decision: MultiDecision) -> None:
        for name, limit in zip(names, decision.limits, strict=True):
            self._replies.put(name, limit)

    def _took(self, name: str, cost: int, decision: Decision, sent: float) -> Decision:
        self._replies.put(name, decision)
        self._denials.add(name, cost, MultiDecision.of([decision]), sent)
        return decision

    def _looked(self, name: str, decision: Decision | None) -> Decision | None:
        if decision is not None:
            self._replies.put(name, decision)
        return decision

    def _forget(self, key: str | None) -> None:
        names = None if key is None else self._keys(key)
        self._replies.forget(names)
        # All of them, for a denial of several limits is remembered under none of their names.
        self._denials.forget()


def _used(decision: Decision | None) -> int:
    return 0 if decision is None else decision.limit - decision.remaining


def _until(decision: Decision | None) -> float:
    """When the next unit is there, if there is none, or else when all are: rounded up to a whole second.

    The frameworks cut fractions off when they make Retry-After of this. So it is never too early.
    """
    if decision is None:
        return time.time()
    seconds = decision.wait if decision.remaining == 0 and not decision.allowed and decision.wait else decision.reset
    return float(math.ceil(time.time() + seconds))


def _stats(decision: Decision | None, amount: int) -> WindowStats:
    return WindowStats(_until(decision), amount if decision is None else decision.remaining)


class RedisRLStorage(_Shared, Storage, MovingWindowSupport, SlidingWindowCounterSupport):
    """`redis-rl://host:port`, `redis-rl+sentinel://host:port,host:port/service`, `redis-rl+cluster://host:port,...`.

    Options: `timeout` (seconds that a request waits for the server), `denial_cache` (denials that are remembered in
    the process; 0, the default, for none: a `clear` in another process would not be noticed), `stats_max_age`
    (seconds for which a reply serves the stats), `key_prefix`, `implementation` (`redis` or `valkey`), `connection`
    (one of your own instead of a URI's). Others go to the connection.

    While the server is away errors are raised at once, so the library's own `swallow_errors` and
    `in_memory_fallback` apply; once a second it is asked again in the background.
    """

    STORAGE_SCHEME = _SCHEMES

    def __init__(
        self,
        uri: str | None = None,
        wrap_exceptions: bool = False,
        *,
        key_prefix: str = "LIMITS",
        timeout: float = TIMEOUT,
        denial_cache: int = 0,
        stats_max_age: float = 1.0,
        connection: Any = None,
        **options: Any,
    ) -> None:
        super().__init__(uri, wrap_exceptions=wrap_exceptions)
        self._set_up(key_prefix, denial_cache, stats_max_age)
        self.storage = connection or connect((uri or "").replace("-rl", "", 1), timeout=timeout, **options)
        self._client = Client(self.storage)

    def take(self, kind: Kind, key: str, amount: int, expiry: int, cost: int = 1) -> Decision:
        """Takes `cost` units of `amount` per `expiry` seconds."""
        name = self._key(kind, key)
        if (denied := self._denied(name, cost)) is not None:
            return denied.limits[0]
        sent = time.monotonic()
        decision = self._run(commands.decide(name, rule(kind, amount, expiry), cost=cost))
        return self._took(name, cost, decision, sent)

    def take_all(self, kind: Kind, asked: Sequence[tuple[str, int, int, int]]) -> MultiDecision:
        """Takes from several limits or from none: key, amount, seconds and cost of each. One slot in a cluster."""
        names = [self._key(kind, key) for key, _, _, _ in asked]
        limits = [(name, rule(kind, *rest[:2]).costing(rest[2])) for name, (_, *rest) in zip(names, asked, strict=True)]
        joint = "\n".join(f"{limit.cost} {name}" for name, limit in limits)
        if (denied := self._denied(joint, 1, names)) is not None:
            return denied
        sent = time.monotonic()
        decision = self._run(commands.multi(limits))
        self._reply(names, decision)
        self._denials.add(joint, 1, decision, sent)
        return decision

    def can_take_all(self, kind: Kind, keys: Sequence[str]) -> bool:
        """Whether one command can decide these keys."""
        names = {self._key(kind, key) for key in keys}
        slot = getattr(self.storage, "keyslot", lambda name: 0)
        return len(names) == len(keys) <= MOST and len({slot(name) for name in names}) == 1

    def look(self, kind: Kind, key: str, *, fresh: bool = False, cost: int = 1) -> Decision | None:
        """What is there, without taking anything; None if nothing is in use."""
        name = self._key(kind, key)
        known = None if fresh else self._replies.get(name)
        return known or self._looked(name, self._run(commands.peek(name, cost=cost)))

    def _run(self, command: Command[T]) -> T:
        if self._breaker.is_open:
            self._breaker.probe(lambda: self._client.run(commands.peek(command.key)))
            raise self._error(Unavailable("the server was away a moment ago"))
        try:
            reply = self._client.run(command)
        except Exception as error:
            if is_away(error):
                self._breaker.failed()
            raise self._error(error) from error
        self._breaker.succeeded()
        return reply

    def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        """The count of a fixed window, which has no limit here: for the library's own fixed-window class."""
        return _used(self.take("fixed", key, _MOST, expiry, amount))

    def get(self, key: str) -> int:
        """The count of a fixed window."""
        return _used(self.look("fixed", key))

    def get_expiry(self, key: str) -> float:
        """When a fixed window ends."""
        return _until(self.look("fixed", key))

    def acquire_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        """Takes units of a moving window."""
        return self.take("moving", key, limit, expiry, amount).allowed

    def get_moving_window(self, key: str, limit: int, expiry: int) -> tuple[float, int]:
        """The start and the count of a moving window."""
        found = self.look("moving", key)
        return _until(found) - (expiry if found else 0), _used(found)

    def acquire_sliding_window_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        """Takes units of a sliding window. It is not estimated: no span of one window passes more than the limit."""
        return self.take("sliding", key, limit, expiry, amount).allowed

    def get_sliding_window(self, key: str, expiry: int) -> tuple[int, float, int, float]:
        """All that counts is in the current window."""
        found = self.look("sliding", key)
        return 0, 0.0, _used(found), found.reset if found else 0.0

    def clear_sliding_window(self, key: str, expiry: int) -> None:
        """Forgets a key."""
        self.clear(key)

    def clear(self, key: str) -> None:
        """Forgets a key, whatever the strategy."""
        try:
            self._run(commands.reset(self._keys(key)))
        finally:
            self._forget(key)

    def check(self) -> bool:
        """Whether the server answers."""
        try:
            self._client.run(commands.peek(f"{self.key_prefix}:check"))
        except self.base_exceptions:
            return False
        self._breaker.succeeded()
        return True

    def reset(self) -> int | None:
        """Forgets all keys with the prefix; how many there were. It walks through the keys, and blocks nobody."""
        try:
            names = list(self.storage.scan_iter(self._pattern(), count=1000))
            return sum(int(self.storage.unlink(name)) for name in names)
        finally:
            self._forget(None)


class AsyncRedisRLStorage(_Shared, aio.Storage, aio.MovingWindowSupport, aio.SlidingWindowCounterSupport):
    """The same for asyncio: `async+redis-rl://host:port` and so on."""

    STORAGE_SCHEME = [f"async+{scheme}" for scheme in _SCHEMES]

    def __init__(
        self,
        uri: str | None = None,
        wrap_exceptions: bool = False,
        *,
        key_prefix: str = "LIMITS",
        timeout: float = TIMEOUT,
        denial_cache: int = 0,
        stats_max_age: float = 1.0,
        connection: Any = None,
        **options: Any,
    ) -> None:
        super().__init__(uri, wrap_exceptions=wrap_exceptions)
        self._set_up(key_prefix, denial_cache, stats_max_age)
        url = (uri or "").removeprefix("async+").replace("-rl", "", 1)
        self.storage = connection or connect_async(url, timeout=timeout, **options)
        self._client = AsyncClient(self.storage)
        self._timeout = timeout
        self._probing: asyncio.Task[None] | None = None

    async def take(self, kind: Kind, key: str, amount: int, expiry: int, cost: int = 1) -> Decision:
        """Takes `cost` units of `amount` per `expiry` seconds."""
        name = self._key(kind, key)
        if (denied := self._denied(name, cost)) is not None:
            return denied.limits[0]
        sent = time.monotonic()
        decision = await self._run(commands.decide(name, rule(kind, amount, expiry), cost=cost))
        return self._took(name, cost, decision, sent)

    async def look(self, kind: Kind, key: str, *, fresh: bool = False, cost: int = 1) -> Decision | None:
        """What is there, without taking anything; None if nothing is in use."""
        name = self._key(kind, key)
        known = None if fresh else self._replies.get(name)
        return known or self._looked(name, await self._run(commands.peek(name, cost=cost)))

    async def _ask(self, command: Command[T]) -> T:
        return await asyncio.wait_for(self._client.run(command), self._timeout)

    async def _run(self, command: Command[T]) -> T:
        if self._breaker.is_open:
            task = self._breaker.probe_async(lambda: self._ask(commands.peek(command.key)))
            self._probing = task or self._probing
            raise self._error(Unavailable("the server was away a moment ago"))
        try:
            reply = await self._ask(command)
        except Exception as error:
            if is_away(error):
                self._breaker.failed()
            raise self._error(error) from error
        self._breaker.succeeded()
        return reply

    async def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        """The count of a fixed window, which has no limit here: for the library's own fixed-window class."""
        return _used(await self.take("fixed", key, _MOST, expiry, amount))

    async def get(self, key: str) -> int:
        """The count of a fixed window."""
        return _used(await self.look("fixed", key))

    async def get_expiry(self, key: str) -> float:
        """When a fixed window ends."""
        return _until(await self.look("fixed", key))

    async def acquire_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        """Takes units of a moving window."""
        return (await self.take("moving", key, limit, expiry, amount)).allowed

    async def get_moving_window(self, key: str, limit: int, expiry: int) -> tuple[float, int]:
        """The start and the count of a moving window."""
        found = await self.look("moving", key)
        return _until(found) - (expiry if found else 0), _used(found)

    async def acquire_sliding_window_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        """Takes units of a sliding window. It is not estimated: no span of one window passes more than the limit."""
        return (await self.take("sliding", key, limit, expiry, amount)).allowed

    async def get_sliding_window(self, key: str, expiry: int) -> tuple[int, float, int, float]:
        """All that counts is in the current window."""
        found = await self.look("sliding", key)
        return 0, 0.0, _used(found), found.reset if found else 0.0

    async def clear_sliding_window(self, key: str, expiry: int) -> None:
        """Forgets a key."""
        await self.clear(key)

    async def clear(self, key: str) -> None:
        """Forgets a key, whatever the strategy."""
        try:
            await self._run(commands.reset(self._keys(key)))
        finally:
            self._forget(key)

    async def check(self) -> bool:
        """Whether the server answers."""
        try:
            await self._ask(commands.peek(f"{self.key_prefix}:check"))
        except self.base_exceptions:
            return False
        self._breaker.succeeded()
        return True

    async def reset(self) -> int | None:
        """Forgets all keys with the prefix; how many there were. It walks through the keys, and blocks nobody."""
        try:
            names = [name async for name in self.storage.scan_iter(self._pattern(), count=1000)]
            return sum([int(await self.storage.unlink(name)) for name in names])
        finally:
            self._forget(None)


class _Native(strategies.RateLimiter):
    """A strategy that lets the server decide; with another storage it is the class behind it."""

    KIND: ClassVar[Kind]

    def hit(self, item: RateLimitItem, *identifiers: str, cost: int = 1) -> bool:
        """Takes `cost` units."""
        if not isinstance(self.storage, RedisRLStorage):
            return super().hit(item, *identifiers, cost=cost)  # type: ignore[safe-super]
        key = item.key_for(*identifiers)
        if (answered := answer(key, tests=False)) is not None:
            return answered
        decision = self.storage.take(self.KIND, key, item.amount, item.get_expiry(), cost)
        if self.KIND == "leaky" and decision.allowed and decision.wait:
            time.sleep(decision.wait)
        return decision.allowed

    def test(self, item: RateLimitItem, *identifiers: str, cost: int = 1) -> bool:
        """Whether `cost` units would be granted; takes nothing."""
        if not isinstance(self.storage, RedisRLStorage):
            return super().test(item, *identifiers, cost=cost)  # type: ignore[safe-super]
        key = item.key_for(*identifiers)
        if (answered := answer(key, tests=True)) is not None:
            return answered
        found = self.storage.look(self.KIND, key, fresh=True, cost=cost)
        return cost <= item.amount if found is None else found.allowed

    def get_window_stats(self, item: RateLimitItem, *identifiers: str) -> WindowStats:
        """What remains, and when more is there."""
        if not isinstance(self.storage, RedisRLStorage):
            return super().get_window_stats(item, *identifiers)  # type: ignore[safe-super]
        return _stats(self.storage.look(self.KIND, item.key_for(*identifiers)), item.amount)


def together(strategy: object, hits: Sequence[Hit]) -> AbstractContextManager[None]:
    """Within this, these limits are decided in one command, if the storage is ours and one command can."""
    if len(hits) > 1 and isinstance(strategy, _Native) and isinstance(strategy.storage, RedisRLStorage):
        storage = strategy.storage
        if storage.can_take_all(strategy.KIND, [hit.key for hit in hits]):
            return Together(storage, strategy.KIND, hits).announced()
    return contextlib.nullcontext()


class FixedWindow(_Native, strategies.FixedWindowRateLimiter):
    """`fixed-window`: RL.FIXEDWINDOW, a window that begins with the first grant."""

    KIND = "fixed"


class MovingWindow(_Native, strategies.MovingWindowRateLimiter):
    """`moving-window`: RL.SLIDINGLOG, or above 100,000 units RL.SLIDING."""

    KIND = "moving"


class SlidingWindow(_Native, strategies.SlidingWindowCounterRateLimiter):
    """`sliding-window-counter`: RL.SLIDING, which never passes more than the limit in any window."""

    KIND = "sliding"


class TokenBucket(_Native, strategies.MovingWindowRateLimiter):
    """`token-bucket`: RL.TOKENBUCKET, `amount` at once and then `amount` per window. Elsewhere a moving window."""

    KIND = "token"


class LeakyBucket(_Native, strategies.MovingWindowRateLimiter):
    """`leaky-bucket`: RL.LEAKYBUCKET. `hit` sleeps until it is this request's time. Elsewhere a moving window."""

    KIND = "leaky"


class _AsyncNative(aio_strategies.RateLimiter):
    """The same for asyncio."""

    KIND: ClassVar[Kind]

    async def hit(self, item: RateLimitItem, *identifiers: str, cost: int = 1) -> bool:
        """Takes `cost` units."""
        if not isinstance(self.storage, AsyncRedisRLStorage):
            return await super().hit(item, *identifiers, cost=cost)  # type: ignore[safe-super]
        key = item.key_for(*identifiers)
        decision = await self.storage.take(self.KIND, key, item.amount, item.get_expiry(), cost)
        if self.KIND == "leaky" and decision.allowed and decision.wait:
            await asyncio.sleep(decision.wait)
        return decision.allowed

    async def test(self, item: RateLimitItem, *identifiers: str, cost: int = 1) -> bool:
        """Whether `cost` units would be granted; takes nothing."""
        if not isinstance(self.storage, AsyncRedisRLStorage):
            return await super().test(item, *identifiers, cost=cost)  # type: ignore[safe-super]
        found = await self.storage.look(self.KIND, item.key_for(*identifiers), fresh=True, cost=cost)
        return cost <= item.amount if found is None else found.allowed

    async def get_window_stats(self, item: RateLimitItem, *identifiers: str) -> WindowStats:
        """What remains, and when more is there."""
        if not isinstance(self.storage, AsyncRedisRLStorage):
            return await super().get_window_stats(item, *identifiers)  # type: ignore[safe-super]
        return _stats(await self.storage.look(self.KIND, item.key_for(*identifiers)), item.amount)


class AsyncFixedWindow(_AsyncNative, aio_strategies.FixedWindowRateLimiter):
    """`fixed-window` for asyncio."""

    KIND = "fixed"


class AsyncMovingWindow(_AsyncNative, aio_strategies.MovingWindowRateLimiter):
    """`moving-window` for asyncio."""

    KIND = "moving"


class AsyncSlidingWindow(_AsyncNative, aio_strategies.SlidingWindowCounterRateLimiter):
    """`sliding-window-counter` for asyncio."""

    KIND = "sliding"


class AsyncTokenBucket(_AsyncNative, aio_strategies.MovingWindowRateLimiter):
    """`token-bucket` for asyncio."""

    KIND = "token"


class AsyncLeakyBucket(_AsyncNative, aio_strategies.MovingWindowRateLimiter):
    """`leaky-bucket` for asyncio."""

    KIND = "leaky"


# The frameworks look strategies up by these names.
cast(dict[str, Any], strategies.STRATEGIES).update(
    {
        "fixed-window": FixedWindow,
        "moving-window": MovingWindow,
        "sliding-window-counter": SlidingWindow,
        "token-bucket": TokenBucket,
        "leaky-bucket": LeakyBucket,
    }
)
cast(dict[str, Any], aio_strategies.STRATEGIES).update(
    {
        "fixed-window": AsyncFixedWindow,
        "moving-window": AsyncMovingWindow,
        "sliding-window-counter": AsyncSlidingWindow,
        "token-bucket": AsyncTokenBucket,
        "leaky-bucket": AsyncLeakyBucket,
    }
)
