"""The sweep over records and indexes: what a foreign hand, an eviction or a lost write left is found, put right and reported.

A sweep is a row of short calls whose place is kept in the store, so it goes on wherever its worker stopped, in whichever process.
"""

from __future__ import annotations

import itertools
import time
from dataclasses import dataclass

from taskmaster.store import upkeep
from taskmaster.store.client import SyncStore
from taskmaster.store.upkeep import Repair
from taskmaster.telemetry import events
from taskmaster.telemetry.logs import get

__all__ = ["GAP_S", "STEP_S", "Sweeper"]

log = get()
#: From one step to the next; its pages, about a millisecond of the server each; the gap between them, so that no call waits for two.
STEP_S, PAGES, GAP_S = 0.25, 2, 0.01
#: After a loss nothing is more urgent: half of the time is for pages, and other calls still go in between.
URGENT_S = STEP_S / 2
#: Keys that one call of the search looks at.
A_CALL = 200
#: Repairs of one page that are logged one by one.
LOGGED = 20


@dataclass(frozen=True, slots=True)
class Sweeper:
    """The sweep of one partition.

    Attributes:
        store: to run it on.
        partition: which one.
        every_ms: from the end of one sweep to the begin of the next.
        key_window_ms: how long a key outlives its job.
    """

    store: SyncStore
    partition: int
    every_ms: int
    key_window_ms: int

    def step(self, *, is_urgent: bool = False) -> bool:
        """A few pages of a sweep that is due; True when it has ended.

        Raises:
            StoreError: the next step goes on where this one stopped.
        """
        deadline = time.monotonic() + URGENT_S
        pages = 0
        while pages < PAGES or (is_urgent and time.monotonic() < deadline):
            if pages and not is_urgent:
                time.sleep(GAP_S)
            if self._page().is_done:
                return True
            pages += 1
        return False

    def search(self) -> list[Repair]:
        """What no index names: a walk over all keys of the server, for a person who asks for it.

        Raises:
            StoreError: it stopped on the way; what was found until then is mended.
        """
        repairs: list[Repair] = []
        names = iter(self.store.names(self.partition))
        while batch := sorted(set(itertools.islice(names, A_CALL))):
            found = self.store.run(upkeep.mend(self.partition, batch, key_window_ms=self.key_window_ms), within_s=2.0)
            repairs.extend(found)
        return repairs

    def whole(self) -> list[Repair]:
        """Finish the sweep that is under way, if any, then one from begin to end; everything that was found.

        Raises:
            StoreError: it stopped on the way; workers go on with it.
        """
        repairs: list[Repair] = []
        page = self._page()
        while page.is_due and not page.is_done:
            repairs += page.repairs
            page = self._page()
        repairs += page.repairs
        page = self._page(now=True)
        while not page.is_done:
            repairs += page.repairs
            page = self._page()
        return [*repairs, *page.repairs]

    def _page(self, *, now: bool = False) -> upkeep.Swept:
        page = self.store.run(upkeep.sweep(self.partition, every_ms=self.every_ms, key_window_ms=self.key_window_ms, now=now), within_s=2.0)
        for repair in page.repairs[:LOGGED]:
            log.warning(
                events.STORE_REPAIRED, what=repair.what, id=repair.id, where=repair.where, mended=repair.mended, partition=self.partition
            )
        if len(page.repairs) > LOGGED:
            log.warning(events.STORE_REPAIRED, partition=self.partition, more=len(page.repairs) - LOGGED)
        return page
