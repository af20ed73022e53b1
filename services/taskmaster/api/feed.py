"""What happens to all jobs, over HTTP, as it happens."""

from __future__ import annotations

from typing import Annotated

from litestar import get
from litestar.handlers import HTTPRouteHandler
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import QueryParameter
from litestar.response.base import ASGIResponse

from taskmaster.api.events import EventStream, of_feed, room_for_one
from taskmaster.api.problems import BadParameter
from taskmaster.api.service import AnyRequest, of, only
from taskmaster.engine.feed import Feed, places_of, wanted_of
from taskmaster.errors import InvalidRequest
from taskmaster.model.happenings import LETTERS
from taskmaster.store.events import Place

__all__ = ["ROUTES"]


@get(
    "/events",
    summary="Follow all jobs",
    responses={
        200: ResponseSpec(str, media_type="text/event-stream", description=f"events {', '.join(LETTERS)}, and gap, each with an id"),
    },
)
async def stream_events(
    request: AnyRequest,
    types: Annotated[
        list[str] | None, QueryParameter(name="type", description="of these types; may be repeated, as all filters here")
    ] = None,
    queues: Annotated[list[str] | None, QueryParameter(name="queue", description="of these queues")] = None,
    jobs: Annotated[list[str] | None, QueryParameter(name="job", description="of these jobs")] = None,
    kinds: Annotated[list[str] | None, QueryParameter(name="event", description=f"of these: {', '.join(LETTERS)}")] = None,
    fairness_key: Annotated[str | None, QueryParameter(name="fairnessKey", description="of jobs with this fairness key")] = None,
) -> ASGIResponse:
    """Server-sent events of what happens to jobs from now on: which job, its type and queue, what and when; nothing of payloads or results.
    Of one filter any must fit, of different ones all; jobs of which nothing is left fit none of type, queue and fairness key.

    `Last-Event-ID` goes on behind that event, over all partitions, as far as the store keeps them (about 10,000 events a partition). Where
    it does not, also for a caller who reads too slowly, an event `gap` says so, with the partition. Every 15 seconds without an event there
    is a comment with the place; after 15 minutes the caller is to connect again.
    """
    only(request, "type", "queue", "job", "event", "fairnessKey")
    service = of(request)
    try:
        wanted = wanted_of(types=types or (), queues=queues or (), jobs=jobs or (), kinds=kinds or (), fairness_key=fairness_key or "")
        after = request.headers.get("last-event-id", "")
        places = places_of(after, service.settings.partitions) if after else []
    except InvalidRequest as error:
        raise BadParameter(error.message, **error.facts) from error
    feed = Feed(places or [Place(await service.store.newest_event(partition)) for partition in service.partitions], wanted)
    room_for_one(service, "come again when one has ended")
    return EventStream(service, "all", of_feed(service, feed))


ROUTES: list[HTTPRouteHandler] = [stream_events]
