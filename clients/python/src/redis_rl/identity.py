"""Who is it? The address that a request is counted for, through trusted proxies alone.

Proxies append what they see to the right, and clients write what they like to the left. So the list is read from
the right, and nothing to the left of the client is ever looked at. An address that cannot be determined is an
error of the setup: it must not become one key for everybody.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class IdentityError(ValueError):
    """It cannot be said who a request is counted for."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        """bad-address, no-header, too-few-hops, or bad-setup."""


@dataclass(frozen=True)
class Trust:
    """Which proxies are trusted: a number of them, or their ranges. By default none."""

    count: int = 0
    cidrs: tuple[str, ...] = ()
    header: Literal["x-forwarded-for", "forwarded"] = "x-forwarded-for"
    prefix4: int = 32
    """How much of an IPv4 address makes a client."""
    prefix6: int = 64
    """How much of an IPv6 address makes a client."""
    networks: tuple[Network, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.count < 0 or (self.count and self.cidrs):
            raise IdentityError("bad-setup", "trust a number of proxies, 0 or more, or their ranges; not both")
        if self.header not in ("x-forwarded-for", "forwarded"):
            raise IdentityError("bad-setup", f"header must be x-forwarded-for or forwarded, not {self.header!r}")
        if not (0 <= self.prefix4 <= 32 and 0 <= self.prefix6 <= 128):
            raise IdentityError("bad-setup", "prefix4 must be from 0 to 32, and prefix6 from 0 to 128")
        object.__setattr__(self, "networks", tuple(_network(cidr) for cidr in self.cidrs))


def client_address(remote: str | None, headers: Iterable[tuple[str, str]], trust: Trust = Trust()) -> Address:
    """The address of the client, as the outermost trusted proxy saw it."""
    if not trust.count and not trust.networks:
        return _address(remote)
    hops = _hops(headers, trust.header)
    if trust.count:
        return _by_count(hops, trust.count)
    address = _address(remote)
    walked = False
    while _within(address, trust.networks):
        hop = next(hops, None)
        if hop is None:
            if not walked:
                raise IdentityError("no-header", f"the proxy {remote} is trusted but sends no {trust.header}")
            break
        walked = True
        address = _address(hop)
    return address


def identify(remote: str | None, headers: Iterable[tuple[str, str]], trust: Trust = Trust()) -> str:
    """The part of a key that names the client by its address, like `ip:203.0.113.9` or `ip:2001:db8::/64`."""
    address = client_address(remote, headers, trust)
    prefix = trust.prefix4 if address.version == 4 else trust.prefix6
    if prefix == address.max_prefixlen:
        return f"ip:{address}"
    network = ipaddress.ip_network((int(address).to_bytes(address.max_prefixlen // 8, "big"), prefix), strict=False)
    return f"ip:{network}"


def _by_count(hops: Iterator[str], count: int) -> Address:
    for number in range(count):
        hop = next(hops, None)
        if hop is None:
            code = "too-few-hops" if number else "no-header"
            raise IdentityError(code, f"{count} proxies are trusted, and the header has {number} entries")
    return _address(hop)


def _hops(headers: Iterable[tuple[str, str]], name: str) -> Iterator[str]:
    """The entries from the right; empty ones are none."""
    lines = [value for key, value in headers if key.lower() == name]
    for line in reversed(lines):
        if name == "forwarded":
            for element in _split_from_right(line, ","):
                if element.strip():
                    yield _for(element)
        else:
            yield from (entry.strip() for entry in reversed(line.split(",")) if entry.strip())


def _split_from_right(text: str, separator: str) -> Iterator[str]:
    """The parts between separators outside quotes, from the right.

    Quotes are paired from the right too: one that a client leaves open must not swallow what a proxy appended.
    """
    end, quoted = len(text), False
    for at in range(len(text) - 1, -1, -1):
        if text[at] == '"':
            backslashes = at - len(text[:at].rstrip("\\"))
            quoted ^= backslashes % 2 == 0
        elif text[at] == separator and not quoted:
            yield text[at + 1 : end]
            end = at
    yield text[:end]


def _for(element: str) -> str:
    """The value of the parameter `for`; empty if there is none."""
    for pair in _split_from_right(element, ";"):
        name, _, value = pair.partition("=")
        if name.strip().lower() == "for":
            return value.strip().removeprefix('"').removesuffix('"')
    return ""


def _address(text: str | None) -> Address:
    bare = (text or "").strip()
    if bare.startswith("["):
        bare, bracket, port = bare[1:].partition("]")
        good = bool(bracket) and (not port or (port[0] == ":" and _is_port(port[1:])))
    elif bare.count(":") == 1:
        bare, _, port = bare.partition(":")
        good = _is_port(port)
    else:
        good = True
    try:
        if good:
            return _unmapped(ipaddress.ip_address(bare.partition("%")[0]))
    except ValueError:
        pass
    raise IdentityError("bad-address", f"{text!r} is no address")


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 5


def _unmapped(address: Address) -> Address:
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def _network(cidr: str) -> Network:
    try:
        network = ipaddress.ip_network(cidr, strict=False)
    except ValueError as error:
        raise IdentityError("bad-setup", f"{cidr!r} is no range of addresses: {error}") from None
    mapped = network.network_address.ipv4_mapped if isinstance(network, ipaddress.IPv6Network) else None
    if mapped is None or network.prefixlen < 96:
        return network
    return ipaddress.IPv4Network((int(mapped), network.prefixlen - 96))


def _within(address: Address, networks: Iterable[Network]) -> bool:
    return any(address.version == network.version and address in network for network in networks)
