"""Reading: what the store's raw answers say of jobs, queues and workers, and how pages of several partitions become one. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from taskmaster.errors import NotCompleted, NotFound, StoreDefect
from taskmaster.model.ids import created_ms, is_job_id
from taskmaster.model.job import Attempt, Counts, DeadLetter, Envelope, Failure, JobRecord
from taskmaster.model.retention import ENDED, Ended
from taskmaster.model.states import PRIORITIES, TERMINAL, state_of
from taskmaster.store.reads import Found, Page, QueueRow, Shown

__all__ = [
    "AttemptView",
    "Consumer",
    "QueueView",
    "attempts_of",
    "completed",
    "consumer_of",
    "dead_letter",
    "empty_queue",
    "found",
    "id_of",
    "is_ended",
    "job_of",
    "merge_pages",
    "merge_queues",
    "summary_of",
]

_envelope = msgspec.json.Decoder(Envelope).decode
_failure = msgspec.json.Decoder(Failure).decode
_attempt = msgspec.json.Decoder(Attempt).decode
#: What a job's hash leaves out when it is the usual.
_NORMAL, _ATTEMPTS = 2, 5


def job_of(job_id: str, shown: Shown) -> JobRecord:
    """One job from the answer of `reads.show`; envelope, result, failure and history as far as they were asked for.

    Raises:
        StoreDefect: what is stored is not what this version writes.
    """
    try:
        record = _record(job_id, shown.fields, hold=shown.hold)
        is_result = record.state == "completed"
        return msgspec.structs.replace(
            record,
            envelope=_envelope(shown.blob) if shown.blob else None,
            result=shown.body if is_result else b"",
            failure=_failure(shown.body) if shown.body and not is_result else None,
            history=tuple(_attempt(row) for row in shown.rows),
        )
    except (LookupError, ValueError, msgspec.MsgspecError) as error:
        raise StoreDefect(f"job {job_id}: its record cannot be read: {type(error).__name__}: {error}") from error


def id_of(text: str) -> str:
    """*text*, if it is spelt like a job id.

    Raises:
        NotFound: it is not, so there can be no such job.
    """
    if not is_job_id(text):
        shown = text[:64].encode("utf-8", "backslashreplace").decode()
        raise NotFound(f"there is no job {shown!r}", jobId=shown)
    return text


def found(job_id: str, shown: Shown | None) -> Shown:
    """*shown*, if there was something to show.

    Raises:
        NotFound: there was not.
    """
    if shown is None:
        raise NotFound(f"there is no job {job_id}, or no longer", jobId=job_id)
    return shown


def summary_of(found: Found) -> JobRecord:
    """One job from a row of `reads.find`: without payload, result and history."""
    try:
        return _record(found.id, {name: value.decode("utf-8", "replace") for name, value in found.fields.items()}, hold="")
    except (LookupError, ValueError) as error:
        raise StoreDefect(f"job {found.id}: its record cannot be read: {type(error).__name__}: {error}") from error


def _record(job_id: str, fields: Mapping[str, str], *, hold: str) -> JobRecord:
    get = fields.get
    state = state_of(fields["st"])
    share, _, note = get("pg", "").partition(" ")
    reason = ""
    if state == "waiting":
        reason = hold
    elif state == "active":
        reason = "cancelling" if "cr" in fields else ""
    elif state != "completed":  # the last word before success is no reason for it
        reason = get("rs", "")
    return JobRecord(
        id=job_id,
        state=state,
        type=fields["ty"],
        queue=fields["q"],
        priority=PRIORITIES[int(get("pr", _NORMAL))],
        created_ms=created_ms(job_id),
        reason=reason,
        due_ms=_int(get("ra")),
        claimed_ms=_int(get("sa")),
        finished_ms=_int(get("fa")),
        epoch=_int(get("ep")),
        failures=_int(get("fl")),
        losses=_int(get("ls")),
        handed_back=_int(get("hb")),
        attempts=int(get("ma", _ATTEMPTS)),
        consumer=get("tk", "").partition(".")[0],
        progress=_share(share),
        progress_note=note,
        cancel_requested="cr" in fields,
        is_fallback="fb" in fields,
        root_id=get("rt", ""),
        replayed_from=get("rp", ""),
        lane=get("ln", ""),
        tags=tuple(get("tg", "").split(",")) if get("tg") else (),
        expires_ms=_int(get("ex")),
        is_lifo="lf" in fields,
        revision=_int(get("rv")),
    )


def _int(text: str | None) -> int:
    return int(float(text)) if text else 0


def _share(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


class Consumer(NamedTuple):
    """The process that ran an attempt, as far as it is remembered (30 days)."""

    id: str
    host: str | None = None
    pid: int | None = None
    name: str | None = None


def consumer_of(wid: str, info: bytes) -> Consumer:
    """Who *wid* was."""
    try:
        facts = msgspec.json.decode(info) if info else {}
    except msgspec.DecodeError:
        facts = {}
    return Consumer(wid, facts.get("host"), facts.get("pid"), facts.get("name")) if isinstance(facts, dict) else Consumer(wid)


class AttemptView(NamedTuple):
    """One delivery. `ended_ms` 0 while it runs; `plugin` is `name==version`, empty when forgotten."""

    number: int
    outcome: str
    started_ms: int
    ended_ms: int
    consumer: Consumer
    plugin: str
    error: str
    message: str
    trace_id: str


def attempts_of(record: JobRecord, shown: Shown) -> list[AttemptView]:
    """The deliveries of a job, oldest first. The last one has no row in the history while it runs, or if it was the first and went well."""
    views = [_view(shown, record.type, row) for row in record.history]
    has_row = any(row.epoch == record.epoch for row in record.history)
    if record.epoch and not has_row and (record.state == "active" or record.finished_ms):
        outcome = "running" if record.state == "active" else record.state
        ended_ms = 0 if record.state == "active" else record.finished_ms
        views.append(_view(shown, record.type, Attempt(record.epoch, outcome, record.claimed_ms, ended_ms, record.consumer)))
    return views


def _view(shown: Shown, job_type: str, row: Attempt) -> AttemptView:
    info, plugin_set = shown.consumers.get(row.consumer, (b"", b""))
    return AttemptView(
        number=row.epoch,
        outcome=row.outcome,
        started_ms=row.started_ms,
        ended_ms=row.ended_ms,
        consumer=consumer_of(row.consumer, info),
        plugin=row.plugin or _plugin(plugin_set, job_type),
        error=row.error,
        message=row.message,
        trace_id=row.trace_id,
    )


def _plugin(plugin_set: bytes, job_type: str) -> str:
    try:
        return str(msgspec.json.decode(plugin_set).get(job_type, "")) if plugin_set else ""
    except (msgspec.DecodeError, AttributeError):
        return ""


def dead_letter(fields: Mapping[str, bytes]) -> tuple[DeadLetter, Consumer]:
    """A dead-letter record from the answer of `reads.dead` or a row of `reads.find`, and who ran its last attempt.

    Raises:
        StoreDefect: what is stored is not what this version writes.
    """
    try:
        text = {name: value.decode("utf-8", "replace") for name, value in fields.items() if name not in ("b", "er", "who")}
        job_id, wid = text["id"], text.get("ow", "")
        record = DeadLetter(
            job_id=job_id,
            type=text["ty"],
            queue=text["q"],
            reason=text["rs"],
            failed_ms=_int(text["fa"]),
            attempts=_int(text.get("at")),
            losses=_int(text.get("ls")),
            created_ms=created_ms(job_id),
            root_id=text.get("rt", "") or job_id,
            consumer=wid,
            envelope=_envelope(fields["b"]),
            failure=_failure(fields["er"]) if fields.get("er") else None,
            fingerprint=text.get("fp", ""),
        )
    except (LookupError, ValueError, msgspec.MsgspecError) as error:
        raise StoreDefect(f"a dead-letter record cannot be read: {type(error).__name__}: {error}") from error
    return record, consumer_of(wid, fields.get("who", b""))


def merge_pages(pages: Sequence[Page], limit: int) -> tuple[list[Found], tuple[str, str] | None]:
    """One page out of one of each partition: at most *limit* rows, newest first, and where the next page begins (None: nowhere).

    A partition that stopped early has not shown what is older than the last row it looked at; nothing beyond that is shown yet, so that
    no row is skipped.
    """
    frontier = max((_place(page.last) for page in pages if page.has_more), default=None)
    rows = sorted((row for page in pages for row in page.rows), key=lambda row: row.place, reverse=True)
    if frontier is not None:
        rows = [row for row in rows if row.place >= frontier]
    if len(rows) > limit:
        rows = rows[:limit]
        return rows, (rows[-1].score, rows[-1].id)
    if frontier is None:
        return rows, None
    return rows, next(page.last for page in pages if page.has_more and _place(page.last) == frontier)


def _place(last: tuple[str, str]) -> tuple[float, str]:
    return (float(last[0]), last[1]) if last[0] else (float("inf"), "")


class QueueView(NamedTuple):
    """One queue over all partitions. Times in ms; `oldest_ms` None when nothing waits; ratio None when nothing ended in the last hour.

    `mean_run_ms`: of the same jobs as `ran_ms`. `bytes_kept`: of what was submitted and what came of it, of ended jobs by state.
    """

    name: str
    counts: Counts
    by_priority: dict[str, int]
    oldest_ms: int | None
    rate_per_minute: int
    failure_ratio: float | None
    waited_ms: dict[str, int] | None
    ran_ms: dict[str, int] | None
    orphan_types: tuple[str, ...]
    bytes_kept: dict[Ended, int]
    mean_run_ms: float | None = None


def merge_queues(rows: Sequence[QueueRow]) -> list[QueueView]:
    """One view for each queue, sorted by name, from the rows of all partitions."""
    by_name: dict[str, list[QueueRow]] = {}
    for row in rows:
        by_name.setdefault(row.name, []).append(row)
    return [_queue(name, by_name[name]) for name in sorted(by_name)]


def empty_queue(name: str) -> QueueView:
    """A queue that a job type names and that has had no job yet."""
    return QueueView(name, Counts(), dict.fromkeys(PRIORITIES, 0), None, 0, None, None, None, (), dict.fromkeys(ENDED, 0))


def _queue(name: str, rows: Sequence[QueueRow]) -> QueueView:
    completed, failed = sum(row.completed_last_hour for row in rows), sum(row.failed_last_hour for row in rows)
    return QueueView(
        name=name,
        counts=Counts(*(max(0, sum(column)) for column in zip(*(row.counts for row in rows), strict=True))),
        by_priority=dict(zip(PRIORITIES, (sum(column) for column in zip(*(row.by_priority for row in rows), strict=True)), strict=True)),
        oldest_ms=max((row.oldest_ms for row in rows if row.oldest_ms >= 0), default=None),
        rate_per_minute=sum(row.ended_last_minute for row in rows),
        failure_ratio=round(failed / (completed + failed), 4) if completed + failed else None,
        waited_ms=_percentiles([ms for row in rows for ms in row.waited_ms]),
        ran_ms=_percentiles([ms for row in rows for ms in row.ran_ms]),
        orphan_types=tuple(sorted({name for row in rows for name in row.orphan_types})),
        mean_run_ms=_mean([ms for row in rows for ms in row.ran_ms]),
        bytes_kept=dict(zip(ENDED, (max(0, sum(column)) for column in zip(*(row.bytes_kept for row in rows), strict=True)), strict=True)),
    )


def _mean(values: list[int]) -> float | None:
    return round(sum(values) / len(values), 3) if values else None


def _percentiles(values: list[int]) -> dict[str, int] | None:
    """Nearest rank; None of nothing."""
    if not values:
        return None
    values.sort()
    return {f"p{p}": values[max(0, -(-len(values) * p // 100) - 1)] for p in (50, 95, 99)}


def completed(record: JobRecord) -> JobRecord:
    """*record*, if it has a result to show.

    Raises:
        NotCompleted: it has not ended, or did not complete.
    """
    if record.state == "completed":
        return record
    failure = record.failure
    error = f"{failure.error}: {failure.message}" if failure else ""
    why = f": {error or record.reason}" if error or record.reason else ""
    raise NotCompleted(f"job {record.id} is {record.state}{why}", jobId=record.id, state=record.state, reason=record.reason, error=error)


def is_ended(record: Any) -> bool:
    """Whether a job will not change any more."""
    return record is None or record.state in TERMINAL
