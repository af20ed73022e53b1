"""That something happens anywhere, for those who follow everything: one reader over the streams of all partitions, however many hear it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterable

from taskmaster.errors import StoreError
from taskmaster.store.aio import AsyncStore

__all__ = ["LINGER_S", "PAUSE_S", "Bell", "Pulse"]

#: Before a store that failed is asked again; how long the reader stays after its last hearer.
PAUSE_S, LINGER_S = 0.2, 10.0


class Bell:
    """Rings for partitions. Whoever waits takes them all."""

    def __init__(self) -> None:
        self._partitions: set[int] = set()
        self._is_rung = asyncio.Event()

    def ring(self, partitions: Iterable[int] = ()) -> None:
        """Something is new in these; without any: wake up."""
        self._partitions.update(partitions)
        self._is_rung.set()

    def take(self) -> set[int]:
        """The partitions that it has rung for since it was asked last."""
        taken, self._partitions = self._partitions, set()
        self._is_rung.clear()
        return taken

    async def wait(self, within_s: float) -> None:
        """Until it rings, or so long."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._is_rung.wait()


class Pulse:
    """Reads while somebody hears. Belongs to the running loop.

    Args:
        store: whose streams are read, on one connection.
        partitions: how many there are.
        block_ms: how long one read may take; below the time-out of a reply.
    """

    def __init__(self, store: AsyncStore, partitions: int, block_ms: int) -> None:
        self._store = store
        self._partitions = partitions
        self._block_ms = block_ms
        self._bells: set[Bell] = set()
        self._begun = asyncio.Event()
        self._reader: asyncio.Task[None] | None = None
        self._is_closed = False

    @contextlib.asynccontextmanager
    async def hear(self, within_s: float) -> AsyncIterator[Bell]:
        """A bell that rings for what happens later than this has begun, and for all partitions when a store that was away is back.

        It begins when the reader knows where to read from, or after *within_s* seconds.
        """
        bell = Bell()
        self._bells.add(bell)
        if not self._is_closed and (self._reader is None or self._reader.done()):
            self._begun.clear()
            self._reader = asyncio.create_task(self._read(), name="events-all")
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(within_s):
                    await self._begun.wait()
            yield bell
        finally:
            self._bells.discard(bell)

    async def _read(self) -> None:
        after: list[str] = []
        alone_since: float | None = None
        while self._bells or alone_since is None or time.monotonic() - alone_since < LINGER_S:
            try:
                if not after:
                    after = [await self._store.newest_event(partition) for partition in range(self._partitions)]
                    self._begun.set()
                    self._ring(range(self._partitions))
                newer = await self._store.newer_events(after, self._block_ms)
            except StoreError:
                after = []  # a store that comes back may have other streams
                await asyncio.sleep(PAUSE_S)
                continue
            for partition, entry in newer.items():
                after[partition] = entry
            if newer:
                self._ring(newer)
            if self._bells:
                alone_since = None
            elif alone_since is None:
                alone_since = time.monotonic()

    def _ring(self, partitions: Iterable[int]) -> None:
        for bell in self._bells:
            bell.ring(partitions)

    def close(self) -> None:
        """Wake all who wait, and read no more."""
        self._is_closed = True
        self._begun.set()
        self._ring(())
        if self._reader is not None:
            self._reader.cancel()
