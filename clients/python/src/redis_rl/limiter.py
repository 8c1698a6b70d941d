"""What surrounds a decision: remembered denials, a server that is away, shadow mode, counters; and what to answer."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from . import commands
from .breaker import Breaker, Unavailable, is_away, is_from_server
from .client import AsyncClient, Client, Connection
from .commands import Command
from .connect import TIMEOUT, connect, connect_async
from .decision import Decision, MultiDecision
from .denials import DenialCache
from .fields import Form, Limit, check_name, fields, named, problem
from .keys import limit_key
from .local import LocalLimiter
from .rule import Rule

log = logging.getLogger("redis_rl")

Fail = Literal["open", "closed", "local"]
Source = Literal["redis", "cache", "open", "closed", "local"]
Hook = Callable[[str, "str | None", "Exception | None"], None]
"""Called with an event (`denied`, `open`, `closed`, `local`, `shadow`, `unidentified`), the client and the error."""


@dataclass(frozen=True)
class Outcome:
    """Whether a request may go ahead, and what to answer."""

    allowed: bool
    """In shadow mode always true."""
    source: Source
    """Who decided: the server (`redis`), a remembered denial (`cache`), or what stands in while it is away."""
    decision: MultiDecision | None = None
    """None if nobody decided: `open` or `closed`."""
    limits: list[Limit] = field(default_factory=list)
    shadow: bool = False

    @property
    def status(self) -> int:
        """The HTTP status: 200, 429, or 503 if the server is away and the limiter fails closed."""
        if self.allowed:
            return 200
        return 503 if self.decision is None else 429

    @property
    def wait(self) -> float:
        """Granted by a leaky bucket: the seconds to sleep before going ahead. Otherwise 0."""
        if self.decision is None or not self.decision.allowed:
            return 0.0
        return self.decision.wait or 0.0

    def fields(self, form: Form = "draft-11", now: float | None = None) -> list[tuple[str, str]]:
        """The header fields of the response; none if nobody decided, or in shadow mode."""
        if self.shadow or self.decision is None:
            return [] if self.allowed else [("Retry-After", "1")]
        return fields(self.limits, form, time.time() if now is None else now)

    def problem(self) -> dict[str, object]:
        """The body of a refusal, of the type application/problem+json."""
        return problem(self.limits, "temporary-reduced-capacity" if self.decision is None else "quota-exceeded")


class _Surroundings:
    """All but the call itself, for both kinds of limiter."""

    def __init__(
        self,
        rules: Mapping[str, Rule],
        *,
        prefix: str = "rl",
        fail: Fail = "open",
        instances: int = 1,
        denial_cache: int = 10_000,
        shadow: bool = False,
        on_event: Hook | None = None,
    ) -> None:
        if not rules:
            raise ValueError("a limiter needs a rule")
        for name, rule in rules.items():
            check_name(name)
            if rule.algorithm == "CONCURRENCY":
                raise ValueError(f"{name}: a lease is held, not counted: use the client's lease()")
        if fail not in ("open", "closed", "local"):
            raise ValueError(f"fail must be open, closed or local, not {fail!r}")
        self.rules = dict(rules)
        self.prefix = prefix
        self.fail: Fail = fail
        self.shadow = shadow
        self.breaker = Breaker()
        # The server must see the denials that a block is to follow.
        counts = any(rule.counts_denials for rule in rules.values())
        self.denials = DenialCache(0 if counts else denial_cache)
        self.local = LocalLimiter(rules, instances)
        self.on_event = on_event
        self.counters: dict[str, int] = {}
        """How often each source decided, and each event happened."""
        self._lock = threading.Lock()
        self._logged = 0.0

    def keys(self, who: str) -> list[str]:
        """The keys of a client's limits, in the order of the rules."""
        return [limit_key(self.prefix, who, name) for name in self.rules]

    def unidentified(self, error: Exception) -> Outcome:
        """The outcome for a request of which nobody knows whom to count it for: open lets it pass, else a 503."""
        self._event("unidentified", None, error)
        self._log("cannot tell who a request is counted for: %s", error)
        return Outcome(self.fail == "open" or self.shadow, "open" if self.fail == "open" else "closed")

    def _command(self, who: str, cost: int) -> Command[Any]:
        limits = list(zip(self.keys(who), self.rules.values(), strict=True))
        if len(limits) == 1:
            return commands.decide(*limits[0], cost=cost)
        return commands.multi(limits, cost=cost)

    def _probe(self, who: str) -> Command[Decision | None]:
        # A key of this client: in a cluster another node may be up.
        return commands.peek(self.keys(who)[0])

    def _remembered(self, who: str, cost: int) -> Outcome | None:
        decision = self.denials.get(who, cost, time.monotonic())
        return None if decision is None else self._outcome("cache", who, decision)

    def _decided(self, who: str, cost: int, decision: Decision | MultiDecision, sent: float) -> Outcome:
        self.breaker.succeeded()
        if isinstance(decision, Decision):
            decision = MultiDecision.of([decision])
        self.denials.add(who, cost, decision, sent)
        return self._outcome("redis", who, decision)

    def _failed(self, who: str, cost: int, error: Exception) -> Outcome:
        if is_away(error) and not isinstance(error, Unavailable):
            self.breaker.failed()
        if not isinstance(error, Unavailable):
            self._log("the limit was not checked: %r", error)
        self._event(self.fail, who, error)
        if self.fail == "local":
            return self._outcome("local", who, self.local.decide(who, cost, time.monotonic()))
        self._count(self.fail)
        return Outcome(self.fail == "open" or self.shadow, self.fail)

    def _outcome(self, source: Source, who: str, decision: MultiDecision) -> Outcome:
        self._count(source)
        if not decision.allowed:
            self._event("shadow" if self.shadow else "denied", who, None)
            self._count("denied")
        return Outcome(decision.allowed or self.shadow, source, decision, named(self.rules, decision), self.shadow)

    def _count(self, name: str) -> None:
        with self._lock:
            self.counters[name] = self.counters.get(name, 0) + 1

    def _event(self, event: str, who: str | None, error: Exception | None) -> None:
        if event in ("shadow", "unidentified"):
            self._count(event)
        if self.on_event is not None:
            self.on_event(event, who, error)

    def _log(self, message: str, error: Exception) -> None:
        """At most once a second: a flood of requests must not become a flood of lines."""
        now = time.monotonic()
        if now - self._logged >= 1 or self._logged == 0:
            self._logged = now
            log.error(message, error)


