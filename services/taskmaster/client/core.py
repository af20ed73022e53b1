"""What both clients do between the caller and the store. No I/O."""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Literal, TypedDict

import msgspec

from taskmaster.engine import dlq, queries, strict
from taskmaster.engine.change import Change
from taskmaster.engine.enqueue import Result
from taskmaster.engine.gather import CHUNK
from taskmaster.engine.options import UniqueWork
from taskmaster.engine.receipts import Checked, SubmittedJob, outcomes
from taskmaster.engine.submit import KEY_MAX, Prepared, Submission, holds_nan
from taskmaster.errors import (
    InvalidPayload,
    InvalidRequest,
    NotEnded,
    Overloaded,
    StoreError,
    StoreFilling,
    StoreUnavailable,
    TaskMasterError,
)
from taskmaster.model.job import JobRecord
from taskmaster.model.retry import Backoff
from taskmaster.model.states import Priority
from taskmaster.settings import Settings, load
from taskmaster.store.reads import Shown

__all__ = [
    "ATOMIC_MAX",
    "Changes",
    "Item",
    "Mode",
    "Options",
    "Outcome",
    "admitted",
    "all_or_none",
    "batch_of",
    "change_of",
    "chunks",
    "ended",
    "has_ended",
    "is_lost",
    "names_in",
    "one_by_one",
    "payload_of",
    "replay_of",
    "replay_request",
    "result_of",
    "settings_of",
    "submission_of",
    "submissions_of",
]

#: Jobs in one atomic batch: they go in one call.
ATOMIC_MAX = 1_000
_REASON_MAX = 150
#: Digits as zeros, all else as it is not: where this many stand together, there may be an integer beyond 64 bits.
_ZEROS, _LONG = bytes(48 if chr(byte).isascii() and chr(byte).isdigit() else 32 for byte in range(256)), b"0" * 19
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode

#: A submission among many: as a struct, as a mapping with the names that POST /jobs takes, or why there is none: that is handed back.
Item = Submission | Mapping[str, Any] | TaskMasterError
#: What became of one of many: it is in the store, or why it is not.
Outcome = SubmittedJob | TaskMasterError
Mode = Literal["independent", "atomic"]


class Options(TypedDict, total=False):
    """What a submission may say beside type, payload and key; left out or None: as the job type has it.

    Attributes:
        queue: where it waits.
        priority: critical, high, normal or low.
        delay_ms: not before that many milliseconds from now, at most 10 years; not together with run_at.
        run_at: not before this instant, which needs its offset from UTC.
        attempts: executions at most, 1..100.
        backoff: the waits between them.
        timeout_ms: for one attempt, 1 ms .. 24 h.
        expires_at: not begun later than this instant.
        lifo: before what waits in its lane.
        fairness_key: jobs with equal keys take turns with those of other keys; 1..256 characters.
        tags: at most 10, to find the job by.
        limits: names of at most 4 limiters that it needs beside those of its queue and type.
        unique: no other job of this type for the same work.
        callback_url: http or https, told of the job's end.
    """

    queue: str | None
    priority: Priority | None
    delay_ms: int | None
    run_at: dt.datetime | None
    attempts: int | None
    backoff: Backoff | None
    timeout_ms: int | None
    expires_at: dt.datetime | None
    lifo: bool | None
    fairness_key: str | None
    tags: Sequence[str] | None
    limits: Sequence[str] | None
    unique: UniqueWork | None
    callback_url: str | None


class Changes(TypedDict, total=False):
    """What of a job that has not begun is to be changed; left out or None: as it is.

    Attributes:
        priority: it goes to the end of that level.
        delay_ms: due so many milliseconds from now, 0 at once; not together with run_at.
        run_at: due at this instant, which needs its offset from UTC.
        tags: instead of those it has.
        payload: instead of the one it has; fits the type's schema.
        revision: only if the job still has this revision.
    """

    priority: Priority | None
    delay_ms: int | None
    run_at: dt.datetime | None
    tags: Sequence[str] | None
    payload: Any
    revision: int | None


