"""Bringing in the schedules that plugins declare, and telling which of them are declared no more."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from taskmaster.engine.scheduled_types import Types
from taskmaster.engine.schedules import declare, paged
from taskmaster.errors import InvalidRequest
from taskmaster.plugins.registry import Plugin
from taskmaster.settings import Settings
from taskmaster.store.client import SyncStore
from taskmaster.store.status import Status
from taskmaster.telemetry import events
from taskmaster.telemetry.logs import get

__all__ = ["Declarations"]

log = get()
#: Looks for a type that is not in the catalogue yet: another plugin's worker may publish it.
LOOKS = 30
_PAGE = 500


class Declarations:
    """Once for each life of a worker: a tick tries what is left, and does nothing when nothing is. One thread uses it."""

    def __init__(self, store: SyncStore, settings: Settings, plugins: Sequence[Plugin]) -> None:
        self._store = store
        self._settings = settings
        self._types = Types(store, settings)
        self._left = [one for plugin in plugins for one in plugin.schedules]
        self._ids = {one.id for one in self._left}
        self._plugins = {plugin.name for plugin in plugins}
        self._looks = 0
        self._is_done = False

    def tick(self) -> None:
        """Bring in what is left.

        Raises:
            StoreError: not all of it; the next tick goes on.
        """
        if self._is_done:
            return
        self._looks += 1
        for one in list(self._left):
            try:
                answer = self._store.converse(declare(one, self._types.of(one.schedule.type)))
            except InvalidRequest as error:
                if self._looks < LOOKS:
                    continue
                log.warning(events.SCHEDULE_REFUSED, schedule=one.id, plugin=one.plugin, why=error.message)
            else:
                if answer is Status.CONFLICT:
                    log.warning(events.SCHEDULE_REFUSED, schedule=one.id, plugin=one.plugin, why="the id belongs to another schedule")
                elif answer is Status.DONE:
                    log.info(events.SCHEDULE_CHANGED, schedule=one.id, plugin=one.plugin, answer="an operator has changed it: that stays")
            self._left.remove(one)
        if not self._left:
            self._is_done = True
            self._tell_orphans()
            log.info(events.SCHEDULES_REGISTERED, schedules=sorted(self._ids))

    def _tell_orphans(self) -> None:
        """A schedule whose declaration is gone goes on: only a person removes it."""
        after = ""
        while rows := self._store.converse(paged(self._settings.partitions, after=after, limit=_PAGE)):
            after = rows[-1].id
            for row in rows:
                facts = msgspec.json.decode(row.fields["decl"]) if "decl" in row.fields else {}
                if facts.get("plugin") in self._plugins and row.id not in self._ids:
                    log.warning(
                        events.SCHEDULE_NOT_DECLARED,
                        schedule=row.id,
                        plugin=facts["plugin"],
                        remove=f"taskmaster schedules delete {row.id}",
                    )
