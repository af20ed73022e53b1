"""Shapes of answers about groups of dead letters and operations over many jobs."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from taskmaster.api.shapes import Shape

__all__ = ["Discarded", "Group", "GroupError", "GroupList", "Operation", "OperationList", "Preview", "Progress"]


class GroupError(Shape, kw_only=True):
    """The error of a group's newest record."""

    class_: str = msgspec.field(name="class")
    message: str


class Group(Shape, kw_only=True):
    """Dead letters with one cause. `count`, `firstSeenAt` and `lastSeenAt` are exact; types, queues, reasons and plugin versions are those
    of `sampled` records: the newest ten and the oldest two in each partition.
    """

    fingerprint: str
    count: int
    first_seen_at: str
    last_seen_at: str
    reason: str
    error: GroupError | None
    sample_entry_id: str
    types: list[str]
    queues: list[str]
    reasons: list[str]
    plugin_versions: dict[str, int]
    sampled: int


class GroupList(Shape, kw_only=True):
    """One page."""

    items: list[Group]
    next_cursor: str | None = None


class Discarded(Shape, kw_only=True):
    """A dead letter is gone."""

    entry_id: str
    status: Literal["discarded"] = "discarded"


class Progress(Shape, kw_only=True):
    """How far an operation is. `done` is the sum of what was replayed, discarded or cancelled, skipped and found gone; of a backfill, of
    jobs that were made, instants that had one, and those that were skipped.

    Of the jobs that were made, `failed` have had a failed attempt or died, `succeeded` completed, `pending` are not known to have ended,
    `forgotten` ended and were removed by retention before anybody looked.
    """

    total: int
    total_is: Literal["exact", "atLeast"]
    done: int
    replayed: int
    made: int
    duplicates: int
    discarded: int
    cancelled: int
    skipped: dict[str, int]
    gone: int
    succeeded: int
    failed: int
    ended_otherwise: int
    pending: int
    forgotten: int


class Operation(Shape, kw_only=True):
    """One decision over many jobs, and what became of it."""

    operation_id: str
    action: str
    state: Literal["running", "completed", "stopped", "cancelled"]
    why: str | None
    filter: dict[str, Any] | None
    ids: int | None
    rate_per_s: float
    stop_on_failures: int | None
    accept_unknown: bool
    reason: str
    by: str
    progress: Progress
    waiting_for: str | None
    last_failed_job_id: str | None
    created_at: str
    started_at: str | None
    last_step_at: str | None
    finished_at: str | None
    duplicate: bool = False


class OperationList(Shape, kw_only=True):
    """One page."""

    items: list[Operation]
    next_cursor: str | None = None


class Preview(Shape, kw_only=True):
    """What an operation would be about; nothing is stored."""

    dry_run: Literal[True] = True
    action: str
    matched: int
    matched_is: Literal["exact", "atLeast"]
    sample_ids: list[str]
