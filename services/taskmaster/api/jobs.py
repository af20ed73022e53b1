"""Jobs over HTTP: list, look, wait, cancel, replay."""

from __future__ import annotations

import re
from hashlib import blake2b
from typing import Annotated, Any

import msgspec
from litestar import get, patch, post
from litestar.handlers import HTTPRouteHandler
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import FromPath, QueryParameter

from taskmaster.api import bodies, cursor, shapes, views
from taskmaster.api.documents import with_body
from taskmaster.api.filters import instant_of
from taskmaster.api.problems import BadParameter, PreconditionFailed
from taskmaster.api.service import Answer, AnyRequest, Service, data, limit_of, of, only, raw, sending_of
from taskmaster.api.submission import accept, header_key, store
from taskmaster.engine import control, dlq, queries, strict
from taskmaster.engine.change import AT_ONCE, Change, change_job
from taskmaster.engine.producing import Sending
from taskmaster.engine.submit import Prepared
from taskmaster.engine.why import explain
from taskmaster.errors import NotFound
from taskmaster.model.job import JobRecord
from taskmaster.model.lanes import key_name
from taskmaster.model.states import CODE, PRIORITIES, STATES, TERMINAL, State
from taskmaster.store import calls, reads

__all__ = ["ROUTES", "record_of", "replay_answer", "replay_request"]

WAIT_MAX_S = 60
_TAG = re.compile(r"[A-Za-z0-9._:@-]{1,64}")
_PREFER_WAIT = re.compile(r"(?:^|[,;\s])wait\s*=\s*\"?(\d{1,6})\"?(?=$|[,;\s])", re.IGNORECASE)


class ReplayBody(msgspec.Struct, forbid_unknown_fields=True):
    """Optional body of a replay: why it is made, and whether an effect that is not settled may stand in its way."""

    reason: Annotated[str, msgspec.Meta(max_length=150)] = ""
    accept_unknown: bool = msgspec.field(name="acceptUnknown", default=False)


async def record_of(service: Service, text: str, parts: str) -> tuple[JobRecord, reads.Shown]:
    """The job whose id is *text*.

    Raises:
        NotFound: there is none.
    """
    job_id = queries.id_of(text)
    shown = queries.found(job_id, await service.store.run(reads.show(service.partition(job_id), job_id, parts)))
    return queries.job_of(job_id, shown), shown


@get("/jobs", summary="List jobs, newest first", responses={200: ResponseSpec(shapes.JobList)})
async def list_jobs(
    request: AnyRequest,
    wanted: Annotated[str | None, QueryParameter(name="state", description=f"one of {', '.join(STATES)}")] = None,
    job_type: Annotated[str | None, QueryParameter(name="type")] = None,
    queue: Annotated[str | None, QueryParameter()] = None,
    tag: Annotated[str | None, QueryParameter()] = None,
    priority: Annotated[str | None, QueryParameter(description=f"one of {', '.join(PRIORITIES)}")] = None,
    fairness_key: Annotated[str | None, QueryParameter(name="fairnessKey")] = None,
    created_after: Annotated[str | None, QueryParameter(name="createdAfter", description="an instant: created then or later")] = None,
    created_before: Annotated[str | None, QueryParameter(name="createdBefore", description="an instant: created earlier")] = None,
    finished_after: Annotated[str | None, QueryParameter(name="finishedAfter", description="an instant: ended then or later")] = None,
    finished_before: Annotated[str | None, QueryParameter(name="finishedBefore", description="an instant: ended earlier")] = None,
    after: Annotated[str | None, QueryParameter(name="cursor", description="nextCursor of the page before")] = None,
    rows: Annotated[str | None, QueryParameter(name="limit", description="1 to 200")] = None,
) -> Answer:
    """By creation; with a tag by when they got it; else in a state's own order where one is asked for. `finishedAfter` and `finishedBefore`
    need a state that has ended; with `createdAfter` or `createdBefore` the order is that of creation. A page may be short, even empty, and
    still have a next one.
    """
    service = of(request)
    times = {
        "createdAfter": created_after,
        "createdBefore": created_before,
        "finishedAfter": finished_after,
        "finishedBefore": finished_before,
    }
    only(request, "state", "type", "queue", "tag", "priority", "fairnessKey", *times, "cursor", "limit")
    limit = limit_of(rows)
    state = _state_of(wanted)
    if priority is not None and priority not in PRIORITIES:
        raise BadParameter(f"there is no such priority; it is one of {', '.join(PRIORITIES)}", parameter="priority")
    filters = (
        "jobs",
        state or "",
        job_type or "",
        queue or "",
        tag or "",
        priority or "",
        fairness_key or "",
        *(text or "" for text in times.values()),
    )
    place = cursor.unpack(after, *filters)
    created, finished = _span(times, "createdAfter", "createdBefore"), _span(times, "finishedAfter", "finishedBefore")
    index, (since_ms, before_ms) = _index_of(state, created, finished, is_tagged=tag is not None)
    asked: dict[str, Any] = {
        "state": CODE[state] if state else "",
        "job_type": _name(job_type),
        "queue": _name(queue),
        "tag": "" if tag is None else tag if _TAG.fullmatch(tag) else "-",
        "priority": PRIORITIES.index(priority) if priority else None,
        "fairness_key": key_name(fairness_key) if fairness_key else "",
        "since_ms": since_ms,
        "before_ms": before_ms,
    }
    pages = [await service.store.run(reads.find(p, index, **asked, after=place, limit=limit)) for p in service.partitions]
    found, place_next = queries.merge_pages(pages, limit)
    word = cursor.pack(place_next, *filters)
    answer = shapes.JobList(items=[views.summary_of(queries.summary_of(row)) for row in found], next_cursor=word)
    if word is None:
        return data(answer)
    asked_for = {"state": wanted, "type": job_type, "queue": queue, "tag": tag, "priority": priority, "fairnessKey": fairness_key} | times
    return data(answer, headers={"link": cursor.next_link("/jobs", word, **asked_for, limit=rows)})


