"""Queues over HTTP."""

from __future__ import annotations

from litestar import get
from litestar.handlers import HTTPRouteHandler
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import FromPath

from taskmaster.api import shapes, views
from taskmaster.api.service import Answer, AnyRequest, Service, data, of, only
from taskmaster.engine import queries
from taskmaster.engine.queries import QueueView
from taskmaster.engine.retention import kept_of
from taskmaster.errors import NotFound
from taskmaster.store import reads
from taskmaster_sdk.jobs import NAME

__all__ = ["ROUTES", "overview"]

#: The last completed jobs of a queue that its wait and run times are of; fewer when all queues are asked for.
TIMED_ONE, TIMED_ALL = 100, 50


async def overview(service: Service, *, timed: int = 0) -> list[QueueView]:
    """Every queue that ever had a job, or that a job type names."""
    rows = [row for p in service.partitions for row in await service.store.run(reads.queues(p, timed=timed))]
    found = queries.merge_queues(rows)
    missing = {entry.queue for entry in service.catalogue.types.entries.values()} - {view.name for view in found}
    return sorted([*found, *map(queries.empty_queue, missing)], key=lambda view: view.name)


def _shape(service: Service, view: QueueView) -> shapes.Queue:
    settings = service.settings
    return views.queue_of(view, settings.queue_concurrency.get(view.name, settings.concurrency), kept_of(settings, view.name))


@get("/queues", summary="All queues", responses={200: ResponseSpec(shapes.QueueList)})
async def list_queues(request: AnyRequest) -> Answer:
    """Depth by state and priority, age of the oldest that waits, rates and times."""
    service = of(request)
    only(request)
    found = await overview(service, timed=TIMED_ALL)
    return data(shapes.QueueList(items=[_shape(service, view) for view in found]))


@get("/queues/{name:str}", summary="One queue", responses={200: ResponseSpec(shapes.Queue)})
async def show_queue(request: AnyRequest, name: FromPath[str]) -> Answer:
    """The same for one queue."""
    service = of(request)
    only(request)
    rows = []
    if NAME.fullmatch(name):
        rows = [row for p in service.partitions for row in await service.store.run(reads.queues(p, queue=name, timed=TIMED_ONE))]
    found = queries.merge_queues(rows)
    if not found and any(entry.queue == name for entry in service.catalogue.types.entries.values()):
        found = [queries.empty_queue(name)]
    if not found:
        shown = name[:64].encode("utf-8", "backslashreplace").decode()
        raise NotFound(f"there is no queue {shown!r}", queue=shown)
    return data(_shape(service, found[0]))


ROUTES: list[HTTPRouteHandler] = [list_queues, show_queue]
