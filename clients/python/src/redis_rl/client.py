"""The client: a typed method for each command, over a connection of your own.

redis-py or valkey-py, `Redis`, `RedisCluster`, or what a Sentinel's `master_for` returns.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, TypeVar, runtime_checkable

from . import commands
from .commands import Command, Key, Lease, Throttled
from .decision import Decision, MultiDecision
from .lease import AsyncHeld, Held
from .rule import Duration, Rate, Rule

T = TypeVar("T")


class Connection(Protocol):
    """What is needed of a connection: `execute_command`, as redis-py and valkey-py have it."""

    def execute_command(self, *args: Any, **options: Any) -> Any:
        """Sends a command and returns its reply."""


@runtime_checkable
class _AsyncCluster(Protocol):
    async def initialize(self) -> object: ...

    def get_node_from_key(self, key: Key) -> object: ...

    async def execute_command(self, *args: Any, **options: Any) -> Any: ...


def _route(connection: Any, key: Key) -> dict[str, Any]:
    """In a cluster, the node of the key. Otherwise the library would ask the server which words are keys."""
    if hasattr(connection, "get_node_from_key"):
        return {"target_nodes": connection.get_node_from_key(key)}
    return {}


class Client:
    """Every command of redis-rl.

    `at` decides at a time of your own, in microseconds since 1970: for tests alone.
    """

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    def run(self, command: Command[T]) -> T:
        """Sends a command and reads its reply."""
        reply = self.connection.execute_command(*command.words, **_route(self.connection, command.key))
        return command.read(reply)

    def decide(
        self,
        key: Key,
        rule: Rule,
        *,
        cost: int | None = None,
        partial: bool = False,
        force: bool = False,
        at: int | None = None,
    ) -> Decision:
        """Decides a rule by its own command."""
        return self.run(commands.decide(key, rule, cost=cost, partial=partial, force=force, at=at))

    def token_bucket(
        self,
        key: Key,
        capacity: int,
        rate: Rate,
        *,
        cost: int = 1,
        partial: bool = False,
        force: bool = False,
        at: int | None = None,
    ) -> Decision:
        """RL.TOKENBUCKET: takes units from a bucket that refills at a rate."""
        rule = Rule.token_bucket(capacity, rate)
        return self.decide(key, rule, cost=cost, partial=partial, force=force, at=at)

    def leaky_bucket(
        self,
        key: Key,
        capacity: int,
        rate: Rate,
        *,
        cost: int = 1,
        partial: bool = False,
        force: bool = False,
        at: int | None = None,
    ) -> Decision:
        """RL.LEAKYBUCKET: queues units that drain at a rate. Granted: sleep for `wait`, then go ahead."""
        rule = Rule.leaky_bucket(capacity, rate)
        return self.decide(key, rule, cost=cost, partial=partial, force=force, at=at)

    def fixed_window(
        self,
        key: Key,
        limit: int,
        window: Duration,
        *,
        align: Duration | None = None,
        cost: int = 1,
        partial: bool = False,
        force: bool = False,
        at: int | None = None,
    ) -> Decision:
        """RL.FIXEDWINDOW: counts units per window, or per calendar `day`, `week`, `month` or `year`."""
        rule = Rule.fixed_window(limit, window, align)
        return self.decide(key, rule, cost=cost, partial=partial, force=force, at=at)

    def sliding(
        self,
        key: Key,
        limit: int,
        window: Duration,
        *,
        buckets: int | None = None,
        cost: int = 1,
        partial: bool = False,
        force: bool = False,
        at: int | None = None,
    ) -> Decision:
        """RL.SLIDING: counts units in a sliding window, in bounded memory."""
        rule = Rule.sliding(limit, window, buckets)
        return self.decide(key, rule, cost=cost, partial=partial, force=force, at=at)

    def sliding_log(
        self,
        key: Key,
        limit: int,
        window: Duration,
        *,
        cost: int = 1,
        partial: bool = False,
        force: bool = False,
        at: int | None = None,
    ) -> Decision:
        """RL.SLIDINGLOG: counts units in a sliding window, to the microsecond."""
        rule = Rule.sliding_log(limit, window)
        return self.decide(key, rule, cost=cost, partial=partial, force=force, at=at)

    def multi(
        self,
        limits: Sequence[tuple[Key, Rule]],
        *,
        cost: int | None = None,
        force: bool = False,
        at: int | None = None,
    ) -> MultiDecision:
        """RL.MULTI: decides several limits at once; all grant, or nothing is taken from any.

        `cost` is what is taken of each rule that does not state its own.
        """
        return self.run(commands.multi(limits, cost=cost, force=force, at=at))

    def peek(self, key: Key, *, cost: int = 1, at: int | None = None) -> Decision | None:
        """RL.PEEK: what a request would get; takes nothing. None if there is no limiter, or an idle one."""
        return self.run(commands.peek(key, cost=cost, at=at))

    def info(self, key: Key, *, at: int | None = None) -> dict[str, Any] | None:
        """RL.INFO: describes a limiter, in the server's own names and units."""
        return self.run(commands.info(key, at=at))

    def refund(self, key: Key, units: int, *, at: int | None = None) -> Decision | None:
        """RL.REFUND: gives units back."""
        return self.run(commands.refund(key, units, at=at))

    def settle(
        self, keys: Key | Sequence[Key], reserved: int, used: int, *, at: int | None = None
    ) -> tuple[Decision | None, ...]:
        """RL.SETTLE: gives back or charges the difference between what was reserved and what was used."""
        keys = [keys] if isinstance(keys, str | bytes) else keys
        return self.run(commands.settle(keys, reserved, used, at=at))

    def reset(self, *keys: Key) -> int:
        """RL.RESET: deletes limiters; how many there were."""
        return self.run(commands.reset(keys))

    def throttle(self, key: Key, max_burst: int, count: int, period: int, quantity: int = 1) -> Throttled:
        """RL.THROTTLE: a token bucket with redis-cell's arguments and reply."""
        return self.run(commands.throttle(key, max_burst, count, period, quantity))

    def acquire(
        self, key: Key, limit: int, ttl: Duration, id: str | bytes, *, cost: int = 1, at: int | None = None
    ) -> Decision:
        """RL.ACQUIRE: acquires a lease. Most will want `lease`, which renews and releases it, too."""
        return self.decide(key, Rule.concurrency(limit, ttl, id), cost=cost, at=at)

    def renew(self, key: Key, ttl: Duration, *ids: str | bytes, at: int | None = None) -> int:
        """RL.RENEW: renews leases; how many of them were still held."""
        return self.run(commands.renew(key, ttl, ids, at=at))

    def release(self, key: Key, *ids: str | bytes, at: int | None = None) -> int:
        """RL.RELEASE: gives leases back; how many of them were still held."""
        return self.run(commands.release(key, ids, at=at))

    def leases(self, key: Key, *, count: int | None = None, at: int | None = None) -> list[Lease]:
        """RL.LEASES: the leases that are held, the soonest to run out first."""
        return self.run(commands.leases(key, count=count, at=at))

    def lease(self, key: Key, limit: int, ttl: Duration, *, cost: int = 1, id: str | bytes | None = None) -> Held:
        """A lease for the body of a `with` statement: renewed at a third of its `ttl`, and always released.

        Raises Busy if everything is held.
        """
        return Held(self, key, limit, ttl, cost=cost, id=id)


