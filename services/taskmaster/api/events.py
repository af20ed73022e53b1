"""Server-sent events: what is new, of one job or of all, as it is written on the wire, for as long as the caller is there."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator
from typing import Any

from litestar.response.base import ASGIResponse
from litestar.types import Receive, Scope, Send

from taskmaster.api import history_views, shapes, views
from taskmaster.api.problems import TooManyStreams
from taskmaster.api.service import Service
from taskmaster.engine.feed import Feed, FeedEvent, follow_feed
from taskmaster.engine.following import Follower, JobEvent, follow
from taskmaster.errors import NotFound

__all__ = ["EventStream", "of_feed", "of_job", "room_for_one"]

#: Seconds without an event after which a comment shows that the stream is alive; and of a whole stream: what a caller that does not read
#: lets pile up is bounded by it.
HEARTBEAT_S, LIFETIME_S = 15.0, 900.0
#: A caller that takes nothing for so long is gone.
STUCK_S = 20.0
#: A caller whose stream has ended comes again after a second.
_RETRY = b"retry: 1000\n\n"
_HEADERS = [
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-accel-buffering", b"no"),  # proxies that gather answers are told not to
]


def room_for_one(service: Service, instead: str) -> None:
    """Whether another stream may begin in this process. Ask last, and wait for nothing before it begins: it is counted only then.

    Raises:
        TooManyStreams: it may not; *instead* says what the caller can do.
    """
    most = service.settings.streams_max
    if service.streams >= most:
        text = f"{service.streams} streams are open through this process, and that is as many as may; {instead}"
        raise TooManyStreams(text, limit=most, retryAfterS=5)


class EventStream(ASGIResponse):
    """The answer to a caller who follows something. Holds one of the process's streams from its begin until the caller has gone.

    Args:
        service: whose stream it is.
        name: of what is followed.
        chunks: what is sent, as it comes.
    """

    __slots__ = ("_chunks", "_name", "_service")

    def __init__(self, service: Service, name: str, chunks: AsyncGenerator[bytes]) -> None:
        self.status_code = 200
        self.background = None
        self._service = service
        self._name = name
        self._chunks = chunks

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        """Send until there is no more, or the caller is gone."""
        self._service.streams += 1
        sender = asyncio.create_task(self._send(send), name=f"stream-{self._name}")
        watch = asyncio.create_task(_gone(receive), name=f"stream-watch-{self._name}")
        try:
            await asyncio.wait((sender, watch), return_when=asyncio.FIRST_COMPLETED)
            if sender.done():
                sender.result()
        finally:
            self._service.streams -= 1
            sender.cancel()
            watch.cancel()
            await asyncio.gather(sender, watch, return_exceptions=True)

    async def _send(self, send: Send) -> None:
        start: Any = {"type": "http.response.start", "status": 200, "headers": _HEADERS}
        await send(start)
        async with contextlib.aclosing(self._chunks) as chunks:
            async for chunk in chunks:
                body: Any = {"type": "http.response.body", "body": chunk, "more_body": True}
                try:
                    async with asyncio.timeout(STUCK_S):
                        await send(body)
                except TimeoutError:
                    return
        end: Any = {"type": "http.response.body", "body": b"", "more_body": False}
        await send(end)


async def of_job(service: Service, job_id: str, follower: Follower, first: list[JobEvent]) -> AsyncGenerator[bytes]:
    """What *follower*, which has told *first*, hears of a job until that has ended, or the time is over."""
    yield _RETRY + b"".join(map(_written, first))
    if follower.is_over:
        return
    until, partition = time.monotonic() + LIFETIME_S, service.partition(job_id)
    try:
        async with contextlib.aclosing(follow(service.waiting, partition, follower, job_id, service.store.run, idle_s=HEARTBEAT_S)) as news:
            async for events in news:
                yield b"".join(map(_written, events)) or b":\n\n"
                if time.monotonic() >= until:
                    return
    except NotFound:
        yield b"event: gone\ndata: {}\n\n"  # retention took it; a caller that comes again gets 404


async def of_feed(service: Service, feed: Feed) -> AsyncGenerator[bytes]:
    """What *feed* hears of all jobs, until the time is over. The first word, and the comment when there is nothing else to say, tell the
    place, so that a caller who heard of nothing goes on from there.
    """
    yield _RETRY + _place(feed)
    until = time.monotonic() + LIFETIME_S
    async with contextlib.aclosing(follow_feed(service.waiting, feed, service.store.run, idle_s=HEARTBEAT_S)) as news:
        async for events in news:
            yield b"".join(map(_told, events)) or b":\n" + _place(feed)
            if time.monotonic() >= until:
                return


def _place(feed: Feed) -> bytes:
    return b"id: %s\n\n" % feed.id.encode()


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _written(event: JobEvent) -> bytes:
    """One event. Its data is one line: JSON has no line end in it, whatever its texts hold."""
    if event.line is not None:
        data: shapes.Shape = views.line_of(event.line)
    elif event.kind == "progress":
        data = shapes.ProgressNote(progress=event.record.progress or 0.0, note=event.record.progress_note or None)
    else:
        data = views.status_of(event.record)
    return b"event: %s\nid: %s\ndata: %s\n\n" % (event.kind.encode(), event.id.encode(), shapes.encode(data))


def _told(event: FeedEvent) -> bytes:
    return b"event: %s\nid: %s\ndata: %s\n\n" % (event.kind.encode(), event.id.encode(), shapes.encode(history_views.feed_event_of(event)))