def change_of(changes: Changes) -> Change:
    """A change from a caller's arguments, checked as one that came over the wire.

    Raises:
        InvalidRequest: an argument has a wrong type or is out of its limits.
        InvalidPayload: the payload is not JSON.
    """
    given: dict[str, Any] = {_WIRE.get(name, name): value for name, value in changes.items() if value is not None}
    if "payload" in given:
        given["payload"] = payload_of(given["payload"])
    return strict.convert(given, Change)


def settings_of(where: str | Settings | None) -> Settings:
    """The settings given, or the defaults with this address of the store, or those of this process.

    Raises:
        ConfigurationError: one of this process's is wrong.
    """
    if where is None:
        return load({}, os.environ, Path.cwd())
    return Settings(redis_url=where) if isinstance(where, str) else where


def submission_of(job_type: str, payload: Any, key: str | None, options: Options) -> Submission:
    """One submission from a caller's arguments, checked as one that came over the wire.

    Raises:
        InvalidRequest: an argument has a wrong type or is out of its limits.
        InvalidPayload: the payload is not JSON.
    """
    given = {_WIRE.get(name, name): value for name, value in options.items() if value is not None}
    if not given and type(job_type) is str and (key is None or (type(key) is str and 0 < len(key) <= KEY_MAX)):  # so are most
        return Submission(job_type, key, payload_of(payload))
    return _read({"type": job_type, "payload": payload, "idempotencyKey": key} | given)


_WIRE = {name: wire for name, wire in zip(Submission.__struct_fields__, Submission.__struct_encode_fields__, strict=True) if name != wire}


def submissions_of(items: Iterable[Item]) -> list[Submission | TaskMasterError]:
    """Each item as a submission, or why it is none."""
    read: list[Submission | TaskMasterError] = []
    for item in items:
        try:
            if isinstance(item, Submission):
                read.append(msgspec.structs.replace(item, payload=payload_of(item.payload)))
            else:
                read.append(item if isinstance(item, TaskMasterError) else _read(item))
        except InvalidRequest as error:
            read.append(error)
    return read


def _read(fields: Mapping[str, Any]) -> Submission:
    if isinstance(fields, Mapping) and "payload" in fields:
        fields = {**fields, "payload": payload_of(fields["payload"])}
    return strict.convert(fields, Submission)


def payload_of(payload: Any) -> Any:
    """*payload* as JSON data: what msgspec can write, such as dataclasses, structs, instants and UUIDs, becomes what it writes.

    Raises:
        InvalidPayload: it is not JSON, or not as every reader understands it (`engine.strict`).
    """
    try:
        raw = _encode(payload)
        if raw.translate(_ZEROS).find(_LONG) >= 0 or strict.exceeds(raw):
            strict.decode(raw)
        if raw.find(b"null") >= 0 and holds_nan(msgspec.to_builtins(payload, str_keys=True)):  # null is what the encoder makes of it
            raise ValueError("NaN and Infinity are not")
        return _decode(raw)
    except (TypeError, ValueError, OverflowError, RecursionError, InvalidRequest) as error:
        message = f"the payload is not JSON: {error}"
        raise InvalidPayload(message, errors=[{"pointer": "/payload", "message": str(error)}]) from error


def chunks(items: Iterable[Item]) -> Iterator[list[Submission | TaskMasterError]]:
    """Items as submissions, as many as go in one call."""
    iterator = iter(items)
    while taken := list(islice(iterator, CHUNK)):
        yield submissions_of(taken)


def batch_of(items: Iterable[Item]) -> list[Submission | TaskMasterError]:
    """Items of an atomic batch as submissions.

    Raises:
        InvalidRequest: more than 1,000.
    """
    taken = list(islice(items, ATOMIC_MAX + 1))
    if len(taken) > ATOMIC_MAX:
        raise InvalidRequest(f"an atomic batch has at most {ATOMIC_MAX} jobs: they are stored in one step; use independent for more")
    return submissions_of(taken)


def admitted(sifted: Sequence[Checked]) -> Prepared:
    """The one that was asked for.

    Raises:
        Overloaded, StoreFilling: it may not come now.
    """
    [one] = sifted
    if isinstance(one, TaskMasterError):
        raise one
    return one


