"""Job types and their plugins over HTTP: the catalogue, and orders to it."""

from __future__ import annotations

from typing import Literal

import msgspec
from litestar import get, patch, post
from litestar.handlers import HTTPRouteHandler
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import FromPath

from taskmaster.api import bodies, flow_shapes, views
from taskmaster.api.documents import with_body
from taskmaster.api.orders import OrderBody, etag, known_revision, word, word_of
from taskmaster.api.service import Answer, AnyRequest, Service, data, of, only
from taskmaster.engine import strict
from taskmaster.engine.catalogue import AT_ONCE_S
from taskmaster.engine.queue_rules import TypeChange, change_type
from taskmaster.engine.rules import read_rules, set_pause
from taskmaster.engine.submit import unknown_type
from taskmaster.errors import NotFound, UnknownJobType
from taskmaster.plugins.catalogue import CatalogueEntry

__all__ = ["ROUTES"]

BODY_MAX = 65_536


async def _entry(service: Service, job_type: str) -> CatalogueEntry:
    """One job type.

    Raises:
        NotFound: there is none of that name.
    """
    try:
        return (await service.catalogue.of(job_type))[0]
    except UnknownJobType:
        unknown = unknown_type(job_type, service.catalogue.types.entries)
        raise NotFound(unknown.message, **unknown.facts) from None


async def _answer(service: Service, entry: CatalogueEntry) -> Answer:
    rules = await service.store.converse(read_rules(service.settings.partitions))
    shown = views.type_of(entry, rules, key_required_by_default=service.settings.idempotency == "required")
    return data(shown, headers=etag(shown.revision))


@get("/job-types", summary="All job types", responses={200: ResponseSpec(flow_shapes.JobTypeList)})
async def list_types(request: AnyRequest) -> Answer:
    """What workers have published: schema, policy, defaults, plugin; and what operators have ordered."""
    service = of(request)
    only(request)
    await service.catalogue.look(AT_ONCE_S)
    required = service.settings.idempotency == "required"
    rules = await service.store.converse(read_rules(service.settings.partitions))
    items = [views.type_of(entry, rules, key_required_by_default=required) for entry in service.catalogue.types.entries.values()]
    return data(flow_shapes.JobTypeList(items=items))


@get("/job-types/{job_type:str}", summary="One job type", responses={200: ResponseSpec(flow_shapes.JobType)})
async def show_type(request: AnyRequest, job_type: FromPath[str]) -> Answer:
    """Schema, policy, example, plugin, version, orders."""
    service = of(request)
    only(request)
    return await _answer(service, await _entry(service, job_type))


@patch(
    "/job-types/{job_type:str}",
    summary="Say which limiters a job type needs",
    responses={200: ResponseSpec(flow_shapes.JobType)},
    operation_class=with_body(TypeChange),
)
async def patch_type(request: AnyRequest, job_type: FromPath[str]) -> Answer:
    """Instead of what its plugin says, now and when that is deployed anew; null goes back to the plugin's word."""
    service = of(request)
    only(request)
    wanted = strict.convert(strict.decode(await bodies.read(request, BODY_MAX)), TypeChange)
    known = known_revision(request)
    if known is not None:
        wanted = msgspec.structs.replace(wanted, revision=known)
    entry = await _entry(service, job_type)
    word = word_of(wanted.by, wanted.reason)
    await service.store.converse(change_type(job_type, wanted, word, partitions=service.settings.partitions))
    return await _answer(service, entry)


async def _order_type(request: AnyRequest, job_type: str, what: Literal["pause", "resume"]) -> Answer:
    service, order = of(request), await word(request)
    only(request)
    entry = await _entry(service, job_type)
    await service.store.converse(set_pause(f"t/{job_type}", what, service.settings.partitions, order))
    return await _answer(service, entry)


@post(
    "/job-types/{job_type:str}/pause",
    status_code=200,
    summary="Pause a job type",
    responses={200: ResponseSpec(flow_shapes.JobType)},
    operation_class=with_body(OrderBody),
)
async def pause_type(request: AnyRequest, job_type: FromPath[str]) -> Answer:
    """No job of it begins, in whatever queue, until it is resumed."""
    return await _order_type(request, job_type, "pause")


@post(
    "/job-types/{job_type:str}/resume",
    status_code=200,
    summary="End the pause of a job type",
    responses={200: ResponseSpec(flow_shapes.JobType)},
    operation_class=with_body(OrderBody),
)
async def resume_type(request: AnyRequest, job_type: FromPath[str]) -> Answer:
    """409 while its whole plugin is paused: resume that."""
    return await _order_type(request, job_type, "resume")


# ---------------------------------------------------------------- plugins


def _plugins(service: Service) -> dict[str, list[CatalogueEntry]]:
    by_name: dict[str, list[CatalogueEntry]] = {}
    for entry in service.catalogue.types.entries.values():
        by_name.setdefault(entry.plugin, []).append(entry)
    return by_name


async def _plugin(service: Service, name: str) -> Answer:
    """One plugin.

    Raises:
        NotFound: none of that name has published a job type.
    """
    await service.catalogue.look(AT_ONCE_S)
    entries = _plugins(service).get(name)
    if entries is None:
        shown = name[:64].encode("utf-8", "backslashreplace").decode()
        raise NotFound(f"no plugin {shown!r} has published a job type; GET /plugins lists those that have", plugin=shown)
    rules = await service.store.converse(read_rules(service.settings.partitions))
    return data(views.plugin_of(name, entries, rules))


@get("/plugins", summary="All plugins that have published a job type", responses={200: ResponseSpec(flow_shapes.PluginList)})
async def list_plugins(request: AnyRequest) -> Answer:
    """Their types, and whether they are paused."""
    service = of(request)
    only(request)
    await service.catalogue.look(AT_ONCE_S)
    rules = await service.store.converse(read_rules(service.settings.partitions))
    items = [views.plugin_of(name, entries, rules) for name, entries in sorted(_plugins(service).items())]
    return data(flow_shapes.PluginList(items=items))


@get("/plugins/{name:str}", summary="One plugin", responses={200: ResponseSpec(flow_shapes.Plugin)})
async def show_plugin(request: AnyRequest, name: FromPath[str]) -> Answer:
    """The same of one."""
    only(request)
    return await _plugin(of(request), name)


async def _order_plugin(request: AnyRequest, name: str, what: Literal["pause", "resume"]) -> Answer:
    service, order = of(request), await word(request)
    only(request)
    await _plugin(service, name)
    await service.store.converse(set_pause(f"p/{name}", what, service.settings.partitions, order))
    return await _plugin(service, name)


@post(
    "/plugins/{name:str}/pause",
    status_code=200,
    summary="Pause all job types of a plugin",
    responses={200: ResponseSpec(flow_shapes.Plugin)},
    operation_class=with_body(OrderBody),
)
async def pause_plugin(request: AnyRequest, name: FromPath[str]) -> Answer:
    """Also those that it publishes later."""
    return await _order_plugin(request, name, "pause")


@post(
    "/plugins/{name:str}/resume",
    status_code=200,
    summary="End the pause of a plugin",
    responses={200: ResponseSpec(flow_shapes.Plugin)},
    operation_class=with_body(OrderBody),
)
async def resume_plugin(request: AnyRequest, name: FromPath[str]) -> Answer:
    """Types that were paused by themselves stay paused."""
    return await _order_plugin(request, name, "resume")


ROUTES: list[HTTPRouteHandler] = [
    list_types,
    show_type,
    patch_type,
    pause_type,
    resume_type,
    list_plugins,
    show_plugin,
    pause_plugin,
    resume_plugin,
]
