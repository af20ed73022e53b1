"""Names of the keys that Python reads by itself. What scripts write is formed in Lua (`lua/lib`); PROTOCOL.md lists every key."""

from __future__ import annotations

import secrets

__all__ = ["LOST_BAND", "consumer_id", "key"]

#: Behind a type's name: the band of jobs that lost a worker. Only a consumer that runs one job at a time loads such types.
LOST_BAND = "!"


def key(partition: int, name: str) -> str:
    """The full key of *name* in a partition."""
    return f"tm:{{{partition}}}:{name}"


def consumer_id() -> str:
    """A fresh consumer id, 10 characters, new in every life of a process. `o:<id>` tells for 30 days who it was."""
    return secrets.token_hex(5)
