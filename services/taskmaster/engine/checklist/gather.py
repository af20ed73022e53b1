"""Collecting the facts that the store has. Reads only; written once for threads and loops."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from taskmaster.engine import queries
from taskmaster.engine.checklist.facts import Letters, Own, Planned, StoreFacts, Swept
from taskmaster.engine.rules import read_rules
from taskmaster.engine.scheduled_jobs import spec_of
from taskmaster.engine.schedules import paged
from taskmaster.engine.workers import worker_views
from taskmaster.errors import StoreDefect
from taskmaster.model.letters import LetterFilter
from taskmaster.plugins import catalogue
from taskmaster.plugins.catalogue import CatalogueEntry
from taskmaster.settings import Settings
from taskmaster.store import letters, reads, webhooks
from taskmaster.store.call import Talk
from taskmaster.store.letters import Counted
from taskmaster.store.reads import Counters, Integrity, QueueRow, WorkerRow
from taskmaster.store.schedules import ScheduleRow
from taskmaster.store.webhooks import OutboxState

__all__ = ["OLD_MS", "gather", "own_of"]

#: Dead letters older than that have been overlooked.
OLD_MS = 86_400_000
#: Rows of the sweeper's report that are read, of each partition; schedules a call.
REPAIRS, PAGE = 200, 500


def own_of(settings: Settings, *, is_api: bool) -> Own:
    """What the checklist takes from the settings of this process; *is_api*: it is the one that listens there."""
    is_told = is_api or settings.sources.get("host", "default") != "default"
    return Own(settings.host if is_told else None, settings.scopes, settings.idempotency == "required", settings.shed_waiting)


def gather(partitions: int, now_ms: int, swept_since: Sequence[int] = ()) -> Talk[StoreFacts]:
    """Ask the store, in some ten calls a partition.

    Args:
        now_ms: by the store's clock.
        swept_since: by partition, when a sweep began just now; else repairs of the last sweep are told.
    """
    types, unreadable = _types((yield reads.catalogue(0)))
    orders = yield from read_rules(partitions)
    workers: list[WorkerRow] = []
    queues: list[QueueRow] = []
    swept: list[Swept] = []
    outboxes: list[OutboxState] = []
    for partition in range(partitions):
        workers += yield reads.workers(partition)
        queues += yield reads.queues(partition, timed=0)
        state: Integrity = yield reads.integrity(partition, repairs=REPAIRS)
        since = swept_since[partition] if swept_since else state.last.since if state.last else 0
        swept.append(Swept(state, since))
        outboxes.append((yield webhooks.outbox_state(partition)))
    views = queries.merge_queues(queues)
    unused = {entry.queue for entry in types} - {view.name for view in views}
    return StoreFacts(
        now_ms=now_ms,
        types=tuple(types),
        unreadable=tuple(unreadable),
        orders=orders,
        workers=tuple(worker_views(workers)),
        queues=tuple(sorted([*views, *map(queries.empty_queue, unused)], key=lambda view: view.name)),
        letters=(yield from _letters(partitions, now_ms)),
        schedules=tuple((yield from _schedules(partitions))),
        swept=tuple(swept),
        outboxes=tuple(outboxes),
    )


def _types(raw: dict[str, bytes]) -> tuple[list[CatalogueEntry], list[str]]:
    """The entries, and the names of those that this version cannot read."""
    types, unreadable = [], []
    for name in sorted(raw):
        try:
            types.append(catalogue.decode(raw[name]))
        except msgspec.MsgspecError:
            unreadable.append(name)
    return types, unreadable


def _letters(partitions: int, now_ms: int) -> Talk[Letters]:
    by_queue: dict[str, int] = {}
    old, oldest_ms = 0, None
    for partition in range(partitions):
        counted: Counters = yield reads.counters(partition)
        for queue, n in counted.dead_letters.items():
            by_queue[queue] = by_queue.get(queue, 0) + n
        found: Counted = yield letters.count(partition, LetterFilter(), upto_ms=now_ms - OLD_MS)
        old += found.matched
        record = (yield reads.dead(partition, found.sample[0])) if found.sample else None
        if record is not None:
            oldest_ms = max(oldest_ms or 0, now_ms - int(float(record["fa"])))
    return Letters({queue: n for queue, n in sorted(by_queue.items()) if n}, old, oldest_ms)


def _schedules(partitions: int) -> Talk[list[Planned]]:
    """Those that have a next instant, or one that waits for the job before."""
    planned: list[Planned] = []
    after = ""
    while rows := (yield from paged(partitions, after=after, limit=PAGE)):
        after = rows[-1].id
        running = (row for row in rows if row.due_ms is not None or ("held" in row.fields and "paused" not in row.fields))
        planned += map(_planned, running)
    return planned


def _planned(row: ScheduleRow) -> Planned:
    try:
        return Planned(row.id, spec_of(row).type)
    except StoreDefect:  # one damaged record is a finding, not the end of the look
        return Planned(row.id, None)
