"""Schedules over HTTP."""

from __future__ import annotations

import datetime as dt
import re
from typing import Annotated, Any

import msgspec
from litestar import delete, get, patch, post, put
from litestar.handlers import HTTPRouteHandler
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import FromPath, QueryParameter

from taskmaster.api import bodies, dlq_shapes, dlq_views
from taskmaster.api import schedule_views as views
from taskmaster.api.documents import with_body
from taskmaster.api.problems import BadParameter
from taskmaster.api.service import Answer, AnyRequest, Service, data, header, limit_of, of, only
from taskmaster.api.submission import header_key
from taskmaster.engine import backfills, operations, scheduled_jobs, strict
from taskmaster.engine import schedules as engine
from taskmaster.engine.backfills import BackfillOrder
from taskmaster.engine.scheduled_jobs import Jobs, Who
from taskmaster.engine.schedules import Body
from taskmaster.errors import InvalidRequest
from taskmaster.model import schedule as model
from taskmaster.store.schedules import ScheduleRow
from taskmaster_sdk.jobs import NAME

__all__ = ["ROUTES", "OrderBody"]

PREVIEW_DEFAULT, PREVIEW_MAX = 10, 100
KEY_MAX = 200
_VERSION = re.compile(r'(?:W/)?"?(\d{1,15})"?')
Text = Annotated[str, msgspec.Meta(max_length=200)]
Moment = Annotated[dt.datetime, msgspec.Meta(tz=True)]


class OrderBody(msgspec.Struct, forbid_unknown_fields=True):
    """Who orders it, and why: kept in the audit. All of it may be left out."""

    by: Text = "api"
    reason: Text = ""


@put(
    "/schedules/{schedule_id:str}",
    status_code=200,
    summary="Make or replace a schedule",
    responses={200: ResponseSpec(views.ScheduleAnswer), 201: ResponseSpec(views.ScheduleAnswer)},
    operation_class=with_body(Body),
)
async def put_schedule(request: AnyRequest, schedule_id: FromPath[str]) -> Answer:
    """201 when it is new. If-Match: only if its version is that one; `If-None-Match: *`: only if there is none. Paused stays paused."""
    service = of(request)
    only(request)
    service.require("jobs:submit")
    scheduled_jobs.home(schedule_id, service.settings.partitions)
    body = strict.convert(strict.decode(await bodies.read(request, service.settings.max_body_bytes)), Body)
    jobs = await _jobs(service, body.type)
    talk = engine.put(schedule_id, body.definition, jobs, Who("api"), enabled=body.enabled, known=_known(request))
    row, is_new = await service.store.converse(talk)
    return await _answer(service, row, 201 if is_new else 200)


@patch("/schedules/{schedule_id:str}", summary="Change some fields", responses={200: ResponseSpec(views.ScheduleAnswer)})
async def patch_schedule(request: AnyRequest, schedule_id: FromPath[str]) -> Answer:
    """The body is a JSON Merge Patch of the schedule: null takes a field back to its default. `enabled` pauses or resumes."""
    service = of(request)
    only(request)
    service.require("jobs:submit")
    change = strict.convert(strict.decode(await bodies.read(request, service.settings.max_body_bytes)), dict[str, Any])
    enabled = change.pop("enabled", None)
    if not isinstance(enabled, bool | None):
        raise InvalidRequest("enabled: true or false is meant", errors=[{"pointer": "/enabled", "message": "true or false is meant"}])
    row = await service.store.converse(engine.show(schedule_id, service.settings.partitions))
    jobs = await _jobs(service, engine.merge_patch(scheduled_jobs.spec_of(row), change).type)
    talk = engine.patch(schedule_id, change, jobs, Who("api"), enabled=enabled, known=_known(request))
    return await _answer(service, await service.store.converse(talk))


@get("/schedules", summary="Schedules, by id", responses={200: ResponseSpec(views.ScheduleList)})
async def list_schedules(
    request: AnyRequest,
    after: Annotated[str | None, QueryParameter(name="cursor", description="nextCursor of the page before")] = None,
    rows: Annotated[str | None, QueryParameter(name="limit", description="1 to 200")] = None,
) -> Answer:
    """Each as GET /schedules/{id} has it."""
    service = of(request)
    only(request, "cursor", "limit")
    limit = limit_of(rows)
    if after is not None and not NAME.fullmatch(after):
        raise BadParameter("this cursor belongs to no list of schedules; begin without one", parameter="cursor")
    found = await service.store.converse(engine.paged(service.settings.partitions, after=after or "", limit=limit + 1))
    now_ms = await service.store.now_ms()
    items = [views.schedule_of(row, now_ms, service.lens) for row in found[:limit]]
    return data(views.ScheduleList(items=items, next_cursor=found[limit - 1].id if len(found) > limit else None))


