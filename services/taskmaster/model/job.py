"""What a job is, in memory and on the wire between our own processes."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from taskmaster.model.retry import DEFAULT, Backoff
from taskmaster.model.states import Priority, State

__all__ = ["Attempt", "Counts", "DeadLetter", "Envelope", "Failure", "JobRecord", "Line", "LogLine", "seal"]


class Envelope(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What was submitted and does not change: the blob beside the job's hash, JSON. New fields go to the end, with a default.

    Attributes:
        type: job type.
        payload: as validated at submission, not decoded until a handler needs it.
        key: the idempotency key as given, for people.
        origin: who made the job: api, cli, client, replay.
        attempts: executions at most.
        timeout_ms: how long one attempt may take.
        traceparent: W3C trace context of the submission, or empty.
        replayed_from: the job that this one repeats, or empty.
        replayed_by: who asked for that, or empty.
        root_id: the first job of that chain, or empty: it is the first itself.
        fairness_key: whose turn it takes, as given, or empty.
        tags: as given.
        limits: names of limiters that it needs by its own submission.
        unique_key: names its work, as given, or empty.
        callback_url: told of its end, or empty.
    """

    type: str
    payload: msgspec.Raw
    key: str = ""
    origin: str = "api"
    attempts: int = 5
    timeout_ms: int = 60_000
    backoff: Backoff = DEFAULT
    traceparent: str = ""
    replayed_from: str = ""
    replayed_by: str = ""
    root_id: str = ""
    fairness_key: str = ""
    tags: tuple[str, ...] = ()
    limits: tuple[str, ...] = ()
    unique_key: str = ""
    callback_url: str = ""


_encode = msgspec.json.Encoder().encode


def seal(envelope: Envelope) -> str:
    """The blob of *envelope*: JSON without the defaults at its end."""
    e = envelope
    if e.replayed_from or e.replayed_by or e.root_id or e.fairness_key or e.tags or e.limits or e.unique_key or e.callback_url:
        return _encode(e).decode()
    if e.traceparent:
        return _encode((e.type, e.payload, e.key, e.origin, e.attempts, e.timeout_ms, e.backoff, e.traceparent)).decode()
    if e.attempts == 5 and e.timeout_ms == 60_000 and e.backoff == DEFAULT:
        return _encode((e.type, e.payload, e.key, e.origin)).decode()
    return _encode((e.type, e.payload, e.key, e.origin, e.attempts, e.timeout_ms, e.backoff)).decode()


class Failure(msgspec.Struct, frozen=True, array_like=True):
    """Why an attempt failed: opaque to the store, JSON.

    Attributes:
        error: qualified class name.
        message: truncated, control characters escaped.
        fingerprint: alike for failures with one cause.
        trace: truncated traceback.
        plugin: name and version of the code that ran, `name==version`.
    """

    error: str
    message: str
    fingerprint: str = ""
    trace: str = ""
    plugin: str = ""


class Attempt(msgspec.Struct, frozen=True, array_like=True):
    """One ended attempt: a row of the job's history, JSON. Times are Unix milliseconds by the store's clock.

    `trace_id` is the attempt's own, which may be another one than its submission's; empty when it was not recorded.
    """

    epoch: int
    outcome: str
    started_ms: int
    ended_ms: int
    consumer: str
    error: str = ""
    message: str = ""
    plugin: str = ""
    trace_id: str = ""


class Line(msgspec.Struct, frozen=True, array_like=True):
    """One line that a handler logged: JSON. *at_ms* by the store's clock; *attempt* as the handler saw it; control characters escaped."""

    at_ms: int
    attempt: int
    level: str
    text: str


class LogLine(NamedTuple):
    """A line and its number in the job: from 1 on, over all attempts; one that was lost has its number, too."""

    number: int
    line: Line


class JobRecord(msgspec.Struct, frozen=True):
    """Everything the store knows of one job. Times are Unix milliseconds by the store's clock, 0 when unset.

    `lane` is as `model.lanes` names it, empty for the default one; `revision` counts changes of what was submitted.
    """

    id: str
    state: State
    type: str
    queue: str
    priority: Priority
    created_ms: int
    reason: str = ""
    due_ms: int = 0
    claimed_ms: int = 0
    finished_ms: int = 0
    epoch: int = 0
    failures: int = 0
    losses: int = 0
    handed_back: int = 0
    attempts: int = 5
    consumer: str = ""
    progress: float | None = None
    progress_note: str = ""
    cancel_requested: bool = False
    is_fallback: bool = False
    root_id: str = ""
    replayed_from: str = ""
    lane: str = ""
    tags: tuple[str, ...] = ()
    expires_ms: int = 0
    is_lifo: bool = False
    revision: int = 0
    envelope: Envelope | None = None
    result: bytes = b""
    failure: Failure | None = None
    history: tuple[Attempt, ...] = ()

    @property
    def attempts_made(self) -> int:
        """Deliveries less those handed back unstarted."""
        return self.epoch - self.handed_back


class DeadLetter(msgspec.Struct, frozen=True):
    """The record of a terminal failure: written once, together with the state, and never changed."""

    job_id: str
    type: str
    queue: str
    reason: str
    failed_ms: int
    attempts: int
    losses: int
    created_ms: int
    root_id: str
    consumer: str
    envelope: Envelope
    failure: Failure | None
    fingerprint: str


class Counts(msgspec.Struct, frozen=True):
    """Jobs of one queue, by state now."""

    waiting: int = 0
    delayed: int = 0
    active: int = 0
    completed: int = 0
    failed: int = 0
    cancelled: int = 0
    blocked: int = 0
