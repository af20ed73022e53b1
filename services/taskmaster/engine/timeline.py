"""The timeline of one job, put together from what the store keeps of it. What is not kept is not told: when a delayed job became due or was
changed, and of a delivery that was handed back when and by whom.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from taskmaster.engine import queries
from taskmaster.engine.queries import AttemptView, Consumer
from taskmaster.errors import NotFound
from taskmaster.model.ids import created_ms
from taskmaster.model.job import JobRecord
from taskmaster.model.states import TERMINAL
from taskmaster.store import reads
from taskmaster.store.audit import NEWEST, AuditFilter, AuditRow, audit
from taskmaster.store.call import Talk
from taskmaster.store.reads import Shown

__all__ = ["Timeline", "TimelineEvent", "read_timeline"]

#: Rows of the audit that a timeline shows, and pages that are searched for them; replays that are asked who wanted them.
AUDIT_MAX, PAGES_MAX, REPLAYS_MAX = 200, 10, 50
#: Rows of a history: beyond that the store drops some.
_HISTORY_KEPT = 50
_ENDS = {"failed": "retrying", "lost": "lost", "discarded": "cancelled", "completed": "completed", "cancelled": "cancelled"}
#: The time in an id is its submitter's, which may be so far ahead of the store's.
_AHEAD_MS = 30_000


class TimelineEvent(NamedTuple):
    """Something that happened to the job.

    Attributes:
        at_ms: when; 0: that is not kept.
        event: a word of `model.happenings`, dead_lettered, cancel_requested, replayed, or an action of the audit.
        who: who wanted it: where it came from (api, cli, client), a person, or `worker`; empty: nobody, or not kept.
        attempt: number of the delivery; 0: it belongs to none.
        worker: that ran it.
        plugin: `name==version`; empty when that is forgotten.
        error: class and message of the attempt's failure.
        job_id: another job: the replay, or what this one is a replay of.
    """

    at_ms: int
    event: str
    who: str = ""
    reason: str = ""
    attempt: int = 0
    worker: Consumer | None = None
    plugin: str = ""
    error: str = ""
    job_id: str = ""


class Timeline(NamedTuple):
    """In order of time. `is_cut`: the store has more rows of the audit, replays or attempts of it than were looked at, or kept."""

    job_id: str
    events: tuple[TimelineEvent, ...]
    is_cut: bool


def read_timeline(partition: int, job_id: str, *, with_audit: bool) -> Talk[Timeline]:
    """What is kept of the job; also when only its dead letter or rows of the audit are left.

    Raises:
        NotFound: nothing is.
        StoreDefect: what is stored is not what this version writes.
    """
    shown: Shown | None = yield reads.show(partition, job_id, "beh")
    events = [*_of_job(job_id, shown)] if shown is not None else []
    is_cut = shown is not None and len(shown.rows) >= _HISTORY_KEPT
    fields: dict[str, bytes] | None = yield reads.dead(partition, job_id)
    if fields:
        events.append(_of_letter(fields))
    replays, are_more = yield from _replays(partition, job_id)
    rows, is_more = (yield from _audit(partition, job_id)) if with_audit else ([], False)
    events += [*replays, *map(_of_audit, rows)]
    if not events:
        raise NotFound(f"nothing is kept of a job {job_id}", jobId=job_id)
    return Timeline(job_id, tuple(_in_order(events)), is_cut or are_more or is_more)


def _in_order(events: Sequence[TimelineEvent]) -> list[TimelineEvent]:
    """By time; what has none stays behind what it was told behind, and of one moment all stay as they were told."""
    keys, latest = [], 0
    for event in events:
        latest = event.at_ms or latest
        keys.append(latest)
    return [event for _, event in sorted(zip(keys, events, strict=True), key=lambda pair: pair[0])]


def _of_job(job_id: str, shown: Shown) -> Iterator[TimelineEvent]:
    record = queries.job_of(job_id, shown)
    envelope = record.envelope
    who = (envelope.replayed_by or envelope.origin) if envelope is not None else ""
    yield TimelineEvent(record.created_ms, "submitted", who, job_id=record.replayed_from)
    views = {view.number: view for view in queries.attempts_of(record, shown)}
    if record.state != "active" and not record.consumer and record.epoch not in {row.epoch for row in record.history}:
        views.pop(record.epoch, None)  # it ended at rest, after the last delivery had been handed back
    is_whole = len(shown.rows) < _HISTORY_KEPT
    for number in range(1, record.epoch + 1):
        view = views.get(number)
        if view is not None:
            yield from _of_attempt(record, view)
        elif is_whole:  # every other end of a delivery leaves a row
            yield from _of_hand_back(record, number, shown)
    yield from _of_end(record, views.get(record.epoch), shown)


def _of_hand_back(record: JobRecord, number: int, shown: Shown) -> Iterator[TimelineEvent]:
    """Of the last delivery the record still knows who had it, and when it was claimed."""
    wid = shown.fields.get("en", "").partition(".")[0] if number == record.epoch else ""
    worker = Consumer(wid) if wid else None
    if worker is not None:
        yield TimelineEvent(record.claimed_ms, "claimed", "worker", "", number, worker)
    yield TimelineEvent(0, "handed_back", "worker", "", number, worker)


def _of_attempt(record: JobRecord, view: AttemptView) -> Iterator[TimelineEvent]:
    ran = TimelineEvent(view.started_ms, "claimed", "worker", "", view.number, view.consumer, view.plugin)
    yield ran
    if view.outcome == "running" or _has_ended_it(record, view):
        return
    event = _ENDS.get(view.outcome, "delayed")
    error = f"{view.error}: {view.message}" if view.error else ""
    reason = view.outcome if event == "delayed" else ""
    yield ran._replace(at_ms=view.ended_ms, event=event, who="" if event == "lost" else "worker", reason=reason, error=error)


def _has_ended_it(record: JobRecord, view: AttemptView) -> bool:
    """Whether the job came to its end by the word of that attempt: then it keeps that one's token."""
    return record.state in TERMINAL and view.number == record.epoch and record.consumer != ""


