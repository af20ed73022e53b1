"""From what the engine knows of what has happened to what the API answers. Pure."""

from __future__ import annotations

from taskmaster.api import history_shapes as shapes
from taskmaster.api.shapes import moment
from taskmaster.engine.feed import FeedEvent

__all__ = ["feed_event_of"]


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
