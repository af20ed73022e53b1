"""The job types as this process knows them: a copy of the catalogue, renewed in the background."""

from __future__ import annotations

import asyncio
import contextlib
import time

import msgspec

from taskmaster.engine.submit import unknown_type
from taskmaster.errors import PluginError, StoreError
from taskmaster.plugins import catalogue
from taskmaster.plugins.catalogue import CatalogueEntry
from taskmaster.plugins.validation import Validator, Validators
from taskmaster.store import reads
from taskmaster.store.aio import AsyncStore
from taskmaster.telemetry import events, logs

__all__ = ["Catalogue"]

EVERY_S, AT_ONCE_S = 2.0, 0.2


class Catalogue:
    """Types that workers have published. Belongs to the running loop.

    A type is renewed within 2 seconds; an unknown one makes it look at once, at most every 200 ms. While the store is away the last
    known types stay.
    """

    def __init__(self, store: AsyncStore) -> None:
        self._store = store
        self._raw: dict[str, bytes] = {}
        self._known: dict[str, tuple[CatalogueEntry, Validator]] = {}
        self._validators = Validators()
        self._looked_at = -EVERY_S
        self._looking: asyncio.Task[None] | None = None
        self._keeper: asyncio.Task[None] | None = None

    @property
    def entries(self) -> dict[str, CatalogueEntry]:
        """By type, sorted."""
        return {name: self._known[name][0] for name in sorted(self._known)}

    async def of(self, job_type: str) -> tuple[CatalogueEntry, Validator]:
        """The entry of *job_type* and the validator of its payloads.

        Raises:
            UnknownJobType: nobody has published it.
            StoreError: it is not known here, and the store cannot be asked.
        """
        found = self._known.get(job_type)
        if found is not None:
            return found
        await self.look(AT_ONCE_S)
        found = self._known.get(job_type)
        if found is None:
            raise unknown_type(job_type, self._known)
        return found

    async def look(self, unless_younger_s: float = 0.0) -> None:
        """Read the store's catalogue, unless that was done in the last *unless_younger_s* seconds. Callers share one reading.

        Raises:
            StoreError: the store cannot be asked.
        """
        if time.monotonic() - self._looked_at < unless_younger_s:
            return
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._read(), name="catalogue-read")
        await asyncio.shield(self._looking)

    async def _read(self) -> None:
        raw = await self._store.run(reads.catalogue(0))
        self._looked_at = time.monotonic()
        for name in self._known.keys() - raw.keys():
            del self._known[name]
        for name, text in raw.items():
            if self._raw.get(name) == text:
                continue
            try:
                entry = catalogue.decode(text)
                self._known[name] = entry, self._validators.of(name, entry.schema)
            except (msgspec.MsgspecError, PluginError) as error:
                logs.get().warning(events.PLUGIN_FAILED, type=name, error=str(error))
        self._raw = raw

    def start(self) -> None:
        """Keep it fresh from now on."""
        self._keeper = asyncio.create_task(self._keep(), name="catalogue")

    async def _keep(self) -> None:
        while True:
            with contextlib.suppress(StoreError):
                await self.look(EVERY_S / 2)
            await asyncio.sleep(EVERY_S)

    async def stop(self) -> None:
        """End the background work. May be called without `start`, and twice."""
        tasks = [task for task in (self._keeper, self._looking) if task is not None and not task.done()]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=1.0)
