"""Backfill: jobs for instants of a schedule that are over, as an operation that the workers carry out a step at a time.

An instant has one job, whoever makes it: the key is that of the schedule's own firing. A step that is done again makes nothing anew.
"""

from __future__ import annotations

import datetime as dt
import secrets
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Annotated, NamedTuple

import msgspec
from msgspec import Meta

from taskmaster.engine import schedules
from taskmaster.engine.operations import check_key, reused
from taskmaster.engine.orders import RATE_MAX
from taskmaster.engine.scheduled_jobs import Jobs, Who, fill, home, spec_of
from taskmaster.errors import Conflict, InvalidRequest, NotFound
from taskmaster.model import schedule as model
from taskmaster.model.ids import digest
from taskmaster.store import operations
from taskmaster.store.call import Talk
from taskmaster.store.operations import OperationRow
from taskmaster.store.schedules import ScheduleRow
from taskmaster.store.status import Status

__all__ = ["BACKFILL_MAX", "BackfillOrder", "Filled", "carry_out", "instants_of", "open_backfill"]

#: Instants in one backfill.
BACKFILL_MAX = 1_000
_Moment = Annotated[dt.datetime, Meta(tz=True)]


class BackfillOrder(msgspec.Struct, rename="camel", forbid_unknown_fields=True, frozen=True, kw_only=True):
    """The range, both ends included, at most 1,000 instants; it must be over.

    Attributes:
        rate_per_s: jobs a second at most.
        stop_on_failures: end it when so many of its jobs have had a failed attempt.
        dry_run: only say how many instants are meant.
    """

    from_: _Moment = msgspec.field(name="from")
    to: _Moment
    rate_per_s: Annotated[float, Meta(gt=0, le=RATE_MAX)] = 50
    stop_on_failures: Annotated[int, Meta(ge=1, le=BACKFILL_MAX)] | None = None
    dry_run: bool = False
    reason: Annotated[str, Meta(max_length=200)] = ""
    by: Annotated[str, Meta(max_length=100)] = ""


def instants_of(row: ScheduleRow, order: BackfillOrder, now_ms: int) -> list[int]:
    """The instants that are meant, Unix ms, by the present definition; whether they have jobs does not matter.

    Raises:
        InvalidRequest: the range is not over, or has more than 1,000 instants.
    """
    from_ms, to_ms = (round(moment.timestamp() * 1_000) for moment in (order.from_, order.to))
    if not from_ms <= to_ms <= now_ms:
        raise _wrong("a range that is over is meant: from, then to, and neither later than now")
    found: list[int] = []
    for run in model.runs(spec_of(row), from_ms - 1):
        if run.at_ms > to_ms:
            break
        found.append(run.at_ms)
        if len(found) > BACKFILL_MAX:
            raise _wrong(f"more than {BACKFILL_MAX} instants; take a shorter range")
    return found


def _wrong(message: str) -> InvalidRequest:
    return InvalidRequest(message, errors=[{"pointer": "/to", "message": message}])


def open_backfill(row: ScheduleRow, order: BackfillOrder, instants: Sequence[int], key: str, partitions: int) -> Talk[tuple[str, bool]]:
    """Record the operation where the schedule is; its id, and whether it was there before: equal keys are one operation.

    Raises:
        KeyReused: the key was used for another order.
        Conflict: too many operations are open.
    """
    operation_id = digest("operation", key or secrets.token_bytes(16))
    request = digest("backfill", row.id, msgspec.json.encode(order))
    shown = {"scheduleId": row.id, "from": order.from_, "to": order.to}
    fields = {
        "ac": "backfill",
        "sc": row.id,
        "fo": msgspec.json.encode(shown).decode(),
        "ids": msgspec.json.encode([str(at_ms) for at_ms in instants]).decode(),
        "ra": f"{order.rate_per_s:g}",
        "rt": f"{order.rate_per_s:g}",
        "tot": str(len(instants)),
        "tx": "1",
        "au": "",
    }
    if order.stop_on_failures is not None:
        fields["so"] = str(order.stop_on_failures)
    detail = msgspec.json.encode({"action": "backfill", "what": shown, "matched": len(instants), "exact": True}).decode()
    partition = home(row.id, partitions)[1]
    yield from check_key(operation_id, request, partitions)
    status = yield operations.open_(partition, operation_id, request, fields, who=order.by, reason=order.reason, detail=detail)
    if status is Status.REUSED:
        raise reused(operation_id)
    if status is Status.REJECTED:
        raise Conflict("50 operations are open; wait until some have ended, or cancel them", state="full")
    return operation_id, status is Status.ALREADY


class Filled(NamedTuple):
    """What one step did.

    Attributes:
        done: instants that are dealt with, from the first on.
        made: ids of new jobs.
        counts: `made`, `duplicates`, `skipped/invalid`.
        why: nothing more can be done, or empty.
    """

    done: int
    made: list[str]
    counts: Counter[str]
    why: str = ""


def carry_out(
    operation: OperationRow, instants: Sequence[str], jobs_of: Callable[[str], Jobs], now_ms: int, *, partitions: int, key_window_ms: int
) -> Talk[Filled]:
    """The jobs of *instants*, in order, as far as the schedule and its queue let them be made.

    Args:
        operation: whose step it is.
        instants: Unix ms.
        jobs_of: what jobs of a type are made with; raises InvalidRequest where there is no such type.
    """
    schedule_id, by = operation.fields["sc"], operation.fields.get("by", "")
    made: list[str] = []
    counts: Counter[str] = Counter()
    try:
        row = yield from schedules.show(schedule_id, partitions)
        jobs = jobs_of(spec_of(row).type)
    except (NotFound, InvalidRequest) as error:
        return Filled(0, made, counts, error.message)
    for n, at in enumerate(instants):
        try:
            is_new, job_id = yield from fill(row, int(at), jobs, Who(by), now_ms, key_window_ms=key_window_ms)
        except InvalidRequest:  # its payload does not fit any more; another instant's may
            counts["skipped/invalid"] += 1
        except (NotFound, Conflict) as error:
            return Filled(n, made, counts, error.message)
        else:
            counts["made" if is_new else "duplicates"] += 1
            if is_new:
                made.append(job_id)
    return Filled(len(instants), made, counts)
