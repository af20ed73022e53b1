"""From what the engine knows of what has happened to what the API answers. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from taskmaster.api import history_shapes as shapes
from taskmaster.api.shapes import moment
from taskmaster.api.views import worker_of
from taskmaster.engine.auditing import Entry, Head, Verdict, detail_of
from taskmaster.engine.feed import FeedEvent
from taskmaster.engine.lens import Lens
from taskmaster.engine.timeline import Timeline, TimelineEvent

__all__ = ["audit_entry_of", "feed_event_of", "head_of", "timeline_of", "verdict_of"]


def feed_event_of(event: FeedEvent) -> shapes.FeedEvent:
    """The data of an event of GET /events."""
    return shapes.FeedEvent(
        event=event.kind,
        job_id=event.job_id or None,
        type=event.type or None,
        queue=event.queue or None,
        at=moment(event.at_ms),
        partition=event.partition,
    )


def timeline_of(timeline: Timeline, *, is_audited: bool) -> shapes.Timeline:
    """GET /jobs/{id}/events."""
    return shapes.Timeline(
        job_id=timeline.job_id, items=[_happened(event) for event in timeline.events], truncated=timeline.is_cut, audited=is_audited
    )


def _happened(event: TimelineEvent) -> shapes.TimelineEvent:
    plugin, _, version = event.plugin.partition("==")
    return shapes.TimelineEvent(
        at=moment(event.at_ms),
        event=event.event,
        who=event.who or None,
        reason=event.reason or None,
        attempt=event.attempt or None,
        worker=worker_of(event.worker) if event.worker is not None else None,
        plugin=plugin or None,
        plugin_version=version or None,
        error=event.error or None,
        job_id=event.job_id or None,
    )


def audit_entry_of(entry: Entry, lens: Lens) -> shapes.AuditEntry:
    """An item of GET /audit, as *lens* shows it."""
    row = entry.row
    return shapes.AuditEntry(
        at=moment(row.at_ms),
        who=row.text("who"),
        action=row.text("action"),
        target=row.text("target"),
        reason=row.text("reason") or None,
        detail=detail_of(row, lens),
        partition=entry.partition,
        number=entry.number or None,
    )


def head_of(head: Head) -> shapes.ChainHead:
    """Where a partition's chain stands."""
    return shapes.ChainHead(partition=head.partition, number=head.number, hash=head.hash)


def verdict_of(verdicts: Sequence[Verdict]) -> shapes.AuditVerdict:
    """What `taskmaster audit verify` prints of all partitions."""
    faults = [
        shapes.AuditFault(
            partition=verdict.head.partition,
            kind=fault.kind,
            number=fault.number or None,
            entry=fault.entry or None,
            at=moment(fault.at_ms),
            message=fault.message,
        )
        for verdict in verdicts
        for fault in verdict.faults
    ]
    return shapes.AuditVerdict(
        whole=not faults,
        first_fault=faults[0] if faults else None,
        faults=faults,
        partitions=[
            shapes.AuditChain(
                partition=verdict.head.partition,
                whole=not verdict.faults,
                rows=verdict.rows,
                unchained=verdict.unchained,
                trimmed=verdict.trimmed,
            )
            for verdict in verdicts
        ],
        heads=[head_of(verdict.head) for verdict in verdicts],
    )
