"""Changing a job that has not begun: its priority, when it is due, its tags, its payload."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, UnsetType

from taskmaster.engine import queries
from taskmaster.engine.options import FAR_MAX_MS, Instant, Tags, instant_ms, out_of_range, tags_of
from taskmaster.engine.submit import payload_json
from taskmaster.errors import Conflict, InvalidRequest, NotFound, RevisionMismatch
from taskmaster.model import webhooks
from taskmaster.model.ids import partition_of
from taskmaster.model.job import JobRecord, seal
from taskmaster.model.states import PRIORITIES, Priority
from taskmaster.plugins.catalogue import CatalogueEntry
from taskmaster.plugins.validation import Validator
from taskmaster.store import flow, reads
from taskmaster.store.call import Talk
from taskmaster.store.status import Status

__all__ = ["AT_ONCE", "Change", "change_job"]

#: How often a change is decided anew when somebody else was faster.
TRIES = 5
_REST = ("waiting", "delayed")


class Change(msgspec.Struct, rename="camel", forbid_unknown_fields=True, frozen=True, omit_defaults=True):
    """What is to be changed. None: as it is.

    Attributes:
        priority: it goes to the end of that level.
        delay_ms: due so many milliseconds from now, 0 at once, at most 10 years; not together with run_at.
        run_at: due at this instant, with its offset from UTC.
        tags: instead of those it has.
        payload: instead of the one it has; fits the type's schema.
        revision: only if the job still has this revision.
    """

    priority: Priority | None = None
    delay_ms: Annotated[int, msgspec.Meta(ge=0, le=FAR_MAX_MS)] | None = None
    run_at: Instant | None = None
    tags: Tags | None = None
    payload: Any = UNSET
    revision: Annotated[int, msgspec.Meta(ge=0)] | None = None


#: Due now.
AT_ONCE = Change(delay_ms=0)


def change_job(
    job_id: str,
    wanted: Change,
    *,
    partitions: int,
    find: Callable[[str], tuple[CatalogueEntry, Validator]],
    max_bytes: int,
    now_ms: int,
    check: Callable[[JobRecord], None] | None = None,
) -> Talk[JobRecord]:
    """The job with the change made, or as it was where that is what was wanted. A waiting job that is to run at once keeps its place.

    Args:
        job_id: of the job.
        wanted: the change.
        partitions: of the store.
        find: the entry of a job type and the validator of its payloads.
        max_bytes: the largest payload, as compact JSON.
        now_ms: by the store's clock.
        check: looks at the job that the change is decided on; raises to refuse. What it looked at is then what is changed, or nothing is.

    Raises:
        NotFound: there is no such job, or no longer.
        Conflict: it runs or has ended; fact `state`.
        RevisionMismatch: it has another revision than the one wanted; fact `revision`.
        InvalidRequest: the change cannot be.
    """
    if wanted in (Change(), Change(revision=wanted.revision)):
        raise InvalidRequest("nothing is to be changed: give priority, delayMs or runAt, tags or payload")
    partition = partition_of(job_id, partitions)
    for _ in range(TRIES):
        record = queries.job_of(job_id, queries.found(job_id, (yield reads.show(partition, job_id, "br"))))
        if check is not None:
            check(record)
        writes = _decide(record, wanted, find, max_bytes, now_ms)
        if not writes:
            return record
        is_bound = check is not None or wanted.revision is not None or "b" in writes
        known = record.revision if is_bound else None
        answer: flow.Patched = yield flow.patch(partition, job_id, writes, op=secrets.token_hex(8), known=known)
        if answer.status is Status.GONE:
            raise NotFound(f"there is no job {job_id} any more", jobId=job_id)
        if answer.status is not Status.CONFLICT:
            return queries.job_of(job_id, queries.found(job_id, (yield reads.show(partition, job_id, "br"))))
    raise Conflict(f"job {job_id} is being changed by others all the time; repeat the request", jobId=job_id)


def _decide(
    record: JobRecord, wanted: Change, find: Callable[[str], tuple[CatalogueEntry, Validator]], max_bytes: int, now_ms: int
) -> dict[str, Any]:
    """What the store is to write; nothing when all is as wanted."""
    if record.state not in _REST:
        ends = "runs" if record.state == "active" else f"is {record.state}"
        raise Conflict(f"job {record.id} {ends} and cannot be changed", jobId=record.id, state=record.state)
    if wanted.revision not in (None, record.revision):
        message = f"job {record.id} was changed since revision {wanted.revision}: it has {record.revision}"
        raise RevisionMismatch(message, jobId=record.id, revision=record.revision)
    writes: dict[str, Any] = {}
    if wanted.priority is not None and wanted.priority != record.priority:
        if wanted.priority not in PRIORITIES:
            raise out_of_range("priority", ", ".join(PRIORITIES))
        writes["pr"] = PRIORITIES.index(wanted.priority)
    due_ms = _due_ms(record, wanted, now_ms)
    if due_ms is not None:
        writes["due"] = due_ms
    envelope = record.envelope
    if wanted.tags is not None and tags_of(wanted.tags) != record.tags and envelope is not None:
        tags = tags_of(wanted.tags)
        writes["tg"], envelope = tags, msgspec.structs.replace(envelope, tags=tags)
    if not isinstance(wanted.payload, UnsetType) and envelope is not None:
        if record.type == webhooks.DELIVERY:
            raise InvalidRequest("what a webhook says is not changed", errors=[{"pointer": "/payload", "message": "not of a delivery"}])
        payload = msgspec.Raw(payload_json(wanted.payload, find(record.type)[1], max_bytes))
        envelope = msgspec.structs.replace(envelope, payload=payload)
    if envelope is not None and envelope is not record.envelope:
        writes["b"] = seal(envelope)
    return writes


def _due_ms(record: JobRecord, wanted: Change, now_ms: int) -> int | None:
    """When it is due from now on, 0 at once; None: as it is."""
    if wanted.delay_ms is not None and wanted.run_at is not None:
        raise InvalidRequest("give delayMs or runAt, not both", errors=[{"pointer": "/runAt", "message": "delayMs is given as well"}])
    if wanted.delay_ms is not None:
        if not 0 <= wanted.delay_ms <= FAR_MAX_MS:
            raise out_of_range("delayMs", f"0 to {FAR_MAX_MS} (10 years)")
        due_ms = now_ms + wanted.delay_ms
    elif wanted.run_at is not None:
        due_ms = instant_ms("runAt", wanted.run_at, now_ms)
    else:
        return None
    if due_ms <= now_ms:
        return 0 if record.state == "delayed" else None
    if record.expires_ms and due_ms >= record.expires_ms:
        raise out_of_range("runAt" if wanted.run_at else "delayMs", "an instant before the one at which the job expires")
    return due_ms
