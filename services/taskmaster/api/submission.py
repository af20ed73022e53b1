"""Submissions over HTTP: one, or up to a thousand."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Literal

import msgspec
from litestar import post
from litestar.handlers import HTTPRouteHandler
from litestar.openapi.datastructures import ResponseSpec

from taskmaster.api import problems, shapes, strict
from taskmaster.api.documents import with_body
from taskmaster.api.problems import KeyConflict
from taskmaster.api.service import Answer, AnyRequest, Service, data, header, of
from taskmaster.engine import queries
from taskmaster.engine.submit import Prepared, Submission, prepare, renew
from taskmaster.errors import (
    EffectUnsettled,
    InvalidRequest,
    KeyReused,
    NotFound,
    Overloaded,
    StoreError,
    StoreFilling,
    StoreUnavailable,
    TaskMasterError,
)
from taskmaster.model.ids import created_ms, new_job_id, slot_of
from taskmaster.model.states import PRIORITIES
from taskmaster.store import reads
from taskmaster.store.calls import NewJob, Submitted
from taskmaster.store.status import Status

__all__ = ["ROUTES", "accept", "header_key", "store", "trace_context"]

BULK_MAX = 1_000
#: A bulk body may be that many times as large as a single one.
BULK_BODIES = 8
_TRACEPARENT = re.compile(r"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


def trace_context(traceparent: str | None) -> str:
    """The W3C trace context of a request; empty for none, or for one that is malformed."""
    return traceparent if traceparent and _TRACEPARENT.fullmatch(traceparent) else ""


class Bulk(msgspec.Struct, forbid_unknown_fields=True):
    """Body of POST /jobs/bulk. Items are read one by one, so that one that is wrong spoils only itself."""

    jobs: list[Any]
    mode: Literal["independent", "atomic"] = "independent"


@post("/jobs", summary="Submit a job", responses={202: ResponseSpec(shapes.Accepted)}, operation_class=with_body(Submission))
async def submit(request: AnyRequest) -> Answer:
    """202 with the job's id: it is stored. The same key with the same request answers the first job again."""
    service = of(request)
    body = await strict.read(request, service.settings.max_body_bytes)
    submission = with_key(strict.convert(strict.decode(body), Submission), header(request, b"idempotency-key"))
    prepared = await check(service, submission, header(request, b"traceparent"))
    job, answer = await store(service, prepared)
    accepted = await accept(service, job, answer)
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


async def check(service: Service, submission: Submission, traceparent: str | None) -> Prepared:
    """The record to be stored.

    Raises:
        InvalidRequest: it may not be.
        StoreError: its type is not known here, and the store cannot be asked.
    """
    entry, validator = await service.catalogue.of(submission.type)
    now_ms = await service.store.now_ms()
    trace = trace_context(traceparent)
    return prepare(submission, entry, validator, service.settings, now_ms, "api", traceparent=trace)


async def store(service: Service, prepared: Prepared) -> tuple[NewJob, Submitted]:
    """Store it, together with whatever else is submitted now. A clock that ran away is set by the store's and tried once more."""
    service.watch.admit()
    partition, job = prepared
    service.pressure.admit(job.queue, job.priority)
    answer = await service.gather.submit(partition, job)
    if answer.status is Status.TOO_OLD:
        job = renew(job, answer.now_ms)
        await service.store.align()
        answer = await service.gather.submit(partition, job)
    return job, answer


async def accept(service: Service, job: NewJob, answer: Submitted) -> shapes.Accepted:
    """The answer to a submission, from the store's.

    Raises:
        KeyReused: the key belongs to another request; fact `jobId`.
        NotFound: the source of a replay is gone.
    """
    status = answer.status
    if status is Status.OK:
        run_ms = answer.now_ms + job.delay_ms if job.delay_ms else job.due_ms
        return shapes.Accepted(
            job_id=job.id,
            state=answer.state,
            type=job.type,
            queue=job.queue,
            priority=PRIORITIES[job.priority],
            created_at=shapes.instant(created_ms(job.id)),
            run_at=shapes.moment(run_ms),
        )
    if status is Status.DUPLICATE:
        return await _first(service, job, answer)
    if status is Status.REUSED:
        raise KeyReused(
            "this idempotency key was used before with another payload or other options; take a new key for a new request", jobId=answer.id
        )
    if status is Status.GONE:
        raise NotFound(f"there is no job {job.replayed_from} any more", jobId=job.replayed_from)
    if status is Status.UNKNOWN:
        raise EffectUnsettled(
            f"an effect of job {job.replayed_from} or of its replays is not settled: find out whether it happened and settle it (GET "
            f"/jobs/{job.replayed_from}/effects), or replay with acceptUnknown: the handler will meet the open effect",
            jobId=job.replayed_from,
        )
    raise StoreUnavailable(f"the job was not stored ({status.name}); repeat the request")


