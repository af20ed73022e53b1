"""Whether it works: for people (`/health`), for what restarts processes (`/livez`), for what sends them traffic (`/readyz`)."""

from __future__ import annotations

from litestar import get
from litestar.handlers import HTTPRouteHandler
from litestar.openapi.datastructures import ResponseSpec

from taskmaster.api import queues, shapes
from taskmaster.api.service import Answer, AnyRequest, Service, data, of, only
from taskmaster.engine.queries import QueueView, worker_processes
from taskmaster.errors import StoreError
from taskmaster.store import reads

__all__ = ["ROUTES", "rules"]

#: A queue is well while fewer jobs wait, and a smaller share of what ended in the last hour has failed.
WAITING_LIMIT, FAILURE_LIMIT = 1_000, 0.5


def rules(views: list[QueueView]) -> list[shapes.Rule]:
    """The rules, queue by queue."""
    found = []
    for view in views:
        waiting, failed, orphans = view.counts.waiting, view.failure_ratio or 0.0, len(view.orphan_types)
        found += [
            shapes.Rule(rule="waiting", queue=view.name, observed=waiting, limit=WAITING_LIMIT, ok=waiting < WAITING_LIMIT),
            shapes.Rule(rule="failureRate", queue=view.name, observed=failed, limit=FAILURE_LIMIT, ok=failed < FAILURE_LIMIT),
            shapes.Rule(rule="noWorker", queue=view.name, observed=orphans, limit=0, ok=not orphans),
        ]
    return found


@get("/health", summary="Rules and what was observed", responses={200: ResponseSpec(shapes.Health), 503: ResponseSpec(shapes.Health)})
async def health(request: AnyRequest) -> Answer:
    """200 healthy or degraded; 503 unhealthy: the store does not answer."""
    only(request)
    service = of(request)
    try:
        round_trip_s = await service.store.ping()
        found = rules(await queues.overview(service))
        workers = await _workers(service)
    except StoreError as error:
        down = shapes.Health(status="unhealthy", rules=[], store={"ok": False, "problem": error.code, "roundTripMs": None}, workers=0)
        return data(down, 503, {"retry-after": "1"})
    state = {"ok": True, "problem": None, "roundTripMs": round(round_trip_s * 1_000, 3)}
    status = shapes.Health(status="healthy" if all(rule.ok for rule in found) else "degraded", rules=found, store=state, workers=workers)
    return data(status)


async def _workers(service: Service) -> int:
    """Living worker processes."""
    return worker_processes([row for p in service.partitions for row in await service.store.run(reads.workers(p))])


@get("/livez", summary="Whether this process answers")
async def livez(request: AnyRequest) -> Answer:
    """Never asks the store: restarting this process would not mend that."""
    only(request)
    return data({"status": "alive"})


@get("/readyz", summary="Whether this process can take submissions")
async def readyz(request: AnyRequest) -> Answer:
    """200 while the store answers, else 503."""
    only(request)
    await of(request).store.ping()
    return data({"status": "ready"})


ROUTES: list[HTTPRouteHandler] = [health, livez, readyz]
