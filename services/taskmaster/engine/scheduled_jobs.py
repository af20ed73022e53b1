"""The jobs of schedules: of their instants, and those that a person asks for besides."""

from __future__ import annotations

import secrets
from typing import NamedTuple

import msgspec

from taskmaster.engine.producing import sending
from taskmaster.engine.submit import Bounds, Submission, prepare
from taskmaster.errors import Conflict, NotFound, StoreDefect, StoreUnavailable
from taskmaster.model import schedule as model
from taskmaster.model.ids import digest, digest_slot, new_job_id
from taskmaster.model.schedule import Schedule
from taskmaster.model.template import render, utc_text, words_of
from taskmaster.plugins.catalogue import CatalogueEntry
from taskmaster.plugins.validation import Validator
from taskmaster.store import schedules as calls
from taskmaster.store.call import Talk
from taskmaster.store.calls import NewJob
from taskmaster.store.schedules import ScheduleRow, Step
from taskmaster.store.status import Status
from taskmaster_sdk.jobs import NAME

__all__ = ["Jobs", "Who", "fill", "home", "job_of", "make", "no_such", "spec_of", "trigger"]

_decode = msgspec.json.Decoder(Schedule).decode


class Who(NamedTuple):
    """Who orders something, and why."""

    name: str
    reason: str = ""


class Jobs(NamedTuple):
    """What jobs of a type are made with.

    Attributes:
        entry: the type's entry of the catalogue.
        validator: of its payloads.
        settings: the server's.
    """

    entry: CatalogueEntry
    validator: Validator
    settings: Bounds


def home(schedule_id: str, partitions: int) -> tuple[int, int]:
    """Slot and partition of a schedule and its jobs.

    Raises:
        NotFound: no schedule can have that id.
    """
    if not NAME.fullmatch(schedule_id):
        shown = schedule_id[:64].encode("utf-8", "backslashreplace").decode()
        raise NotFound(
            f"there is no schedule {shown!r}: ids are 1 to 64 of a-z 0-9 . _ - and begin with a letter or digit", scheduleId=shown
        )
    slot = digest_slot(digest("schedule", schedule_id))
    return slot, slot % partitions


def spec_of(row: ScheduleRow) -> Schedule:
    """The definition that the store holds.

    Raises:
        StoreDefect: it is none.
    """
    try:
        return _decode(row.fields["spec"])
    except (KeyError, msgspec.MsgspecError) as error:
        raise StoreDefect(f"schedule {row.id}: its definition cannot be read: {error}", scheduleId=row.id) from error


def job_of(schedule_id: str, schedule: Schedule, at_ms: int, jobs: Jobs, now_ms: int, *, mark: str = "", traceparent: str = "") -> NewJob:
    """The job of one instant: its idempotency key is the schedule and the instant, or *mark* if there is one.

    Raises:
        InvalidRequest: it may not be made: the payload does not fit the type, or a limit.
    """
    payload = render(schedule.payload, words_of(schedule_id, at_ms, model.local_time(schedule, at_ms)))
    key = f"{schedule_id}@{mark or utc_text(at_ms)}"
    submission = Submission(type=schedule.type, idempotency_key=key, payload=payload, queue=schedule.queue, priority=schedule.priority)
    slot, _ = home(schedule_id, jobs.settings.partitions)
    _, job = prepare(submission, jobs.entry, jobs.validator, jobs.settings, now_ms, "schedule", traceparent=traceparent)
    # Beside its schedule, and under a key that no submission of others can have.
    return msgspec.structs.replace(job, id=new_job_id(now_ms, slot), key=digest("schedule", schedule_id, mark or str(at_ms)))


def make(schedule_id: str, schedule: Schedule, at_ms: int, jobs: Jobs, now_ms: int, *, mark: str = "") -> NewJob:
    """As `job_of`, of a job that is to be stored: where tracing is on, its trace begins here."""
    with sending(operation="create") as span:
        job = job_of(schedule_id, schedule, at_ms, jobs, now_ms, mark=mark, traceparent=span.traceparent)
        span.stored(job.queue, job.type, job.id)
        return job


def trigger(row: ScheduleRow, jobs: Jobs, who: Who, now_ms: int, *, request_id: str, key_window_ms: int) -> Talk[str]:
    """A job of the schedule now, besides its own; equal request ids make one. Paused or over does not matter. The job's id.

    Raises:
        InvalidRequest: the job may not be made.
        Conflict: its queue takes none now.
    """
    mark = f"trigger:{request_id or secrets.token_hex(8)}"
    return (yield from _extra(row, now_ms, jobs, who, now_ms, mark, key_window_ms))[1]


def fill(row: ScheduleRow, at_ms: int, jobs: Jobs, who: Who, now_ms: int, *, key_window_ms: int) -> Talk[tuple[bool, str]]:
    """The job of an instant that is over, by the present definition, whatever `overlap` says: whether it is new, and its id.

    Raises:
        InvalidRequest: the job may not be made.
        NotFound: the schedule is gone.
        Conflict: its queue takes none now.
    """
    return (yield from _extra(row, at_ms, jobs, who, now_ms, "", key_window_ms))


def _extra(row: ScheduleRow, at_ms: int, jobs: Jobs, who: Who, now_ms: int, mark: str, key_window_ms: int) -> Talk[tuple[bool, str]]:
    schedule = spec_of(row)
    partition = home(row.id, jobs.settings.partitions)[1]
    step = Step(slot="extra", from_=mark or str(at_ms), at=str(at_ms), due=at_ms, by=who.name)
    answer = calls.Fired(Status.TOO_OLD, now_ms=now_ms)
    for _ in range(2):
        if answer.status is Status.TOO_OLD:  # the second time by the script's own clock
            job = make(row.id, schedule, at_ms, jobs, answer.now_ms, mark=mark)
            answer = yield calls.fire(partition, row.id, row.fields["def"], step, [job], key_window_ms=key_window_ms)
    if answer.status is Status.GONE:
        raise no_such(row.id)
    if answer.outcome == "refused":
        raise Conflict(
            f"schedule {row.id}: no job was made: its queue takes none now (full or draining)", scheduleId=row.id, state="refused"
        )
    if answer.outcome not in ("fired", "duplicate"):
        raise StoreUnavailable(f"schedule {row.id}: the job was not stored ({answer.status.name}); repeat the request", scheduleId=row.id)
    return answer.outcome == "fired", answer.job_id


def no_such(schedule_id: str) -> NotFound:
    """The error for an id that no schedule has."""
    return NotFound(f"there is no schedule {schedule_id!r}", scheduleId=schedule_id)
