"""Tenants over HTTP: who has jobs with one fairness key, and whether they are paused."""

from __future__ import annotations

from typing import Literal

from litestar import get, post
from litestar.handlers import HTTPRouteHandler
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import FromPath

from taskmaster.api import flow_shapes, views
from taskmaster.api.documents import with_body
from taskmaster.api.orders import OrderBody, word
from taskmaster.api.service import Answer, AnyRequest, data, of, only
from taskmaster.engine.rules import paused_tenants, read_rules, set_pause

__all__ = ["ROUTES"]


@get("/tenants", summary="Tenants that are paused", responses={200: ResponseSpec(flow_shapes.TenantList)})
async def list_tenants(request: AnyRequest) -> Answer:
    """A tenant is who has the fairness key of that name; others than those that are paused are not kept anywhere."""
    service = of(request)
    only(request)
    found = paused_tenants(await service.store.converse(read_rules(service.settings.partitions)))
    return data(flow_shapes.TenantList(items=[views.tenant_of(name, pause) for name, pause in found.items()]))


async def _answer(request: AnyRequest, name: str) -> Answer:
    service = of(request)
    found = paused_tenants(await service.store.converse(read_rules(service.settings.partitions)))
    return data(views.tenant_of(name, found.get(name)))


@get("/tenants/{name:str}", summary="One tenant", responses={200: ResponseSpec(flow_shapes.Tenant)})
async def show_tenant(request: AnyRequest, name: FromPath[str]) -> Answer:
    """Whether it is paused."""
    only(request)
    return await _answer(request, name)


async def _order(request: AnyRequest, name: str, what: Literal["pause", "resume"]) -> Answer:
    service, order = of(request), await word(request)
    only(request)
    await service.store.converse(set_pause(f"k/{name}", what, service.settings.partitions, order))
    return await _answer(request, name)


@post(
    "/tenants/{name:str}/pause",
    status_code=200,
    summary="Pause a tenant",
    responses={200: ResponseSpec(flow_shapes.Tenant)},
    operation_class=with_body(OrderBody),
)
async def pause_tenant(request: AnyRequest, name: FromPath[str]) -> Answer:
    """No job with its fairness key begins, in whatever queue, until it is resumed; new ones are taken, and those that run go on."""
    return await _order(request, name, "pause")


@post(
    "/tenants/{name:str}/resume",
    status_code=200,
    summary="End the pause of a tenant",
    responses={200: ResponseSpec(flow_shapes.Tenant)},
    operation_class=with_body(OrderBody),
)
async def resume_tenant(request: AnyRequest, name: FromPath[str]) -> Answer:
    """What waits goes on at once, in its turn."""
    return await _order(request, name, "resume")


ROUTES: list[HTTPRouteHandler] = [list_tenants, show_tenant, pause_tenant, resume_tenant]
