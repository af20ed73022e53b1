"""What is left of a job: its result, its timeline, the jobs it comes of and that came of it, and the end of its record."""

from __future__ import annotations

from typing import Annotated

from litestar import delete, get
from litestar.handlers import HTTPRouteHandler
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import FromPath, QueryParameter

from taskmaster.api import history_shapes, history_views, shapes, views
from taskmaster.api.jobs import record_of
from taskmaster.api.problems import BadParameter
from taskmaster.api.service import Answer, AnyRequest, data, of, only, raw
from taskmaster.engine import queries
from taskmaster.engine.timeline import read_timeline
from taskmaster.errors import Conflict, NotFound
from taskmaster.store import calls, reads
from taskmaster.store.status import Status

__all__ = ["ROUTES"]

_TEXT_MAX = 200


class Lineage(shapes.Shape, kw_only=True):
    """Jobs that came of one another by replays, oldest first, `rootJobId` being the first of all. `deadLetters`: ids of those that left a
    record, jobs that retention has taken among them. `truncated`: there are more than the 200 that were looked at.
    """

    root_job_id: str
    items: list[shapes.JobSummary]
    dead_letters: list[str]
    truncated: bool


class Deleted(shapes.Shape, kw_only=True):
    """The record is gone; a dead letter and the idempotency key keep their own times."""

    job_id: str
    deleted: bool = True


@get("/jobs/{job_id:str}/result", summary="The result of a job, as its handler answered it", media_type="application/json")
async def show_result(request: AnyRequest, job_id: FromPath[str]) -> Answer:
    """The bare JSON; null when the handler answered nothing. 409 with state and error as long as the job has not completed."""
    only(request)
    record, _ = await record_of(of(request), job_id, "r")
    return raw(queries.completed(record).result or b"null")


@get("/jobs/{job_id:str}/events", summary="The timeline of a job", responses={200: ResponseSpec(history_shapes.Timeline)})
async def show_timeline(request: AnyRequest, job_id: FromPath[str]) -> Answer:
    """What happened to it, when, by whom, on which worker: put together from its record, its attempts, its dead letter, its replays and,
    for callers with the scope audit:read, the rows of the audit that name it. Also when only some of these are left. What the store does
    not keep is left out.
    """
    only(request)
    service, known = of(request), queries.id_of(job_id)
    is_audited = service.may("audit:read")
    timeline = await service.store.converse(read_timeline(service.partition(known), known, with_audit=is_audited))
    return data(history_views.timeline_of(timeline, is_audited=is_audited))


@get("/jobs/{job_id:str}/lineage", summary="The replays of a job, and what it is a replay of", responses={200: ResponseSpec(Lineage)})
async def show_lineage(request: AnyRequest, job_id: FromPath[str]) -> Answer:
    """All that share its effects: what one of them did `once` is done for all."""
    only(request)
    service = of(request)
    known = queries.id_of(job_id)
    found = await service.store.run(reads.lineage(service.partition(known), known))
    if found is None:
        raise NotFound(f"there is no job {known}, or no longer", jobId=known)
    there = [queries.summary_of(reads.Found(one, "", fields)) for one, _, fields in found.rows if fields]
    return data(
        Lineage(
            root_job_id=found.root,
            items=[views.summary_of(record) for record in sorted(there, key=lambda record: (record.created_ms, record.id))],
            dead_letters=sorted(one for one, is_dead, _ in found.rows if is_dead),
            truncated=found.is_more,
        )
    )


@delete("/jobs/{job_id:str}", status_code=200, summary="Remove the record of a job that has ended", responses={200: ResponseSpec(Deleted)})
async def delete_job(
    request: AnyRequest,
    job_id: FromPath[str],
    reason: Annotated[str | None, QueryParameter(description="why; required")] = None,
    by: Annotated[str | None, QueryParameter(description="who; required")] = None,
) -> Answer:
    """Needs the scope jobs:delete. What retention would do in time; who wanted it now and why is kept in the audit. 409 while it lives."""
    service = of(request)
    service.require("jobs:delete")
    only(request, "reason", "by")
    for name, text in (("reason", reason), ("by", by)):
        if not text or len(text) > _TEXT_MAX:
            raise BadParameter(f"{name} is required, with at most {_TEXT_MAX} characters", parameter=name)
    known = queries.id_of(job_id)
    (status,) = await service.store.run(calls.purge(service.partition(known), [known], who=by or "", reason=reason or ""))
    if status is Status.GONE:
        raise NotFound(f"there is no job {known}, or no longer", jobId=known)
    if status is Status.CONFLICT:
        raise Conflict(f"job {known} has not ended; cancel it first", jobId=known)
    return data(Deleted(job_id=known))


ROUTES: list[HTTPRouteHandler] = [show_result, show_timeline, show_lineage, delete_job]
