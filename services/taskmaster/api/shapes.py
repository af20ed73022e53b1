"""Every answer's shape, named as API.md names it: camelCase, RFC 3339 UTC with milliseconds and `Z`, null for what is not there."""

from __future__ import annotations

import time
from functools import lru_cache
from typing import Any, Literal

import msgspec

from taskmaster.model.states import Priority, State

__all__ = [
    "Accepted",
    "Attempt",
    "AttemptList",
    "BulkAnswer",
    "BulkItem",
    "Cancellation",
    "DeadEntry",
    "DeadList",
    "Effect",
    "EffectList",
    "EffectSettled",
    "Error",
    "Health",
    "Job",
    "JobBasic",
    "JobList",
    "JobStatus",
    "JobSummary",
    "LogLine",
    "LogLines",
    "Policy",
    "ProgressNote",
    "Replayed",
    "Rule",
    "Shape",
    "Why",
    "WhyReason",
    "Worker",
    "encode",
    "instant",
    "moment",
]

encode = msgspec.json.Encoder().encode


@lru_cache(maxsize=64)
def _second(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))


def instant(ms: int) -> str:
    """Unix milliseconds as `2026-01-31T09:00:00.000Z`."""
    seconds, rest = divmod(ms, 1_000)
    return f"{_second(seconds)}.{rest:03d}Z"


def moment(ms: int) -> str | None:
    """The same, and None for 0: unset."""
    return instant(ms) if ms else None


class Shape(msgspec.Struct, rename="camel", kw_only=True):
    """Base of all answers."""


class Policy(Shape, kw_only=True):
    """How long to wait between attempts; `delaysMs` only for the kind `list`."""

    kind: str
    delay_ms: int
    max_ms: int
    jitter: float
    delays_ms: list[int] | None = None


class Accepted(Shape, kw_only=True):
    """A submission was taken, now or before. `state` is null when the first job is no longer kept."""

    status: Literal["accepted"] = "accepted"
    job_id: str
    state: State | None
    type: str
    queue: str
    priority: Priority
    created_at: str
    run_at: str | None = None
    duplicate: bool = False


class Replayed(Accepted, kw_only=True):
    """A replay was taken."""

    replayed_from_job_id: str
    replayed_at: str
    root_job_id: str


class BulkItem(Shape, kw_only=True):
    """What became of one item: accepted with its job, or refused with the problem."""

    status: Literal["accepted", "rejected"]
    job: Accepted | None = None
    problem: dict[str, Any] | None = None


class BulkAnswer(Shape, kw_only=True):
    """Per item, in order."""

    mode: Literal["independent", "atomic"]
    accepted: int
    rejected: int
    items: list[BulkItem]


class Worker(Shape, kw_only=True):
    """Who ran an attempt. Host and pid are remembered for 30 days."""

    consumer: str
    host: str | None = None
    pid: int | None = None
    name: str | None = None


class Error(Shape, kw_only=True):
    """Why an attempt failed."""

    class_: str = msgspec.field(name="class")
    message: str
    fingerprint: str | None
    trace: str | None
    plugin: str | None


class JobStatus(Shape, kw_only=True):
    """The job in short."""

    job_id: str
    type: str
    state: State
    created_at: str
    processed_at: str | None
    failed_reason: str | None
    reason: str | None
    progress: float | None
    attempts_made: int
    max_attempts: int
    next_run_at: str | None
    finished_at: str | None


class JobSummary(Shape, kw_only=True):
    """A row of a list."""

    job_id: str
    type: str
    state: State
    reason: str | None
    queue: str
    priority: Priority
    created_at: str
    processed_at: str | None
    finished_at: str | None
    next_run_at: str | None
    progress: float | None
    attempts_made: int
    max_attempts: int
    root_job_id: str
    replayed_from_job_id: str | None
    tags: list[str]
    limits: list[str]
    expires_at: str | None
    revision: int


