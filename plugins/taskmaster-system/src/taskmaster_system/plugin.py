"""Hooks and handlers: the doctor, and the digest of dead letters, each as a job and as a schedule."""

from __future__ import annotations

import datetime as dt
import logging
from dataclasses import dataclass
from typing import Any

from taskmaster_sdk import Fatal, Job, JobContext, PluginContext, Schedule, hookimpl, job
from taskmaster_system.commands import Commands

__all__ = ["Digest", "Doctor", "StoreUnreachable", "SystemPlugin", "plugin"]

QUEUE = "system-queue"
#: Groups of dead letters that are read; the result names as many as the payload asks for.
LOOKED_AT = 1_000


class StoreUnreachable(Exception):
    """The doctor could not look, since its own connection got no answer. Says what to do."""


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
        """Go through the production checklist. What is found is the result, and in the log.

        A rule that is broken is known until somebody does something about it, so it fails no job: there would be a dead letter each hour,
        and a replay would find the same. Only a look that could not be made fails.
        """
        checks = self.commands.run(ctx, "doctor", *(["--sweep"] if payload.sweep else []))["checks"]
        errors, warnings = ([one for one in checks if one["severity"] == severity] for severity in ("error", "warning"))
        for one in errors:
            if one["rule"] == "store":
                raise StoreUnreachable(f"{one['observed']}: {one['fix']}")
        for level, event, found in ((logging.ERROR, "doctor_fails", errors), (logging.WARNING, "doctor_warns", warnings)):
            for one in found:
                ctx.logger.log(level, "%s: %s: %s: %s", event, one["rule"], one["observed"], one["fix"])
        broken = sorted({one["rule"] for one in errors})
        return {"ok": not broken, "checks": len(checks), "broken": broken, "errors": errors, "warnings": warnings}

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
            ctx.logger.warning("dead_letters: %s causes, %s of them new", len(recent), len(new))
        summary = f"{len(recent)} causes of dead letters since {begin:%Y-%m-%d %H:%M}Z, {len(new)} of them new"
        return {"summary": summary, "causes": len(recent), "new": len(new), "groups": [_line(one) for one in recent[: payload.groups]]}


def _line(group: dict[str, Any]) -> dict[str, Any]:
    error = group["error"]
    said = f"{error['class']}: {error['message'][:200]}" if error else group["reason"]
    return {"fingerprint": group["fingerprint"], "count": group["count"], "types": group["types"], "said": said}


plugin = SystemPlugin()
