"""Rules about who is told of the ends of jobs: somebody delivers, and what is to be told does not lie about."""

from __future__ import annotations

from taskmaster.engine.checklist.facts import Facts
from taskmaster.engine.checklist.findings import Finding, Rule
from taskmaster.engine.health import WEBHOOK_LATE_MS
from taskmaster.model.webhooks import DELIVERY

__all__ = ["RULES"]

#: For so long it is told that ends were dropped.
DROPPED_TOLD_MS = 86_400_000

_WORKER = Rule(
    "webhook-worker",
    "an end that somebody asked to be told of becomes a job of this type, which waits until a worker has it",
    "pip install taskmaster-webhooks where workers run, and restart them; TASKMASTER_PLUGINS must not leave out webhooks",
)
_OUTBOX = Rule(
    "webhook-outbox",
    "ends wait there until a worker process makes deliveries of them; from 100,000 in a partition on the oldest are dropped, and nobody is "
    "told of those",
    "a worker must run, and the queue webhooks take jobs: taskmaster queues show webhooks says whether it is full or drains; "
    "ops/runbooks/TaskMasterWebhooksLate.md",
)


def worker(facts: Facts) -> list[Finding]:
    """Where there are endpoints or callbacks, a live worker delivers."""
    if not any(one.is_heard or one.ends for one in facts.store.outboxes):
        return [_WORKER.ok("no endpoint hears of ends, and no job has a callback")]
    having = sorted(one.id for one in facts.live if DELIVERY in one.types)
    if not having:
        return [_WORKER.warning(f"endpoints or callbacks are there, and no live worker has the type {DELIVERY}")]
    return [_WORKER.ok(f"{len(having)} processes have the type {DELIVERY}")]


def outbox(facts: Facts) -> list[Finding]:
    """No end has been waiting for minutes, and none was dropped in the last day."""
    ends, dropped = sum(one.ends for one in facts.store.outboxes), sum(one.dropped for one in facts.store.outboxes)
    oldest_ms = max((one.oldest_ms for one in facts.store.outboxes), default=0)
    ago_ms = min((one.dropped_ago_ms for one in facts.store.outboxes if one.dropped_ago_ms is not None), default=None)
    told = {"ends": ends, "oldestMs": oldest_ms, "dropped": dropped, "droppedAgoMs": ago_ms}
    parts = [f"{ends} ends wait, the oldest for {oldest_ms // 60_000} minutes"] if oldest_ms >= WEBHOOK_LATE_MS else []
    if ago_ms is not None and ago_ms < DROPPED_TOLD_MS:
        parts.append(f"{dropped} ends were dropped, the last {ago_ms // 60_000} minutes ago")
    if parts:
        return [_OUTBOX.warning("; ".join(parts), told)]
    return [_OUTBOX.ok(f"{ends} ends wait", told)]


RULES = (worker, outbox)
