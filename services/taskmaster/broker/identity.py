"""Who a worker process says it is."""

from __future__ import annotations

from dataclasses import dataclass

from taskmaster.store import calls

__all__ = ["Identity"]


@dataclass(frozen=True, slots=True)
class Identity:
    """Who this process says it is when it registers.

    Attributes:
        cap: digest of the loaded plugin set.
        info: JSON: host, pid, slot.
        plugin_set: JSON: type -> plugin==version.
        types: as bands name them.
        catalogue: what to publish.
        lease_ms: of each claim.
        alive_ms: how long a silent process counts as alive.
        overdue_s: the lease of a handler that has not ended so long after its deadline is kept no more: somebody else may try. Longer
            than the grace in which this process ends it by force, which comes first as long as the process is well.
        stalled_s: how long a consumer may go without an answered round beyond what is usual, while the store answers its heartbeats.
        dependencies: (type, what it depends on or empty, `?` if it has a fallback or empty).
    """

    cap: str
    info: str
    plugin_set: str
    types: tuple[str, ...]
    catalogue: tuple[calls.Published, ...]
    lease_ms: int
    alive_ms: int
    overdue_s: float = 10.0
    stalled_s: float = 20.0
    dependencies: tuple[tuple[str, str, str], ...] = ()
