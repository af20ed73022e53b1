"""Live worker processes over HTTP."""

from __future__ import annotations

from typing import Any

from litestar import get
from litestar.handlers import HTTPRouteHandler
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import FromPath

from taskmaster.api import shapes, views
from taskmaster.api.service import LIMIT_MAX, Answer, AnyRequest, Service, data, of, only
from taskmaster.engine import queries
from taskmaster.engine.workers import WorkerView, find_worker, worker_views
from taskmaster.store import reads

__all__ = ["ROUTES", "WorkerProcess", "live_workers", "worker_of"]


class WorkerProcess(shapes.Shape, kw_only=True):
    """One process. `queues`: jobs that it runs at once; `suspects`: it runs jobs that lost a worker; `consumers`: its ids in attempts."""

    worker_id: str
    host: str
    pid: int
    name: str
    suspects: bool
    queues: dict[str, int]
    plugins: dict[str, str]
    started_at: str
    alive_until: str
    consumers: list[str]


class WorkerList(shapes.Shape, kw_only=True):
    """All of them, on one page."""

    items: list[WorkerProcess]
    next_cursor: None = None


class BusyWorker(WorkerProcess, kw_only=True):
    """One process, and the jobs that it holds: those that run, and short ones that it has claimed ahead; at most 200."""

    jobs: list[shapes.JobSummary]


def worker_of(view: WorkerView) -> WorkerProcess:
    """A row of GET /workers."""
    return WorkerProcess(**_fields(view))


def _fields(view: WorkerView) -> dict[str, Any]:
    return {
        "worker_id": view.id,
        "host": view.host,
        "pid": view.pid,
        "name": view.name,
        "suspects": view.is_suspects,
        "queues": view.queues,
        "plugins": view.plugins,
        "started_at": shapes.instant(view.since_ms),
        "alive_until": shapes.instant(view.alive_until_ms),
        "consumers": list(view.consumers),
    }


async def live_workers(service: Service) -> list[WorkerView]:
    """Those of all partitions."""
    return worker_views([row for p in service.partitions for row in await service.store.run(reads.workers(p))])


@get("/workers", summary="Live worker processes", responses={200: ResponseSpec(WorkerList)})
async def list_workers(request: AnyRequest) -> Answer:
    """Those that were heard of within the time of a lease."""
    only(request)
    return data(WorkerList(items=[worker_of(view) for view in await live_workers(of(request))]))


@get("/workers/{worker_id:str}", summary="One worker process and its jobs", responses={200: ResponseSpec(BusyWorker)})
async def show_worker(request: AnyRequest, worker_id: FromPath[str]) -> Answer:
    """Its jobs, newest first; among the 5,000 active ones of a partition whose leases end first."""
    only(request)
    service = of(request)
    view = find_worker(await live_workers(service), worker_id)
    pages = [await service.store.run(reads.find(p, "active", consumers=view.consumers, limit=LIMIT_MAX)) for p in service.partitions]
    held, _ = queries.merge_pages(pages, LIMIT_MAX)
    return data(BusyWorker(**_fields(view), jobs=[views.summary_of(queries.summary_of(row)) for row in held]))


ROUTES: list[HTTPRouteHandler] = [list_workers, show_worker]
