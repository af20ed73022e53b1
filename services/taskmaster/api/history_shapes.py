"""The shapes of what has happened: events of all jobs as they come, and the timeline of one, and the audit."""

from __future__ import annotations

from typing import Any

from taskmaster.api.shapes import Shape, Worker

__all__ = [
    "AuditChain",
    "AuditEntry",
    "AuditFault",
    "AuditList",
    "AuditVerdict",
    "ChainHead",
    "ChainHeads",
    "FeedEvent",
    "Timeline",
    "TimelineEvent",
]


class FeedEvent(Shape, kw_only=True):
    """Data of an event of GET /events. Job, type and queue are null of a gap, type and queue also when nothing is left of the job."""

    event: str
    job_id: str | None
    type: str | None
    queue: str | None
    at: str | None
    partition: int


class TimelineEvent(Shape, kw_only=True):
    """Something that happened to the job. `at` is null where that is not kept: of deliveries that were handed back. `who`: where a
    submission came from, a person, or `worker`. `attempt`: number of the delivery. `jobId`: another job, the replay or its source.
    """

    at: str | None
    event: str
    who: str | None
    reason: str | None
    attempt: int | None
    worker: Worker | None
    plugin: str | None
    plugin_version: str | None
    error: str | None
    job_id: str | None


class Timeline(Shape, kw_only=True):
    """In order of time. `truncated`: there are more attempts, replays or rows of the audit than are kept or were looked at; `audited`: rows
    of the audit are among the events, as far as there are any.
    """

    job_id: str
    items: list[TimelineEvent]
    truncated: bool
    audited: bool


class AuditEntry(Shape, kw_only=True):
    """A row of the audit. `detail`: text, or data where it is JSON, payloads without what is marked secret or pii. `number`: in the chain
    of its partition, null when it was written before there was one.
    """

    at: str | None
    who: str
    action: str
    target: str
    reason: str | None
    detail: Any
    partition: int
    number: int | None


class ChainHead(Shape, kw_only=True):
    """Number and hash of the newest row in the chain of a partition; 0 and empty before the first."""

    partition: int
    number: int
    hash: str


class ChainHeads(Shape, kw_only=True):
    """One a partition: to be noted elsewhere, so that `taskmaster audit verify --head` can compare."""

    heads: list[ChainHead]


class AuditList(ChainHeads, kw_only=True):
    """One page, newest first, and where the chains stand."""

    items: list[AuditEntry]
    next_cursor: str | None = None


class AuditFault(Shape, kw_only=True):
    """What does not fit in a partition's chain, and at which row; `number` and `entry` are null where there is no such row."""

    partition: int
    kind: str
    number: int | None
    entry: str | None
    at: str | None
    message: str


class AuditChain(Shape, kw_only=True):
    """One partition: rows in the chain that are kept, older ones without a hash, and how many were trimmed."""

    partition: int
    whole: bool
    rows: int
    unchained: int
    trimmed: int


class AuditVerdict(ChainHeads, kw_only=True):
    """Whether the audit is what was written. `firstFault`: the oldest of the first partition that has one."""

    whole: bool
    first_fault: AuditFault | None
    faults: list[AuditFault]
    partitions: list[AuditChain]
