"""Keys: identifiers that nobody can forge, and one hash tag for all limits of a client."""

from __future__ import annotations

import hashlib
import hmac
import urllib.parse

_LONGEST = 64
_HASHES = (b"sha256-", b"hmac-")


class KeyPartError(ValueError):
    """There is nothing to make a key of. `code` says what is wrong."""

    code = "no-value"


def key_part(kind: str, value: str | bytes, *, secret: bool = False, pepper: str | bytes | None = None) -> str:
    """The part of a key that names a client, like `user:42`.

    A secret is hashed, and so is what is longer than 64 bytes, or reads like a hash and could be taken for that
    of another identifier. With a `pepper` the hash is an HMAC, for identifiers that could be guessed.
    """
    data = value.encode() if isinstance(value, str) else value
    if not data:
        raise KeyPartError(f"an empty {kind}: everybody without one would share a key")
    if not secret and len(data) <= _LONGEST and not data.startswith(_HASHES):
        return f"{kind}:{urllib.parse.quote(data, safe='@+')}"
    if pepper is None:
        return f"{kind}:sha256-{hashlib.sha256(data).hexdigest()[:32]}"
    pepper = pepper.encode() if isinstance(pepper, str) else pepper
    return f"{kind}:hmac-{hmac.new(pepper, data, 'sha256').hexdigest()[:32]}"


def limit_key(prefix: str, who: str, name: str) -> str:
    """The key of one limit of one client. The client is the hash tag, so all its limits are in one slot."""
    return f"{prefix}:{{{who}}}:{urllib.parse.quote(name, safe='@+')}"
