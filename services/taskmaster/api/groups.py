"""Groups of dead letters over HTTP."""

from __future__ import annotations

from typing import Annotated

from litestar import get
from litestar.handlers import HTTPRouteHandler
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import FromPath, QueryParameter

from taskmaster.api import cursor, dlq_shapes, dlq_views
from taskmaster.api.filters import FINGERPRINT
from taskmaster.api.service import Answer, AnyRequest, data, limit_of, of, only
from taskmaster.engine import groups as engine
from taskmaster.errors import NotFound

__all__ = ["ROUTES"]


@get("/dlq/groups", summary="Dead letters by cause, the latest failure first", responses={200: ResponseSpec(dlq_shapes.GroupList)})
async def list_groups(
    request: AnyRequest,
    job_type: Annotated[str | None, QueryParameter(name="type")] = None,
    queue: Annotated[str | None, QueryParameter()] = None,
    after: Annotated[str | None, QueryParameter(name="cursor", description="nextCursor of the page before")] = None,
    rows: Annotated[str | None, QueryParameter(name="limit", description="1 to 200")] = None,
) -> Answer:
    """Filters look at the sampled records of a group. A page may be short, even empty, and still have a next one."""
    service = of(request)
    only(request, "type", "queue", "cursor", "limit")
    limit = limit_of(rows)
    filters = ("groups", job_type or "", queue or "")
    place = cursor.unpack(after, *filters, member=FINGERPRINT)
    views, place_next = await service.store.converse(engine.newest(service.settings.partitions, after=place, limit=limit))
    word = cursor.pack(place_next, *filters)
    items = [dlq_views.group_of(view) for view in views if (not job_type or job_type in view.types) and (not queue or queue in view.queues)]
    answer = dlq_shapes.GroupList(items=items, next_cursor=word)
    if word is None:
        return data(answer)
    return data(answer, headers={"link": cursor.next_link("/dlq/groups", word, type=job_type, queue=queue, limit=rows)})


@get("/dlq/groups/{fingerprint:str}", summary="One group of dead letters", responses={200: ResponseSpec(dlq_shapes.Group)})
async def show_group(request: AnyRequest, fingerprint: FromPath[str]) -> Answer:
    """Its records are `GET /dlq?fingerprint=…`."""
    service = of(request)
    only(request)
    is_one = FINGERPRINT.fullmatch(fingerprint)
    views = await service.store.converse(engine.described([fingerprint], service.settings.partitions)) if is_one else []
    if not views:
        shown = fingerprint[:100].encode("utf-8", "backslashreplace").decode()
        raise NotFound(f"there is no group of dead letters {shown!r}", fingerprint=shown)
    return data(dlq_views.group_of(views[0]))


ROUTES: list[HTTPRouteHandler] = [list_groups, show_group]
