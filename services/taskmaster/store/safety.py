"""Whether a store, as it is configured, keeps what it is given. A pure rule over the answers of CONFIG GET; the client asks them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

__all__ = ["PARAMETERS", "SECTIONS", "Finding", "Level", "Vitals", "judge", "vitals"]

Level = Literal["refuse", "warn", "info", "ok"]

#: What CONFIG GET has to be asked for.
PARAMETERS = ("maxmemory", "maxmemory-policy", "appendonly", "appendfsync")
#: Sections of INFO that `vitals` reads.
SECTIONS = ("server", "memory", "persistence", "replication")


class Finding(msgspec.Struct, frozen=True):
    """One rule and what came of it.

    Attributes:
        rule: stable name: eviction, persistence, fsync, or readable.
        level: refuse: jobs would be lost in normal use, do not start; warn: jobs can be lost when a machine or process dies;
            info: could not be seen; ok.
        observed: the parameter as the server has it.
        why: what it means.
        fix: how to change it; empty where nothing is to be changed.
    """

    rule: str
    level: Level
    observed: str
    why: str
    fix: str = ""

    @property
    def message(self) -> str:
        """What it means and how to change it, for a log or an error."""
        return f"{self.why}. Change it: {self.fix}" if self.fix else self.why


class Vitals(msgspec.Struct, frozen=True, rename="camel"):
    """How the server is now, as INFO tells it.

    Attributes:
        version: of Valkey, else of Redis.
        role: master or slave; a slave takes no writes.
        memory_bytes: used; `memory_limit_bytes` is 0 without a limit.
        last_write_ok: False: the last write to the append-only file failed, or the last snapshot; the disk may be full.
    """

    version: str
    role: str
    memory_bytes: int
    memory_limit_bytes: int
    append_only: bool
    last_write_ok: bool
    is_loading: bool


def vitals(info: Mapping[str, Any]) -> Vitals:
    """What INFO says, as the client library reads it."""
    get = info.get
    return Vitals(
        version=str(get("valkey_version") or get("redis_version") or ""),
        role=str(get("role", "")),
        memory_bytes=int(get("used_memory", 0)),
        memory_limit_bytes=int(get("maxmemory", 0)),
        append_only=bool(int(get("aof_enabled", 0))),
        last_write_ok=get("aof_last_write_status", "ok") == "ok" and get("rdb_last_bgsave_status", "ok") == "ok",
        is_loading=bool(int(get("loading", 0))),
    )


def judge(config: Mapping[str, str] | None, *, strict: bool = False) -> list[Finding]:
    """One finding per rule, in a fixed order.

    Args:
        strict: every accepted job must be on disk before its answer: what does not do that, or cannot be looked at, is refused.
        config: the server's answers, by parameter name. A parameter that is missing was not shown by the server; None: CONFIG is denied,
            as by most managed services.
    """
    if not config:
        names = ", ".join(PARAMETERS)
        why = "the server does not show its configuration, so nobody knows here whether it keeps jobs"
        fix = (
            "look it up with your provider: maxmemory-policy must be noeviction and append-only persistence on; or allow the command: "
            f"ACL SETUSER <user> +config|get (asked for: {names})"
        )
        if strict:
            why = f"with durability strict the append-only settings must be seen: {why}"
            fix = f"{fix}; or set durability to default"
        return [Finding("readable", "refuse" if strict else "info", "CONFIG GET denied", why, fix)]
    found = [_eviction(config), _persistence(config), _fsync(config)]
    return [found[0], *map(_strictly, found[1:])] if strict else found


def _strictly(finding: Finding) -> Finding:
    """What the strict profile makes of persistence and fsync."""
    wanted = {"persistence": ("appendonly yes", "appendonly yes"), "fsync": ("appendfsync always", "appendfsync always")}
    observed, change = wanted[finding.rule]
    if finding.observed == observed:
        return finding
    why = "durability is strict, and that promises an answer only after the job is on disk"
    fix = f"CONFIG SET {change}, and the same in the server's configuration file; or set durability to default"
    return Finding(finding.rule, "refuse", finding.observed, why, fix)


def _eviction(config: Mapping[str, str]) -> Finding:
    policy = config.get("maxmemory-policy")
    observed = f"maxmemory-policy {policy}, maxmemory {config.get('maxmemory', 'unknown')}"
    if policy is None:
        return Finding("eviction", "info", "maxmemory-policy not shown", "make sure that it is noeviction")
    if policy == "noeviction":
        return Finding("eviction", "ok", observed, "a full store refuses new jobs and keeps the ones it has")
    fix = (
        "CONFIG SET maxmemory-policy noeviction, and the same in the server's configuration file so that it survives a restart. "
        "A cache that needs eviction belongs on a server of its own"
    )
    return Finding("eviction", "refuse", observed, f"with {policy} a full store deletes jobs to make room", fix)


def _persistence(config: Mapping[str, str]) -> Finding:
    appendonly = config.get("appendonly")
    if appendonly is None:
        return Finding("persistence", "info", "appendonly not shown", "make sure that the append-only file is on")
    if appendonly == "yes":
        return Finding("persistence", "ok", "appendonly yes", "accepted jobs are written to disk")
    why = "when the server stops, jobs that were accepted since its last snapshot are gone, or all of them without snapshots"
    fix = "CONFIG SET appendonly yes, and the same in the server's configuration file"
    return Finding("persistence", "warn", f"appendonly {appendonly}", why, fix)


def _fsync(config: Mapping[str, str]) -> Finding:
    fsync = config.get("appendfsync")
    if fsync is None:
        return Finding("fsync", "info", "appendfsync not shown", "make sure that it is everysec or always")
    if fsync == "always":
        return Finding("fsync", "ok", "appendfsync always", "a power cut loses nothing that was acknowledged")
    if fsync == "everysec":
        return Finding("fsync", "ok", "appendfsync everysec", "a power cut can lose the last second, a killed server nothing")
    why = "the operating system decides when jobs reach the disk: a power cut can lose the last half minute or more"
    fix = "CONFIG SET appendfsync everysec, and the same in the server's configuration file"
    return Finding("fsync", "warn", f"appendfsync {fsync}", why, fix)
