"""Schedules as answers."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from taskmaster.api import dlq_shapes
from taskmaster.api.shapes import Shape, instant
from taskmaster.engine.lens import Lens
from taskmaster.engine.scheduled_jobs import spec_of
from taskmaster.model import schedule as model
from taskmaster.model.schedule import Dst, Run, Schedule
from taskmaster.model.states import State, state_of
from taskmaster.store.schedules import Fire, Outcome, ScheduleRow

__all__ = [
    "Deleted",
    "FireList",
    "Preview",
    "ScheduleAnswer",
    "ScheduleList",
    "Triggered",
    "backfill_preview_of",
    "fire_of",
    "preview_of",
    "schedule_of",
]

#: Instants told with a schedule.
NEXT_RUNS = 5


class Paused(Shape, kw_only=True):
    """Who paused it, why and when."""

    by: str
    reason: str
    at: str


class Declaration(Shape, kw_only=True):
    """The plugin that declares it. Overridden: a person changed it since, and that stays."""

    plugin: str
    version: int
    overridden: bool


class LastFire(Shape, kw_only=True):
    """The last instant that was dealt with, and the last job that was made."""

    instant: str
    outcome: Outcome
    job_id: str | None


class ScheduleAnswer(Shape, kw_only=True):
    """A schedule. `nextRunAt` is when its next job is due, jitter included; null: it is paused or over."""

    schedule_id: str
    version: int
    enabled: bool
    paused: Paused | None
    type: str
    payload: Any
    cron: str | None
    every_ms: int | None
    run_at: dt.datetime | None
    timezone: str
    queue: str | None
    priority: str | None
    catch_up: Literal["none", "latest", "all"]
    catch_up_max: int
    overlap: Literal["allow", "skip", "queue-one", "cancel-previous"]
    dst: Dst
    jitter_ms: int
    start_at: dt.datetime | None
    end_at: dt.datetime | None
    max_runs: int | None
    exclude: tuple[str, ...]
    explained: str
    next_run_at: str | None
    next_runs: list[str]
    waiting_instant: str | None
    last_fire: LastFire | None
    counts: dict[str, int]
    last_missed_at: str | None
    declared_by: Declaration | None
    created_at: str
    changed_at: str
    changed_by: str


class ScheduleList(Shape, kw_only=True):
    """A page, by id."""

    items: list[ScheduleAnswer]
    next_cursor: str | None = None


class PreviewRun(Shape, kw_only=True):
    """One instant, in UTC and in the schedule's zone."""

    at: str
    local: str
    note: str | None


class Preview(Shape, kw_only=True):
    """What is to come, without jitter."""

    runs: list[PreviewRun]
    explained: str


class FireAnswer(Shape, kw_only=True):
    """What became of an instant, or of `count` missed ones from `instant` to `lastInstant`. `by`: who asked for it; null: the schedule.

    `jobState`: how the job stands now; null: there is none, or it was pruned.
    """

    instant: str
    fired_at: str
    lag_ms: int
    job_id: str | None
    job_state: State | None
    outcome: Outcome
    count: int
    last_instant: str | None
    by: str | None
    why: str | None


class FireList(Shape, kw_only=True):
    """The newest first; the last 200 are kept."""

    items: list[FireAnswer]
    next_cursor: str | None = None


class Deleted(Shape, kw_only=True):
    """It is gone."""

    schedule_id: str
    status: Literal["deleted"] = "deleted"


class Triggered(Shape, kw_only=True):
    """The job that was made."""

    schedule_id: str
    job_id: str


def schedule_of(row: ScheduleRow, now_ms: int, lens: Lens) -> ScheduleAnswer:
    """The answer for a schedule as the store has it, as *lens* shows it."""
    fields, schedule = row.fields, spec_of(row)
    paused = msgspec.json.decode(fields["paused"]) if "paused" in fields else None
    declared = msgspec.json.decode(fields["decl"]) if "decl" in fields else None
    return ScheduleAnswer(
        schedule_id=row.id,
        version=row.version,
        enabled=paused is None,
        paused=paused and Paused(by=paused["who"], reason=paused["reason"], at=instant(int(paused["since"]))),
        **{name: getattr(schedule, name) for name in Schedule.__struct_fields__ if name != "payload"},
        payload=lens.value(schedule.type, schedule.payload),
        explained=model.explain(schedule),
        next_run_at=None if row.due_ms is None else instant(row.due_ms),
        next_runs=_next_runs(row, schedule, now_ms),
        waiting_instant=instant(int(fields["held"])) if "held" in fields else None,
        last_fire=_last_fire(fields),
        counts={name: int(fields.get(name, 0)) for name in ("runs", "missed", "skipped", "refused")},
        last_missed_at=instant(int(fields["missed_at"])) if "missed_at" in fields else None,
        declared_by=declared and Declaration(plugin=declared["plugin"], version=declared["version"], overridden="own" in fields),
        created_at=instant(int(fields["made"])),
        changed_at=instant(int(fields["at"])),
        changed_by=fields["by"],
    )


def preview_of(schedule: Schedule, runs: list[Run]) -> Preview:
    """The answer for instants to come."""
    shown = [
        PreviewRun(at=instant(run.at_ms), local=model.local_time(schedule, run.at_ms).isoformat(), note=run.note or None) for run in runs
    ]
    return Preview(runs=shown, explained=model.explain(schedule))


def fire_of(fire: Fire) -> FireAnswer:
    """The answer for a row of the history."""
    return FireAnswer(
        instant=instant(fire.at),
        fired_at=instant(fire.fired),
        lag_ms=fire.lag,
        job_id=fire.job or None,
        job_state=state_of(fire.state) if fire.state else None,
        outcome=fire.outcome,
        count=fire.count,
        last_instant=instant(fire.last) if fire.last else None,
        by=fire.by or None,
        why=fire.why or None,
    )


def backfill_preview_of(instants: Sequence[int]) -> dlq_shapes.Preview:
    """What a backfill would be about."""
    sample = [instant(at_ms) for at_ms in instants[:5]]
    return dlq_shapes.Preview(action="backfill", matched=len(instants), matched_is="exact", sample_ids=sample)


def _next_runs(row: ScheduleRow, schedule: Schedule, now_ms: int) -> list[str]:
    if row.due_ms is None:
        return []
    left = schedule.max_runs - int(row.fields.get("runs", 0)) if schedule.max_runs else NEXT_RUNS
    from_ms = min(now_ms, int(row.fields["next"]) - 1)
    return [instant(run.at_ms) for run in model.next_instants(schedule, from_ms, min(left, NEXT_RUNS))]


def _last_fire(fields: dict[str, str]) -> LastFire | None:
    if "last" not in fields:
        return None
    outcome: Any = fields.get("outcome", "missed")
    return LastFire(instant=instant(int(fields["last"])), outcome=outcome, job_id=fields.get("job"))
