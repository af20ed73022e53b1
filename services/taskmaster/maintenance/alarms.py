"""Telling endpoints that a rule of health is broken, for whoever has no monitoring that would.

An alarm is an event of its rule and hour, and its delivery is keyed by receiver and event, so any number of processes may look and each
receiver is told once. It is unique work for that hour, too: a key may be forgotten a minute after its job has ended.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from taskmaster.engine.deliveries import alarm_of, delivery_of
from taskmaster.engine.enqueue import store_jobs
from taskmaster.engine.health import HealthRule, rules_of, store_rules, take_stand
from taskmaster.engine.webhooks import endpoint_of
from taskmaster.store import reads, webhooks
from taskmaster.store.calls import NewJob, Unique
from taskmaster.store.client import SyncStore
from taskmaster.store.safety import judge

__all__ = ["EVERY_S", "Alarms", "look_at_health"]

EVERY_S = 60.0
_HOUR_MS = 3_600_000


def look_at_health(store: SyncStore, partitions: int, *, is_strict: bool) -> list[HealthRule]:
    """All rules, as they stand now.

    Raises:
        StoreError: the store does not answer.
    """
    unsafe = sum(finding.level == "refuse" for finding in judge(store.configuration(), strict=is_strict))
    states = [store.run(reads.integrity(partition)) for partition in range(partitions)]
    return [*store_rules(unsafe, store.vitals(), states), *rules_of(store.converse(take_stand(partitions)))]


@dataclass(frozen=True, slots=True)
class Alarms:
    """Looks at the health of the whole store, where some endpoint wants to hear of it."""

    store: SyncStore
    partitions: int
    is_strict: bool

    def look(self) -> None:
        """Submit a delivery for each broken rule and each endpoint that wants it and was not told in this hour.

        Raises:
            StoreError: the next look goes on.
        """
        endpoints = [endpoint_of(row) for row in self.store.run(webhooks.webhooks(0)) if row.is_there]
        if not any(endpoint.wants_alarm(None) for endpoint in endpoints):
            return
        now_ms = self.store.now_ms()
        jobs: dict[int, list[NewJob]] = {}
        for rule in look_at_health(self.store, self.partitions, is_strict=self.is_strict):
            for endpoint in endpoints if not rule.ok else ():
                if endpoint.wants_alarm(rule.queue):
                    partition, job = delivery_of(alarm_of(rule, now_ms), endpoint.receiver, partitions=self.partitions, now_ms=now_ms)
                    work = Unique(job.key, "t", _HOUR_MS, "existing", 0)
                    jobs.setdefault(partition, []).append(msgspec.structs.replace(job, unique=work))
        for partition, some in jobs.items():
            store_jobs(self.store, partition, some, within_s=0)
