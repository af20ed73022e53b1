"""Whether it works: for people (`/health`), for what restarts processes (`/livez`) or sends them traffic (`/readyz`); `/metrics`."""

from __future__ import annotations

import time

from litestar import get
from litestar.handlers import HTTPRouteHandler
from litestar.openapi.datastructures import ResponseSpec

from taskmaster.api import queues, shapes
from taskmaster.api.service import Answer, AnyRequest, data, header, of, only, raw
from taskmaster.api.store_state import Doctor, partition_state
from taskmaster.engine.checklist.examine import examine, has
from taskmaster.engine.checklist.facts import Facts, Reach
from taskmaster.engine.checklist.gather import gather, own_of
from taskmaster.engine.health import rules_of, store_rules, take_stand
from taskmaster.errors import StoreError, StoreRefused

__all__ = ["ROUTES"]


@get("/health", summary="Rules and what was observed", responses={200: ResponseSpec(shapes.Health), 503: ResponseSpec(shapes.Health)})
async def health(request: AnyRequest) -> Answer:
    """200 healthy or degraded; 503 unhealthy: the store does not answer, or takes no writes."""
    only(request)
    service = of(request)
    try:
        round_trip_s = await service.store.ping()
        seen = await service.watch.look()
        stand = await service.store.converse(take_stand(service.settings.partitions))
    except StoreError as error:
        down = shapes.Health(status="unhealthy", rules=[], store={"ok": False, "problem": error.code, "roundTripMs": None}, workers=0)
        return data(down, 503, {"retry-after": "1"})
    stand = stand._replace(queues=queues.all_of(service, stand.queues))
    found = [*store_rules(len(seen.refused), seen.vitals, seen.partitions), *rules_of(stand)]
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
        rules=[shapes.Rule(**rule._asdict()) for rule in found],
        store=state,
        workers=stand.workers,
        schedulers=stand.schedulers,
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