def names_in(submissions: Iterable[Submission | TaskMasterError]) -> set[str]:
    """The types that are asked for."""
    return {one.type for one in submissions if isinstance(one, Submission)}


def is_lost(results: Sequence[Result]) -> bool:
    """Whether the store did not take a call: there is no use in sending the next, which `one_by_one` would not come to."""
    return any(_is_loss(one) for one in results)


def _is_loss(one: Any) -> bool:
    """Whether the store did not take the call. What is only refused under pressure concerns one item."""
    return isinstance(one, StoreError) and not isinstance(one, StoreFilling)


def one_by_one(results: Sequence[Result], first: int) -> Iterator[Outcome]:
    """What became of each; *first*: the number of the first of them.

    Raises:
        StoreError: when it comes to one that the store did not take; fact `index`.
    """
    for index, outcome in enumerate(outcomes(results), first):
        if isinstance(outcome, StoreError) and _is_loss(outcome):
            outcome.facts["index"] = index
            raise outcome
        yield outcome


def all_or_none(results: Sequence[Result]) -> Iterator[SubmittedJob]:
    """What became of an atomic batch.

    Raises:
        InvalidRequest: one was refused, so none was stored; fact `items` says which, and why.
        StoreError: the store did not take it, or (`StoreFilling`) one of them not now.
        Overloaded: a queue does not take one of them now.
    """
    told = outcomes(results)
    wrong = [(index, one) for index, one in enumerate(told) if isinstance(one, TaskMasterError)]
    for _, error in wrong:
        if isinstance(error, StoreError | Overloaded):
            raise error
    if wrong:
        items = [{"index": index, "code": error.code, "message": error.message} for index, error in wrong]
        raise InvalidRequest(f"{len(wrong)} of {len(told)} items cannot be accepted, so none was stored", items=items)
    return (one for one in told if isinstance(one, SubmittedJob))


def replay_request(request_id: str, reason: str, traceparent: str, accept_unknown: bool) -> dlq.Request:
    """What is asked of a replay.

    Raises:
        InvalidRequest: a text is too long.
    """
    for name, text, longest in (("requestId", request_id, KEY_MAX), ("reason", reason, _REASON_MAX)):
        if len(text) > longest:
            message = f"at most {longest} characters are taken"
            raise InvalidRequest(f"{name}: {message}", errors=[{"pointer": f"/{name}", "message": message}])
    return dlq.Request(request_id, f"client: {reason}" if reason else "client", traceparent, accept_unknown)


def replay_of(
    job_id: str, shown: Shown | None, dead: Mapping[str, bytes] | None, request: dlq.Request, *, partitions: int, now_ms: int
) -> Prepared:
    """The replay of a job, from its own record (*shown*, with the submission) or from its dead letter, which may outlive that.

    Raises:
        NotFound: there is neither.
        Conflict: it has not ended.
    """
    if shown is None and dead is not None:
        return dlq.replay_of_dead(queries.dead_letter(dead)[0], None, request, partitions=partitions, now_ms=now_ms)
    record = queries.job_of(job_id, queries.found(job_id, shown))
    return dlq.replay_of_job(record, request, partitions=partitions, now_ms=now_ms)


def has_ended(seen: JobRecord | StoreUnavailable) -> bool:
    """Whether there is nothing to wait for any more."""
    return isinstance(seen, JobRecord) and queries.is_ended(seen)


def ended(seen: JobRecord | StoreUnavailable, within_s: float) -> JobRecord:
    """The job that was seen at the end of a wait of *within_s* seconds.

    Raises:
        NotEnded: it has not ended.
        StoreUnavailable: that was seen instead.
    """
    if isinstance(seen, StoreUnavailable):
        raise seen
    if not queries.is_ended(seen):
        raise NotEnded(f"job {seen.id} is {seen.state} after {within_s:g} s; wait again, or longer", jobId=seen.id, state=seen.state)
    return seen


def result_of(record: JobRecord) -> Any:
    """What the handler answered, decoded; None when it answered nothing.

    Raises:
        NotCompleted: it did not complete.
    """
    result = queries.completed(record).result
    return _decode(result) if result else None
