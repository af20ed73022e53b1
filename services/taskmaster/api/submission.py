"""Submissions over HTTP: one, or up to a thousand."""

from __future__ import annotations

from typing import Any, Literal

import msgspec
from litestar import post
from litestar.handlers import HTTPRouteHandler
from litestar.openapi.datastructures import ResponseSpec

from taskmaster.api import bodies, problems, shapes
from taskmaster.api.documents import with_body
from taskmaster.api.problems import KeyConflict
from taskmaster.api.service import Answer, AnyRequest, Service, data, header, of, sending_of
from taskmaster.engine import queries, strict
from taskmaster.engine.receipts import Checked, Stored, receipt
from taskmaster.engine.submit import Prepared, Submission, prepare
from taskmaster.errors import InvalidRequest, Overloaded, StoreError, StoreFilling, TaskMasterError
from taskmaster.model.states import PRIORITIES
from taskmaster.store import reads

__all__ = ["ROUTES", "accept", "header_key", "store"]

BULK_MAX = 1_000
#: A bulk body may be that many times as large as a single one.
BULK_BODIES = 8


class Bulk(msgspec.Struct, forbid_unknown_fields=True):
    """Body of POST /jobs/bulk. Items are read one by one, so that one that is wrong spoils only itself."""

    jobs: list[Any]
    mode: Literal["independent", "atomic"] = "independent"


@post("/jobs", summary="Submit a job", responses={202: ResponseSpec(shapes.Accepted)}, operation_class=with_body(Submission))
async def submit(request: AnyRequest) -> Answer:
    """202 with the job's id: it is stored. The same key with the same request answers the first job again."""
    service = of(request)
    service.require("jobs:submit")
    body = await bodies.read(request, service.settings.max_body_bytes)
    submission = with_key(strict.convert(strict.decode(body), Submission), header(request, b"idempotency-key"))
    with sending_of(request) as span:
        stored = await store(service, await check(service, submission, span.traceparent))
        accepted = await accept(service, stored)
        span.stored(accepted.queue, accepted.type, accepted.job_id)
    told = {"location": f"/jobs/{accepted.job_id}"}
    if accepted.duplicate:
        told["idempotency-replayed"] = "true"
    return data(accepted, 202, told)


def with_key(submission: Submission, header: str | None) -> Submission:
    """The submission with the key from the header, if there is one.

    Raises:
        KeyConflict: the body has another one.
    """
    if header is None:
        return submission
    key = header_key(header)
    if submission.idempotency_key is None:
        return msgspec.structs.replace(submission, idempotency_key=key)
    if submission.idempotency_key != key:
        raise KeyConflict("the Idempotency-Key header and idempotencyKey in the body differ; send one of them, or the same in both")
    return submission


def header_key(header: str) -> str:
    """The key that an Idempotency-Key header gives: as it stands, or in the quotes of a structured field; UTF-8."""
    key = header.strip()
    if len(key) >= 2 and key[0] == key[-1] == '"':
        key = key[1:-1]
    if not key.isascii():
        try:
            return key.encode("latin-1").decode()
        except UnicodeError:
            return key
    return key


async def check(service: Service, submission: Submission, traceparent: str) -> Prepared:
    """The record to be stored.

    Raises:
        InvalidRequest: it may not be.
        StoreError: its type is not known here, and the store cannot be asked.
    """
    entry, validator = await service.catalogue.of(submission.type)
    now_ms = await service.store.now_ms()
    return prepare(submission, entry, validator, service.settings, now_ms, "api", traceparent=traceparent)


async def store(service: Service, prepared: Prepared) -> Stored:
    """Store it, together with whatever else is submitted now."""
    service.watch.admit()
    service.pressure.admit(prepared[1].queue, prepared[1].priority)
    return await service.enqueuer.one(prepared)