@get("/schedules/{schedule_id:str}", summary="One schedule", responses={200: ResponseSpec(views.ScheduleAnswer)})
async def show_schedule(request: AnyRequest, schedule_id: FromPath[str]) -> Answer:
    """With its next runs, what became of the last one, and in words when it runs."""
    service = of(request)
    only(request)
    return await _answer(service, await service.store.converse(engine.show(schedule_id, service.settings.partitions)))


@delete("/schedules/{schedule_id:str}", status_code=200, summary="Remove a schedule", responses={200: ResponseSpec(views.Deleted)})
async def delete_schedule(request: AnyRequest, schedule_id: FromPath[str]) -> Answer:
    """Nothing is fired for it after the answer; its jobs stay. What a plugin declares comes back with the next worker: pause it."""
    service = of(request)
    only(request)
    await service.store.converse(engine.delete(schedule_id, service.settings.partitions, Who("api"), known=_known(request)))
    return data(views.Deleted(schedule_id=schedule_id))


@post(
    "/schedules/{schedule_id:str}/pause",
    status_code=200,
    summary="Fire nothing more",
    responses={200: ResponseSpec(views.ScheduleAnswer)},
    operation_class=with_body(OrderBody),
)
async def pause_schedule(request: AnyRequest, schedule_id: FromPath[str]) -> Answer:
    """Until it is resumed; deploys do not change that. Nothing is fired after the answer."""
    return await _switch(request, schedule_id, enabled=False)


@post(
    "/schedules/{schedule_id:str}/resume",
    status_code=200,
    summary="Go on",
    responses={200: ResponseSpec(views.ScheduleAnswer)},
    operation_class=with_body(OrderBody),
)
async def resume_schedule(request: AnyRequest, schedule_id: FromPath[str]) -> Answer:
    """With the first instant from now; what came while it was paused was not missed. `backfill` makes up for it."""
    of(request).require("jobs:submit")
    return await _switch(request, schedule_id, enabled=True)


@post(
    "/schedules/{schedule_id:str}/trigger",
    status_code=202,
    summary="A job of it now, besides its own",
    responses={202: ResponseSpec(views.Triggered)},
    operation_class=with_body(OrderBody),
)
async def trigger_schedule(request: AnyRequest, schedule_id: FromPath[str]) -> Answer:
    """With an Idempotency-Key the request may be repeated: equal keys make one job. A paused schedule can be triggered."""
    service = of(request)
    only(request)
    service.require("jobs:submit")
    order, key = await _order(request), _key(request)
    row, jobs = await _row_and_jobs(service, schedule_id)
    now_ms, window_ms = await service.store.now_ms(), service.settings.idempotency_window_ms
    talk = scheduled_jobs.trigger(row, jobs, Who(order.by, order.reason), now_ms, request_id=key, key_window_ms=window_ms)
    job_id = await service.store.converse(talk)
    return data(views.Triggered(schedule_id=schedule_id, job_id=job_id), 202, {"location": f"/jobs/{job_id}"})


@post(
    "/schedules/{schedule_id:str}/backfill",
    status_code=202,
    summary="Jobs for instants of a range that is over",
    responses={202: ResponseSpec(dlq_shapes.Operation), 200: ResponseSpec(dlq_shapes.Preview)},
    operation_class=with_body(BackfillOrder),
)
async def backfill_schedule(request: AnyRequest, schedule_id: FromPath[str]) -> Answer:
    """An operation: the workers carry it out, by the definition of that time, whatever `overlap` says.

    An instant that has a job gets no other, so ranges may overlap. With an Idempotency-Key the request may be repeated. With dryRun 200:
    how many instants are meant, and some of them; nothing is stored.
    """
    service = of(request)
    only(request)
    service.require("jobs:submit")
    order, key = strict.convert(strict.decode(await bodies.read(request, 4_096)), BackfillOrder), _key(request)
    row = await service.store.converse(engine.show(schedule_id, service.settings.partitions))
    instants = backfills.instants_of(row, order, await service.store.now_ms())
    if order.dry_run:
        return data(views.backfill_preview_of(instants))
    service.watch.admit()
    named = msgspec.structs.replace(order, by=order.by or "api")
    partitions = service.settings.partitions
    operation_id, is_known = await service.store.converse(backfills.open_backfill(row, named, instants, key, partitions))
    view = await service.store.converse(operations.of_id(operation_id, partitions))
    told = {"location": f"/operations/{operation_id}"} | ({"idempotency-replayed": "true"} if is_known else {})
    return data(dlq_views.operation_of(view, is_duplicate=is_known), 202, told)


