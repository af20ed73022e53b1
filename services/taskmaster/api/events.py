"""Server-sent events: a job's news as they are written on the wire, for as long as the caller is there."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

from litestar.response.base import ASGIResponse
from litestar.types import Receive, Scope, Send

from taskmaster.api import shapes, views
from taskmaster.api.service import Service
from taskmaster.engine.following import Follower, JobEvent, follow
from taskmaster.errors import NotFound

__all__ = ["EventStream"]

#: Seconds without an event after which a comment shows that the stream is alive; and of a whole stream: what a caller that does not read
#: lets pile up is bounded by it.
HEARTBEAT_S, LIFETIME_S = 15.0, 900.0
#: A caller that takes nothing for so long is gone.
STUCK_S = 20.0
_HEADERS = [
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-accel-buffering", b"no"),  # proxies that gather answers are told not to
]


class EventStream(ASGIResponse):
    """The answer to a caller who follows a job. Holds one of the process's streams from its begin until the caller has gone.

    Args:
        service: whose stream it is.
        job_id: followed.
        follower: that has told *first*.
        first: what there is already.
    """

    __slots__ = ("_first", "_follower", "_job_id", "_service")

    def __init__(self, service: Service, job_id: str, follower: Follower, first: list[JobEvent]) -> None:
        self.status_code = 200
        self.background = None
        self._service = service
        self._job_id = job_id
        self._follower = follower
        self._first = first

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        """Send until the job has ended, the caller is gone, or the time is over."""
        self._service.streams += 1
        sender = asyncio.create_task(self._send(send), name=f"stream-{self._job_id}")
        watch = asyncio.create_task(_gone(receive), name=f"stream-watch-{self._job_id}")
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
        async for chunk in self._chunks():
            body: Any = {"type": "http.response.body", "body": chunk, "more_body": True}
            try:
                async with asyncio.timeout(STUCK_S):
                    await send(body)
            except TimeoutError:
                return
        end: Any = {"type": "http.response.body", "body": b"", "more_body": False}
        await send(end)

    async def _chunks(self) -> AsyncIterator[bytes]:
        yield b"retry: 1000\n\n" + b"".join(map(_written, self._first))
        if self._follower.is_over:
            return
        service, until = self._service, time.monotonic() + LIFETIME_S
        partition = service.partition(self._job_id)
        news = follow(service.waiting, partition, self._follower, self._job_id, service.store.run, idle_s=HEARTBEAT_S)
        try:
            async for events in news:
                yield b"".join(map(_written, events)) or b":\n\n"
                if time.monotonic() >= until:
                    return
        except NotFound:
            yield b"event: gone\ndata: {}\n\n"  # retention took it; a caller that comes again gets 404
        finally:
            await news.aclose()


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
