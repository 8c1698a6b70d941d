"""Connections for limiting: a short timeout and no retries, for a slow limiter must not make a slow service.

A lost call may have been counted, so it is not repeated. A pooled connection that the server closed is noticed
before it is used, so a restart of the server costs no error.
"""

from __future__ import annotations

import importlib
import importlib.util
from types import ModuleType
from typing import Any
from urllib.parse import unquote, urlsplit

TIMEOUT = 0.05
"""Seconds that a request waits for the server."""

_SPOKEN = ("ssl", "username", "password")


def library(scheme: str, implementation: str | None = None) -> str:
    """The package for a URL: valkey for valkey URLs, or else redis if it is installed."""
    if implementation is not None:
        return implementation
    if scheme.startswith("valkey"):
        return "valkey"
    return "redis" if importlib.util.find_spec("redis") else "valkey"


def connect(url: str, *, timeout: float = TIMEOUT, implementation: str | None = None, **options: Any) -> Any:
    """A connection to `redis://host:port/db`, `rediss://`, `redis+sentinel://host:port,host:port/service`,
    `redis+cluster://host:port,host:port` (`rediss+...` with TLS), or the same of valkey.

    `options` go to the library's own class. A name, a password and TLS are for the Sentinels, too, unless
    `sentinel_kwargs` say otherwise.
    """
    return _connect(url, "", timeout, implementation, options)


def connect_async(url: str, *, timeout: float = TIMEOUT, implementation: str | None = None, **options: Any) -> Any:
    """The same for asyncio."""
    return _connect(url, ".asyncio", timeout, implementation, options)


def _connect(url: str, part: str, timeout: float, implementation: str | None, options: dict[str, Any]) -> Any:
    parts = urlsplit(url)
    name = library(parts.scheme, implementation)
    kind = {"redis": "Redis", "valkey": "Valkey"}[name]
    retry = _module(name, f"{part}.retry").Retry(_module(name, ".backoff").NoBackoff(), 0)
    # With RESP3, redis-py 8 for asyncio expects maintenance notifications, and then uses connections that the server
    # has closed.
    options = {"protocol": 2, "retry": retry, **options}
    options = {"socket_timeout": timeout, "socket_connect_timeout": timeout, **options}
    base, _, way = parts.scheme.partition("+")
    secure = base in ("rediss", "valkeys")
    if way in ("", "unix"):
        scheme = "unix" if way else f"{name}s" if secure else name
        if pool := options.get("connection_pool"):
            return getattr(_module(name, part), kind)(connection_pool=pool)
        return getattr(_module(name, part), kind).from_url(parts._replace(scheme=scheme).geturl(), **options)
    if parts.username:
        options.setdefault("username", unquote(parts.username))
    if parts.password:
        options.setdefault("password", unquote(parts.password))
    if secure:
        options.setdefault("ssl", True)
    hosts = [_host(place) for place in parts.netloc.rpartition("@")[2].split(",")]
    service, _, db = parts.path.strip("/").partition("/")
    if way == "sentinel":
        if db:
            options.setdefault("db", int(db))
        service = options.pop("service_name", None) or service
        # Whoever reads from replicas in another library need not take this out.
        options.pop("use_replicas", None)
        common = {"socket_timeout": timeout, "socket_connect_timeout": timeout}
        # The Sentinels are spoken to as the server is, unless `sentinel_kwargs` say otherwise.
        common |= {option: value for option, value in options.items() if option.startswith(_SPOKEN)}
        common |= options.pop("sentinel_kwargs", None) or {}
        sentinel = _module(name, f"{part}.sentinel").Sentinel(hosts, sentinel_kwargs=common, **options)
        return sentinel.master_for(service)
    if way == "cluster":
        cluster = _module(name, f"{part}.cluster")
        nodes = [cluster.ClusterNode(host, port) for host, port in hosts]
        return getattr(cluster, f"{kind}Cluster")(startup_nodes=nodes, **options)
    raise ValueError(f"no such kind of URL: {parts.scheme}")


def _host(place: str) -> tuple[str, int]:
    host, _, port = place.strip().rpartition(":")
    if not host:
        raise ValueError(f"a host and its port are needed, not {place!r}")
    return host.strip("[]"), int(port)


def _module(name: str, path: str) -> ModuleType:
    return importlib.import_module(f"{name}{path}")
