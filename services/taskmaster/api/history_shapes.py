"""The shapes of what has happened: events of all jobs as they come, and the timeline of one."""

from __future__ import annotations

from taskmaster.api.shapes import Shape, Worker

__all__ = ["FeedEvent", "Timeline", "TimelineEvent"]


class FeedEvent(Shape, kw_only=True):
    """Data of an event of GET /events. Job, type and queue are null of a gap, type and queue also when nothing is left of the job."""

    event: str
    job_id: str | None
    type: str | None
    queue: str | None
    at: str | None
    partition: int


class TimelineEvent(Shape, kw_only=True):
    """Something that happened to the job. `at` is null where that is not kept: of deliveries that were handed back. `who`: where a
    submission came from, a person, or `worker`. `attempt`: number of the delivery. `jobId`: another job, the replay or its source.
    """

    at: str | None
    event: str
    who: str | None
    reason: str | None
    attempt: int | None
    worker: Worker | None
    plugin: str | None
    plugin_version: str | None
    error: str | None
    job_id: str | None


class Timeline(Shape, kw_only=True):
    """In order of time. `truncated`: there are more attempts, replays or rows of the audit than are kept or were looked at; `audited`: rows
    of the audit are among the events, as far as there are any.
    """

    job_id: str
    items: list[TimelineEvent]
    truncated: bool
    audited: bool
