"""What comes of a job while it runs, over HTTP: its log."""

from __future__ import annotations

from typing import Annotated

from litestar import get
from litestar.handlers import HTTPRouteHandler
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import FromPath, QueryParameter

from taskmaster.api import shapes, views
from taskmaster.api.problems import BadParameter
from taskmaster.api.service import Answer, AnyRequest, data, limit_of, of, only
from taskmaster.engine import queries
from taskmaster.engine.lines import last_line, lines_of
from taskmaster.store import reads

__all__ = ["ROUTES"]


@get("/jobs/{job_id:str}/logs", summary="The log of a job", responses={200: ResponseSpec(shapes.LogLines)})
async def show_logs(
    request: AnyRequest,
    job_id: FromPath[str],
    after: Annotated[str | None, QueryParameter(description="lines behind this number")] = None,
    rows: Annotated[str | None, QueryParameter(name="limit", description="1 to 200")] = None,
) -> Answer:
    """What its handler logged, in order: of all attempts the newest 1,000 lines and 64 KiB. Read on behind the last number."""
    only(request, "after", "limit")
    service, known, limit = of(request), queries.id_of(job_id), limit_of(rows)
    shown = queries.found(known, await service.store.run(reads.show(service.partition(known), known, "l", _number(after))))
    lines = lines_of(known, shown)[:limit]
    has_more = bool(lines) and lines[-1].number < last_line(shown)
    return data(shapes.LogLines(items=[views.line_of(line) for line in lines], next_cursor=str(lines[-1].number) if has_more else None))


def _number(text: str | None) -> int:
    if text is None:
        return 0
    if not (text.isascii() and text.isdigit() and len(text) <= 15):
        raise BadParameter("after is the number of a line", parameter="after")
    return int(text)


ROUTES: list[HTTPRouteHandler] = [show_logs]