class AsyncClient:
    """Every command of redis-rl, over an asyncio connection.

    `at` decides at a time of your own, in microseconds since 1970: for tests alone.
    """

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    async def run(self, command: Command[T]) -> T:
        """Sends a command and reads its reply."""
        if isinstance(self.connection, _AsyncCluster):
            await self.connection.initialize()  # of a cluster: it must know its nodes
        reply = await self.connection.execute_command(*command.words, **_route(self.connection, command.key))
        return command.read(reply)

    async def decide(
        self,
        key: Key,
        rule: Rule,
        *,
        cost: int | None = None,
        partial: bool = False,
        force: bool = False,
        at: int | None = None,
    ) -> Decision:
        """Decides a rule by its own command."""
        return await self.run(commands.decide(key, rule, cost=cost, partial=partial, force=force, at=at))

    async def token_bucket(
        self,
        key: Key,
        capacity: int,
        rate: Rate,
        *,
        cost: int = 1,
        partial: bool = False,
        force: bool = False,
        at: int | None = None,
    ) -> Decision:
        """RL.TOKENBUCKET: takes units from a bucket that refills at a rate."""
        rule = Rule.token_bucket(capacity, rate)
        return await self.decide(key, rule, cost=cost, partial=partial, force=force, at=at)

    async def leaky_bucket(
        self,
        key: Key,
        capacity: int,
        rate: Rate,
        *,
        cost: int = 1,
        partial: bool = False,
        force: bool = False,
        at: int | None = None,
    ) -> Decision:
        """RL.LEAKYBUCKET: queues units that drain at a rate. Granted: sleep for `wait`, then go ahead."""
        rule = Rule.leaky_bucket(capacity, rate)
        return await self.decide(key, rule, cost=cost, partial=partial, force=force, at=at)

    async def fixed_window(
        self,
        key: Key,
        limit: int,
        window: Duration,
        *,
        align: Duration | None = None,
        cost: int = 1,
        partial: bool = False,
        force: bool = False,
        at: int | None = None,
    ) -> Decision:
        """RL.FIXEDWINDOW: counts units per window, or per calendar `day`, `week`, `month` or `year`."""
        rule = Rule.fixed_window(limit, window, align)
        return await self.decide(key, rule, cost=cost, partial=partial, force=force, at=at)

    async def sliding(
        self,
        key: Key,
        limit: int,
        window: Duration,
        *,
        buckets: int | None = None,
        cost: int = 1,
        partial: bool = False,
        force: bool = False,
        at: int | None = None,
    ) -> Decision:
        """RL.SLIDING: counts units in a sliding window, in bounded memory."""
        rule = Rule.sliding(limit, window, buckets)
        return await self.decide(key, rule, cost=cost, partial=partial, force=force, at=at)

    async def sliding_log(
        self,
        key: Key,
        limit: int,
        window: Duration,
        *,
        cost: int = 1,
        partial: bool = False,
        force: bool = False,
        at: int | None = None,
    ) -> Decision:
        """RL.SLIDINGLOG: counts units in a sliding window, to the microsecond."""
        rule = Rule.sliding_log(limit, window)
        return await self.decide(key, rule, cost=cost, partial=partial, force=force, at=at)

    async def multi(
        self,
        limits: Sequence[tuple[Key, Rule]],
        *,
        cost: int | None = None,
        force: bool = False,
        at: int | None = None,
    ) -> MultiDecision:
        """RL.MULTI: decides several limits at once; all grant, or nothing is taken from any.

        `cost` is what is taken of each rule that does not state its own.
        """
        return await self.run(commands.multi(limits, cost=cost, force=force, at=at))

    async def peek(self, key: Key, *, cost: int = 1, at: int | None = None) -> Decision | None:
        """RL.PEEK: what a request would get; takes nothing. None if there is no limiter, or an idle one."""
        return await self.run(commands.peek(key, cost=cost, at=at))

    async def info(self, key: Key, *, at: int | None = None) -> dict[str, Any] | None:
        """RL.INFO: describes a limiter, in the server's own names and units."""
        return await self.run(commands.info(key, at=at))

    async def refund(self, key: Key, units: int, *, at: int | None = None) -> Decision | None:
        """RL.REFUND: gives units back."""
        return await self.run(commands.refund(key, units, at=at))

    async def settle(
        self, keys: Key | Sequence[Key], reserved: int, used: int, *, at: int | None = None
    ) -> tuple[Decision | None, ...]:
        """RL.SETTLE: gives back or charges the difference between what was reserved and what was used."""
        keys = [keys] if isinstance(keys, str | bytes) else keys
        return await self.run(commands.settle(keys, reserved, used, at=at))

    async def reset(self, *keys: Key) -> int:
        """RL.RESET: deletes limiters; how many there were."""
        return await self.run(commands.reset(keys))

    async def throttle(self, key: Key, max_burst: int, count: int, period: int, quantity: int = 1) -> Throttled:
        """RL.THROTTLE: a token bucket with redis-cell's arguments and reply."""
        return await self.run(commands.throttle(key, max_burst, count, period, quantity))

    async def acquire(
        self, key: Key, limit: int, ttl: Duration, id: str | bytes, *, cost: int = 1, at: int | None = None
    ) -> Decision:
        """RL.ACQUIRE: acquires a lease. Most will want `lease`, which renews and releases it, too."""
        return await self.decide(key, Rule.concurrency(limit, ttl, id), cost=cost, at=at)

    async def renew(self, key: Key, ttl: Duration, *ids: str | bytes, at: int | None = None) -> int:
        """RL.RENEW: renews leases; how many of them were still held."""
        return await self.run(commands.renew(key, ttl, ids, at=at))

    async def release(self, key: Key, *ids: str | bytes, at: int | None = None) -> int:
        """RL.RELEASE: gives leases back; how many of them were still held."""
        return await self.run(commands.release(key, ids, at=at))

    async def leases(self, key: Key, *, count: int | None = None, at: int | None = None) -> list[Lease]:
        """RL.LEASES: the leases that are held, the soonest to run out first."""
        return await self.run(commands.leases(key, count=count, at=at))

    def lease(self, key: Key, limit: int, ttl: Duration, *, cost: int = 1, id: str | bytes | None = None) -> AsyncHeld:
        """A lease for the body of an `async with` statement: renewed at a third of its `ttl`, and always released.

        Raises Busy if everything is held.
        """
        return AsyncHeld(self, key, limit, ttl, cost=cost, id=id)
