"""The shapes of what has happened: events of all jobs as they come."""

from __future__ import annotations

from taskmaster.api.shapes import Shape

__all__ = ["FeedEvent"]


class FeedEvent(Shape, kw_only=True):
    """Data of an event of GET /events. Job, type and queue are null of a gap, type and queue also when nothing is left of the job."""

    event: str
    job_id: str | None
    type: str | None
    queue: str | None
    at: str | None
    partition: int
