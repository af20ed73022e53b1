"""Schedules as typed calls (store/PROTOCOL.md, "Schedules"). Building a call does no I/O; a client runs it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import msgspec

from taskmaster.store.call import Call
from taskmaster.store.calls import NewJob, by_kind
from taskmaster.store.scripts import load
from taskmaster.store.status import Status

__all__ = [
    "Changed",
    "DueRow",
    "Fire",
    "Fired",
    "Outcome",
    "Round",
    "ScheduleRow",
    "Schedules",
    "Slot",
    "Step",
    "delete",
    "fire",
    "fires",
    "put",
    "round_",
    "schedules",
]

_pack = msgspec.msgpack.Encoder().encode
Outcome = Literal["fired", "duplicate", "skipped", "queued", "refused", "missed"]
Slot = Literal["next", "held", "extra"]


class ScheduleRow(NamedTuple):
    """A schedule as the store keeps it. `due_ms`: when the next instant is due; None: it is paused or over."""

    id: str
    due_ms: int | None
    fields: dict[str, str]

    @property
    def version(self) -> int:
        """1, 2, 3 … with each definition."""
        return int(self.fields["ver"])

    @property
    def last(self) -> str:
        """The last instant that was dealt with, ms; '' when there was none."""
        return self.fields.get("last", "")


class Schedules(NamedTuple):
    """A page of schedules, and how it stands with all of them in one partition.

    Attributes:
        missed: how many of them missed instants in the last hour.
    """

    now_ms: int
    schedulers: int
    total: int
    overdue_ms: int
    missed: int
    rows: tuple[ScheduleRow, ...]


def schedules(partition: int, *, one: str = "", after: str = "", limit: int = 0) -> Call[Schedules]:
    """The schedule of that id; else those after that id, at most *limit*."""

    def decode(raw: list[Any]) -> Schedules:
        rows = []
        for row in raw[5:]:
            fields = {row[i].decode(): row[i + 1].decode() for i in range(2, len(row), 2)}
            rows.append(ScheduleRow(row[0].decode(), int(float(row[1])) if row[1] else None, fields))
        return Schedules(raw[0], raw[1], raw[2], raw[3], raw[4], tuple(rows))

    which = "one" if one else "after" if limit else "none"
    return Call(load("schedules"), partition, (which, one or after, limit), decode)


class Fire(msgspec.Struct, frozen=True):
    """What became of an instant, or of several that were missed. Times in ms.

    Attributes:
        at: the instant, of several the first.
        fired: when it was dealt with; lag: by how much later than it was due.
        last, count: of several.
        by: who asked for it; '' the schedule.
        why: of refused.
        state: letter of the job's state; '' there is none, or it was pruned.
    """

    at: int
    fired: int
    lag: int
    job: str
    outcome: Outcome
    by: str = ""
    why: str = ""
    last: int = 0
    count: int = 1
    state: str = ""


_fire = msgspec.json.Decoder(Fire, strict=False).decode


def fires(partition: int, schedule_id: str, *, limit: int) -> Call[list[Fire] | None]:
    """The last instants, newest first; at most 200 are kept. None: there is no such schedule."""

    def decode(raw: list[Any]) -> list[Fire] | None:
        rows = zip(raw[1::2], raw[2::2], strict=True)
        return [msgspec.structs.replace(_fire(row), state=state.decode()) for row, state in rows] if raw[0] else None

    return Call(load("schedule_fires"), partition, (schedule_id, limit), decode)


class Changed(NamedTuple):
    """OK, ALREADY, CONFLICT, GONE, or of a declaration DONE; and the version that is in force."""

    status: Status
    version: int


def put(
    partition: int,
    schedule_id: str,
    *,
    op: str,
    known: int | None,
    last: str,
    spec: str,
    next_ms: int | None,
    due_ms: int | None,
    enabled: bool | None,
    who: str,
    reason: str = "",
    declared: str = "",
) -> Call[Changed]:
    """Make a schedule or change it. Arguments as in schedule_put.lua; None is its ''."""
    numbers = ["" if value is None else value for value in (next_ms, due_ms)]
    switch = "" if enabled is None else int(enabled)
    args = (schedule_id, op, "" if known is None else known, last, spec, *numbers, switch, who, reason, declared)
    return Call(load("schedule_put"), partition, args, lambda raw: Changed(Status(raw[0]), raw[1]))


def delete(partition: int, schedule_id: str, *, known: int | None, who: str, reason: str = "") -> Call[Changed]:
    """Remove a schedule and its history: OK, CONFLICT or GONE."""
    args = (schedule_id, "" if known is None else known, who, reason)
    return Call(load("schedule_delete"), partition, args, lambda raw: Changed(Status(raw[0]), raw[1] if len(raw) > 1 else 0))


class DueRow(NamedTuple):
    """A schedule that is due. `slot`: next, or held: its instant waited for the job before to end, which it has."""

    id: str
    slot: Slot
    instant_ms: int
    definition: str
    spec: bytes
    runs: int


class Round(NamedTuple):
    """What a scheduler hears. Not leading: another holds the lease, for `wait_ms` more.

    Attributes:
        wait_ms: until the next schedule is due, -1 when there is none.
    """

    is_leading: bool
    now_ms: int
    wait_ms: int
    rows: tuple[DueRow, ...]


def round_(partition: int, wid: str, *, lease_ms: int, limit: int = 500) -> Call[Round]:
    """Take or keep the lease, and hear what is due. *lease_ms* 0: give it back."""

    def decode(raw: list[Any]) -> Round:
        rows: Any = (DueRow(row[0].decode(), row[1].decode(), int(row[2]), row[3].decode(), row[4], int(row[5])) for row in raw[3:])
        return Round(raw[0] == Status.OK, raw[1], raw[2], tuple(rows))

    return Call(load("schedule_round"), partition, (wid, lease_ms, limit), decode)


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One step of a schedule, as schedule_fire.lua reads it. Instants as text: '' is none.

    Attributes:
        slot: where the instant stands; extra: nowhere, a person asks for it.
        from_: the instant that stands there.
        at: the instant to run; due: when that was due.
        next, next_due: what follows.
        max: runs at most, 0: any number.
        why: it cannot be run.
        by: who asked.
        missed: how many are passed over before *at*, the first and the last of them.
    """

    slot: Slot
    from_: str = msgspec.field(name="from")
    at: str = ""
    due: int = 0
    next: str = ""
    next_due: int = 0
    overlap: str = "allow"
    max: int = 0
    why: str = ""
    by: str = ""
    missed: tuple[int, int, int] = (0, 0, 0)


class Fired(NamedTuple):
    """OK or ALREADY with the outcome; CONFLICT, GONE, or TOO_OLD: nothing was done."""

    status: Status
    outcome: Outcome | None = None
    job_id: str = ""
    now_ms: int = 0


def fire(partition: int, schedule_id: str, definition: str, step: Step, jobs: Sequence[NewJob], *, key_window_ms: int) -> Call[Fired]:
    """Carry out *step*; *jobs*: the one to be made, or none."""

    def decode(raw: list[Any]) -> Fired:
        status = Status(raw[0])
        if status is Status.TOO_OLD:
            return Fired(status, now_ms=raw[1])
        return Fired(status, raw[1].decode(), raw[2].decode()) if len(raw) > 2 else Fired(status)

    kinds, flat = by_kind(jobs)
    args = (schedule_id, definition, _pack(step), _pack(kinds), _pack(flat), key_window_ms)
    return Call(load("schedule_fire"), partition, args, decode)
