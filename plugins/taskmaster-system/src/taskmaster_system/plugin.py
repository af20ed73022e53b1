"""Hooks and handlers: the doctor, and the digest of dead letters, each as a job and as a schedule."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Any

from taskmaster_sdk import Fatal, Job, JobContext, PluginContext, Schedule, hookimpl, job
from taskmaster_system.commands import Commands

__all__ = ["Digest", "Doctor", "SystemPlugin", "Unwell", "plugin"]

QUEUE = "system-queue"
#: Groups of dead letters that are read; the result names as many as the payload asks for.
LOOKED_AT = 1_000


class Unwell(Exception):
    """The doctor found something that fails. Names it, and what to do."""


@dataclass
class Doctor:
    """What to look at.

    Attributes:
        sweep: first hold all records and indexes of the store against each other, and mend them.
    """

    sweep: bool = False


@dataclass
class Digest:
    """Which dead letters.

    Attributes:
        hours: so many before *until*.
        until: an instant with its offset; empty: now.
        groups: told at most, the latest failure first.
    """

    hours: int = 24
    until: str = ""
    groups: int = 20


class SystemPlugin:
    """What the entry point names. `on_init` hands it the environment of its commands."""

    def __init__(self) -> None:
        self.commands = Commands()
        self.doctor = job("system-doctor", queue=QUEUE, attempts=2, timeout_s=900, example={"sweep": False})(self._doctor)
        self.digest = job("system-dlq-digest", queue=QUEUE, attempts=3, timeout_s=120, example={"hours": 24})(self._digest)

    @hookimpl
    def register_jobs(self) -> list[Job]:
        """Both types."""
        return [self.doctor, self.digest]

    @hookimpl
    def register_schedules(self) -> list[Schedule]:
        """The doctor each hour, with a sweep each night; the digest each morning, for the 24 hours before it, also when it is late."""
        doctor, digest = self.doctor.name, self.digest.name
        hourly: dict[str, Any] = {"overlap": "skip", "catch_up": "none", "jitter_ms": 60_000}
        return [
            Schedule(id="system-doctor", type=doctor, cron="23 * * * *", **hourly),
            Schedule(id="system-sweep", type=doctor, cron="30 3 * * *", payload={"sweep": True}, overlap="skip"),
            Schedule(
                id="system-dlq-digest", type=digest, cron="0 8 * * *", payload={"until": "{{instant}}"}, catch_up="all", catch_up_max=7
            ),
        ]

    @hookimpl
    def on_init(self, context: PluginContext) -> None:
        """Keep the environment for the commands."""
        self.commands.environ = context.environ

    def _doctor(self, payload: Doctor, ctx: JobContext) -> dict[str, Any]:
        """Go through the production checklist; fails with what to do about errors, warnings are in the result."""
        report = self.commands.run(ctx, "doctor", *(["--sweep"] if payload.sweep else []))
        errors, warnings = ([one for one in report["checks"] if one["severity"] == severity] for severity in ("error", "warning"))
        for one in warnings:
            ctx.logger.warning("doctor_warns", extra={"check": one["rule"], "observed": one["observed"]})
        if errors:
            raise Unwell("; ".join(f"{one['rule']}: {one['observed']}: {one['fix']}" for one in errors))
        return {"checks": len(report["checks"]), "warnings": warnings}

    def _digest(self, payload: Digest, ctx: JobContext) -> dict[str, Any]:
        """Sum up by cause what became a dead letter in a stretch of time."""
        try:
            until = dt.datetime.fromisoformat(payload.until) if payload.until else dt.datetime.now(dt.UTC)
            begin = until - dt.timedelta(hours=payload.hours)
            found = self.commands.run(ctx, "dlq", "groups", "--limit", str(LOOKED_AT))
            seen = [(one, dt.datetime.fromisoformat(one["lastSeenAt"])) for one in found]
            recent = [one for one, last in seen if begin <= last]
        except (TypeError, ValueError, OverflowError) as error:
            raise Fatal(f"until is {payload.until!r}, hours is {payload.hours}: an instant with its offset and hours are meant") from error
        new = [one for one in recent if dt.datetime.fromisoformat(one["firstSeenAt"]) >= begin]
        if recent:
            ctx.logger.warning("dead_letters", extra={"causes": len(recent), "new": len(new)})
        summary = f"{len(recent)} causes of dead letters since {begin:%Y-%m-%d %H:%M}Z, {len(new)} of them new"
        return {"summary": summary, "causes": len(recent), "new": len(new), "groups": [_line(one) for one in recent[: payload.groups]]}


def _line(group: dict[str, Any]) -> dict[str, Any]:
    error = group["error"]
    said = f"{error['class']}: {error['message'][:200]}" if error else group["reason"]
    return {"fingerprint": group["fingerprint"], "count": group["count"], "types": group["types"], "said": said}


plugin = SystemPlugin()
