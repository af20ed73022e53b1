"""Every answer's shape, named as API.md names it: camelCase, RFC 3339 UTC with milliseconds and `Z`, null for what is not there."""

from __future__ import annotations

import time
from functools import lru_cache
from typing import Any, Literal

import msgspec

from taskmaster.engine.queries import AttemptView, Consumer, QueueView
from taskmaster.errors import StoreDefect
from taskmaster.model.job import DeadLetter, Failure, JobRecord
from taskmaster.model.retry import Backoff, schedule_ms
from taskmaster.model.states import Priority, State
from taskmaster.plugins.catalogue import CatalogueEntry

__all__ = [
    "Accepted",
    "Attempt",
    "AttemptList",
    "BulkAnswer",
    "BulkItem",
    "Cancellation",
    "DeadEntry",
    "DeadList",
    "Error",
    "Health",
    "Job",
    "JobBasic",
    "JobList",
    "JobStatus",
    "JobSummary",
    "JobType",
    "JobTypeList",
    "Policy",
    "Queue",
    "QueueList",
    "Replayed",
    "Rule",
    "Worker",
    "encode",
    "instant",
]

encode = msgspec.json.Encoder().encode
_raw_decoder = msgspec.json.Decoder(msgspec.Raw)


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


class JobBasic(JobSummary, kw_only=True):
    """Everything about a job but payload and result."""

    progress_note: str | None
    failed_reason: str | None
    error: Error | None
    failures: int
    losses: int
    handed_back: int
    cancel_requested: bool
    timeout_ms: int
    backoff: Policy
    retry_schedule_ms: list[int]
    idempotency_key: str | None
    origin: str
    traceparent: str | None
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
    """One delivery. `endedAt` is null while it runs."""

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


class AttemptList(Shape, kw_only=True):
    """All that are remembered: the first and the last 49."""

    items: list[Attempt]
    next_cursor: str | None = None


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


class JobType(Shape, kw_only=True):
    """A job type with its defaults."""

    type: str
    description: str
    queue: str
    attempts: int
    backoff: Policy
    retry_schedule_ms: list[int]
    timeout_ms: int
    key_required: bool
    schema: dict[str, Any]
    example: Any
    plugin: str
    version: str


class JobTypeList(Shape, kw_only=True):
    """All of them."""

    items: list[JobType]
    next_cursor: str | None = None


class Queue(Shape, kw_only=True):
    """A queue. Rates and times are of the last minute, the last hour, the last 100 completed jobs."""

    name: str
    paused: bool = False
    paused_by: str | None = None
    paused_at: str | None = None
    counts: dict[str, int]
    by_priority: dict[str, int]
    oldest_waiting_ms: int | None
    rate_per_minute: int
    failure_rate: float | None
    wait_ms: dict[str, int] | None
    run_ms: dict[str, int] | None
    concurrency: int
    limits: list[str] = msgspec.field(default_factory=list)
    no_worker_types: list[str]


class QueueList(Shape, kw_only=True):
    """All of them."""

    items: list[Queue]
    next_cursor: str | None = None


class Rule(Shape, kw_only=True):
    """One rule of health; it holds while `observed` stays below `limit` (for noWorker: is not above it)."""

    rule: str
    queue: str | None
    observed: float
    limit: float
    ok: bool


class Health(Shape, kw_only=True):
    """unhealthy: the store does not answer; degraded: a rule is broken."""

    status: Literal["healthy", "degraded", "unhealthy"]
    rules: list[Rule]
    store: dict[str, Any]
    workers: int
    schedulers: int = 0


# ---------------------------------------------------------------- from records


def policy_of(backoff: Backoff) -> Policy:
    """The wire form of a policy, defaults included."""
    return Policy(
        kind=backoff.kind,
        delay_ms=backoff.delay_ms,
        max_ms=backoff.max_ms,
        jitter=backoff.jitter,
        delays_ms=list(backoff.delays_ms) if backoff.kind == "list" else None,
    )


def error_of(failure: Failure | None) -> Error | None:
    """The wire form of a failure."""
    if failure is None:
        return None
    return Error(
        class_=failure.error,
        message=failure.message,
        fingerprint=failure.fingerprint or None,
        trace=failure.trace or None,
        plugin=failure.plugin or None,
    )


def failed_reason(failure: Failure | None, reason: str, losses: int) -> str | None:
    """One sentence: the last error's message, else what the engine knows."""
    if failure is not None:
        return f"{failure.error.rpartition('.')[2]}: {failure.message}" if failure.message else failure.error
    if reason == "worker_lost":
        return f"worker_lost: its worker process died {losses} times while running it"
    return reason or None


def status_of(record: JobRecord) -> JobStatus:
    """GET /jobs/{id}/status."""
    return JobStatus(
        job_id=record.id,
        type=record.type,
        state=record.state,
        created_at=instant(record.created_ms),
        processed_at=moment(record.claimed_ms),
        failed_reason=_failed_reason(record),
        reason=record.reason or None,
        progress=record.progress,
        attempts_made=record.attempts_made,
        max_attempts=record.attempts,
        next_run_at=moment(record.due_ms) if record.state == "delayed" else None,
        finished_at=moment(record.finished_ms),
    )


def _failed_reason(record: JobRecord) -> str | None:
    if record.state == "completed":
        return None
    return failed_reason(record.failure, record.reason if record.state == "failed" else "", record.losses)