def _of_end(record: JobRecord, last: AttemptView | None, shown: Shown) -> Iterator[TimelineEvent]:
    who, _, at = shown.fields.get("cr", "").rpartition(" ")
    asked_ms = int(at) if at.isascii() and at.isdigit() else 0
    is_at_rest = record.state == "cancelled" and asked_ms == record.finished_ms  # both in one step
    if asked_ms and not is_at_rest:
        yield TimelineEvent(asked_ms, "cancel_requested", who)
    if record.state not in TERMINAL:
        return
    error = f"{record.failure.error}: {record.failure.message}" if record.failure is not None and record.state == "failed" else ""
    end = TimelineEvent(record.finished_ms, record.state, who if is_at_rest else "", record.reason, error=error)
    if last is not None and _has_ended_it(record, last):
        end = end._replace(who="worker", attempt=last.number, worker=last.consumer, plugin=last.plugin)
        if last.error and not error:
            end = end._replace(error=f"{last.error}: {last.message}")
    yield end


def _of_letter(fields: Mapping[str, bytes]) -> TimelineEvent:
    letter, consumer = queries.dead_letter(fields)
    failure = letter.failure
    error = f"{failure.error}: {failure.message}" if failure is not None else ""
    plugin = failure.plugin if failure is not None else ""
    return TimelineEvent(letter.failed_ms, "dead_lettered", "", letter.reason, 0, consumer if consumer.id else None, plugin, error)


def _replays(partition: int, job_id: str) -> Talk[tuple[list[TimelineEvent], bool]]:
    found: reads.Lineage | None = yield reads.lineage(partition, job_id)
    if found is None:
        return [], False
    made = sorted(one for one, _, fields in found.rows if fields.get("rp", b"").decode() == job_id)
    events = []
    for n, one in enumerate(made):
        who = ""
        if n < REPLAYS_MAX:
            shown: Shown | None = yield reads.show(partition, one, "b")
            envelope = queries.job_of(one, shown).envelope if shown is not None else None
            who = envelope.replayed_by if envelope is not None else ""
        events.append(TimelineEvent(created_ms(one), "replayed", who, job_id=one))
    return events, found.is_more


def _audit(partition: int, job_id: str) -> Talk[tuple[list[AuditRow], bool]]:
    """Rows that name the job or what is below it, oldest first, and whether there may be more."""
    wanted, begin = AuditFilter(target=job_id, since_ms=max(0, created_ms(job_id) - _AHEAD_MS)), NEWEST
    rows: list[AuditRow] = []
    for _ in range(PAGES_MAX):
        page = yield audit(partition, wanted, begin=begin, limit=AUDIT_MAX - len(rows))
        rows += page.rows
        begin = f"({page.last}"
        if not page.has_more or len(rows) >= AUDIT_MAX:
            return rows[::-1], page.has_more
    return rows[::-1], True


def _of_audit(row: AuditRow) -> TimelineEvent:
    return TimelineEvent(row.at_ms, row.text("action"), row.text("who"), row.text("reason"))
