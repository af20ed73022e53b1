"""The job types as a scheduler or a command knows them: a copy of the catalogue, renewed when it is needed."""

from __future__ import annotations

import time

import msgspec

from taskmaster.engine.scheduled_jobs import Jobs
from taskmaster.engine.submit import unknown_type
from taskmaster.errors import InvalidRequest, PluginError
from taskmaster.plugins import catalogue
from taskmaster.plugins.catalogue import CatalogueEntry
from taskmaster.plugins.validation import Validators
from taskmaster.settings import Settings
from taskmaster.store import reads
from taskmaster.store.client import SyncStore

__all__ = ["Types"]

EVERY_S, AT_ONCE_S = 2.0, 0.2


class Types:
    """One thread uses it. A type is renewed within 2 seconds; an unknown one makes it look at once, at most every 200 ms."""

    def __init__(self, store: SyncStore, settings: Settings) -> None:
        self._store = store
        self._settings = settings
        self._raw: dict[str, bytes] = {}
        self._entries: dict[str, CatalogueEntry] = {}
        self._validators = Validators()
        self._looked_at = -EVERY_S

    def of(self, job_type: str) -> Jobs:
        """What jobs of that type are made with.

        Raises:
            InvalidRequest: nobody has published it, or its schema cannot be used.
            StoreError: the store cannot be asked.
        """
        self._look(EVERY_S)
        if job_type not in self._raw:
            self._look(AT_ONCE_S)
        entry = self._entries.get(job_type)
        try:
            if entry is None:
                if job_type not in self._raw:
                    raise unknown_type(job_type, self._raw)
                entry = self._entries[job_type] = catalogue.decode(self._raw[job_type])
            return Jobs(entry, self._validators.of(job_type, entry.schema), self._settings)
        except (msgspec.MsgspecError, PluginError) as error:
            raise InvalidRequest(f"the catalogue's entry of {job_type!r} cannot be used: {error}") from error

    def _look(self, unless_younger_s: float) -> None:
        if time.monotonic() - self._looked_at < unless_younger_s:
            return
        fresh = self._store.run(reads.catalogue(0))
        self._entries = {name: entry for name, entry in self._entries.items() if fresh.get(name) == self._raw.get(name)}
        self._raw = fresh
        self._looked_at = time.monotonic()
