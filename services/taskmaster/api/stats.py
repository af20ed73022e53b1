"""The whole engine in numbers, over HTTP."""

from __future__ import annotations

from litestar import get
from litestar.handlers import HTTPRouteHandler
from litestar.openapi.datastructures import ResponseSpec

from taskmaster.api.service import Answer, AnyRequest, data, of, only
from taskmaster.api.shapes import Shape
from taskmaster.engine.stats import Stats, stats_of
from taskmaster.engine.tally import take_tally

__all__ = ["ROUTES"]


class Ever(Shape, kw_only=True):
    """What has come of all jobs since the store began, kept or not. Failed attempts: retried ones, and the last one of each failed job."""

    created: int = 0
    completed: int = 0
    failed: int = 0
    cancelled: int = 0
    attempts_failed: int = 0
    attempts_retried: int = 0
    attempts_lost: int = 0


class TypeStats(Ever, kw_only=True):
    """The same of one type in one queue."""

    type: str
    queue: str


class StatsAnswer(Shape, kw_only=True):
    """`jobs`: those that are kept now, by state. `oldestWaitingMs`: of jobs that could begin, 0 when none waits."""

    jobs: dict[str, int]
    dead_letters: int
    oldest_waiting_ms: int
    queues: int
    workers: int
    schedulers: int
    schedules: int
    total: Ever
    types: list[TypeStats]


@get("/stats", summary="All in numbers", responses={200: ResponseSpec(StatsAnswer)})
async def show_stats(request: AnyRequest) -> Answer:
    """What there is now, and what has come of everything; the counters never fall but with the store itself."""
    service = of(request)
    only(request)
    return data(_answer(stats_of(await service.store.converse(take_tally(service.settings.partitions)))))


def _answer(stats: Stats) -> StatsAnswer:
    types = [TypeStats(type=job_type, queue=queue, **_named(counts)) for (job_type, queue), counts in stats.ever.items()]
    names = Ever.__struct_fields__
    return StatsAnswer(
        jobs={str(state): count for state, count in stats.jobs.items()},
        dead_letters=stats.dead_letters,
        oldest_waiting_ms=stats.oldest_ms,
        queues=stats.queues,
        workers=stats.workers,
        schedulers=stats.schedulers,
        schedules=stats.schedules,
        total=Ever(**{name: sum(getattr(one, name) for one in types) for name in names}),
        types=types,
    )


def _named(counts: dict[str, int]) -> dict[str, int]:
    return {{"retried": "attempts_retried", "lost": "attempts_lost"}.get(name, name): n for name, n in counts.items()}


ROUTES: list[HTTPRouteHandler] = [show_stats]
