"""What comes of a job while it runs, over HTTP: its log, a stream of all that is new, and the files that it leaves."""

from __future__ import annotations

from typing import Annotated

from litestar import get
from litestar.handlers import HTTPRouteHandler
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import FromPath, QueryParameter
from litestar.response.base import ASGIResponse

from taskmaster.api import shapes, views
from taskmaster.api.download import Download
from taskmaster.api.events import EventStream, of_job, room_for_one
from taskmaster.api.problems import BadParameter
from taskmaster.api.service import Answer, AnyRequest, data, limit_of, of, only
from taskmaster.engine import queries
from taskmaster.engine.following import Follower
from taskmaster.engine.lines import last_line, lines_of
from taskmaster.errors import NotFound
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


@get(
    "/jobs/{job_id:str}/stream",
    summary="Follow a job until it has ended",
    responses={
        200: ResponseSpec(str, media_type="text/event-stream", description="events state, progress and log, each with an id"),
        204: ResponseSpec(None, description="the job has ended, and the caller has heard of it"),
    },
)
async def stream_job(request: AnyRequest, job_id: FromPath[str]) -> ASGIResponse:
    """Server-sent events: `state` (as GET /jobs/{id}/status), `progress`, `log` (as an item of GET /jobs/{id}/logs), beginning with how it
    is now and with the lines that are kept; the last is the terminal state. `Last-Event-ID` goes on behind that event; states that came and
    went meanwhile are not repeated. Every 15 seconds without an event there is a comment; after 15 minutes the caller is to connect again.
    """
    only(request)
    service, known = of(request), queries.id_of(job_id)
    follower = Follower(known, request.headers.get("last-event-id", ""))
    first = follower.news(await service.store.run(follower.look(service.partition(known))))
    if follower.is_over and not first:
        return Answer(b"", 204, [(b"cache-control", b"no-store")])
    room_for_one(service, f"ask GET /jobs/{known}/status instead")
    return EventStream(service, known, of_job(service, known, follower, first))


@get(
    "/jobs/{job_id:str}/artifacts/{artifact:str}",
    summary="Download an artifact of a job",
    responses={200: ResponseSpec(bytes, media_type="application/octet-stream", description="the file, with the content type it was given")},
)
async def download_artifact(request: AnyRequest, job_id: FromPath[str], artifact: FromPath[str]) -> ASGIResponse:
    """The file that the job's handler stored under this id: `artifact` of its reference. It is kept with the job, or its dead letter."""
    only(request)
    service, known = of(request), queries.id_of(job_id)
    (is_there,) = await service.store.run(reads.known(service.partition(known), [known]))
    if not is_there or not artifact.startswith(f"{known}."):
        raise NotFound("there is no such artifact of this job, or no longer: it goes with the job")
    reference, path = service.artifacts.find(artifact)
    try:
        file = path.open("rb")
    except OSError as error:
        raise NotFound("the artifact is not there any more") from error
    return Download(reference, file)


ROUTES: list[HTTPRouteHandler] = [show_logs, stream_job, download_artifact]
