"""How the store and the queues are doing, sampled once a second, so that a submission can be refused without asking."""

from __future__ import annotations

import asyncio
import contextlib
import time

from taskmaster.engine.admission import Pressure, Thresholds, is_filling, shed
from taskmaster.errors import StoreError, StoreRefused
from taskmaster.settings import Settings
from taskmaster.store import reads
from taskmaster.store.aio import AsyncStore

__all__ = ["PressureGauge"]

EVERY_S = 1.0
#: Figures that are older say nothing any more: nothing is shed by them.
STALE_S = 10.0


class PressureGauge:
    """Samples in the background. Belongs to the running loop."""

    def __init__(self, store: AsyncStore, settings: Settings) -> None:
        self._store = store
        self._partitions = settings.partitions
        self._thresholds = Thresholds(settings.shed_memory_percent, settings.shed_waiting, settings.shed_age_ms)
        self._keeper: asyncio.Task[None] | None = None
        self._sampled_at = -STALE_S
        self._now = Pressure()

    @property
    def now(self) -> Pressure:
        """The last figures; none when they are too old."""
        return self._now if time.monotonic() - self._sampled_at < STALE_S else Pressure()

    def admit(self, queue: str, rank: int) -> None:
        """Let a job of this priority come into *queue*, or refuse it.

        Raises:
            StoreFilling: the store is short of memory; higher priorities may still come.
            Overloaded: the queue is too far behind for this priority.
        """
        refusal = shed(rank, queue, self.now, self._thresholds)
        if refusal is not None:
            raise refusal

    def check_ready(self) -> None:
        """Say in time that this process is not to be sent any more submissions.

        Raises:
            StoreRefused: the store is about to refuse them all.
        """
        if is_filling(self.now, self._thresholds):
            raise StoreRefused(f"the store's memory is {self.now.memory_share:.0%} full: it is about to refuse writes")

    async def sample(self) -> None:
        """Look now.

        Raises:
            StoreError: the store does not answer.
        """
        vitals = await self._store.vitals()
        limit = vitals.memory_limit_bytes if vitals is not None else 0
        share = vitals.memory_bytes / limit if vitals is not None and limit else None
        waiting: dict[str, int] = {}
        oldest: dict[str, int] = {}
        if self._thresholds.waiting or self._thresholds.age_ms:
            for partition in range(self._partitions):
                for name, jobs, age_ms in await self._store.run(reads.pressure(partition, with_age=self._thresholds.age_ms > 0)):
                    waiting[name] = waiting.get(name, 0) + jobs
                    oldest[name] = max(oldest.get(name, 0), age_ms)
        self._now, self._sampled_at = Pressure(share, waiting, oldest), time.monotonic()

    def start(self) -> None:
        """Sample from now on."""
        self._keeper = asyncio.create_task(self._keep(), name="pressure")

    async def _keep(self) -> None:
        while True:
            with contextlib.suppress(StoreError):
                await self.sample()
            await asyncio.sleep(EVERY_S)

    async def stop(self) -> None:
        """End the background work. May be called without `start`, and twice."""
        if self._keeper is not None and not self._keeper.done():
            self._keeper.cancel()
            await asyncio.wait([self._keeper], timeout=1.0)
