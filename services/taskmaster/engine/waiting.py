"""Waiting for a job to end, by the event stream: on the loop one reader for each partition, however many wait; else a connection each."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import TypeVar

from taskmaster.engine.pulse import LINGER_S, PAUSE_S, Bell, Pulse
from taskmaster.errors import StoreError
from taskmaster.store.aio import AsyncStore
from taskmaster.store.client import SyncStore

__all__ = ["LOOK_EVERY_S", "PAUSE_S", "Waiting", "listen", "wait_until"]

T = TypeVar("T")
#: How often a waiter looks for itself: covers events that the stream has dropped, or that were missed while the store was away.
LOOK_EVERY_S = 2.0
#: Clients that may wait at once; the next ones are answered with the present state.
WAITERS_MAX = 2_000
_ENDED = frozenset(b"cfx")
#: A record of an entry: a letter and a job id.
_RECORD = 37


def wait_until(
    store: SyncStore, partition: int, job_id: str, *, look: Callable[[], T], is_enough: Callable[[T], bool], within_s: float, block_ms: int
) -> T:
    """What *look* answers as soon as that *is_enough*, or else after *within_s* seconds. Blocks, with a connection of its own.

    As `Waiting.until`. *block_ms*: how long one read of the stream may take; below the time-out of a reply.
    """
    deadline = time.monotonic() + within_s
    seen, after = look(), ""
    while not is_enough(seen) and (left_s := deadline - time.monotonic()) > 0:
        try:
            if not after:
                after = store.newest_event(partition)  # then look: what ends later than this is heard
            else:
                after = listen(store, partition, job_id, after, min(left_s, LOOK_EVERY_S), block_ms)
        except StoreError:
            after = ""  # a store that comes back may have another stream
            time.sleep(min(left_s, PAUSE_S))
        seen = look()
    return seen


def listen(store: SyncStore, partition: int, job_id: str, after: str, within_s: float, block_ms: int, *, only_ends: bool = True) -> str:
    """Read on behind *after* until the job ends, or anything is told of it, or for *within_s* seconds; answers where it came to.

    Raises:
        StoreError: the stream cannot be read.
    """
    deadline, wanted = time.monotonic() + within_s, job_id.encode()
    while (left_s := deadline - time.monotonic()) > 0:
        for entry_id, records in store.events(partition, after, max(1, min(block_ms, int(left_s * 1_000)))):
            after = entry_id
            if wanted in _told(records, only_ends=only_ends):
                return after
    return after


def _told(records: bytes, *, only_ends: bool) -> Iterator[bytes]:
    """Ids of the jobs that an entry tells of, or says have ended."""
    for at in range(0, len(records) - _RECORD + 1, _RECORD):
        if not only_ends or records[at] in _ENDED:
            yield records[at + 1 : at + _RECORD]


class Waiting:
    """Wakes those who wait for a job when it ends. Belongs to the running loop.

    Args:
        store: whose streams are read.
        partitions: how many streams there are.
        block_ms: how long one read of a stream may take; below the time-out of a reply.
    """

    def __init__(self, store: AsyncStore, partitions: int, *, block_ms: int = 1_000) -> None:
        self._streams = [_Stream(store, partition, block_ms) for partition in range(partitions)]
        self._pulse = Pulse(store, partitions, block_ms)
        self._waiters = 0
        self._is_closed = False

    async def until(
        self, partition: int, job_id: str, *, look: Callable[[], Awaitable[T]], is_enough: Callable[[T], bool], within_s: float
    ) -> T:
        """What *look* answers as soon as that *is_enough*, or else after *within_s* seconds, or when this process shuts down.

        *look* is asked at the beginning, when the job ends, every 2 seconds, and at the end; what it raises goes to the caller.
        """
        deadline = time.monotonic() + within_s
        if self._is_closed or self._waiters >= WAITERS_MAX:
            return await look()
        self._waiters += 1
        try:
            async with self.hear(partition, job_id, only_end=True) as bell:
                while True:
                    bell.clear()
                    seen = await look()
                    left_s = deadline - time.monotonic()
                    if left_s <= 0 or self._is_closed or is_enough(seen):
                        return seen
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(min(left_s, LOOK_EVERY_S)):
                            await bell.wait()
        finally:
            self._waiters -= 1

    @contextlib.asynccontextmanager
    async def hear(self, partition: int, job_id: str, *, only_end: bool = False) -> AsyncIterator[asyncio.Event]:
        """A bell that rings when the job ends, or whenever something is told of it, and when this process shuts down.

        What happens after this has begun is heard, but for what the stream drops: look every LOOK_EVERY_S, too.
        """
        stream = self._streams[partition]
        with stream.watch(job_id, only_end=only_end) as bell:
            await stream.ready(LOOK_EVERY_S)
            yield bell

    def hear_all(self) -> contextlib.AbstractAsyncContextManager[Bell]:
        """A bell that rings whenever anything is told of any job, for the partition that it is in, and when this process shuts down."""
        return self._pulse.hear(LOOK_EVERY_S)

    @property
    def is_closed(self) -> bool:
        """Whether this process shuts down."""
        return self._is_closed

    def close(self) -> None:
        """Everybody who waits gets an answer now, and nobody waits any more. May be called twice."""
        self._is_closed = True
        self._pulse.close()
        for stream in self._streams:
            stream.close()


class _Stream:
    """One partition's events, read while somebody waits."""

    def __init__(self, store: AsyncStore, partition: int, block_ms: int) -> None:
        self._store = store
        self._partition = partition
        self._block_ms = block_ms
        self._bells: dict[str, set[asyncio.Event]] = {}  # of those who wait for the end
        self._curious: dict[str, set[asyncio.Event]] = {}  # of those who want to know everything
        self._begun = asyncio.Event()
        self._reader: asyncio.Task[None] | None = None

    @contextlib.contextmanager
    def watch(self, job_id: str, *, only_end: bool) -> Iterator[asyncio.Event]:
        bell, all_bells = asyncio.Event(), self._bells if only_end else self._curious
        all_bells.setdefault(job_id, set()).add(bell)
        if self._reader is None or self._reader.done():
            self._begun.clear()
            self._reader = asyncio.create_task(self._read(), name=f"events-{self._partition}")
        try:
            yield bell
        finally:
            bells = all_bells.get(job_id, set())
            bells.discard(bell)
            if not bells:
                all_bells.pop(job_id, None)

    async def ready(self, within_s: float) -> None:
        """Until the reader knows where in the stream it begins: what ends later than this is heard."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._begun.wait()

    async def _read(self) -> None:
        after = ""
        alone_since: float | None = None
        while self._bells or self._curious or alone_since is None or time.monotonic() - alone_since < LINGER_S:
            try:
                if not after:
                    after = await self._store.newest_event(self._partition)
                    self._begun.set()
                entries = await self._store.events(self._partition, after, self._block_ms)
            except StoreError:
                after = ""  # a store that comes back may have another stream
                await asyncio.sleep(PAUSE_S)
                continue
            for entry_id, records in entries:
                after = entry_id
                self._ring(records)
            if self._bells or self._curious:
                alone_since = None
            elif alone_since is None:
                alone_since = time.monotonic()

    def _ring(self, records: bytes) -> None:
        for all_bells, only_ends in ((self._bells, True), (self._curious, False)):
            for job_id in _told(records, only_ends=only_ends) if all_bells else ():
                for bell in all_bells.get(job_id.decode("ascii", "replace"), ()):
                    bell.set()

    def close(self) -> None:
        for bells in (*self._bells.values(), *self._curious.values()):
            for bell in bells:
                bell.set()
        self._begun.set()
        if self._reader is not None:
            self._reader.cancel()
