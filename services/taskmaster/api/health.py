"""Whether it works: for people (`/health`), for what restarts processes (`/livez`) or sends them traffic (`/readyz`); `/metrics`."""

from __future__ import annotations

import time
from collections.abc import Sequence

from litestar import get
from litestar.handlers import HTTPRouteHandler
from litestar.openapi.datastructures import ResponseSpec

from taskmaster.api import queues, shapes
from taskmaster.api.service import Answer, AnyRequest, Service, data, header, of, only, raw
from taskmaster.api.store_state import Doctor, partition_state
from taskmaster.api.watch import Seen
from taskmaster.api.workers import live_workers
from taskmaster.engine.checklist.examine import examine, has
from taskmaster.engine.checklist.facts import Facts, Reach
from taskmaster.engine.checklist.gather import gather, own_of
from taskmaster.engine.queries import QueueView
from taskmaster.engine.queue_rules import queue_rules
from taskmaster.engine.rules import read_rules
from taskmaster.engine.workers import worker_processes
from taskmaster.errors import StoreError, StoreRefused
from taskmaster.store import schedules
from taskmaster.store.flow import Rules
from taskmaster.store.schedules import Schedules

__all__ = ["ROUTES", "rules", "schedule_rules", "store_rules"]

#: A queue is well while fewer jobs wait, and a smaller share of what ended in the last hour has failed.
WAITING_LIMIT, FAILURE_LIMIT = 1_000, 0.5
#: Above this share of its memory limit the store is about to refuse submissions.
MEMORY_SHARE = 0.9
#: A schedule that is due for longer was not fired by anybody.
OVERDUE_MS = 30_000


def rules(views: list[QueueView], orders: Sequence[Rules]) -> list[shapes.Rule]:
    """The rules, queue by queue; how long jobs may wait is a rule where the queue has an SLA."""
    found = []
    for view in views:
        sla_ms, oldest_ms = queue_rules(orders, view.name).sla_ms, view.oldest_ms or 0
        if sla_ms is not None:
            found.append(shapes.Rule(rule="oldestWaiting", queue=view.name, observed=oldest_ms, limit=sla_ms, ok=oldest_ms <= sla_ms))
        waiting, failed, orphans = view.counts.waiting, view.failure_ratio or 0.0, len(view.orphan_types)
        found += [
            shapes.Rule(rule="waiting", queue=view.name, observed=waiting, limit=WAITING_LIMIT, ok=waiting < WAITING_LIMIT),
            shapes.Rule(rule="failureRate", queue=view.name, observed=failed, limit=FAILURE_LIMIT, ok=failed < FAILURE_LIMIT),
            shapes.Rule(rule="noWorker", queue=view.name, observed=orphans, limit=0, ok=not orphans),
        ]
    return found


def store_rules(seen: Seen) -> list[shapes.Rule]:
    """The rules about the store itself."""
    lost = sum(1 for partition in seen.partitions if not partition.is_checked)
    damaged = sum(partition.last.found for partition in seen.partitions if partition.last)
    refused = len(seen.refused)
    found = [
        shapes.Rule(rule="storePolicy", queue=None, observed=refused, limit=0, ok=not refused),
        shapes.Rule(rule="storeLoss", queue=None, observed=lost, limit=0, ok=not lost),
        shapes.Rule(rule="storeDamage", queue=None, observed=damaged, limit=0, ok=not damaged),
    ]
    if seen.vitals is not None:
        failing = int(not seen.vitals.last_write_ok) + int(seen.vitals.role == "slave")
        found.append(shapes.Rule(rule="storeWrites", queue=None, observed=failing, limit=0, ok=not failing))
        used, limit = seen.vitals.memory_bytes, seen.vitals.memory_limit_bytes * MEMORY_SHARE
        if limit:
            found.append(shapes.Rule(rule="storeMemory", queue=None, observed=used, limit=limit, ok=used < limit))
    return found


def schedule_rules(scheduling: list[Schedules]) -> list[shapes.Rule]:
    """Whether what is due is fired, and how many schedules missed an instant in the last hour; only where there are schedules."""
    if not any(one.total for one in scheduling):
        return []
    overdue, missed = max(one.overdue_ms for one in scheduling), sum(one.missed for one in scheduling)
    return [
        shapes.Rule(rule="scheduleLag", queue=None, observed=overdue, limit=OVERDUE_MS, ok=overdue < OVERDUE_MS),
        shapes.Rule(rule="scheduleMissed", queue=None, observed=missed, limit=0, ok=not missed),
    ]


