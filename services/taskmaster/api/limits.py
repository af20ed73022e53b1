"""Limiters over HTTP."""

from __future__ import annotations

from litestar import delete, get, put
from litestar.handlers import HTTPRouteHandler
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import FromPath

from taskmaster.api import bodies, flow_shapes, views
from taskmaster.api.documents import with_body
from taskmaster.api.orders import etag, known_revision, word_of
from taskmaster.api.service import Answer, AnyRequest, Service, data, of, only
from taskmaster.engine import strict
from taskmaster.engine.limits import LimitRule, LimitView, delete_limit, limit_name, list_limits, put_limit
from taskmaster.engine.rules import read_rules

__all__ = ["ROUTES"]

#: A rule with a thousand overrides.
BODY_MAX = 1_048_576


async def _shown(service: Service, found: list[LimitView]) -> list[flow_shapes.Limit]:
    rules = await service.store.converse(read_rules(service.settings.partitions))
    return [views.limit_of(view, rules) for view in found]


@get("/limits", summary="All limiters", responses={200: ResponseSpec(flow_shapes.LimitList)})
async def list_all(request: AnyRequest) -> Answer:
    """What each allows, what is in use, how much waits for it, and what it is attached to."""
    service = of(request)
    only(request)
    found = await service.store.converse(list_limits(service.settings.partitions))
    return data(flow_shapes.LimitList(items=await _shown(service, found)))


@get("/limits/{name:str}", summary="One limiter", responses={200: ResponseSpec(flow_shapes.Limit)})
async def show_limit(request: AnyRequest, name: FromPath[str]) -> Answer:
    """The same of one."""
    service = of(request)
    only(request)
    found = await service.store.converse(list_limits(service.settings.partitions, name))
    [shown] = await _shown(service, found)
    return data(shown, headers=etag(shown.revision))


@put(
    "/limits/{name:str}",
    status_code=200,
    summary="Make or change a limiter",
    responses={200: ResponseSpec(flow_shapes.Limit)},
    operation_class=with_body(LimitRule),
)
async def put_one(request: AnyRequest, name: FromPath[str]) -> Answer:
    """In force at once for all workers; whoever waits for it is looked at anew. If-Match: only if nobody has changed it."""
    service = of(request)
    only(request)
    rule = strict.convert(strict.decode(await bodies.read(request, BODY_MAX)), LimitRule)
    word, known = word_of(None, ""), known_revision(request)
    talk = put_limit(limit_name(name), rule, word, partitions=service.settings.partitions, known=known)
    [shown] = await _shown(service, [await service.store.converse(talk)])
    return data(shown, headers=etag(shown.revision))


@delete("/limits/{name:str}", status_code=204, summary="Take a limiter away")
async def delete_one(request: AnyRequest, name: FromPath[str]) -> None:
    """What names it is not limited by it any more; who waited for it goes on."""
    service = of(request)
    only(request)
    word, known = word_of(None, ""), known_revision(request)
    await service.store.converse(delete_limit(name, word, partitions=service.settings.partitions, known=known))


ROUTES: list[HTTPRouteHandler] = [list_all, show_limit, put_one, delete_one]
