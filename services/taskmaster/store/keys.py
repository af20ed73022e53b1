"""Names of the keys that Python reads by itself. What scripts write is formed in Lua (`lua/lib`); PROTOCOL.md lists every key."""

from __future__ import annotations

__all__ = ["LOST_BAND", "consumer_id", "consumer_place", "key"]

#: Behind a type's name: the band of jobs that lost a worker. Only a consumer that runs one job at a time loads such types.
LOST_BAND = "!"


def key(partition: int, name: str) -> str:
    """The full key of *name* in a partition."""
    return f"tm:{{{partition}}}:{name}"


def consumer_id(host: str, pid: int, cap: str, draw: str) -> str:
    """A fresh consumer id. Says which process it was, for the history of attempts: `host/pid/plugin set/random`, at most 64 bytes."""
    return f"{host[:24]}/{pid}/{cap}/{draw[:8]}"


def consumer_place(wid: str) -> tuple[str, int | None, str]:
    """(host, pid, plugin set) of a consumer id; ("", None, "") for an empty one."""
    parts = wid.split("/")
    return (parts[0], int(parts[1]), parts[2]) if len(parts) == 4 and parts[1].isdigit() else ("", None, "")
