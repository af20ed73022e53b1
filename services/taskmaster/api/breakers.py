"""Circuit breakers over HTTP: look, set up, open and close by order."""

from __future__ import annotations

import secrets
from typing import Annotated, Literal

import msgspec
from litestar import get, post, put
from litestar.handlers import HTTPRouteHandler
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import FromPath

from taskmaster.api import bodies
from taskmaster.api.documents import with_body
from taskmaster.api.service import Answer, AnyRequest, Service, data, of, only
from taskmaster.api.shapes import Shape, instant, moment
from taskmaster.engine import breakers as engine
from taskmaster.engine import strict
from taskmaster.engine.breakers import BreakerState, BreakerView
from taskmaster.errors import InvalidRequest
from taskmaster.model.breaker import BreakerRule
from taskmaster.store import breakers as calls
from taskmaster.store.flow import Order
from taskmaster_sdk.jobs import NAME

__all__ = ["ROUTES", "Breaker", "breaker_of"]

_BODY_MAX = 4_096


class Breaker(Shape, kw_only=True):
    """The breaker of one dependency.

    `closed`: calls go; `open`: none until `openUntil` (null: until it is closed by order); `probing`: `probes` at a time. `waiting` counts
    what waits for it as units: a queue, a type in it, or the jobs of one fairness key, however many.
    """

    name: str
    state: BreakerState
    open_until: str | None
    since: str | None
    cause: str | None
    by: str | None
    reason: str | None
    calls: int
    failures: int
    failure_rate: float | None
    probing: int
    probes: int
    waiting: int
    types: list[str]
    settings: BreakerRule
    revision: int


class BreakerList(Shape, kw_only=True):
    """All of them."""

    items: list[Breaker]
    next_cursor: str | None = None


class ForceBody(msgspec.Struct, forbid_unknown_fields=True):
    """Why it is forced; kept in the audit."""

    reason: Annotated[str, msgspec.Meta(min_length=1, max_length=150)]
    by: Annotated[str, msgspec.Meta(max_length=100)] = "api"


def breaker_of(view: BreakerView) -> Breaker:
    """The wire form."""
    return Breaker(
        name=view.dependency,
        state=view.state,
        open_until=None if view.until_ms is None else instant(view.until_ms),
        since=moment(view.since_ms),
        cause=view.cause or None,
        by=view.who or None,
        reason=view.why or None,
        calls=view.calls,
        failures=view.failures,
        failure_rate=round(view.failures / view.calls, 4) if view.calls else None,
        probing=view.probing,
        probes=view.probes,
        waiting=view.waiting,
        types=list(view.types),
        settings=view.rule,
        revision=view.revision,
    )


async def _views(service: Service, name: str = "") -> list[BreakerView]:
    rows = [row for p in service.partitions for row in await service.store.run(calls.breakers(p, name))]
    return engine.merge_breakers(rows, await service.store.now_ms())


async def _one(service: Service, name: str) -> Answer:
    found = await _views(service, name) if NAME.fullmatch(name) else []
    if not found:
        raise engine.unknown(name)
    return data(breaker_of(found[0]), headers={"etag": f'"{found[0].revision}"'})


@get("/breakers", summary="All circuit breakers", responses={200: ResponseSpec(BreakerList)})
async def list_breakers(request: AnyRequest) -> Answer:
    """One for each dependency that a job type names or somebody has set up."""
    only(request)
    return data(BreakerList(items=[breaker_of(view) for view in await _views(of(request))]))


@get("/breakers/{name:str}", summary="One circuit breaker", responses={200: ResponseSpec(Breaker)})
async def show_breaker(request: AnyRequest, name: FromPath[str]) -> Answer:
    """State, why, what waits, and what it is judged by."""
    only(request)
    return await _one(of(request), name)


@put(
    "/breakers/{name:str}",
    summary="Set up a circuit breaker",
    responses={200: ResponseSpec(Breaker)},
    operation_class=with_body(BreakerRule),
)
async def put_breaker(request: AnyRequest, name: FromPath[str]) -> Answer:
    """What the body leaves out is as usual. Its state stays as it is. Made when there is none."""
    only(request)
    service = of(request)
    if not NAME.fullmatch(name):
        raise InvalidRequest("a breaker's name is 1 to 64 of a-z 0-9 . _ - and begins with a letter or digit")
    body = await bodies.read(request, _BODY_MAX)
    rule = strict.convert(strict.decode(body), BreakerRule)
    order = Order(secrets.token_hex(8), None, "api", "")
    engine.changed(name, [await service.store.run(calls.put_breaker(p, name, rule, order)) for p in service.partitions])
    return await _one(service, name)


async def _force(request: AnyRequest, name: str, what: Literal["open", "close"]) -> Answer:
    only(request)
    service = of(request)
    wanted = strict.convert(strict.decode(await bodies.read(request, _BODY_MAX)), ForceBody)
    if not NAME.fullmatch(name):
        raise engine.unknown(name)
    order = Order(secrets.token_hex(8), None, wanted.by, wanted.reason)
    engine.changed(name, [await service.store.run(calls.force(p, name, what, order)) for p in service.partitions])
    return await _one(service, name)


@post(
    "/breakers/{name:str}/force-open",
    status_code=200,
    summary="Let no call through",
    responses={200: ResponseSpec(Breaker)},
    operation_class=with_body(ForceBody),
)
async def force_open(request: AnyRequest, name: FromPath[str]) -> Answer:
    """Until it is closed by order. What runs goes on; what waits burns no attempt."""
    return await _force(request, name, "open")


@post(
    "/breakers/{name:str}/force-close",
    status_code=200,
    summary="Let all calls through",
    responses={200: ResponseSpec(Breaker)},
    operation_class=with_body(ForceBody),
)
async def force_close(request: AnyRequest, name: FromPath[str]) -> Answer:
    """At once, without probing. From then on it is judged anew: when calls go on failing it opens again."""
    return await _force(request, name, "close")


ROUTES: list[HTTPRouteHandler] = [list_breakers, show_breaker, put_breaker, force_open, force_close]
