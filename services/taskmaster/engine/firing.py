"""What a scheduler does with a schedule that is due: which steps, and the job of each. Pure but for the calls it asks for."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import msgspec

from taskmaster.engine.scheduled_jobs import Jobs, make
from taskmaster.errors import InvalidRequest, StoreDefect
from taskmaster.model import schedule as model
from taskmaster.model.schedule import Schedule
from taskmaster.store.calls import NewJob
from taskmaster.store.schedules import DueRow, Step

__all__ = ["Prepared", "prepare_steps"]

#: A step, and the job that it makes: one or none.
Prepared = tuple[Step, tuple[NewJob, ...]]
_WHY_MAX = 300
_decode = msgspec.json.Decoder(Schedule).decode


def prepare_steps(row: DueRow, now_ms: int, jobs_of: Callable[[str], Jobs]) -> Iterator[Prepared]:
    """The steps that bring the schedule up to *now_ms*, in order: each is to be carried out before the next one is asked for.

    Args:
        row: what is due.
        now_ms: by the store's clock.
        jobs_of: what jobs of a type are made with; raises InvalidRequest where there is no such type.

    Raises:
        StoreDefect: the definition cannot be read.
    """
    try:
        schedule = _decode(row.spec)
    except msgspec.MsgspecError as error:
        raise StoreDefect(f"schedule {row.id}: its definition cannot be read: {error}", scheduleId=row.id) from error
    for step in _steps(row, schedule, now_ms):
        if not step.at:
            yield step, ()
            continue
        try:
            yield step, (make(row.id, schedule, int(step.at), jobs_of(schedule.type), now_ms),)
        except InvalidRequest as error:
            # Told in the history, counted, and the schedule goes on: what is wrong with this instant may be right with the next.
            yield msgspec.structs.replace(step, why=error.message[:_WHY_MAX]), ()


def _steps(row: DueRow, schedule: Schedule, now_ms: int) -> Iterator[Step]:
    overlap, most = schedule.overlap, schedule.max_runs or 0
    if row.slot == "held":
        held = str(row.instant_ms)
        yield Step(slot="held", from_=held, at=held, due=model.due_at(schedule, row.id, row.instant_ms), overlap=overlap, max=most)
        return
    due = model.due(schedule, row.id, row.instant_ms, now_ms)
    missed = (due.missed.total, due.missed.first_ms, due.missed.last_ms) if due.missed else (0, 0, 0)
    stands = row.instant_ms
    instants: tuple[int | None, ...] = due.fire or (None,)
    afterwards: tuple[int | None, ...] = (*due.fire[1:], due.next_ms)
    for at, following in zip(instants, afterwards, strict=True):
        yield Step(
            slot="next",
            from_=str(stands),
            at="" if at is None else str(at),
            due=0 if at is None else model.due_at(schedule, row.id, at),
            next="" if following is None else str(following),
            next_due=0 if following is None else model.due_at(schedule, row.id, following),
            overlap=overlap,
            max=most,
            missed=missed,
        )
        missed = (0, 0, 0)
        stands = following or 0
