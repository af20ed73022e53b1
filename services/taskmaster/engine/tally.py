"""What the store has counted and what there is in it, as metrics: the same numbers that its scripts keep, added up over partitions."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from taskmaster.engine import queries
from taskmaster.engine.breakers import merge_breakers
from taskmaster.engine.limits import LimitView, list_limits
from taskmaster.engine.queries import QueueView
from taskmaster.engine.workers import worker_processes, worker_views
from taskmaster.store import breakers, flow, reads, schedules, webhooks
from taskmaster.store.breakers import BreakerRow
from taskmaster.store.call import Talk
from taskmaster.store.flow import Rules
from taskmaster.store.reads import Counters, Integrity, QueueRow, WorkerRow
from taskmaster.store.safety import Vitals
from taskmaster.store.schedules import Schedules
from taskmaster.store.webhooks import OutboxState
from taskmaster.telemetry import metrics
from taskmaster.telemetry.metrics import Metric

__all__ = ["Tally", "facts_of", "store_facts", "take_tally"]

Facts = dict[tuple[str, ...], float]
#: Counters of `n` that say what has ever become of jobs and attempts, by type and queue.
_COUNTED: dict[str, Metric] = {
    "created": metrics.JOBS_CREATED,
    "completed": metrics.JOBS_COMPLETED,
    "failed": metrics.JOBS_FAILED,
    "cancelled": metrics.JOBS_CANCELLED,
    "attempts_failed": metrics.ATTEMPTS_FAILED,
    "retried": metrics.ATTEMPTS_RETRIED,
    "lost": metrics.ATTEMPTS_LOST,
}
_STATES = ("delayed", "active", "completed", "failed", "cancelled", "blocked")


class Tally(NamedTuple):
    """What all partitions say."""

    counters: Sequence[Counters]
    queues: Sequence[QueueView]
    workers: Sequence[WorkerRow]
    schedules: Sequence[Schedules]
    breakers: Sequence[BreakerRow]
    limits: Sequence[LimitView]
    rules: Rules
    outboxes: Sequence[OutboxState]


def take_tally(partitions: int) -> Talk[Tally]:
    """Ask all partitions: six calls each."""
    counters: list[Counters] = []
    rows: list[QueueRow] = []
    workers: list[WorkerRow] = []
    stands: list[Schedules] = []
    breaking: list[BreakerRow] = []
    outboxes: list[OutboxState] = []
    for p in range(partitions):
        counters.append((yield reads.counters(p)))
        rows += yield reads.queues(p, timed=0)
        workers += yield reads.workers(p)
        stands.append((yield schedules.schedules(p)))
        breaking += yield breakers.breakers(p)
        outboxes.append((yield webhooks.outbox_state(p)))
    limits = yield from list_limits(partitions)
    rules: Rules = yield flow.rules(0)  # what is measured here is the same in all partitions
    return Tally(counters, queries.merge_queues(rows), workers, stands, breaking, limits, rules, outboxes)


def facts_of(tally: Tally) -> dict[Metric, Facts]:
    """The metrics of `metrics.STORE` that *tally* knows of."""
    found: dict[Metric, Facts] = {metric: {} for metric in (*_COUNTED.values(), metrics.DLQ_JOBS)}
    for counters in tally.counters:
        for field, value in sorted(counters.fields.items()):
            job_type, _, rest = field.partition("/")
            queue, _, what = rest.partition("/")
            metric = _COUNTED.get(what)
            if metric is not None:
                _add(found[metric], (job_type, queue), value)
                if metric is metrics.JOBS_FAILED:
                    _add(found[metrics.DLQ_JOBS], (job_type,), value)
    pairs = {pair for metric in _COUNTED.values() for pair in found[metric]}
    for pair in sorted(pairs):  # what has not happened yet is 0, so that its first time is seen as an increase
        for metric in _COUNTED.values():
            found[metric].setdefault(pair, 0.0)
        found[metrics.DLQ_JOBS].setdefault(pair[:1], 0.0)
    letters: Counter[str] = Counter()
    for counters in tally.counters:
        letters.update(counters.dead_letters)
    found[metrics.DLQ_RECORDS] = {(queue,): float(letters[queue]) for queue in sorted(letters)}
    found |= _of_queues(tally.queues, tally.rules)
    found[metrics.WORKERS] = {(): float(worker_processes(worker_views(tally.workers)))}
    found[metrics.SCHEDULERS] = {(): float(max((one.schedulers for one in tally.schedules), default=0))}
    found[metrics.SCHEDULES] = {(): float(sum(one.total for one in tally.schedules))}
    found[metrics.SCHEDULE_OVERDUE] = {(): max((one.overdue_ms for one in tally.schedules), default=0) / 1_000}
    found[metrics.OUTBOX_ENDS] = {(): float(sum(one.ends for one in tally.outboxes))}
    found[metrics.OUTBOX_OLDEST] = {(): max((one.oldest_ms for one in tally.outboxes), default=0) / 1_000}
    found[metrics.ENDS_DROPPED] = {(): float(sum(one.dropped for one in tally.outboxes))}
    now_ms = max((one.now_ms for one in tally.schedules), default=0)
    found[metrics.BREAKER_STATE] = {
        (view.dependency, state): float(view.state == state)
        for view in merge_breakers(tally.breakers, now_ms)
        for state in ("closed", "probing", "open")
    }
    found[metrics.LIMITER_IN_USE] = {(view.name,): float(view.in_use) for view in tally.limits if view.in_use is not None}
    found[metrics.LIMITER_WAITING] = {(view.name,): float(view.waiting) for view in tally.limits}
    return found


def store_facts(vitals: Vitals | None, partitions: Iterable[Integrity], unsafe: int) -> dict[Metric, Facts]:
    """What the watch has seen of the store itself; *unsafe*: rules that its configuration breaks."""
    partitions = list(partitions)
    found: dict[Metric, Facts] = {
        metrics.GENERATION: {(): float(sum(zlib.crc32(one.gen.encode()) for one in partitions))},
        metrics.STORE_UNCHECKED: {(): float(sum(not one.is_checked for one in partitions))},
        metrics.STORE_UNMENDED: {(): float(sum(one.last.found for one in partitions if one.last))},
        metrics.STORE_UNSAFE: {(): float(unsafe)},
    }
    if vitals is not None:
        found |= {
            metrics.STORE_WRITABLE: {(): float(vitals.last_write_ok and vitals.role != "slave")},
            metrics.STORE_MEMORY: {(): float(vitals.memory_bytes)},
            metrics.STORE_MEMORY_LIMIT: {(): float(vitals.memory_limit_bytes)},
        }
    return found


def _of_queues(views: Iterable[QueueView], rules: Rules) -> dict[Metric, Facts]:
    jobs: Facts = {}
    oldest: Facts = {}
    paused: Facts = {}
    orphans: Facts = {}
    for view in views:
        for priority, waiting in view.by_priority.items():
            jobs[view.name, "waiting", priority] = float(waiting)
        for state in _STATES:
            jobs[view.name, state, "any"] = float(getattr(view.counts, state))
        oldest[view.name,] = (view.oldest_ms or 0) / 1_000
        paused[view.name,] = float(f"q/{view.name}" in rules.pauses)
        orphans[view.name,] = float(len(view.orphan_types))
    return {
        metrics.QUEUE_JOBS: jobs,
        metrics.QUEUE_OLDEST: oldest,
        metrics.QUEUE_SLA: {(queue,): float(fields["sla"]) / 1_000 for queue, fields in rules.queues.items() if fields.get("sla")},
        metrics.QUEUE_PAUSED: paused,
        metrics.QUEUE_ORPHANS: orphans,
    }


def _add(facts: Facts, labels: tuple[str, ...], value: int) -> None:
    facts[labels] = facts.get(labels, 0.0) + value