async def _first(service: Service, job: NewJob, answer: Submitted) -> shapes.Accepted:
    """The job that the key stands for, as it is now; of one that is no longer kept only what its id says."""
    first = await service.store.run(reads.show(service.partition(answer.id), answer.id, "")) if answer.state else None
    if first is None:
        return shapes.Accepted(
            job_id=answer.id,
            state=answer.state,
            type=job.type,
            queue=job.queue,
            priority=PRIORITIES[job.priority],
            created_at=shapes.instant(created_ms(answer.id)),
            duplicate=True,
        )
    record = queries.job_of(answer.id, first)
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
    bulk = strict.convert(strict.decode(await strict.read(request, BULK_BODIES * service.settings.max_body_bytes)), Bulk)
    if not 1 <= len(bulk.jobs) <= BULK_MAX:
        message = f"{len(bulk.jobs)} items; 1 to {BULK_MAX} are taken"
        raise InvalidRequest(f"jobs: {message}", errors=[{"pointer": "/jobs", "message": message}])
    service.watch.admit()
    await service.store.now_ms()  # a store that is away is one problem, not one for each item
    traceparent = request.headers.get("traceparent")
    checked: list[Prepared | TaskMasterError] = []
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
    results = await (_independent(service, checked) if bulk.mode == "independent" else _atomic(service, checked))
    trace, instance = problems.trace_id(request), str(request.scope["path"])
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


async def _independent(service: Service, checked: Sequence[Prepared | TaskMasterError]) -> list[shapes.Accepted | TaskMasterError]:
    futures = [None if isinstance(one, TaskMasterError) else service.gather.submit(*one) for one in checked]
    results: list[shapes.Accepted | TaskMasterError] = []
    for one, waits in zip(checked, futures, strict=True):
        if isinstance(one, TaskMasterError):
            results.append(one)
            continue
        try:
            partition, job = one
            answer = await (waits or service.gather.submit(partition, job))
            if answer.status is Status.TOO_OLD:
                job = renew(job, answer.now_ms)
                answer = await service.gather.submit(partition, job)
            results.append(await accept(service, job, answer))
        except TaskMasterError as error:
            results.append(error)
    if all(isinstance(one, StoreError) for one in results):
        raise next(one for one in results if isinstance(one, StoreError))
    return results


async def _atomic(service: Service, checked: Sequence[Prepared | TaskMasterError]) -> list[shapes.Accepted | TaskMasterError]:
    ready = [one for one in checked if not isinstance(one, TaskMasterError)]
    aborted = InvalidRequest("not stored: another item of this batch cannot be accepted")
    if len(ready) < len(checked):
        return [one if isinstance(one, TaskMasterError) else aborted for one in checked]
    partition, jobs = _together(ready)
    answers = await service.gather.run(partition, jobs, atomic=True)
    if any(answer.status is Status.TOO_OLD for answer in answers):
        await service.store.align()
        jobs = [renew(job, answers[0].now_ms) for job in jobs]
        answers = await service.gather.run(partition, jobs, atomic=True)
    results: list[shapes.Accepted | TaskMasterError] = []
    for job, answer in zip(jobs, answers, strict=True):
        try:
            results.append(aborted if answer.status is Status.ABORTED else await accept(service, job, answer))
        except TaskMasterError as error:
            results.append(error)
    if any(isinstance(one, TaskMasterError) for one in results):
        return [one if isinstance(one, TaskMasterError) or one.duplicate else aborted for one in results]
    return results


def _together(ready: Sequence[Prepared]) -> tuple[int, list[NewJob]]:
    """All in one partition: jobs without a key go where those with one must go.

    Raises:
        InvalidRequest: keys belong to several partitions, and one step cannot span them.
    """
    homes = {partition for partition, job in ready if job.key}
    if len(homes) > 1:
        raise InvalidRequest("the keys of this batch live in several partitions of the store, so it cannot be atomic; use independent")
    if not homes:
        homes = {ready[0][0]}
    home = homes.pop()
    slot = next(slot_of(job.id) for partition, job in ready if partition == home)
    jobs = [job if partition == home else job._replace(id=new_job_id(created_ms(job.id), slot)) for partition, job in ready]
    return home, jobs


# ---------------------------------------------------------------- look


ROUTES: list[HTTPRouteHandler] = [submit, submit_bulk]
