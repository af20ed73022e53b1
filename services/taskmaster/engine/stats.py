"""The whole engine in numbers: what there is now, and what has come of everything since the store began."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

from taskmaster.engine.tally import Tally
from taskmaster.engine.workers import worker_processes, worker_views
from taskmaster.model.states import STATES, State

__all__ = ["COUNTED", "Stats", "stats_of"]

#: What is counted for good: ends of jobs, and of attempts that did not complete one.
COUNTED = ("created", "completed", "failed", "cancelled", "attempts_failed", "retried", "lost")


class Stats(NamedTuple):
    """All partitions together.

    Attributes:
        jobs: kept now, by state.
        ever: by (type, queue): how often each of COUNTED, whatever is still kept.
        oldest_ms: how long the job has waited that could begin and has waited longest; 0: none does.
    """

    jobs: dict[State, int]
    ever: dict[tuple[str, str], Counter[str]]
    dead_letters: int
    oldest_ms: int
    queues: int
    workers: int
    schedulers: int
    schedules: int


def stats_of(tally: Tally) -> Stats:
    """The sums of what the partitions say."""
    ever: dict[tuple[str, str], Counter[str]] = {}
    for counters in tally.counters:
        for field, value in counters.fields.items():
            job_type, _, rest = field.partition("/")
            queue, _, what = rest.partition("/")
            if what in COUNTED:
                ever.setdefault((job_type, queue), Counter())[what] += value
    return Stats(
        jobs={state: sum(getattr(view.counts, state) for view in tally.queues) for state in STATES},
        ever=dict(sorted(ever.items())),
        dead_letters=sum(sum(counters.dead_letters.values()) for counters in tally.counters),
        oldest_ms=max((view.oldest_ms or 0 for view in tally.queues), default=0),
        queues=len(tally.queues),
        workers=worker_processes(worker_views(tally.workers)),
        schedulers=max((one.schedulers for one in tally.schedules), default=0),
        schedules=sum(one.total for one in tally.schedules),
    )
