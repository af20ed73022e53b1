"""Whether the engine is well: rules over queues, store, schedules and webhooks, each with what was observed and what its limit is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from taskmaster.engine import queries
from taskmaster.engine.queries import QueueView
from taskmaster.engine.queue_rules import queue_rules
from taskmaster.engine.rules import read_rules
from taskmaster.engine.workers import worker_processes, worker_views
from taskmaster.store import reads, schedules, webhooks
from taskmaster.store.call import Talk
from taskmaster.store.flow import Rules
from taskmaster.store.reads import Integrity, QueueRow, WorkerRow
from taskmaster.store.safety import Vitals
from taskmaster.store.schedules import Schedules
from taskmaster.store.webhooks import OutboxState

__all__ = ["WEBHOOK_LATE_MS", "HealthRule", "Stand", "rules_of", "store_rules", "take_stand"]

#: A queue is well while fewer jobs wait, and a smaller share of what ended in the last hour has failed.
WAITING_LIMIT, FAILURE_LIMIT = 1_000, 0.5
#: Above this share of its memory limit the store is about to refuse submissions.
MEMORY_SHARE = 0.9
#: A schedule that is due for longer was not fired by anybody.
OVERDUE_MS = 30_000
#: Ends become deliveries within seconds; one that is older was not made into any, and somebody waits to be told of it.
WEBHOOK_LATE_MS = 300_000
#: For so long it is told that ends were dropped.
_HOUR_MS = 3_600_000


class HealthRule(NamedTuple):
    """One rule. `queue` is None where it is about no single one; units are in `services/README.md`."""

    rule: str
    queue: str | None
    observed: float
    limit: float
    ok: bool


class Stand(NamedTuple):
    """How it stands with all that the rules look at but the store itself."""

    queues: Sequence[QueueView]
    orders: Sequence[Rules]
    scheduling: Sequence[Schedules]
    workers: int
    outboxes: Sequence[OutboxState]

    @property
    def schedulers(self) -> int:
        """Live ones."""
        return max((one.schedulers for one in self.scheduling), default=0)


def take_stand(partitions: int) -> Talk[Stand]:
    """Ask all partitions: five calls each."""
    rows: list[QueueRow] = []
    workers: list[WorkerRow] = []
    scheduling: list[Schedules] = []
    outboxes: list[OutboxState] = []
    for partition in range(partitions):
        rows += yield reads.queues(partition, timed=0)
        workers += yield reads.workers(partition)
        scheduling.append((yield schedules.schedules(partition)))
        outboxes.append((yield webhooks.outbox_state(partition)))
    orders = yield from read_rules(partitions)
    return Stand(queries.merge_queues(rows), orders, scheduling, worker_processes(worker_views(workers)), outboxes)


def rules_of(stand: Stand) -> list[HealthRule]:
    """The rules, queue by queue, then those of schedules and webhooks; how long jobs may wait is a rule where the queue has an SLA."""
    found = []
    for view in stand.queues:
        sla_ms, oldest_ms = queue_rules(stand.orders, view.name).sla_ms, view.oldest_ms or 0
        if sla_ms is not None:
            found.append(HealthRule("oldestWaiting", view.name, oldest_ms, sla_ms, oldest_ms <= sla_ms))
        waiting, failed, orphans = view.counts.waiting, view.failure_ratio or 0.0, len(view.orphan_types)
        found += [
            HealthRule("waiting", view.name, waiting, WAITING_LIMIT, waiting < WAITING_LIMIT),
            HealthRule("failureRate", view.name, failed, FAILURE_LIMIT, failed < FAILURE_LIMIT),
            HealthRule("noWorker", view.name, orphans, 0, not orphans),
        ]
    return found + _of_schedules(stand.scheduling) + _of_webhooks(stand.outboxes)


def _of_schedules(scheduling: Sequence[Schedules]) -> list[HealthRule]:
    """Whether what is due is fired, and how many schedules missed an instant in the last hour; only where there are schedules."""
    if not any(one.total for one in scheduling):
        return []
    overdue, missed = max(one.overdue_ms for one in scheduling), sum(one.missed for one in scheduling)
    return [
        HealthRule("scheduleLag", None, overdue, OVERDUE_MS, overdue < OVERDUE_MS),
        HealthRule("scheduleMissed", None, missed, 0, not missed),
    ]


def _of_webhooks(outboxes: Sequence[OutboxState]) -> list[HealthRule]:
    """Whether ends become deliveries, and in how many partitions some were dropped in the last hour; only where anybody is to be told."""
    if not any(one.is_heard or one.ends or one.dropped for one in outboxes):
        return []
    oldest = max(one.oldest_ms for one in outboxes)
    dropping = sum(one.dropped_ago_ms is not None and one.dropped_ago_ms < _HOUR_MS for one in outboxes)
    return [
        HealthRule("webhookLag", None, oldest, WEBHOOK_LATE_MS, oldest < WEBHOOK_LATE_MS),
        HealthRule("webhookDropped", None, dropping, 0, not dropping),
    ]


def store_rules(unsafe: int, vitals: Vitals | None, partitions: Sequence[Integrity]) -> list[HealthRule]:
    """The rules about the store itself.

    Args:
        unsafe: how many rules its configuration breaks.
        vitals: None where the server does not show them.
        partitions: what each says of its losses and sweeps.
    """
    lost = sum(1 for partition in partitions if not partition.is_checked)
    damaged = sum(partition.last.found for partition in partitions if partition.last)
    found = [
        HealthRule("storePolicy", None, unsafe, 0, not unsafe),
        HealthRule("storeLoss", None, lost, 0, not lost),
        HealthRule("storeDamage", None, damaged, 0, not damaged),
    ]
    if vitals is not None:
        failing = int(not vitals.last_write_ok) + int(vitals.role == "slave")
        found.append(HealthRule("storeWrites", None, failing, 0, not failing))
        used, limit = vitals.memory_bytes, vitals.memory_limit_bytes * MEMORY_SHARE
        if limit:
            found.append(HealthRule("storeMemory", None, used, limit, used < limit))
    return found
