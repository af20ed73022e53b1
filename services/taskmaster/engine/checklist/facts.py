"""What the checklist judges: plain data, so that every rule can be tried without a store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec

from taskmaster.engine.queries import QueueView
from taskmaster.engine.workers import WorkerView
from taskmaster.plugins.catalogue import CatalogueEntry
from taskmaster.plugins.registry import PluginReport
from taskmaster.store.flow import Rules
from taskmaster.store.reads import Integrity
from taskmaster.store.safety import Finding as StoreFinding
from taskmaster.store.webhooks import OutboxState

__all__ = ["Facts", "Letters", "Own", "Planned", "Reach", "StoreFacts", "Swept"]


class Own(NamedTuple):
    """Settings of the process that looks. Unless it is the API, they are the API's only as far as both are started with the same.

    Attributes:
        host: address that the API listens on; None: nobody has said so here.
        scopes: what callers of the API may do.
        is_key_required: a submission needs an idempotency key, unless its type says otherwise.
        shed_waiting: waiting jobs of a queue from which on low priority is refused; 0: never.
    """

    host: str | None = "127.0.0.1"
    scopes: tuple[str, ...] = ()
    is_key_required: bool = True
    shed_waiting: int = 0


class Letters(NamedTuple):
    """Dead letters that nobody has discarded.

    Attributes:
        by_queue: how many.
        old: how many of them failed more than a day ago.
        oldest_ms: age of the oldest of those; None: there is none.
    """

    by_queue: Mapping[str, int] = {}
    old: int = 0
    oldest_ms: int | None = None


class Planned(NamedTuple):
    """A schedule that is not paused or over. `type` None: its definition cannot be read."""

    id: str
    type: str | None


class Swept(NamedTuple):
    """One partition's sweeps. *since_ms*: repairs since then are told."""

    state: Integrity
    since_ms: int


class Reach(NamedTuple):
    """Whether `/scaling` answers. `is_reached` None: it could not be tried, for the reason that `observed` tells."""

    is_reached: bool | None
    observed: str


class StoreFacts(NamedTuple):
    """What the store says, of all partitions.

    Attributes:
        now_ms: of the store's clock.
        types: published job types, sorted.
        unreadable: those whose entry cannot be read.
        orders: of operators, by partition.
        workers: live worker processes.
        queues: those that ever had a job, and those that a type names.
        schedules: those that have a next instant.
        swept: by partition.
        outboxes: ends that somebody is to be told of, by partition.
    """

    now_ms: int
    types: tuple[CatalogueEntry, ...] = ()
    unreadable: tuple[str, ...] = ()
    orders: Sequence[Rules] = (Rules({}, {}, {}, {}, frozenset()),)
    workers: tuple[WorkerView, ...] = ()
    queues: tuple[QueueView, ...] = ()
    letters: Letters = Letters()
    schedules: tuple[Planned, ...] = ()
    swept: tuple[Swept, ...] = ()
    outboxes: tuple[OutboxState, ...] = ()


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """Everything.

    Attributes:
        policy: what `store.safety.judge` says of the server's configuration.
        skew_ms: by how much the store's clock is ahead of ours.
        plugins: how loading went in this process; None: it loads none.
    """

    store: StoreFacts
    own: Own = Own()
    policy: Sequence[StoreFinding] = ()
    skew_ms: int = 0
    scaling: Reach = Reach(None, "not tried")
    plugins: Sequence[PluginReport] | None = None

    @property
    def live(self) -> list[WorkerView]:
        """Live worker processes but for those that run suspects alone."""
        return [worker for worker in self.store.workers if not worker.is_suspects]