def _span(times: dict[str, str | None], after: str, before: str) -> tuple[int, int]:
    """From when on, and until before when, in Unix ms; 0: not bounded."""
    return instant_of(times[after], after), instant_of(times[before], before)


def _index_of(
    state: State | None, created: tuple[int, int], finished: tuple[int, int], *, is_tagged: bool
) -> tuple[reads.Index, tuple[int, int]]:
    """Where to look, and the span of time that bounds it."""
    if any(created):
        if any(finished) or is_tagged:
            raise BadParameter("times of creation go with no tag and no times of the end", parameter="createdAfter")
        return "created", created
    if any(finished) and (state not in TERMINAL or is_tagged):
        raise BadParameter("times of the end go with no tag, and need a state: completed, failed or cancelled", parameter="state")
    if is_tagged:
        return "tagged", finished
    if state in TERMINAL:
        return "finished", finished
    return (state if state in ("waiting", "delayed", "active") else "created"), finished


def _state_of(text: str | None) -> State | None:
    if text is None:
        return None
    if text == "queued":
        return "waiting"
    for state in STATES:
        if text == state:
            return state
    raise BadParameter(f"there is no such state; it is one of {', '.join(STATES)}", parameter="state")


def _name(text: str | None) -> str:
    """A name to filter by, as the script takes it: one that cannot be a name matches nothing."""
    return "" if text is None else text if re.fullmatch(r"[a-z0-9._-]{1,64}", text) else "-"


@get("/jobs/{job_id:str}", summary="Everything about a job", responses={200: ResponseSpec(shapes.Job)})
async def show_job(
    request: AnyRequest,
    job_id: FromPath[str],
    view: Annotated[str | None, QueryParameter(description="basic: without payload and result")] = None,
    wait: Annotated[str | None, QueryParameter(description="seconds to wait for the job to end, at most 60")] = None,
    reveal: Annotated[str | None, QueryParameter(description="true: also what is marked secret or pii; needs payload:reveal")] = None,
) -> Answer:
    """With `wait` (or `Prefer: wait=20`) it answers when the job has ended, or after that many seconds with its present state.

    Fields of the payload that its type marks secret or pii are `***`; with `reveal` they are shown, and that is kept in the audit.
    """
    service = of(request)
    only(request, "view", "wait", "reveal")
    if view not in (None, "full", "basic"):
        raise BadParameter("view is full or basic", parameter="view")
    parts = "be" if view == "basic" else "br"
    headers = {"cache-control": "private, no-cache"}
    wait_s = _wait_of(wait)
    if wait_s is None:
        preferred = _PREFER_WAIT.search(request.headers.get("prefer", ""))
        if preferred:
            wait_s = min(WAIT_MAX_S, int(preferred[1]))
            headers["preference-applied"] = f"wait={wait_s}"

    async def look() -> JobRecord:
        return (await record_of(service, job_id, parts))[0]

    if wait_s:
        known = queries.id_of(job_id)
        record = await service.waiting.until(service.partition(known), known, look=look, is_enough=queries.is_ended, within_s=wait_s)
    else:
        record = await look()
    lens = await service.lens_for(reveal, record.id)
    body = shapes.encode(views.job_of(record, lens, basic=view == "basic"))
    headers["etag"] = tag = _tag(body)
    if _is_known(request.headers.get("if-none-match"), tag):
        return raw(b"", 304, headers)
    return raw(body, headers=headers)