def _summary(record: JobRecord) -> dict[str, Any]:
    return {
        "job_id": record.id,
        "type": record.type,
        "state": record.state,
        "reason": record.reason or None,
        "queue": record.queue,
        "priority": record.priority,
        "created_at": instant(record.created_ms),
        "processed_at": moment(record.claimed_ms),
        "finished_at": moment(record.finished_ms),
        "next_run_at": moment(record.due_ms) if record.state == "delayed" else None,
        "progress": record.progress,
        "attempts_made": record.attempts_made,
        "max_attempts": record.attempts,
        "root_job_id": record.root_id or record.id,
        "replayed_from_job_id": record.replayed_from or None,
    }


def summary_of(record: JobRecord) -> JobSummary:
    """A row of GET /jobs."""
    return JobSummary(**_summary(record))


def job_of(record: JobRecord, *, basic: bool) -> JobBasic:
    """GET /jobs/{id}. The record must have its envelope.

    Raises:
        StoreDefect: it has none.
    """
    envelope = record.envelope
    if envelope is None:
        raise StoreDefect(f"job {record.id} has no submission beside it")
    fields = _summary(record) | {
        "progress_note": record.progress_note or None,
        "failed_reason": _failed_reason(record),
        "error": error_of(record.failure),
        "failures": record.failures,
        "losses": record.losses,
        "handed_back": record.handed_back,
        "cancel_requested": record.cancel_requested,
        "timeout_ms": envelope.timeout_ms,
        "backoff": policy_of(envelope.backoff),
        "retry_schedule_ms": schedule_ms(envelope.backoff, record.attempts),
        "idempotency_key": envelope.key or None,
        "origin": envelope.origin,
        "traceparent": envelope.traceparent or None,
        "replayed_at": instant(record.created_ms) if record.replayed_from else None,
        "replayed_by": envelope.replayed_by or None,
    }
    return JobBasic(**fields) if basic else Job(**fields, payload=envelope.payload, result=_result(record.result))


def _result(raw: bytes) -> msgspec.Raw | None:
    if not raw:
        return None
    try:
        return _raw_decoder.decode(raw)
    except msgspec.DecodeError:
        return None


def worker_of(consumer: Consumer) -> Worker:
    """The wire form of a consumer."""
    return Worker(consumer=consumer.id, host=consumer.host, pid=consumer.pid, name=consumer.name)


def attempt_of(view: AttemptView) -> Attempt:
    """An item of GET /jobs/{id}/attempts."""
    plugin, _, version = view.plugin.partition("==")
    return Attempt(
        number=view.number,
        outcome=view.outcome,
        started_at=moment(view.started_ms),
        ended_at=moment(view.ended_ms),
        duration_ms=max(0, view.ended_ms - view.started_ms) if view.ended_ms and view.started_ms else None,
        worker=worker_of(view.consumer),
        plugin=plugin or None,
        plugin_version=version or None,
        error=view.error or None,
        message=view.message or None,
    )


def dead_of(letter: DeadLetter, consumer: Consumer) -> DeadEntry:
    """GET /dlq/{id}."""
    failure, envelope = letter.failure, letter.envelope
    plugin, _, version = (failure.plugin if failure else "").partition("==")
    return DeadEntry(
        entry_id=letter.job_id,
        job_id=letter.job_id,
        type=letter.type,
        queue=letter.queue,
        payload=envelope.payload,
        reason=letter.reason,
        failure_reason=failed_reason(failure, letter.reason, letter.losses) or letter.reason,
        error=error_of(failure),
        error_fingerprint=letter.fingerprint,
        attempts=letter.attempts,
        losses=letter.losses,
        max_attempts=envelope.attempts,
        created_at=instant(letter.created_ms),
        failed_at=instant(letter.failed_ms),
        plugin=plugin or None,
        plugin_version=version or None,
        worker=worker_of(consumer) if consumer.id else None,
        trace_id=envelope.traceparent.split("-")[1] if envelope.traceparent.count("-") == 3 else None,
        idempotency_key=envelope.key or None,
        root_job_id=letter.root_id,
        replayed_from_job_id=envelope.replayed_from or None,
        replayed_by=envelope.replayed_by or None,
    )


def type_of(entry: CatalogueEntry, *, key_required_by_default: bool) -> JobType:
    """GET /job-types/{type}."""
    return JobType(
        type=entry.type,
        description=entry.description,
        queue=entry.queue,
        attempts=entry.attempts,
        backoff=policy_of(entry.backoff),
        retry_schedule_ms=schedule_ms(entry.backoff, entry.attempts),
        timeout_ms=entry.timeout_ms,
        key_required=key_required_by_default if entry.key_required is None else entry.key_required,
        schema=entry.schema,
        example=entry.example,
        plugin=entry.plugin,
        version=entry.version,
    )


def queue_of(view: QueueView, concurrency: int) -> Queue:
    """GET /queues/{name}."""
    return Queue(
        name=view.name,
        counts=msgspec.structs.asdict(view.counts),
        by_priority=view.by_priority,
        oldest_waiting_ms=view.oldest_ms,
        rate_per_minute=view.rate_per_minute,
        failure_rate=view.failure_ratio,
        wait_ms=view.waited_ms,
        run_ms=view.ran_ms,
        concurrency=concurrency,
        no_worker_types=list(view.orphan_types),
    )
