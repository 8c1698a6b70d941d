"""The library of redis-rl, a rate limiting module for Redis and Valkey. `path()` is what `loadmodule` takes."""

from pathlib import Path

__all__ = ["path"]


def path() -> str:
    """The absolute path of the library."""
    return str(Path(__file__).resolve().with_name("libredis_rl.so"))
