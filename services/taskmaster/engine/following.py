"""Following one job: what is new of it from one look to the next, until it has ended. Woken by the event stream, as those who wait are."""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from hashlib import blake2b
from typing import Literal, NamedTuple

from taskmaster.engine import queries
from taskmaster.engine.lines import last_line, lines_of
from taskmaster.engine.waiting import LOOK_EVERY_S, PAUSE_S, Waiting, listen
from taskmaster.errors import StoreError
from taskmaster.model.job import JobRecord, LogLine
from taskmaster.store import reads
from taskmaster.store.call import Call
from taskmaster.store.client import SyncStore
from taskmaster.store.reads import Shown

__all__ = ["Follower", "JobEvent", "follow", "follow_blocking"]

#: At least so long from one look to the next, however much happens.
LOOK_LEAST_S = 0.1
_PLACE = re.compile(r"(\d{1,15})\.([0-9a-f]{8}|-)\.([0-9a-f]{8}|-)")


class JobEvent(NamedTuple):
    """Something new of a job.

    Attributes:
        kind: state (also how many attempts, why, and when the next), progress, or log.
        id: the place behind this event: whoever follows from there on gets what came later.
        record: the job, without payload and result.
        line: of a log.
    """

    kind: Literal["state", "progress", "log"]
    id: str
    record: JobRecord
    line: LogLine | None = None


class Follower:
    """Compares what is seen of a job with what was told of it. No I/O.

    States are told as they are seen: one that was over before anybody looked is not. Lines are told one by one, as far as they are kept.

    Args:
        job_id: of the job.
        after: the id of the last event that is known; anything else: none is.
    """

    def __init__(self, job_id: str, after: str = "") -> None:
        place = _PLACE.fullmatch(after)
        self._job_id = job_id
        self._line = int(place[1]) if place else 0
        self._state, self._progress = (place[2], place[3]) if place else ("-", "-")
        self.has_more = False
        self.is_over = False

    def look(self, partition: int) -> Call[Shown | None]:
        """What to ask next."""
        return reads.show(partition, self._job_id, "el", self._line)

    def news(self, shown: Shown | None) -> list[JobEvent]:
        """What is new; `has_more`: ask again at once; `is_over`: there will be nothing more.

        Raises:
            NotFound: there is no such job, or no longer.
        """
        shown = queries.found(self._job_id, shown)
        record = queries.job_of(self._job_id, shown)
        lines = lines_of(self._job_id, shown)
        self.has_more = bool(lines) and lines[-1].number < last_line(shown)
        if not queries.is_ended(record):
            return [*self._of_state(record), *self._of_progress(record), *self._of_lines(record, lines)]
        self.is_over = not self.has_more  # what it said comes before its end
        told = [*self._of_lines(record, lines), *self._of_progress(record)]
        return [*told, *self._of_state(record)] if self.is_over else told

    def _of_lines(self, record: JobRecord, lines: list[LogLine]) -> Iterator[JobEvent]:
        for line in lines:
            self._line = line.number
            yield JobEvent("log", self._place, record, line)

    def _of_state(self, record: JobRecord) -> Iterator[JobEvent]:
        state = _digest(record.state, record.reason, record.attempts_made, record.due_ms, record.cancel_requested)
        if state != self._state:
            self._state = state
            yield JobEvent("state", self._place, record)

    def _of_progress(self, record: JobRecord) -> Iterator[JobEvent]:
        progress = _digest(record.progress, record.progress_note)
        if progress != self._progress and record.progress is not None:
            self._progress = progress
            yield JobEvent("progress", self._place, record)

    @property
    def _place(self) -> str:
        return f"{self._line}.{self._state}.{self._progress}"


def _digest(*facts: object) -> str:
    return blake2b(repr(facts).encode(errors="replace"), digest_size=4).hexdigest()


async def follow(
    waiting: Waiting,
    partition: int,
    follower: Follower,
    job_id: str,
    ask: Callable[[Call[Shown | None]], Awaitable[Shown | None]],
    *,
    idle_s: float,
) -> AsyncGenerator[list[JobEvent]]:
    """What is new each time that something is, until the job has ended or this process shuts down; nothing when *idle_s* have passed so.

    A store that is away is waited for.

    Raises:
        NotFound: there is no such job, or no longer.
    """
    told_at = time.monotonic()
    async with waiting.hear(partition, job_id) as bell:
        while not waiting.is_closed:
            bell.clear()
            with contextlib.suppress(StoreError):
                news = follower.news(await ask(follower.look(partition)))
                if news:
                    yield news
                    told_at = time.monotonic()
                if follower.is_over:
                    return
                if follower.has_more:
                    continue
            await asyncio.sleep(LOOK_LEAST_S)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_EVERY_S):
                    await bell.wait()
            if time.monotonic() - told_at >= idle_s:
                yield []
                told_at = time.monotonic()


def follow_blocking(
    store: SyncStore, partition: int, follower: Follower, job_id: str, ask: Callable[[Call[Shown | None]], Shown | None], *, block_ms: int
) -> Iterator[JobEvent]:
    """As `follow`, on a connection of its own, without shutdown and idle times. A store that is away at the first look raises.

    Raises:
        StoreError: at the first look.
    """
    place, has_begun = "", False
    while True:
        try:
            if not place:
                place = store.newest_event(partition)  # then look: what happens later than this is heard
            news = follower.news(ask(follower.look(partition)))
        except StoreError:
            if not has_begun:
                raise
            place = ""  # a store that comes back may have another stream
            time.sleep(PAUSE_S)
            continue
        has_begun = True
        yield from news
        if follower.is_over:
            return
        if not follower.has_more:
            time.sleep(LOOK_LEAST_S)
            with contextlib.suppress(StoreError):
                place = listen(store, partition, job_id, place, LOOK_EVERY_S, block_ms, only_ends=False)
