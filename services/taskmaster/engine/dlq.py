"""Dead letters: a replay is a new job with the old one's payload and lineage. The old job and its record are only read."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from taskmaster.errors import Conflict, StoreDefect
from taskmaster.model.ids import digest, new_job_id, partition_of, slot_of
from taskmaster.model.job import DeadLetter, Envelope, JobRecord, seal
from taskmaster.model.lanes import lane_name
from taskmaster.model.states import PRIORITIES, TERMINAL, Priority
from taskmaster.store.calls import NewJob

__all__ = ["Request", "replay", "replay_of_dead", "replay_of_job"]

_BY_MAX = 200


class Request(NamedTuple):
    """What is asked of a replay.

    Attributes:
        request_id: equal ones make one replay of this source; empty: each request makes another.
        by: who asked, and why.
        traceparent: of the request.
        accept_unknown: also while an effect of the lineage is not settled.
    """

    request_id: str = ""
    by: str = ""
    traceparent: str = ""
    accept_unknown: bool = False


def replay(
    source_id: str,
    request: Request,
    *,
    envelope: Envelope,
    queue: str,
    priority: Priority,
    root_id: str,
    partitions: int,
    now_ms: int,
) -> tuple[int, NewJob]:
    """A new job like *source_id*, in its partition, with its fairness key, limiters, tags and callback; without its expiry and unique work.

    Args:
        source_id: the terminal job that is repeated.
        request: who asks for what.
        envelope: what was submitted for it.
        queue: where it stood.
        priority: as it had.
        root_id: the first job of the chain; its effects are the chain's.
        partitions: of the store.
        now_ms: by the store's clock.
    """
    fields: dict[str, Any] = {
        "key": request.request_id,
        "origin": "replay",
        "traceparent": request.traceparent,
        "replayed_from": source_id,
        "replayed_by": request.by[:_BY_MAX],
        "root_id": root_id,
        "unique_key": "",
    }
    blob = seal(msgspec.structs.replace(envelope, **fields))
    job = NewJob(
        id=new_job_id(now_ms, slot_of(source_id)),
        queue=queue,
        type=envelope.type,
        priority=PRIORITIES.index(priority),
        due_ms=0,
        delay_ms=0,
        max_attempts=envelope.attempts,
        key=digest("replay", source_id, request.request_id) if request.request_id else "",
        request=digest(source_id),
        blob=blob,
        root_id=root_id,
        replayed_from=source_id,
        accept_unknown=int(request.accept_unknown),
        lane=lane_name(envelope.fairness_key, envelope.limits),
        tags=envelope.tags,
        callback=f"{envelope.callback_url} {envelope.traceparent}".strip(),
    )
    return partition_of(source_id, partitions), job


def replay_of_dead(letter: DeadLetter, record: JobRecord | None, request: Request, *, partitions: int, now_ms: int) -> tuple[int, NewJob]:
    """A replay from a dead-letter record; *record* is the job's own, if retention has left it: it knows the priority."""
    return replay(
        letter.job_id,
        request,
        envelope=letter.envelope,
        queue=letter.queue,
        priority=record.priority if record is not None else "normal",
        root_id=letter.root_id,
        partitions=partitions,
        now_ms=now_ms,
    )


def replay_of_job(record: JobRecord, request: Request, *, partitions: int, now_ms: int) -> tuple[int, NewJob]:
    """A replay of any terminal job, from its own record with the envelope.

    Raises:
        Conflict: it is not terminal; fact `state` says what it is.
    """
    if record.state not in TERMINAL:
        raise Conflict(f"job {record.id} is {record.state}: only a job that has ended can be replayed", jobId=record.id, state=record.state)
    if record.envelope is None:
        raise StoreDefect(f"job {record.id} has no submission beside it")
    return replay(
        record.id,
        request,
        envelope=record.envelope,
        queue=record.queue,
        priority=record.priority,
        root_id=record.root_id or record.id,
        partitions=partitions,
        now_ms=now_ms,
    )
