"""Rate limits of redis-rl: a client for its commands, and what surrounds a decision in an application."""

from .breaker import Breaker, Unavailable
from .client import AsyncClient, Client, Connection
from .commands import Lease, Throttled
from .connect import connect, connect_async
from .decision import Decision, MultiDecision
from .denials import DenialCache
from .fields import PROBLEM_TYPE, FieldError, Form, Limit, fields, problem, retry_after
from .identity import IdentityError, Trust, client_address, identify
from .keys import KeyPartError, key_part, limit_key
from .lease import AsyncHeld, Busy, Held, LeaseLost
from .limiter import AsyncLimiter, Fail, Limiter, Outcome
from .local import LocalLimiter
from .rule import Duration, Rate, Rule

__all__ = [
    "PROBLEM_TYPE",
    "AsyncClient",
    "AsyncHeld",
    "AsyncLimiter",
    "Breaker",
    "Busy",
    "Client",
    "Connection",
    "Decision",
    "DenialCache",
    "Duration",
    "Fail",
    "FieldError",
    "Form",
    "Held",
    "IdentityError",
    "KeyPartError",
    "Lease",
    "LeaseLost",
    "Limit",
    "Limiter",
    "LocalLimiter",
    "MultiDecision",
    "Outcome",
    "Rate",
    "Rule",
    "Throttled",
    "Trust",
    "Unavailable",
    "client_address",
    "connect",
    "connect_async",
    "fields",
    "identify",
    "key_part",
    "limit_key",
    "problem",
    "retry_after",
]
