"""The dead-letter queue over HTTP. Entries never change here: they are listed, shown, and replayed as new jobs."""

from __future__ import annotations

import re
from typing import Annotated

from litestar import get, post
from litestar.handlers import HTTPRouteHandler
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import FromPath, QueryParameter

from taskmaster.api import cursor, shapes, views
from taskmaster.api.documents import with_body
from taskmaster.api.jobs import ReplayBody, replay_answer, replay_request
from taskmaster.api.service import Answer, AnyRequest, Service, data, limit_of, of, only
from taskmaster.engine import dlq, queries
from taskmaster.errors import NotFound
from taskmaster.model.ids import is_job_id
from taskmaster.model.job import DeadLetter
from taskmaster.store import reads

__all__ = ["ROUTES"]


async def _entry(service: Service, text: str) -> tuple[DeadLetter, queries.Consumer]:
    fields = await service.store.run(reads.dead(service.partition(text), text)) if is_job_id(text) else None
    if fields is None:
        shown = text[:64].encode("utf-8", "backslashreplace").decode()
        raise NotFound(f"there is no dead letter {shown!r}", entryId=shown)
    return queries.dead_letter(fields)


@get("/dlq", summary="List dead letters, newest first", responses={200: ResponseSpec(shapes.DeadList)})
async def list_dead(
    request: AnyRequest,
    job_type: Annotated[str | None, QueryParameter(name="type")] = None,
    queue: Annotated[str | None, QueryParameter()] = None,
    after: Annotated[str | None, QueryParameter(name="cursor", description="nextCursor of the page before")] = None,
    rows: Annotated[str | None, QueryParameter(name="limit", description="1 to 200")] = None,
) -> Answer:
    """A page may be short, even empty, and still have a next one."""
    service = of(request)
    only(request, "type", "queue", "cursor", "limit")
    limit = limit_of(rows)
    filters = ("dlq", job_type or "", queue or "")
    place = cursor.unpack(after, *filters)
    names = [text if text is None or re.fullmatch(r"[a-z0-9._-]{1,64}", text) else "-" for text in (job_type, queue)]
    pages = [
        await service.store.run(reads.find(p, "dead", job_type=names[0] or "", queue=names[1] or "", after=place, limit=limit))
        for p in service.partitions
    ]
    found, place_next = queries.merge_pages(pages, limit)
    word = cursor.pack(place_next, *filters)
    answer = shapes.DeadList(items=[views.dead_of(*queries.dead_letter(row.fields)) for row in found], next_cursor=word)
    if word is None:
        return data(answer)
    return data(answer, headers={"link": cursor.next_link("/dlq", word, type=job_type, queue=queue, limit=rows)})


@get("/dlq/{entry_id:str}", summary="One dead letter", responses={200: ResponseSpec(shapes.DeadEntry)})
async def show_dead(request: AnyRequest, entry_id: FromPath[str]) -> Answer:
    """The record as it was written when the job failed for good."""
    only(request)
    return data(views.dead_of(*await _entry(of(request), entry_id)))


@post(
    "/dlq/{entry_id:str}/replay",
    summary="Run a dead letter again, as a new job",
    responses={202: ResponseSpec(shapes.Replayed)},
    operation_class=with_body(ReplayBody),
)
async def replay_dead(request: AnyRequest, entry_id: FromPath[str]) -> Answer:
    """The new job has a new id and the record's payload; the record stays as it is. An Idempotency-Key header makes a repeat safe."""
    service = of(request)
    wanted = await replay_request(request)
    letter, _ = await _entry(service, entry_id)
    shown = await service.store.run(reads.show(service.partition(entry_id), entry_id, ""))
    record = queries.job_of(entry_id, shown) if shown is not None else None
    now_ms = await service.store.now_ms()
    prepared = dlq.replay_of_dead(letter, record, wanted, partitions=service.settings.partitions, now_ms=now_ms)
    return await replay_answer(service, prepared)


ROUTES: list[HTTPRouteHandler] = [list_dead, show_dead, replay_dead]