class Limiter(_Surroundings):
    """Decides rules for clients, over a connection of redis-py or valkey-py.

    The connection's own timeouts say how long a request waits for the server: make it with `redis_rl.connect`,
    or with a `socket_timeout` and no retries.
    """

    def __init__(self, connection: Connection, rules: Mapping[str, Rule], **options: Any) -> None:
        super().__init__(rules, **options)
        self.client = Client(connection)
        pool = getattr(connection, "connection_pool", None)
        settings = getattr(pool, "connection_kwargs", {"socket_timeout": TIMEOUT})
        if not settings.get("socket_timeout"):
            log.warning("the limiter's connection has no socket_timeout: a server that hangs will hang requests")

    @classmethod
    def from_url(cls, url: str, rules: Mapping[str, Rule], *, timeout: float = TIMEOUT, **options: Any) -> Limiter:
        """A limiter with a connection of its own; see `redis_rl.connect` for URLs."""
        return cls(connect(url, timeout=timeout), rules, **options)

    def check(self, who: str, cost: int = 1) -> Outcome:
        """Decides all rules for a client at once: all grant, or nothing is taken from any."""
        if (remembered := self._remembered(who, cost)) is not None:
            return remembered
        if self.breaker.is_open:
            self.breaker.probe(lambda: self.client.run(self._probe(who)))
            return self._failed(who, cost, Unavailable("the server was away a moment ago"))
        sent = time.monotonic()
        try:
            decision = self.client.run(self._command(who, cost))
        except Exception as error:
            if not is_from_server(error):
                raise
            return self._failed(who, cost, error)
        return self._decided(who, cost, decision, sent)

    def settle(self, who: str, reserved: int, used: int) -> None:
        """Gives back or charges the difference between what was reserved and what was used, on all limits."""
        self.client.settle(self.keys(who), reserved, used)
        self.denials.forget(who)

    def reset(self, who: str) -> int:
        """Forgets a client: how many limits it had."""
        count = self.client.reset(*self.keys(who))
        self.denials.forget(who)
        return count


class AsyncLimiter(_Surroundings):
    """Decides rules for clients, over an asyncio connection of redis-py or valkey-py.

    A request waits `timeout` seconds for the server at most.
    """

    def __init__(
        self, connection: Connection, rules: Mapping[str, Rule], *, timeout: float = TIMEOUT, **options: Any
    ) -> None:
        super().__init__(rules, **options)
        self.client = AsyncClient(connection)
        self.timeout = timeout
        self._probing: asyncio.Task[None] | None = None

    @classmethod
    def from_url(cls, url: str, rules: Mapping[str, Rule], *, timeout: float = TIMEOUT, **options: Any) -> AsyncLimiter:
        """A limiter with a connection of its own; see `redis_rl.connect` for URLs."""
        return cls(connect_async(url, timeout=timeout), rules, timeout=timeout, **options)

    async def check(self, who: str, cost: int = 1) -> Outcome:
        """Decides all rules for a client at once: all grant, or nothing is taken from any."""
        if (remembered := self._remembered(who, cost)) is not None:
            return remembered
        if self.breaker.is_open:
            task = self.breaker.probe_async(lambda: self._run(self._probe(who)))
            self._probing = task or self._probing
            return self._failed(who, cost, Unavailable("the server was away a moment ago"))
        sent = time.monotonic()
        try:
            decision = await self._run(self._command(who, cost))
        except Exception as error:
            if not is_from_server(error):
                raise
            return self._failed(who, cost, error)
        return self._decided(who, cost, decision, sent)

    async def _run(self, command: Command[Any]) -> Any:
        return await asyncio.wait_for(self.client.run(command), self.timeout)

    async def settle(self, who: str, reserved: int, used: int) -> None:
        """Gives back or charges the difference between what was reserved and what was used, on all limits."""
        await self.client.settle(self.keys(who), reserved, used)
        self.denials.forget(who)

    async def reset(self, who: str) -> int:
        """Forgets a client: how many limits it had."""
        count = await self.client.reset(*self.keys(who))
        self.denials.forget(who)
        return count
