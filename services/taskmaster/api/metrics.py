"""`GET /metrics`: what the store has counted, added up over partitions, and what this process has seen."""

from __future__ import annotations

import asyncio
import time

from taskmaster.api.watch import Watch
from taskmaster.engine.tally import facts_of, store_facts, take_tally
from taskmaster.errors import StoreError
from taskmaster.store.aio import AsyncStore
from taskmaster.telemetry import metrics
from taskmaster.telemetry.meters import ApiMeter
from taskmaster.telemetry.metrics import Facts, Metric, Shown

__all__ = ["Scrape"]

#: The store is asked at most so often, however many scrape.
FRESH_S = 1.0
#: A scrape is answered in this time, with or without the store.
WITHIN_S = 2.0


class Scrape:
    """Belongs to the running loop.

    Args:
        store: whose numbers.
        partitions: how many.
        watch: what it has seen of the store itself is shown too.
        meter: of this process.
    """

    def __init__(self, store: AsyncStore, partitions: int, watch: Watch, meter: ApiMeter) -> None:
        self._store = store
        self._partitions = partitions
        self._watch = watch
        self._meter = meter
        self._lock = asyncio.Lock()
        self._asked_at = -FRESH_S
        self._known: dict[Metric, Facts] = {}
        self._shown: Shown = {}

    async def page(self, accept: str) -> tuple[bytes, str]:
        """All metrics, the store's at most a second old, and their media type. Without the store: the process's own."""
        async with self._lock:
            if time.monotonic() - self._asked_at >= FRESH_S:
                self._known = await self._ask()
                self._asked_at = time.monotonic()
        from taskmaster.telemetry import exposition

        known = self._known | {metrics.BUILD: exposition.build_facts()}
        asked = [metric for metric in metrics.STORE if metric in known]
        families = exposition.families_of([self._meter.sheet], [*asked, *metrics.API], known, self._shown)
        return exposition.render(accept, families, exposition.process_registry())

    async def _ask(self) -> dict[Metric, Facts]:
        try:
            async with asyncio.timeout(WITHIN_S):
                found: dict[Metric, Facts] = {**facts_of(await self._store.converse(take_tally(self._partitions)))}
        except (StoreError, TimeoutError):
            return {metrics.STORE_UP: {(): 0.0}}
        seen = self._watch.seen
        return {metrics.STORE_UP: {(): 1.0}, **found, **store_facts(seen.vitals, seen.partitions, len(seen.refused))}
