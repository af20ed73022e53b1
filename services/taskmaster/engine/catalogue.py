"""The job types as this process knows them: a copy of the store's catalogue, with its schemas compiled."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable, Mapping

import msgspec

from taskmaster.engine.submit import unknown_type
from taskmaster.errors import PluginError, StoreError
from taskmaster.plugins import catalogue
from taskmaster.plugins.catalogue import CatalogueEntry
from taskmaster.plugins.validation import Validator, Validators
from taskmaster.store import reads
from taskmaster.store.aio import AsyncStore
from taskmaster.store.client import SyncStore

__all__ = ["AT_ONCE_S", "BlockingCatalogue", "Catalogue", "Types"]

#: A type is renewed within the first; an unknown one makes us look at once, but not more often than the second says.
EVERY_S, AT_ONCE_S = 2.0, 0.2


class Types:
    """Types as they were read last. No I/O."""

    def __init__(self) -> None:
        self._raw: Mapping[str, bytes] = {}
        self._known: dict[str, tuple[CatalogueEntry, Validator]] = {}
        self._validators = Validators()
        self._read_at = -EVERY_S

    @property
    def entries(self) -> dict[str, CatalogueEntry]:
        """By type, sorted."""
        return {name: self._known[name][0] for name in sorted(self._known)}

    @property
    def age_s(self) -> float:
        """Seconds since they were read; at least 2 when they never were."""
        return time.monotonic() - self._read_at

    def has_all(self, names: Iterable[str]) -> bool:
        """Whether all of *names* are known."""
        return self._known.keys() >= set(names)

    def find(self, job_type: str) -> tuple[CatalogueEntry, Validator]:
        """The entry of *job_type* and the validator of its payloads.

        Raises:
            UnknownJobType: nobody has published it.
        """
        found = self._known.get(job_type)
        if found is None:
            raise unknown_type(job_type, self._known)
        return found

    def update(self, raw: Mapping[str, bytes]) -> dict[str, str]:
        """Take over what the store has now; answers what is wrong with types that could not be, which then stay as they were."""
        self._read_at = time.monotonic()
        wrong = {}
        for name in self._known.keys() - raw.keys():
            self._known.pop(name, None)  # another thread may have been quicker
        for name, text in raw.items():
            if self._raw.get(name) == text:
                continue
            try:
                entry = catalogue.decode(text)
                self._known[name] = entry, self._validators.of(name, entry.schema)
            except (msgspec.MsgspecError, PluginError) as error:
                wrong[name] = str(error)
        self._raw = raw
        return wrong


class BlockingCatalogue:
    """Types, read when they are asked for. Thread-safe: two threads may read at once, and then have read the same."""

    def __init__(self, store: SyncStore) -> None:
        self._store = store
        self.types = Types()

    def need(self, names: Iterable[str]) -> Types:
        """Types that are at most 2 s old, or 0.2 s if one of *names* is not among them.

        Raises:
            StoreError: they had to be read, and could not.
        """
        types = self.types
        if types.age_s >= EVERY_S or (types.age_s >= AT_ONCE_S and not types.has_all(names)):
            raw = self._store.run(reads.catalogue(0))
            types.update(raw)
        return types


class Catalogue:
    """Types that are kept fresh in the background, or read when they are asked for. Belongs to the running loop.

    While the store is away the last known types stay.

    Args:
        store: to read from.
        report: told of a type that cannot be used: its name, and what is wrong.
    """

    def __init__(self, store: AsyncStore, report: Callable[[str, str], None] = lambda _name, _why: None) -> None:
        self._store = store
        self._report = report
        self.types = Types()
        self._looking: asyncio.Task[None] | None = None
        self._keeper: asyncio.Task[None] | None = None

    async def of(self, job_type: str) -> tuple[CatalogueEntry, Validator]:
        """The entry of *job_type* and the validator of its payloads.

        Raises:
            UnknownJobType: nobody has published it.
            StoreError: it is not known here, and the store cannot be asked.
        """
        if not self.types.has_all((job_type,)):
            await self.look(AT_ONCE_S)
        return self.types.find(job_type)

    async def need(self, names: Iterable[str]) -> Types:
        """As `BlockingCatalogue.need`."""
        await self.look(EVERY_S if self.types.has_all(names) else AT_ONCE_S)
        return self.types

    async def look(self, unless_younger_s: float = 0.0) -> None:
        """Read the store's catalogue, unless that was done in the last *unless_younger_s* seconds. Callers share one reading.

        Raises:
            StoreError: the store cannot be asked.
        """
        if self.types.age_s < unless_younger_s:
            return
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._read(), name="catalogue-read")
        await asyncio.shield(self._looking)

    async def _read(self) -> None:
        raw = await self._store.run(reads.catalogue(0))
        for name, why in self.types.update(raw).items():
            self._report(name, why)

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
