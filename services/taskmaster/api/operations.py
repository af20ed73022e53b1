"""Operations over many jobs, over HTTP: preview, start, follow, cancel."""

from __future__ import annotations

import re
from typing import Annotated

import msgspec
from litestar import get, post
from litestar.handlers import HTTPRouteHandler
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import FromPath, QueryParameter

from taskmaster.api import bodies, cursor, dlq_shapes, dlq_views
from taskmaster.api.documents import with_body
from taskmaster.api.problems import BadParameter
from taskmaster.api.service import Answer, AnyRequest, Service, data, limit_of, of, only
from taskmaster.api.submission import header_key
from taskmaster.engine import operations as engine
from taskmaster.engine import strict
from taskmaster.engine.orders import Action, Order, Plan, plan
from taskmaster.errors import NotFound
from taskmaster.model.scopes import Scope

__all__ = ["ROUTES"]

_ID = re.compile(r"[A-Za-z0-9_-]{22}")
_NEEDS: dict[Action, Scope] = {"replay": "dlq:replay", "discard": "dlq:discard", "cancel": "jobs:cancel"}
BODY_MAX = 131_072
Text = Annotated[str, msgspec.Meta(max_length=200)]


class EndBody(msgspec.Struct, forbid_unknown_fields=True):
    """Optional body of a cancellation."""

    reason: Text = ""
    by: Text = ""


@post(
    "/operations",
    summary="Act on many jobs or dead letters",
    responses={202: ResponseSpec(dlq_shapes.Operation), 200: ResponseSpec(dlq_shapes.Preview)},
    operation_class=with_body(Order),
)
async def open_operation(request: AnyRequest) -> Answer:
    """202: it is recorded, and the workers carry it out.

    The same Idempotency-Key with the same order is the same operation, while that is kept: 30 days after its end, among the last 1,000.
    With dryRun 200: how many entries are meant, and some of them; nothing is stored, and no scope is needed.
    """
    service = of(request)
    only(request)
    order = strict.convert(strict.decode(await bodies.read(request, BODY_MAX)), Order)
    planned = plan(order, service.settings.partitions)
    now_ms = await service.store.now_ms()
    if order.dry_run:
        return data(await _preview(service, planned, now_ms))
    service.require(_NEEDS[planned.action])
    header = request.headers.get("idempotency-key")
    key = header_key(header) if header is not None else ""
    if len(key) > 255:
        raise BadParameter("the Idempotency-Key header has more than 255 characters", parameter="Idempotency-Key")
    service.watch.admit()
    named = planned._replace(order=msgspec.structs.replace(order, by=order.by or "api"))
    operation_id, is_known = await service.store.converse(engine.open_order(named, key, service.settings.partitions, now_ms=now_ms))
    view = await service.store.converse(engine.of_id(operation_id, service.settings.partitions))
    told = {"location": f"/operations/{operation_id}"}
    if is_known:
        told["idempotency-replayed"] = "true"
    return data(dlq_views.operation_of(view, is_duplicate=is_known), 202, told)


async def _preview(service: Service, planned: Plan, now_ms: int) -> dlq_shapes.Preview:
    totals = [await service.store.converse(engine.count(planned, p, upto_ms=now_ms)) for p in service.partitions]
    return dlq_views.preview_of(planned, totals)


@get("/operations", summary="Operations, newest first", responses={200: ResponseSpec(dlq_shapes.OperationList)})
async def list_operations(
    request: AnyRequest,
    after: Annotated[str | None, QueryParameter(name="cursor", description="nextCursor of the page before")] = None,
    rows: Annotated[str | None, QueryParameter(name="limit", description="1 to 200")] = None,
) -> Answer:
    """The last 1,000, for 30 days after their end."""
    service = of(request)
    only(request, "cursor", "limit")
    limit = limit_of(rows)
    place = cursor.unpack(after, "operations", member=_ID)
    views, place_next = await service.store.converse(engine.newest(service.settings.partitions, after=place, limit=limit))
    word = cursor.pack(place_next, "operations")
    answer = dlq_shapes.OperationList(items=[dlq_views.operation_of(view) for view in views], next_cursor=word)
    return data(answer) if word is None else data(answer, headers={"link": cursor.next_link("/operations", word, limit=rows)})


@get("/operations/{operation_id:str}", summary="One operation", responses={200: ResponseSpec(dlq_shapes.Operation)})
async def show_operation(request: AnyRequest, operation_id: FromPath[str]) -> Answer:
    """How far it is, and what became of the jobs that it made."""
    service = of(request)
    only(request)
    view = await service.store.converse(engine.of_id(_known(operation_id), service.settings.partitions))
    return data(dlq_views.operation_of(view))


@post(
    "/operations/{operation_id:str}/cancel",
    status_code=200,
    summary="End an operation",
    responses={200: ResponseSpec(dlq_shapes.Operation)},
    operation_class=with_body(EndBody),
)
async def cancel_operation(request: AnyRequest, operation_id: FromPath[str]) -> Answer:
    """It does no more; what it has done stays done. 409 when it has ended otherwise."""
    service = of(request)
    only(request)
    raw = await bodies.read(request, 4_096)
    body = strict.convert(strict.decode(raw), EndBody) if raw.strip() else EndBody()
    talk = engine.cancel(_known(operation_id), service.settings.partitions, by=body.by or "api", reason=body.reason)
    return data(dlq_views.operation_of(await service.store.converse(talk)))


def _known(text: str) -> str:
    if not _ID.fullmatch(text):
        shown = text[:64].encode("utf-8", "backslashreplace").decode()
        raise NotFound(f"there is no operation {shown!r}", operationId=shown)
    return text


ROUTES: list[HTTPRouteHandler] = [open_operation, list_operations, show_operation, cancel_operation]
