"""Schedules: making and changing them, and looking at them.

A schedule and all its jobs live in the partition that its id hashes to: each step of it is one script (store/PROTOCOL.md, "Schedules").
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from taskmaster.engine.scheduled_jobs import Jobs, Who, home, job_of, no_such, spec_of
from taskmaster.errors import Conflict, InvalidRequest, StoreUnavailable
from taskmaster.model import schedule as model
from taskmaster.model.schedule import Schedule
from taskmaster.plugins.schedules import Declared
from taskmaster.store import schedules as calls
from taskmaster.store.call import Talk
from taskmaster.store.schedules import Changed, Fire, ScheduleRow, Schedules
from taskmaster.store.status import Status

__all__ = ["Body", "declare", "delete", "fires", "merge_patch", "paged", "patch", "put", "show", "switch"]

#: How often a change is decided anew when the schedule fires at the same moment.
_TRIES = 20
#: Schedules read in one call.
_PAGE = 200
_encode = msgspec.json.Encoder().encode


class Body(Schedule, frozen=True, kw_only=True):
    """A schedule as a person writes it: the definition, and whether it is to run; None: as it was, and a new one runs."""

    enabled: bool | None = None

    @property
    def definition(self) -> Schedule:
        """Without the switch."""
        return Schedule(**{name: getattr(self, name) for name in Schedule.__struct_fields__})


# ---------------------------------------------------------------- looking


def show(schedule_id: str, partitions: int) -> Talk[ScheduleRow]:
    """The schedule.

    Raises:
        NotFound: there is none.
    """
    found: Schedules = yield calls.schedules(home(schedule_id, partitions)[1], one=schedule_id)
    if not found.rows:
        raise no_such(schedule_id)
    return found.rows[0]


def paged(partitions: int, *, after: str = "", limit: int = _PAGE) -> Talk[list[ScheduleRow]]:
    """The first *limit* schedules behind *after*, by id, of all partitions."""
    rows: list[ScheduleRow] = []
    for partition in range(partitions):
        found: Schedules = yield calls.schedules(partition, after=after, limit=limit)
        rows += found.rows
    return sorted(rows)[:limit]


def fires(schedule_id: str, partitions: int, *, limit: int) -> Talk[list[Fire]]:
    """What became of its last instants, newest first.

    Raises:
        NotFound: there is no such schedule.
    """
    found: list[Fire] | None = yield calls.fires(home(schedule_id, partitions)[1], schedule_id, limit=limit)
    if found is None:
        raise no_such(schedule_id)
    return found


# ---------------------------------------------------------------- changing


def put(
    schedule_id: str, schedule: Schedule, jobs: Jobs, who: Who, *, enabled: bool | None = None, known: int | None = None
) -> Talk[tuple[ScheduleRow, bool]]:
    """Make the schedule or give it this definition; whether it is new. Paused stays paused unless *enabled* says otherwise.

    Args:
        schedule_id: 1 to 64 of a-z 0-9 . _ -
        schedule: the whole definition.
        jobs: of its type.
        who: for the audit.
        enabled: resume or pause it as well.
        known: the version that was seen, 0: there is none yet; None: whatever is there.

    Raises:
        InvalidRequest: it cannot be carried out, or has no instant that is still to come.
        Conflict: its version is another than *known*.
    """
    model.check(schedule)
    return (yield from _change(schedule_id, jobs.settings.partitions, who, lambda _: schedule, enabled, known, jobs))


def patch(
    schedule_id: str, change: Mapping[str, Any], jobs: Jobs, who: Who, *, enabled: bool | None, known: int | None
) -> Talk[ScheduleRow]:
    """Change some fields, by JSON Merge Patch. Raises what `put` raises, and NotFound."""

    def changed(row: ScheduleRow | None) -> Schedule:
        if row is None:
            raise no_such(schedule_id)
        schedule = merge_patch(spec_of(row), change)
        model.check(schedule)
        return schedule

    row, _ = yield from _change(schedule_id, jobs.settings.partitions, who, changed, enabled, known, jobs)
    return row


def merge_patch(schedule: Schedule, change: Mapping[str, Any]) -> Schedule:
    """The schedule with the members of *change*; null takes one back to its default (RFC 7396).

    Raises:
        InvalidRequest: what comes out is no schedule, or has the payload of another type.
    """
    fields = _merged(msgspec.to_builtins(schedule), change)
    try:
        changed = msgspec.convert(fields, Schedule)
    except msgspec.ValidationError as error:
        raise InvalidRequest(f"the schedule as changed: {error}", errors=[{"pointer": "", "message": str(error)}]) from error
    if changed.type != schedule.type and "payload" not in change:  # what the one type marks as secret, the other would show
        words = f"another type needs a payload of its own; this one was given for {schedule.type}"
        raise InvalidRequest(f"payload: {words}", errors=[{"pointer": "/payload", "message": words}])
    return changed


def switch(schedule_id: str, partitions: int, who: Who, *, enabled: bool) -> Talk[ScheduleRow]:
    """Pause it, or let it go on with the first instant from now. Nothing is fired for a paused one after the answer.

    Raises:
        NotFound: there is no such schedule.
    """
    row, _ = yield from _change(schedule_id, partitions, who, None, enabled, None, None)
    return row


def delete(schedule_id: str, partitions: int, who: Who, *, known: int | None = None) -> Talk[None]:
    """Remove it with its history; its jobs stay. Nothing is fired for it after the answer.

    Raises:
        NotFound: there is none.
        Conflict: its version is another than *known*.
    """
    answer: Changed = yield calls.delete(home(schedule_id, partitions)[1], schedule_id, known=known, who=who.name, reason=who.reason)
    if answer.status is Status.GONE:
        raise no_such(schedule_id)
    if answer.status is Status.CONFLICT:
        raise _changed_since(schedule_id, answer.version)


def declare(declared: Declared, jobs: Jobs) -> Talk[Status]:
    """Bring in what a plugin declares.

    OK: it is new, or a later version of what the plugin had declared. ALREADY: this version or a later one is there. DONE: a person has
    changed it, and that stays. CONFLICT: the id belongs to a person's schedule, or another plugin's.

    Raises:
        InvalidRequest: it cannot be carried out.
    """
    model.check(declared.schedule)
    partition = home(declared.id, jobs.settings.partitions)[1]
    facts = _encode({"plugin": declared.plugin, "version": declared.version}).decode()
    op = secrets.token_hex(8)
    for _ in range(_TRIES):
        found: Schedules = yield calls.schedules(partition, one=declared.id)
        row = found.rows[0] if found.rows else None
        if row is not None and _plugin_of(row) != declared.plugin:
            return Status.CONFLICT
        next_ms = _next(declared.schedule, row, found.now_ms)
        job_of(declared.id, declared.schedule, next_ms or found.now_ms, jobs, found.now_ms)
        answer: Changed = yield calls.put(
            partition,
            declared.id,
            op=op,
            known=row.version if row else 0,
            last=row.last if row else "",
            spec=_encode(declared.schedule).decode(),
            next_ms=next_ms,
            due_ms=_due(declared.id, declared.schedule, next_ms),
            enabled=None,
            who=f"plugin {declared.plugin}",
            declared=facts,
        )
        if answer.status is not Status.CONFLICT:
            return answer.status
    raise _too_busy(declared.id)


def _plugin_of(row: ScheduleRow) -> str:
    facts = msgspec.json.decode(row.fields.get("decl", "{}"))
    return str(facts.get("plugin", ""))


def _change(
    schedule_id: str,
    partitions: int,
    who: Who,
    decide: Callable[[ScheduleRow | None], Schedule] | None,
    enabled: bool | None,
    known: int | None,
    jobs: Jobs | None,
) -> Talk[tuple[ScheduleRow, bool]]:
    """Read, decide, and write if it is still as it was read; decide anew if it fired meanwhile. *decide* None: the definition stays."""
    partition, op = home(schedule_id, partitions)[1], secrets.token_hex(8)
    for _ in range(_TRIES):
        found: Schedules = yield calls.schedules(partition, one=schedule_id)
        row = found.rows[0] if found.rows else None
        version = row.version if row else 0
        if known is not None and known != version:
            raise _changed_since(schedule_id, version)
        if decide is None and row is None:
            raise no_such(schedule_id)
        schedule: Schedule = decide(row) if decide is not None else spec_of(row)  # type: ignore[arg-type]
        next_ms = _next(schedule, row, found.now_ms)
        if jobs is not None:
            if next_ms is None and not _is_over(schedule, row):
                raise InvalidRequest("the schedule has no instant that is still to come", errors=[{"pointer": "", "message": "it is over"}])
            job_of(schedule_id, schedule, next_ms or found.now_ms, jobs, found.now_ms)  # refused here, where somebody reads it
        answer: Changed = yield calls.put(
            partition,
            schedule_id,
            op=op,
            known=version,
            last=row.last if row else "",
            spec=_encode(schedule).decode() if decide else "",
            next_ms=next_ms,
            due_ms=_due(schedule_id, schedule, next_ms),
            enabled=enabled,
            who=who.name,
            reason=who.reason,
        )
        if answer.status in (Status.OK, Status.ALREADY):
            return (yield from show(schedule_id, partitions)), version == 0
    raise _too_busy(schedule_id)


def _next(schedule: Schedule, row: ScheduleRow | None, now_ms: int) -> int | None:
    """The first instant from now on that was not dealt with; None: there is none, or it may run no more.

    One that is due, or whose jitter is not over, and was not fired yet stands if the definition has it: an edit passes over nothing.
    """
    if _is_over(schedule, row):
        return None
    stands_ms = int(row.fields.get("next", 0)) if row and row.due_ms is not None else 0
    if 0 < stands_ms <= now_ms and [run.at_ms for run in model.next_instants(schedule, stands_ms - 1, 1)] == [stands_ms]:
        return stands_ms
    after_ms = max(now_ms, int(row.last)) if row and row.last else now_ms
    following = model.next_instants(schedule, after_ms, 1)
    return following[0].at_ms if following else None


def _is_over(schedule: Schedule, row: ScheduleRow | None) -> bool:
    return bool(row and schedule.max_runs and int(row.fields.get("runs", 0)) >= schedule.max_runs)


def _due(schedule_id: str, schedule: Schedule, next_ms: int | None) -> int | None:
    return None if next_ms is None else model.due_at(schedule, schedule_id, next_ms)


def _merged(value: Any, change: Any) -> Any:
    if not isinstance(change, Mapping):
        return change
    fields = dict(value) if isinstance(value, Mapping) else {}
    for name, new in change.items():
        if new is None:
            fields.pop(name, None)
        else:
            # The payload is one value: members of the old one do not shine through.
            fields[name] = new if name == "payload" else _merged(fields.get(name), new)
    return fields


def _changed_since(schedule_id: str, version: int) -> Conflict:
    state = f"version {version}" if version else "not there"
    return Conflict(
        f"schedule {schedule_id} is {state}, not what was expected: read it again and decide anew", scheduleId=schedule_id, state=state
    )


def _too_busy(schedule_id: str) -> StoreUnavailable:
    return StoreUnavailable(f"schedule {schedule_id} was changed or fired {_TRIES} times while this was decided; repeat the request")