class JobBasic(JobSummary, kw_only=True):
    """Everything about a job but payload and result. `fallback`: its result is that of its type's fallback, its dependency being down.
    `traceId` is its submission's; `traceUrl`, where that can be looked at, is null unless the service has been told where traces are.
    """

    progress_note: str | None
    failed_reason: str | None
    error: Error | None
    failures: int
    losses: int
    handed_back: int
    cancel_requested: bool
    fallback: bool
    timeout_ms: int
    backoff: Policy
    retry_schedule_ms: list[int]
    idempotency_key: str | None
    unique_key: str | None
    fairness_key: str | None
    callback_url: str | None
    lifo: bool
    origin: str
    traceparent: str | None
    trace_id: str | None
    trace_url: str | None
    replayed_at: str | None
    replayed_by: str | None


class Job(JobBasic, kw_only=True):
    """Everything about a job."""

    payload: Any
    result: Any


class JobList(Shape, kw_only=True):
    """One page."""

    items: list[JobSummary]
    next_cursor: str | None = None


class Attempt(Shape, kw_only=True):
    """One delivery. `endedAt` is null while it runs; `traceId` is null unless it was recorded."""

    number: int
    outcome: str
    started_at: str | None
    ended_at: str | None
    duration_ms: int | None
    worker: Worker
    plugin: str | None
    plugin_version: str | None
    error: str | None
    message: str | None
    trace_id: str | None
    trace_url: str | None


class AttemptList(Shape, kw_only=True):
    """All that are remembered: the first and the last 49."""

    items: list[Attempt]
    next_cursor: str | None = None


class LogLine(Shape, kw_only=True):
    """One line: its number among all of the job, and which attempt said it."""

    number: int
    at: str
    attempt: int
    level: str
    text: str


class LogLines(Shape, kw_only=True):
    """Lines in order. `nextCursor` is the `after` of the next page, null when there is none yet."""

    items: list[LogLine]
    next_cursor: str | None = None


class ProgressNote(Shape, kw_only=True):
    """How far a running job is, 0 to 1, and what its handler says of it."""

    progress: float
    note: str | None


class WhyReason(Shape, kw_only=True):
    """One reason: a stable word, a sentence, and the numbers behind it."""

    code: str
    message: str
    facts: dict[str, Any]


class Why(Shape, kw_only=True):
    """What keeps a job from running, the first first. `estimatedStartAt` is null when it depends on somebody, or nobody can tell."""

    job_id: str
    state: State
    queue: str
    type: str
    reasons: list[WhyReason]
    estimated_start_at: str | None


class Cancellation(Shape, kw_only=True):
    """`cancelled`: it is; `cancelling`: it runs, and its worker has been asked to stop."""

    job_id: str
    status: Literal["cancelled", "cancelling"]
    state: State


class DeadEntry(Shape, kw_only=True):
    """A dead-letter record."""

    entry_id: str
    job_id: str
    type: str
    queue: str
    payload: Any
    reason: str
    failure_reason: str
    error: Error | None
    error_fingerprint: str
    attempts: int
    losses: int
    max_attempts: int
    created_at: str
    failed_at: str
    plugin: str | None
    plugin_version: str | None
    worker: Worker | None
    trace_id: str | None
    idempotency_key: str | None
    root_job_id: str
    replayed_from_job_id: str | None
    replayed_by: str | None


class DeadList(Shape, kw_only=True):
    """One page."""

    items: list[DeadEntry]
    next_cursor: str | None = None


class Effect(Shape, kw_only=True):
    """An effect of a job on the world outside, under its guard."""

    effect_id: str
    state: Literal["running", "unknown", "done", "not_done"]
    name: str
    key: str | None
    job_id: str
    root_job_id: str
    reserved_at: str
    settled_at: str | None
    settled_by: str | None
    reason: str | None
    result: Any


class EffectList(Shape, kw_only=True):
    """A page."""

    items: list[Effect]
    next_cursor: str | None = None


class EffectSettled(Shape, kw_only=True):
    """What it counts as now."""

    effect_id: str
    state: Literal["done", "not_done"]


class Rule(Shape, kw_only=True):
    """One rule of health; it holds while `observed` stays below `limit` (for noWorker and oldestWaiting, ms: is not above it)."""

    rule: str
    queue: str | None
    observed: float
    limit: float
    ok: bool


class Health(Shape, kw_only=True):
    """unhealthy: the store does not answer, or takes no writes; degraded: a rule is broken."""

    status: Literal["healthy", "degraded", "unhealthy"]
    rules: list[Rule]
    store: dict[str, Any]
    workers: int
    schedulers: int = 0


# ---------------------------------------------------------------- from records
