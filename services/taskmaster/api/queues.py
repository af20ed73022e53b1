"""Queues over HTTP: how they stand, and orders to them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from litestar import get, patch, post
from litestar.handlers import HTTPRouteHandler
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import FromPath

from taskmaster.api import bodies, flow_shapes, views
from taskmaster.api.documents import with_body
from taskmaster.api.orders import OrderBody, etag, known_revision, word, word_of
from taskmaster.api.service import Answer, AnyRequest, Service, data, of, only
from taskmaster.engine import queries, strict
from taskmaster.engine.queries import QueueView
from taskmaster.engine.queue_rules import QueueChange, change_queue, drain_queue, resume_queue
from taskmaster.engine.retention import kept_of
from taskmaster.engine.rules import read_rules, set_pause
from taskmaster.errors import NotFound
from taskmaster.settings import slots_of
from taskmaster.store import reads
from taskmaster.store.call import Talk
from taskmaster.store.flow import Rules
from taskmaster_sdk.jobs import NAME

__all__ = ["ROUTES", "overview", "queue_view"]

#: The last completed jobs of a queue that its wait and run times are of; fewer when all queues are asked for.
TIMED_ONE, TIMED_ALL = 100, 50
#: A change with a thousand weights.
BODY_MAX = 1_048_576


async def overview(service: Service, *, timed: int = 0) -> list[QueueView]:
    """Every queue that ever had a job, or that a job type names."""
    rows = [row for p in service.partitions for row in await service.store.run(reads.queues(p, timed=timed))]
    return all_of(service, queries.merge_queues(rows))


def all_of(service: Service, found: Sequence[QueueView]) -> list[QueueView]:
    """*found*, and those that had no job yet but that a job type names."""
    missing = {entry.queue for entry in service.catalogue.types.entries.values()} - {view.name for view in found}
    return sorted([*found, *map(queries.empty_queue, missing)], key=lambda view: view.name)


async def queue_view(service: Service, name: str) -> QueueView:
    """One queue.

    Raises:
        NotFound: nobody has ever heard of it.
    """
    rows = []
    if NAME.fullmatch(name):
        rows = [row for p in service.partitions for row in await service.store.run(reads.queues(p, queue=name, timed=TIMED_ONE))]
    found = queries.merge_queues(rows)
    if found:
        return found[0]
    if any(entry.queue == name for entry in service.catalogue.types.entries.values()):
        return queries.empty_queue(name)
    shown = name[:64].encode("utf-8", "backslashreplace").decode()
    raise NotFound(f"there is no queue {shown!r}", queue=shown)


def _shown(service: Service, view: QueueView, rules: Sequence[Rules]) -> flow_shapes.Queue:
    settings = service.settings
    return views.queue_of(view, rules, slots_of(settings, view.name), kept_of(settings, view.name))


async def _answer(service: Service, name: str) -> Answer:
    """The queue as it stands, with the revision of its settings."""
    view = await queue_view(service, name)
    shown = _shown(service, view, await service.store.converse(read_rules(service.settings.partitions)))
    return data(shown, headers=etag(shown.revision))


@get("/queues", summary="All queues", responses={200: ResponseSpec(flow_shapes.QueueList)})
async def list_queues(request: AnyRequest) -> Answer:
    """Depth by state and priority, age of the oldest that waits, rates and times, and what operators have ordered."""
    service = of(request)
    only(request)
    found = await overview(service, timed=TIMED_ALL)
    rules = await service.store.converse(read_rules(service.settings.partitions))
    return data(flow_shapes.QueueList(items=[_shown(service, view, rules) for view in found]))


@get("/queues/{name:str}", summary="One queue", responses={200: ResponseSpec(flow_shapes.Queue)})
async def show_queue(request: AnyRequest, name: FromPath[str]) -> Answer:
    """The same for one queue."""
    only(request)
    return await _answer(of(request), name)


@patch(
    "/queues/{name:str}",
    summary="Change settings of a queue",
    responses={200: ResponseSpec(flow_shapes.Queue)},
    operation_class=with_body(QueueChange),
)
async def patch_queue(request: AnyRequest, name: FromPath[str]) -> Answer:
    """Limiters, strictness, weights, length, concurrency; workers follow within seconds. Settings may be made before the first job."""
    service = of(request)
    only(request)
    wanted = strict.convert(strict.decode(await bodies.read(request, BODY_MAX)), QueueChange)
    known = known_revision(request)
    if known is not None:
        wanted = msgspec.structs.replace(wanted, revision=known)
    await service.store.converse(change_queue(name, wanted, word_of(wanted.by, wanted.reason), partitions=service.settings.partitions))
    return await _answer(service, name)


async def _ordered(request: AnyRequest, name: str, talk: Talk[Any]) -> Answer:
    """Give the order, if there is such a queue."""
    service = of(request)
    only(request)
    await queue_view(service, name)
    await service.store.converse(talk)
    return await _answer(service, name)


@post(
    "/queues/{name:str}/pause",
    status_code=200,
    summary="Pause a queue",
    responses={200: ResponseSpec(flow_shapes.Queue)},
    operation_class=with_body(OrderBody),
)
async def pause(request: AnyRequest, name: FromPath[str]) -> Answer:
    """No job of it begins until it is resumed; new ones are taken, and those that run go on."""
    talk = set_pause(f"q/{name}", "pause", of(request).settings.partitions, await word(request))
    return await _ordered(request, name, talk)


@post(
    "/queues/{name:str}/drain",
    status_code=200,
    summary="Take no new jobs for a queue",
    responses={200: ResponseSpec(flow_shapes.Queue)},
    operation_class=with_body(OrderBody),
)
async def drain(request: AnyRequest, name: FromPath[str]) -> Answer:
    """What is in it is worked off, retries included; submissions are answered 409 until it is resumed."""
    service = of(request)
    order, now_ms = await word(request), await service.store.now_ms()
    return await _ordered(request, name, drain_queue(name, order, partitions=service.settings.partitions, now_ms=now_ms))


@post(
    "/queues/{name:str}/resume",
    status_code=200,
    summary="End a pause or a draining",
    responses={200: ResponseSpec(flow_shapes.Queue)},
    operation_class=with_body(OrderBody),
)
async def resume(request: AnyRequest, name: FromPath[str]) -> Answer:
    """Both end; what waits goes on at once."""
    return await _ordered(request, name, resume_queue(name, await word(request), partitions=of(request).settings.partitions))


ROUTES: list[HTTPRouteHandler] = [list_queues, show_queue, patch_queue, pause, drain, resume]