async def accept(service: Service, stored: Stored) -> shapes.Accepted:
    """The answer to a submission: the job as it is now; of one that is no longer kept only what its id says. Raises as `receipt`."""
    job, answer = stored
    told = receipt(job, answer)
    if not told.duplicate:
        run_ms = answer.now_ms + job.delay_ms if job.delay_ms else job.due_ms
        return shapes.Accepted(
            job_id=job.id,
            state=told.state,
            type=job.type,
            queue=job.queue,
            priority=PRIORITIES[job.priority],
            created_at=shapes.instant(told.created_ms),
            run_at=shapes.moment(run_ms),
        )
    first = await service.store.run(reads.show(service.partition(told.id), told.id, "")) if told.state else None
    if first is None:
        return shapes.Accepted(
            job_id=told.id,
            state=told.state,
            type=job.type,
            queue=job.queue,
            priority=PRIORITIES[job.priority],
            created_at=shapes.instant(told.created_ms),
            duplicate=True,
        )
    record = queries.job_of(told.id, first)
    return shapes.Accepted(
        job_id=record.id,
        state=record.state,
        type=record.type,
        queue=record.queue,
        priority=record.priority,
        created_at=shapes.instant(record.created_ms),
        run_at=shapes.moment(record.due_ms),
        duplicate=True,
    )


# ---------------------------------------------------------------- submit many


@post("/jobs/bulk", summary="Submit up to 1,000 jobs", responses={202: ResponseSpec(shapes.BulkAnswer)}, operation_class=with_body(Bulk))
async def submit_bulk(request: AnyRequest) -> Answer:
    """Independent: 202 when all were taken, else 207, with a result for each item in order. Atomic: 202, or 422 and nothing is stored."""
    service = of(request)
    service.require("jobs:submit")
    bulk = strict.convert(strict.decode(await bodies.read(request, BULK_BODIES * service.settings.max_body_bytes)), Bulk)
    if not 1 <= len(bulk.jobs) <= BULK_MAX:
        message = f"{len(bulk.jobs)} items; 1 to {BULK_MAX} are taken"
        raise InvalidRequest(f"jobs: {message}", errors=[{"pointer": "/jobs", "message": message}])
    service.watch.admit()
    await service.store.now_ms()  # a store that is away is one problem, not one for each item
    with sending_of(request) as span:
        span.many(len(bulk.jobs))
        return await _submit_bulk(service, bulk, span.traceparent, problems.trace_id(request), str(request.scope["path"]))


async def _submit_bulk(service: Service, bulk: Bulk, traceparent: str, trace: str, instance: str) -> Answer:
    checked: list[Checked] = []
    for item in bulk.jobs:
        try:
            prepared = await check(service, strict.convert(item, Submission), traceparent)
            service.pressure.admit(prepared[1].queue, prepared[1].priority)
            checked.append(prepared)
        except (Overloaded, StoreFilling) as error:
            if bulk.mode == "atomic":
                raise
            checked.append(error)
        except InvalidRequest as error:
            checked.append(error)
    if bulk.mode == "independent":
        stored = await service.enqueuer.begin(checked).results()
    else:
        stored = await service.enqueuer.atomic(checked)
    if all(isinstance(one, StoreError) for one in stored):
        raise next(one for one in stored if isinstance(one, StoreError))
    results = [await _accepted(service, one) for one in stored]
    items = [
        shapes.BulkItem(status="accepted", job=one)
        if isinstance(one, shapes.Accepted)
        else shapes.BulkItem(status="rejected", problem=problems.describe(one, instance=f"{instance}#/jobs/{index}", trace=trace))
        for index, one in enumerate(results)
    ]
    rejected = sum(item.status == "rejected" for item in items)
    answer = shapes.BulkAnswer(mode=bulk.mode, accepted=len(items) - rejected, rejected=rejected, items=items)
    if not rejected:
        return data(answer, 202)
    if bulk.mode == "independent":
        return data(answer, 207)
    raise InvalidRequest(
        f"{rejected} of {len(items)} items cannot be accepted, so none was stored",
        items=[{"index": index, "problem": item.problem} for index, item in enumerate(items) if item.problem],
    )


async def _accepted(service: Service, result: Stored | TaskMasterError) -> shapes.Accepted | TaskMasterError:
    try:
        return result if isinstance(result, TaskMasterError) else await accept(service, result)
    except TaskMasterError as error:
        return error


ROUTES: list[HTTPRouteHandler] = [submit, submit_bulk]