def _wait_of(text: str | None) -> float | None:
    if text is None:
        return None
    if not re.fullmatch(r"\d{1,4}(\.\d{1,3})?", text) or float(text) > WAIT_MAX_S:
        raise BadParameter(f"wait is a number of seconds, 0 to {WAIT_MAX_S}", parameter="wait")
    return float(text)


def _tag(body: bytes) -> str:
    return f'"{blake2b(body, digest_size=12).hexdigest()}"'


def _is_known(header: str | None, tag: str) -> bool:
    if not header:
        return False
    return any(known.strip().removeprefix("W/") in (tag, "*") for known in header.split(","))


@get("/jobs/{job_id:str}/status", summary="A job in short", responses={200: ResponseSpec(shapes.JobStatus)})
async def show_status(request: AnyRequest, job_id: FromPath[str]) -> Answer:
    """State, times, progress, and why it failed."""
    only(request)
    record, _ = await record_of(of(request), job_id, "e")
    return data(views.status_of(record))


@get("/jobs/{job_id:str}/attempts", summary="The attempts of a job", responses={200: ResponseSpec(shapes.AttemptList)})
async def show_attempts(request: AnyRequest, job_id: FromPath[str]) -> Answer:
    """Who ran it, when, with which version of the plugin, and how that ended; oldest first."""
    only(request)
    service = of(request)
    record, shown = await record_of(service, job_id, "h")
    return data(shapes.AttemptList(items=[views.attempt_of(view, service.lens) for view in queries.attempts_of(record, shown)]))


@get("/jobs/{job_id:str}/why", summary="What keeps a job from running", responses={200: ResponseSpec(shapes.Why)})
async def show_why(request: AnyRequest, job_id: FromPath[str]) -> Answer:
    """The reasons in order, with their numbers: the first is what holds it now; asked of the rules by which jobs are claimed."""
    only(request)
    service = of(request)
    known = queries.id_of(job_id)
    found = await service.store.run(reads.why(service.partition(known), known))
    if found is None:
        raise NotFound(f"there is no job {known}, or no longer", jobId=known)
    return data(views.why_of(explain(known, found)))


# ---------------------------------------------------------------- act


@post(
    "/jobs/{job_id:str}/cancel",
    status_code=200,
    summary="Cancel a job",
    responses={200: ResponseSpec(shapes.Cancellation), 202: ResponseSpec(shapes.Cancellation)},
)
async def cancel_job(request: AnyRequest, job_id: FromPath[str]) -> Answer:
    """200: it is cancelled. 202: it runs, and its worker has been asked to stop."""
    service = of(request)
    service.require("jobs:cancel")
    known = queries.id_of(job_id)
    call = calls.cancel(service.partition(known), known, who="api", key_window_ms=service.settings.idempotency_window_ms)
    state = control.cancelled(known, await service.store.run(call))
    is_over = state == "cancelled"
    answer = shapes.Cancellation(job_id=known, status="cancelled" if is_over else "cancelling", state=state)
    return data(answer, 200 if is_over else 202)


