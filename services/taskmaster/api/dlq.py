"""The dead-letter queue over HTTP. Entries never change here: they are listed, shown, replayed as new jobs, and discarded whole."""

from __future__ import annotations

from typing import Annotated

import msgspec
from litestar import delete, get, post
from litestar.handlers import HTTPRouteHandler
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import FromPath, QueryParameter

from taskmaster.api import bodies, cursor, dlq_shapes, shapes, views
from taskmaster.api.documents import with_body
from taskmaster.api.filters import PARAMETERS, letters_of
from taskmaster.api.jobs import ReplayBody, replay_answer, replay_request
from taskmaster.api.service import Answer, AnyRequest, Service, data, limit_of, of, only, sending_of
from taskmaster.engine import dlq, queries, strict
from taskmaster.errors import NotFound
from taskmaster.model.ids import is_job_id
from taskmaster.model.job import DeadLetter
from taskmaster.store import letters, reads
from taskmaster.store.status import Status

__all__ = ["ROUTES"]

Text = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]


async def _entry(service: Service, text: str) -> tuple[DeadLetter, queries.Consumer]:
    fields = await service.store.run(reads.dead(service.partition(text), text)) if is_job_id(text) else None
    if fields is None:
        raise _no_entry(text)
    return queries.dead_letter(fields)


def _no_entry(text: str) -> NotFound:
    shown = text[:64].encode("utf-8", "backslashreplace").decode()
    return NotFound(f"there is no dead letter {shown!r}", entryId=shown)


@get("/dlq", summary="List dead letters, newest first", responses={200: ResponseSpec(shapes.DeadList)})
async def list_dead(
    request: AnyRequest,
    job_type: Annotated[str | None, QueryParameter(name="type")] = None,
    queue: Annotated[str | None, QueryParameter()] = None,
    fingerprint: Annotated[str | None, QueryParameter()] = None,
    reason: Annotated[str | None, QueryParameter()] = None,
    failed_after: Annotated[str | None, QueryParameter(name="failedAfter", description="an instant: failed then or later")] = None,
    failed_before: Annotated[str | None, QueryParameter(name="failedBefore", description="an instant: failed earlier")] = None,
    text: Annotated[str | None, QueryParameter(description="is found in the error's class or message, in any case")] = None,
    plugin_version: Annotated[str | None, QueryParameter(name="pluginVersion")] = None,
    after: Annotated[str | None, QueryParameter(name="cursor", description="nextCursor of the page before")] = None,
    rows: Annotated[str | None, QueryParameter(name="limit", description="1 to 200")] = None,
) -> Answer:
    """A page may be short, even empty, and still have a next one."""
    service = of(request)
    only(request, *PARAMETERS, "cursor", "limit")
    limit = limit_of(rows)
    given = (job_type, queue, fingerprint, reason, failed_after, failed_before, text, plugin_version)
    wanted = letters_of(
        type=job_type,
        queue=queue,
        fingerprint=fingerprint,
        reason=reason,
        failed_after=failed_after,
        failed_before=failed_before,
        text=text,
        plugin_version=plugin_version,
    )
    filters = ("dlq", *(one or "" for one in given))
    place = cursor.unpack(after, *filters)
    pages = [await service.store.run(reads.find(p, "dead", letters=wanted, after=place, limit=limit)) for p in service.partitions]
    found, place_next = queries.merge_pages(pages, limit)
    word = cursor.pack(place_next, *filters)
    answer = shapes.DeadList(items=[views.dead_of(*queries.dead_letter(row.fields), service.lens) for row in found], next_cursor=word)
    if word is None:
        return data(answer)
    return data(answer, headers={"link": cursor.next_link("/dlq", word, limit=rows, **dict(zip(PARAMETERS, given, strict=True)))})


@get("/dlq/{entry_id:str}", summary="One dead letter", responses={200: ResponseSpec(shapes.DeadEntry)})
async def show_dead(
    request: AnyRequest,
    entry_id: FromPath[str],
    reveal: Annotated[str | None, QueryParameter(description="true: also what is marked secret or pii; needs payload:reveal")] = None,
) -> Answer:
    """The record as it was written when the job failed for good; `reveal` as for a job."""
    only(request, "reveal")
    service = of(request)
    found = await _entry(service, entry_id)
    return data(views.dead_of(*found, await service.lens_for(reveal, entry_id)))


@post(
    "/dlq/{entry_id:str}/replay",
    summary="Run a dead letter again, as a new job",
    responses={202: ResponseSpec(shapes.Replayed)},
    operation_class=with_body(ReplayBody),
)
async def replay_dead(request: AnyRequest, entry_id: FromPath[str]) -> Answer:
    """The new job has a new id and the record's payload; the record stays as it is. An Idempotency-Key header makes a repeat safe."""
    service = of(request)
    service.require("dlq:replay")
    with sending_of(request) as span:
        wanted = await replay_request(request, span.traceparent)
        letter, _ = await _entry(service, entry_id)
        shown = await service.store.run(reads.show(service.partition(entry_id), entry_id, ""))
        record = queries.job_of(entry_id, shown) if shown is not None else None
        now_ms = await service.store.now_ms()
        prepared = dlq.replay_of_dead(letter, record, wanted, partitions=service.settings.partitions, now_ms=now_ms)
        return await replay_answer(service, prepared, span)


class DiscardBody(msgspec.Struct, forbid_unknown_fields=True):
    """Why a record goes, and who says so. The query parameters `reason` and `by` do as well."""

    reason: Text
    by: Text


@delete(
    "/dlq/{entry_id:str}",
    status_code=200,
    summary="Remove a dead letter for good",
    responses={200: ResponseSpec(dlq_shapes.Discarded)},
    operation_class=with_body(DiscardBody),
)
async def discard_dead(
    request: AnyRequest,
    entry_id: FromPath[str],
    reason: Annotated[str | None, QueryParameter(description="why; required, here or in the body")] = None,
    by: Annotated[str | None, QueryParameter(description="who; required, here or in the body")] = None,
) -> Answer:
    """Needs the scope dlq:discard. What retention has left of the job goes too; what was done is kept in the audit."""
    service = of(request)
    service.require("dlq:discard")
    only(request, "reason", "by")
    raw = await bodies.read(request, 4_096) if reason is None and by is None else b""
    body = strict.convert(strict.decode(raw) if raw.strip() else {"reason": reason or "", "by": by or ""}, DiscardBody)
    if not is_job_id(entry_id):
        raise _no_entry(entry_id)
    call = letters.discard(service.partition(entry_id), [entry_id], who=body.by, reason=body.reason)
    (status,) = await service.store.run(call)
    if status is Status.GONE:
        raise _no_entry(entry_id)
    return data(dlq_shapes.Discarded(entry_id=entry_id))


ROUTES: list[HTTPRouteHandler] = [list_dead, show_dead, replay_dead, discard_dead]
