"""Whether a store, as it is configured, keeps what it is given. A pure rule over the answers of CONFIG GET; the client asks them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

__all__ = ["PARAMETERS", "Finding", "Level", "judge"]

Level = Literal["refuse", "warn", "info", "ok"]

#: What CONFIG GET has to be asked for.
PARAMETERS = ("maxmemory", "maxmemory-policy", "appendonly", "appendfsync")


class Finding(msgspec.Struct, frozen=True):
    """One rule and what came of it.

    Attributes:
        rule: stable name: eviction, persistence, fsync, or readable.
        level: refuse: jobs would be lost in normal use, do not start; warn: jobs can be lost when a machine or process dies;
            info: could not be seen; ok.
        observed: the parameter as the server has it.
        message: what it means and how to change it.
    """

    rule: str
    level: Level
    observed: str
    message: str


def judge(config: Mapping[str, str] | None) -> list[Finding]:
    """One finding per rule, in a fixed order.

    Args:
        config: the server's answers, by parameter name. A parameter that is missing was not shown by the server; None: CONFIG is denied,
            as by most managed services.
    """
    if not config:
        names = ", ".join(PARAMETERS)
        message = (
            f"the server does not show its configuration. Look it up with your provider: maxmemory-policy must be noeviction and "
            f"append-only persistence on; or allow the command: ACL SETUSER <user> +config|get (asked for: {names})"
        )
        return [Finding("readable", "info", "CONFIG GET denied", message)]
    return [_eviction(config), _persistence(config), _fsync(config)]


def _eviction(config: Mapping[str, str]) -> Finding:
    policy = config.get("maxmemory-policy")
    observed = f"maxmemory-policy {policy}, maxmemory {config.get('maxmemory', 'unknown')}"
    if policy is None:
        return Finding("eviction", "info", "maxmemory-policy not shown", "make sure that it is noeviction")
    if policy == "noeviction":
        return Finding("eviction", "ok", observed, "a full store refuses new jobs and keeps the ones it has")
    message = (
        f"with {policy} a full store deletes jobs to make room. Change it: CONFIG SET maxmemory-policy noeviction, and the same in the "
        "server's configuration file so that it survives a restart. A cache that needs eviction belongs on a server of its own"
    )
    return Finding("eviction", "refuse", observed, message)


def _persistence(config: Mapping[str, str]) -> Finding:
    appendonly = config.get("appendonly")
    if appendonly is None:
        return Finding("persistence", "info", "appendonly not shown", "make sure that the append-only file is on")
    if appendonly == "yes":
        return Finding("persistence", "ok", "appendonly yes", "accepted jobs are written to disk")
    message = (
        "when the server stops, jobs that were accepted since its last snapshot are gone, or all of them without snapshots. "
        "Change it: CONFIG SET appendonly yes, and the same in the server's configuration file"
    )
    return Finding("persistence", "warn", f"appendonly {appendonly}", message)


def _fsync(config: Mapping[str, str]) -> Finding:
    fsync = config.get("appendfsync")
    if fsync is None:
        return Finding("fsync", "info", "appendfsync not shown", "make sure that it is everysec or always")
    if fsync == "always":
        return Finding("fsync", "ok", "appendfsync always", "a power cut loses nothing that was acknowledged")
    if fsync == "everysec":
        return Finding("fsync", "ok", "appendfsync everysec", "a power cut can lose the last second, a killed server nothing")
    message = (
        "the operating system decides when jobs reach the disk: a power cut can lose the last half minute or more. "
        "Change it: CONFIG SET appendfsync everysec, and the same in the server's configuration file"
    )
    return Finding("fsync", "warn", f"appendfsync {fsync}", message)