@get("/health", summary="Rules and what was observed", responses={200: ResponseSpec(shapes.Health), 503: ResponseSpec(shapes.Health)})
async def health(request: AnyRequest) -> Answer:
    """200 healthy or degraded; 503 unhealthy: the store does not answer, or takes no writes."""
    only(request)
    service = of(request)
    try:
        round_trip_s = await service.store.ping()
        seen = await service.watch.look()
        workers, scheduling = worker_processes(await live_workers(service)), await _scheduling(service)
        orders = await service.store.converse(read_rules(service.settings.partitions))
        found = [*store_rules(seen), *rules(await queues.overview(service), orders), *schedule_rules(scheduling)]
    except StoreError as error:
        down = shapes.Health(status="unhealthy", rules=[], store={"ok": False, "problem": error.code, "roundTripMs": None}, workers=0)
        return data(down, 503, {"retry-after": "1"})
    state = {
        "ok": True,
        "problem": None,
        "roundTripMs": round(round_trip_s * 1_000, 3),
        "durability": service.settings.durability,
        "unsafe": [f"{finding.observed}: {finding.message}" for finding in seen.refused],
        "server": seen.vitals,
        "partitions": [partition_state(number, integrity) for number, integrity in enumerate(seen.partitions)],
    }
    status = shapes.Health(
        status="healthy" if all(rule.ok for rule in found) else "degraded",
        rules=found,
        store=state,
        workers=workers,
        schedulers=max(one.schedulers for one in scheduling),
    )
    return data(status)


@get("/doctor", summary="The production checklist, and the store's sweeps", responses={200: ResponseSpec(Doctor)})
async def doctor(request: AnyRequest) -> Answer:
    """What `taskmaster doctor` tells, but for plugins that it loads. Changes nothing; `repairs` are the newest 200 of each partition."""
    only(request)
    service = of(request)
    seen = await service.watch.look()
    await service.store.align()
    now_ms = await service.store.now_ms()
    skew_ms = now_ms - time.time_ns() // 1_000_000
    facts = Facts(
        store=await service.store.converse(gather(service.settings.partitions, now_ms)),
        own=own_of(service.settings, is_api=True),
        policy=seen.findings,
        skew_ms=skew_ms,
        scaling=Reach(True, "served by this API"),
    )
    found = examine(facts)
    return data(
        {
            "ok": not has(found, "error"),
            "checks": found,
            "durability": service.settings.durability,
            "server": seen.vitals,
            "partitions": [partition_state(number, one.state, with_repairs=True) for number, one in enumerate(facts.store.swept)],
        }
    )


async def _scheduling(service: Service) -> list[Schedules]:
    """How it stands with schedules, by partition."""
    return [await service.store.run(schedules.schedules(p)) for p in service.partitions]


@get("/livez", summary="Whether this process answers")
async def livez(request: AnyRequest) -> Answer:
    """Never asks the store: restarting this process would not mend that."""
    only(request)
    return data({"status": "alive"})


@get("/readyz", summary="Whether this process can take submissions")
async def readyz(request: AnyRequest) -> Answer:
    """200 while the store answers, takes writes, has memory left, and keeps the durability that is set; else 503."""
    only(request)
    service = of(request)
    await service.store.ping()
    seen = await service.watch.look()
    service.watch.admit()
    service.pressure.check_ready()
    if seen.vitals is not None and (seen.vitals.role == "slave" or not seen.vitals.last_write_ok):
        raise StoreRefused(f"the store takes no writes: role {seen.vitals.role}, last write ok: {seen.vitals.last_write_ok}")
    return data({"status": "ready"})


@get(
    "/metrics",
    summary="Metrics for Prometheus",
    media_type="text/plain",
    responses={200: ResponseSpec(str, description="Text or OpenMetrics, as `Accept` asks.", media_type="text/plain")},
)
async def metrics(request: AnyRequest) -> Answer:
    """What the store has counted, and what this process has seen. 200 without the store too, then `taskmaster_store_up` is 0."""
    only(request)
    body, media_type = await of(request).scrape.page(header(request, b"accept") or "")
    return raw(body, headers={"content-type": media_type})


ROUTES: list[HTTPRouteHandler] = [health, doctor, livez, metrics, readyz]
