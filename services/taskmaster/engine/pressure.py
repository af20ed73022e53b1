"""How the store and the queues are doing, sampled at most once a second, so that a submission can be refused without asking.

The API samples in the background. The Python clients have no background: they sample with a submission, unless that is of critical jobs
alone, which nothing refuses.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Iterable, Sequence

from taskmaster.engine.admission import CRITICAL, Pressure, Thresholds, is_calm, is_filling, shed
from taskmaster.engine.receipts import Checked
from taskmaster.errors import StoreError, StoreRefused, TaskMasterError
from taskmaster.settings import Settings
from taskmaster.store import reads
from taskmaster.store.aio import AsyncStore
from taskmaster.store.call import Talk
from taskmaster.store.client import SyncStore
from taskmaster.store.safety import Vitals

__all__ = ["BlockingPressureGauge", "PressureGauge"]

EVERY_S = 1.0
#: Figures that are older say nothing any more: nothing is shed by them.
STALE_S = 10.0
_Lengths = Sequence[tuple[str, int, int]]


class _Gauge:
    """The last figures, and what they mean for a submission."""

    def __init__(self, settings: Settings) -> None:
        self._partitions = settings.partitions
        self._thresholds = Thresholds(settings.shed_memory_percent, settings.shed_waiting, settings.shed_age_ms)
        self._tried_at = self._sampled_at = -STALE_S
        self._now = Pressure()
        self._is_calm = True

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
        refusal = None if self._is_calm else shed(rank, queue, self.now, self._thresholds)
        if refusal is not None:
            raise refusal

    def check_ready(self) -> None:
        """Say in time that this process is not to be sent any more submissions.

        Raises:
            StoreRefused: the store is about to refuse them all.
        """
        if is_filling(self.now, self._thresholds):
            raise StoreRefused(f"the store's memory is {self.now.memory_share:.0%} full: it is about to refuse writes")

    def _is_due(self, checked: Iterable[Checked]) -> bool:
        """Whether figures are wanted for these, and those there are are too old; if so, they count as asked for."""
        now = time.monotonic()
        if now - self._tried_at < EVERY_S or not any(self._thresholds):
            return False
        if not any(one[1].priority > CRITICAL for one in checked if not isinstance(one, TaskMasterError)):
            return False
        self._tried_at = now
        return True

    def _sifted(self, checked: Iterable[Checked]) -> list[Checked]:
        if self._is_calm:
            return list(checked)
        now, thresholds = self.now, self._thresholds
        return [one if isinstance(one, TaskMasterError) else shed(one[1].priority, one[1].queue, now, thresholds) or one for one in checked]

    def _lengths(self) -> Talk[list[tuple[str, int, int]]]:
        """Queue, jobs that wait in it, age of the oldest in ms; as far as they decide anything."""
        rows: list[tuple[str, int, int]] = []
        if self._thresholds.waiting or self._thresholds.age_ms:
            for partition in range(self._partitions):
                rows += yield reads.pressure(partition, with_age=self._thresholds.age_ms > 0)
        return rows

    def _take(self, vitals: Vitals | None, lengths: _Lengths) -> None:
        limit = vitals.memory_limit_bytes if vitals is not None else 0
        share = vitals.memory_bytes / limit if vitals is not None and limit else None
        waiting: dict[str, int] = {}
        oldest: dict[str, int] = {}
        for name, jobs, age_ms in lengths:
            waiting[name] = waiting.get(name, 0) + jobs
            oldest[name] = max(oldest.get(name, 0), age_ms)
        self._now, self._sampled_at = Pressure(share, waiting, oldest), time.monotonic()
        self._is_calm = is_calm(self._now, self._thresholds)


class BlockingPressureGauge(_Gauge):
    """Sampled with submissions. Thread-safe.

    Args:
        store: whose figures are read.
        settings: from where on what is refused.
        patience_s: a store that has not answered for so long is told of at once, and not by the submission, which would wait anew.
    """

    def __init__(self, store: SyncStore, settings: Settings, patience_s: float) -> None:
        super().__init__(settings)
        self._store = store
        self._patience_s = patience_s
        self._lock = threading.Lock()

    def sift(self, checked: Sequence[Checked]) -> list[Checked]:
        """*checked* with those that may not come now as the errors that say so (`StoreFilling`, `Overloaded`).

        Raises:
            StoreError: the store does not answer; nothing was stored.
        """
        with self._lock:  # who comes meanwhile waits for the figures instead of going on without any
            if self._is_due(checked):
                self._sample()
        return self._sifted(checked)

    def _sample(self) -> None:
        began = time.monotonic()
        try:
            self._take(self._store.vitals("memory"), self._store.converse(self._lengths()))
        except StoreError:
            if time.monotonic() - began >= self._patience_s:
                raise


class PressureGauge(_Gauge):
    """Sampled in the background, or with submissions. Belongs to the running loop."""

    def __init__(self, store: AsyncStore, settings: Settings) -> None:
        super().__init__(settings)
        self._store = store
        self._keeper: asyncio.Task[None] | None = None
        self._sampling: asyncio.Task[None] | None = None

    async def sift(self, checked: Sequence[Checked]) -> list[Checked]:
        """As `BlockingPressureGauge.sift`; callers that come together share a sample."""
        if self._is_due(checked):
            self._sampling = asyncio.create_task(self._try(), name="pressure-sample")
        if self._sampling is not None and not self._sampling.done():
            await asyncio.shield(self._sampling)
        return self._sifted(checked)

    async def _try(self) -> None:
        began = time.monotonic()
        try:
            await self.sample()
        except StoreError:
            if time.monotonic() - began >= self._store.timeout_s / 2:
                raise

    async def sample(self) -> None:
        """Look now.

        Raises:
            StoreError: the store does not answer.
        """
        self._take(await self._store.vitals("memory"), await self._store.converse(self._lengths()))

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
        tasks = [task for task in (self._keeper, self._sampling) if task is not None and not task.done()]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=1.0)