@get("/schedules/{schedule_id:str}/preview", summary="What is to come", responses={200: ResponseSpec(views.Preview)})
async def preview_schedule(
    request: AnyRequest,
    schedule_id: FromPath[str],
    count: Annotated[str | None, QueryParameter(name="count", description="1 to 100; 10 when not given")] = None,
    after: Annotated[str | None, QueryParameter(name="after", description="an instant; now when not given")] = None,
) -> Answer:
    """In UTC and in the schedule's zone, with a note where clocks change, and in words. Whether it is paused does not matter."""
    service = of(request)
    only(request, "count", "after")
    if count is not None and not (count.isascii() and count.isdigit() and len(count) <= 4 and 1 <= int(count) <= PREVIEW_MAX):
        raise BadParameter(f"count: 1 to {PREVIEW_MAX} is meant", parameter="count")
    try:
        moment = None if after is None else msgspec.convert(after, Moment)
    except msgspec.ValidationError as error:
        raise BadParameter("after: an instant with its offset is meant, such as 2027-01-31T09:00:00Z", parameter="after") from error
    row = await service.store.converse(engine.show(schedule_id, service.settings.partitions))
    after_ms = round(moment.timestamp() * 1_000) if moment else await service.store.now_ms()
    schedule = scheduled_jobs.spec_of(row)
    return data(views.preview_of(schedule, model.next_instants(schedule, after_ms, int(count or PREVIEW_DEFAULT))))


@get("/schedules/{schedule_id:str}/fires", summary="What became of its instants", responses={200: ResponseSpec(views.FireList)})
async def list_fires(
    request: AnyRequest,
    schedule_id: FromPath[str],
    rows: Annotated[str | None, QueryParameter(name="limit", description="1 to 200")] = None,
) -> Answer:
    """Fired, skipped, queued, refused or missed: each instant is told, the newest first."""
    service = of(request)
    only(request, "limit")
    found = await service.store.converse(engine.fires(schedule_id, service.settings.partitions, limit=limit_of(rows)))
    return data(views.FireList(items=[views.fire_of(fire) for fire in found]))


async def _switch(request: AnyRequest, schedule_id: str, *, enabled: bool) -> Answer:
    service = of(request)
    only(request)
    order = await _order(request)
    talk = engine.switch(schedule_id, service.settings.partitions, Who(order.by, order.reason), enabled=enabled)
    return await _answer(service, await service.store.converse(talk))


def _key(request: AnyRequest) -> str:
    """The Idempotency-Key; empty for none."""
    key = header_key(header(request, b"idempotency-key") or "")
    if len(key) > KEY_MAX:
        raise BadParameter(f"an Idempotency-Key of at most {KEY_MAX} characters is meant", parameter="Idempotency-Key")
    return key


async def _order(request: AnyRequest) -> OrderBody:
    """The body, which may be left out."""
    if header(request, b"content-length") in (None, "0") and header(request, b"transfer-encoding") is None:
        return OrderBody()
    return strict.convert(strict.decode(await bodies.read(request, 4_096)), OrderBody)


async def _row_and_jobs(service: Service, schedule_id: str) -> tuple[ScheduleRow, Jobs]:
    row = await service.store.converse(engine.show(schedule_id, service.settings.partitions))
    return row, await _jobs(service, scheduled_jobs.spec_of(row).type)


async def _jobs(service: Service, job_type: str) -> Jobs:
    entry, validator = await service.catalogue.of(job_type)
    return Jobs(entry, validator, service.settings)


async def _answer(service: Service, row: ScheduleRow, status: int = 200) -> Answer:
    shown = views.schedule_of(row, await service.store.now_ms(), service.lens)
    return data(
        shown, status, {"etag": f'"{row.version}"', "location": f"/schedules/{row.id}"} if status == 201 else {"etag": f'"{row.version}"'}
    )


def _known(request: AnyRequest) -> int | None:
    """The version that the caller expects: 0 for none, None for whatever is there."""
    if header(request, b"if-none-match") == "*":
        return 0
    wanted = header(request, b"if-match")
    if wanted is None or wanted.strip() == "*":
        return None
    found = _VERSION.fullmatch(wanted.strip())
    if not found:
        raise BadParameter('If-Match: the version of the schedule is meant, such as "3"', parameter="If-Match")
    return int(found[1])


ROUTES: list[HTTPRouteHandler] = [
    put_schedule,
    patch_schedule,
    list_schedules,
    show_schedule,
    delete_schedule,
    pause_schedule,
    resume_schedule,
    trigger_schedule,
    backfill_schedule,
    preview_schedule,
    list_fires,
]
