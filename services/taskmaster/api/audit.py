"""The audit over HTTP: who did what to which job, effect, schedule or rule, and why."""

from __future__ import annotations

import re
from typing import Annotated

from litestar import get
from litestar.handlers import HTTPRouteHandler
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import QueryParameter

from taskmaster.api import cursor, history_shapes, history_views
from taskmaster.api.filters import instant_of
from taskmaster.api.problems import BadParameter
from taskmaster.api.service import Answer, AnyRequest, data, limit_of, of, only
from taskmaster.engine import auditing
from taskmaster.store.audit import AuditFilter

__all__ = ["ROUTES"]

#: Where a page begins, as `auditing` spells it.
_MS, _MEMBER = re.compile(r"[1-9]\d{0,14}"), re.compile(r"\d{4}\.0{5}\d{15}")
_TEXT_MAX = 200


@get("/audit", summary="What people did, newest first", responses={200: ResponseSpec(history_shapes.AuditList)})
async def list_audit(
    request: AnyRequest,
    who: Annotated[str | None, QueryParameter()] = None,
    action: Annotated[str | None, QueryParameter(description="such as paused or dead_letter.discarded")] = None,
    target: Annotated[str | None, QueryParameter(description="that, or what is below it: a job and its effects, say")] = None,
    since: Annotated[str | None, QueryParameter(name="after", description="an instant: done then or later")] = None,
    before: Annotated[str | None, QueryParameter(description="an instant: done earlier")] = None,
    after: Annotated[str | None, QueryParameter(name="cursor", description="nextCursor of the page before")] = None,
    rows: Annotated[str | None, QueryParameter(name="limit", description="1 to 200")] = None,
) -> Answer:
    """Needs the scope audit:read. The newest 100,000 of each partition are kept. A page may be short, even empty, and have a next one.

    `heads` says where the chain of each partition stands: noted elsewhere, they show later whether somebody has made it anew.
    """
    service = of(request)
    service.require("audit:read")
    only(request, "who", "action", "target", "after", "before", "cursor", "limit")
    asked = {"who": who, "action": action, "target": target, "after": since, "before": before}
    for name, text in asked.items():
        if text is not None and not 1 <= len(text) <= _TEXT_MAX:
            raise BadParameter(f"{name} has 1 to {_TEXT_MAX} characters", parameter=name)
    wanted = AuditFilter(who or "", action or "", target or "", instant_of(since, "after"), instant_of(before, "before"))
    limit, filters = limit_of(rows), ("audit", *(text or "" for text in asked.values()))
    place = cursor.unpack(after, *filters, member=_MEMBER)
    if place != auditing.BEGINNING and not _MS.fullmatch(place[0]):
        raise BadParameter("this cursor belongs to no list; begin without one", parameter="cursor")
    entries, place_next, heads = await service.store.converse(
        auditing.newest(service.settings.partitions, wanted, after=place, limit=limit)
    )
    word = cursor.pack(place_next, *filters)
    lens = service.lens
    answer = history_shapes.AuditList(
        items=[history_views.audit_entry_of(entry, lens) for entry in entries],
        next_cursor=word,
        heads=[history_views.head_of(head) for head in heads],
    )
    return data(answer) if word is None else data(answer, headers={"link": cursor.next_link("/audit", word, **asked, limit=rows)})


ROUTES: list[HTTPRouteHandler] = [list_audit]
