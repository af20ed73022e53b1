"""Whether the store can be trusted, looked at again and again: configuration, server, losses. What /health and /readyz tell."""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass

from taskmaster.errors import StoreError, StoreUnsafe
from taskmaster.store import reads, upkeep
from taskmaster.store.aio import AsyncStore
from taskmaster.store.keys import consumer_id
from taskmaster.store.reads import Integrity
from taskmaster.store.safety import Finding, Vitals, judge
from taskmaster.telemetry import events, logs

__all__ = ["Seen", "Watch"]

#: Seconds between two looks.
EVERY_S = 5.0
#: What /health is told may be that old.
FRESH_S = 1.0


@dataclass(frozen=True, slots=True)
class Seen:
    """What was seen last. `vitals` is None when the server does not show them."""

    findings: tuple[Finding, ...] = ()
    vitals: Vitals | None = None
    partitions: tuple[Integrity, ...] = ()

    @property
    def refused(self) -> list[Finding]:
        """What makes the store unsafe."""
        return [finding for finding in self.findings if finding.level == "refuse"]


class Watch:
    """Looks in the background. Belongs to the running loop.

    Args:
        store: to look at.
        partitions: how many.
        is_strict: durability strict is set: a store that stops keeping it takes no submissions.
    """

    def __init__(self, store: AsyncStore, partitions: int, *, is_strict: bool) -> None:
        self._store = store
        self._partitions = partitions
        self._is_strict = is_strict
        self._known: dict[int, Integrity] = {}
        self._looked_at = -EVERY_S
        self._lock = asyncio.Lock()
        self._keeper: asyncio.Task[None] | None = None
        self._unsafe: StoreUnsafe | None = None
        self.seen = Seen()

    def admit(self) -> None:
        """Refuse what would be accepted with a promise that the store does not keep.

        Raises:
            StoreUnsafe: durability strict is set, and when last looked at the store did not write before it answers.
        """
        if self._unsafe is not None:
            raise self._unsafe

    async def look(self, *, unless_younger_s: float = FRESH_S) -> Seen:
        """What is seen now, at most *unless_younger_s* seconds old.

        Raises:
            StoreError: the store does not answer.
        """
        async with self._lock:
            if time.monotonic() - self._looked_at >= unless_younger_s:
                await self._configuration()
                partitions = [await self._partition(p) for p in range(self._partitions)]
                self.seen = Seen(self.seen.findings, await self._store.vitals(), tuple(partitions))
                self._looked_at = time.monotonic()
        return self.seen

    async def _configuration(self) -> None:
        findings = tuple(judge(await self._store.configuration(), strict=self._is_strict))
        changed = [finding for finding in findings if finding not in self.seen.findings]
        self.seen = Seen(findings, self.seen.vitals, self.seen.partitions)
        for finding in changed:
            if finding.level == "refuse":
                logs.get().error(events.STORE_UNSAFE, rule=finding.rule, observed=finding.observed, message=finding.message)
        broken = [finding for finding in self.seen.refused if finding.rule != "eviction"] if self._is_strict else []
        if broken:
            text = f"durability is strict, and the store does not keep it: {broken[0].observed}; nothing is accepted until it does"
            self._unsafe = StoreUnsafe(text, rule=broken[0].rule)
        else:
            self._unsafe = None

    async def _partition(self, partition: int) -> Integrity:
        """Its state; a loss that nobody has noted yet is noted."""
        seen, known = await self._store.run(reads.integrity(partition)), self._known.get(partition)
        if known is not None and (seen.seq < known.seq or (known.gen and seen.gen != known.gen)):
            sign = "generation" if seen.gen != known.gen else "arrivals"
            loss = await self._store.run(upkeep.store_rewound(partition, known=known.gen, fresh=consumer_id(), sign=sign))
            if loss.how:
                logs.get().error(events.STORE_REWOUND, partition=partition, how=loss.how, sign=sign)
            seen = await self._store.run(reads.integrity(partition))
        self._known[partition] = seen
        return seen

    def start(self) -> None:
        """Look from now on."""
        self._keeper = asyncio.create_task(self._keep(), name="watch")

    async def _keep(self) -> None:
        while True:
            with contextlib.suppress(StoreError):
                await self.look()
            await asyncio.sleep(EVERY_S)

    async def stop(self) -> None:
        """End the background work. May be called without `start`, and twice."""
        if self._keeper is not None and not self._keeper.done():
            self._keeper.cancel()
            await asyncio.wait([self._keeper], timeout=1.0)
