"""Who is to be told of ends: from the outbox of the store into deliveries, each second, by whichever worker process has that second.

The end of a job and its row in the outbox are one step of the store. A row goes once its deliveries are stored, and those are keyed by
receiver and event: two processes at once, or one that dies in between, make no second delivery and lose none.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from taskmaster import failpoints
from taskmaster.engine.deliveries import callback_of, delivery_of, event_of
from taskmaster.engine.enqueue import store_jobs
from taskmaster.engine.submit import Prepared
from taskmaster.engine.webhooks import EndpointView, endpoint_of
from taskmaster.store import webhooks
from taskmaster.store.calls import NewJob
from taskmaster.store.client import SyncStore
from taskmaster.store.status import Status
from taskmaster.store.webhooks import PAGE_MAX, End

__all__ = ["Outbox"]

#: Its share of a second: handlers' progress goes by the same thread.
STEP_S = 0.5
#: Deliveries that are made before the clock is looked at again: with 100 endpoints a page of ends would take two seconds.
DELIVERIES_MAX = 2_000
#: The delivery is there, now or since before. REUSED: a record of another version's making, of the same receiver and event.
_THERE = frozenset({Status.OK, Status.DUPLICATE, Status.REUSED})


@dataclass(frozen=True, slots=True)
class Outbox:
    """The outbox of one partition; deliveries go to all *partitions*."""

    store: SyncStore
    partition: int
    partitions: int

    def step(self) -> None:
        """Submit deliveries for what lies there. What the queue does not take now (it is full, or drains) stays for the next second.

        Raises:
            StoreError: the next second goes on.
        """
        deadline = time.monotonic() + STEP_S
        while time.monotonic() < deadline:
            ends = self.store.run(webhooks.outbox(self.partition))
            if not ends:
                return
            # Read behind the ends: one that is made meanwhile hears of them, or of none of them.
            endpoints = [endpoint_of(row) for row in self.store.run(webhooks.webhooks(self.partition)) if row.is_there]
            some = ends[: max(1, DELIVERIES_MAX // (1 + len(endpoints)))]
            failpoints.hit("webhook.before_submit")
            done = self._submit(some, endpoints)
            failpoints.hit("webhook.submitted")
            self.store.run(webhooks.outbox_done(self.partition, done))
            if len(some) == len(ends) < PAGE_MAX or len(done) < len(some):
                return

    def _submit(self, ends: list[End], endpoints: list[EndpointView]) -> list[str]:
        """The entries whose deliveries are all in the store now."""
        now_ms = self.store.now_ms()
        by_partition: dict[int, list[tuple[str, NewJob]]] = {}
        for end in ends:
            for partition, job in self._deliveries(end, endpoints, now_ms):
                by_partition.setdefault(partition, []).append((end.entry, job))
        held: set[str] = set()
        for partition, items in by_partition.items():
            stored = store_jobs(self.store, partition, [job for _, job in items], within_s=0)
            held.update(entry for (entry, _), (_, answer) in zip(items, stored, strict=True) if answer.status not in _THERE)
        return [end.entry for end in ends if end.entry not in held]

    def _deliveries(self, end: End, endpoints: list[EndpointView], now_ms: int) -> list[Prepared]:
        event = event_of(end)
        receivers = [callback_of(end.url, end.traceparent)] if end.url else []
        receivers += [endpoint.receiver for endpoint in endpoints if endpoint.wants(end, event["type"])]
        return [delivery_of(event, receiver, partitions=self.partitions, now_ms=now_ms) for receiver in receivers]
