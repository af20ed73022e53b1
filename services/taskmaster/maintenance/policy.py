"""Looking at the store's configuration again and again: somebody may change it under a running service."""

from __future__ import annotations

from dataclasses import dataclass, field

from taskmaster.store.client import SyncStore
from taskmaster.store.safety import Finding, judge
from taskmaster.telemetry import events
from taskmaster.telemetry.logs import get

__all__ = ["EVERY_S", "PolicyWatch"]

log = get()
EVERY_S = 30.0


@dataclass(slots=True)
class PolicyWatch:
    """Says in the log what has become wrong, once for each change, and when all is well again.

    Attributes:
        store: to look at.
        is_strict: durability strict is set.
    """

    store: SyncStore
    is_strict: bool
    _refused: tuple[Finding, ...] = field(default=())

    def look(self) -> tuple[Finding, ...]:
        """What makes the store unsafe now.

        Raises:
            StoreError: it does not answer.
        """
        refused = tuple(finding for finding in judge(self.store.configuration(), strict=self.is_strict) if finding.level == "refuse")
        if refused != self._refused:
            for finding in refused:
                log.error(events.STORE_UNSAFE, rule=finding.rule, observed=finding.observed, message=finding.message)
            if not refused:
                log.info(events.STORE_UNSAFE, rule="none", observed="the store is configured safely again")
            self._refused = refused
        return refused
