"""From what the engine knows of what has happened to what the API answers. Pure."""

from __future__ import annotations

from taskmaster.api import history_shapes as shapes
from taskmaster.api.shapes import moment
from taskmaster.api.views import worker_of
from taskmaster.engine.feed import FeedEvent
from taskmaster.engine.timeline import Timeline, TimelineEvent

__all__ = ["feed_event_of", "timeline_of"]


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
