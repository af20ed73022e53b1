"""The heads of the audit's chains go into the log: who can write to the store, but not there, cannot make a chain anew in silence."""

from __future__ import annotations

from dataclasses import dataclass, field

from taskmaster.store.audit import ANY, audit
from taskmaster.store.client import SyncStore
from taskmaster.telemetry import events
from taskmaster.telemetry.logs import get

__all__ = ["EVERY_S", "AuditHeads"]

log = get()
#: Between two looks.
EVERY_S = 600.0


@dataclass(slots=True)
class AuditHeads:
    """Says in the log where each chain stands, when it has grown since.

    Attributes:
        store: to look at.
        partitions: how many there are.
    """

    store: SyncStore
    partitions: int
    _told: dict[int, str] = field(default_factory=dict)

    def look(self) -> None:
        """Tell of those that are new.

        Raises:
            StoreError: it does not answer; the next look tells.
        """
        for partition in range(self.partitions):
            page = self.store.run(audit(partition, ANY, limit=0))
            if page.number and self._told.get(partition) != page.hash:
                log.info(events.AUDIT_HEAD, partition=partition, number=page.number, head=f"{partition}:{page.number}:{page.hash}")
                self._told[partition] = page.hash