async def _changed(request: AnyRequest, job_id: str, wanted: Change) -> Answer:
    service = of(request)
    if_match = request.headers.get("if-match")

    def check(record: JobRecord) -> None:
        shown = (_tag(shapes.encode(views.job_of(record, service.lens, basic=basic))) for basic in (False, True))
        if if_match is not None and not any(_is_known(if_match, tag) for tag in shown):
            raise PreconditionFailed(
                f"job {record.id} is not as If-Match says: get it again, and decide anew", jobId=record.id, revision=record.revision
            )

    talk = change_job(
        queries.id_of(job_id),
        wanted,
        partitions=service.settings.partitions,
        find=service.catalogue.types.find,
        max_bytes=service.settings.max_body_bytes,
        now_ms=await service.store.now_ms(),
        check=check if if_match is not None else None,
    )
    body = shapes.encode(views.job_of(await service.store.converse(talk), service.lens, basic=False))
    return raw(body, headers={"etag": _tag(body)})


@patch(
    "/jobs/{job_id:str}",
    summary="Change a job that has not begun",
    responses={200: ResponseSpec(shapes.Job)},
    operation_class=with_body(Change),
)
async def patch_job(request: AnyRequest, job_id: FromPath[str]) -> Answer:
    """Priority, time, tags or payload of a job that waits or is delayed; 409 with its state otherwise. If-Match or `revision` sees to it
    that nobody else has changed it meanwhile.
    """
    only(request)
    of(request).require("jobs:submit")
    limit = of(request).settings.max_body_bytes
    return await _changed(request, job_id, strict.convert(strict.decode(await bodies.read(request, limit)), Change))


@post("/jobs/{job_id:str}/run-now", status_code=200, summary="Run a delayed job at once", responses={200: ResponseSpec(shapes.Job)})
async def run_now(request: AnyRequest, job_id: FromPath[str]) -> Answer:
    """A job that is delayed, or waits for its next attempt, is due now; one that waits already stays where it is."""
    only(request)
    of(request).require("jobs:submit")
    return await _changed(request, job_id, AT_ONCE)


async def replay_request(request: AnyRequest, traceparent: str) -> dlq.Request:
    """What is asked of a replay; its body may be empty."""
    body = await bodies.read(request, 4_096)
    wanted = strict.convert(strict.decode(body), ReplayBody) if body.strip() else ReplayBody()
    header = request.headers.get("idempotency-key")
    request_id = header_key(header) if header is not None else ""
    if len(request_id) > 255:
        raise BadParameter("the Idempotency-Key header has more than 255 characters", parameter="Idempotency-Key")
    by = f"api: {wanted.reason}" if wanted.reason else "api"
    return dlq.Request(request_id, by, traceparent, wanted.accept_unknown)


async def replay_answer(service: Service, prepared: Prepared, span: Sending) -> Answer:
    """Store a replay, and answer as for a submission, with the lineage."""
    stored = await store(service, prepared)
    accepted, job = await accept(service, stored), stored[0]
    span.stored(accepted.queue, accepted.type, accepted.job_id)
    fields = msgspec.structs.asdict(accepted)
    replayed = shapes.Replayed(**fields, replayed_from_job_id=job.replayed_from, replayed_at=accepted.created_at, root_job_id=job.root_id)
    told = {"location": f"/jobs/{accepted.job_id}"}
    if accepted.duplicate:
        told["idempotency-replayed"] = "true"
    return data(replayed, 202, told)


@post(
    "/jobs/{job_id:str}/replay",
    summary="Run a job that has ended again, as a new job",
    responses={202: ResponseSpec(shapes.Replayed)},
    operation_class=with_body(ReplayBody),
)
async def replay_job(request: AnyRequest, job_id: FromPath[str]) -> Answer:
    """The new job has a new id and the old one's payload; the old one stays as it is. An Idempotency-Key header makes a repeat safe."""
    service = of(request)
    service.require("dlq:replay")
    with sending_of(request) as span:
        wanted = await replay_request(request, span.traceparent)
        record, _ = await record_of(service, job_id, "b")
        now_ms = await service.store.now_ms()
        prepared = dlq.replay_of_job(record, wanted, partitions=service.settings.partitions, now_ms=now_ms)
        return await replay_answer(service, prepared, span)


ROUTES: list[HTTPRouteHandler] = [
    list_jobs,
    show_job,
    show_status,
    show_attempts,
    show_why,
    cancel_job,
    patch_job,
    run_now,
    replay_job,
]
