"""What is still accepted while the store or a queue is under pressure. Pure: decided from figures that are a second old, without a call."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from taskmaster.errors import Overloaded, StoreFilling, TaskMasterError
from taskmaster.model.states import PRIORITIES

__all__ = ["LOW", "Pressure", "Thresholds", "is_calm", "is_filling", "shed"]

#: Ranks of model.states.PRIORITIES: the lowest is shed first, critical never.
CRITICAL, LOW = 0, 3
#: What a client is told to wait before it tries again.
STORE_RETRY_S, QUEUE_RETRY_S = 5, 10


class Thresholds(NamedTuple):
    """From where on low priority is shed; 0: never by that rule. Normal and high follow later: `_limit_of`, `_share_of`.

    Attributes:
        memory_percent: of the store's memory limit; without a limit there is no such rule.
        waiting: jobs that wait in one queue.
        age_ms: how long the oldest of them has been waiting.
    """

    memory_percent: int
    waiting: int
    age_ms: int


class Pressure(NamedTuple):
    """Figures of all partitions. Queues by name; `memory_share` None: the store has no limit, or does not tell."""

    memory_share: float | None = None
    waiting: Mapping[str, int] = {}
    oldest_ms: Mapping[str, int] = {}


def _share_of(rank: int, percent: int) -> float:
    """Share of memory at which a priority is shed: the room above the threshold in thirds for low, normal, high."""
    return (percent + (100 - percent) * (LOW - rank) / 3) / 100


def _limit_of(rank: int, limit: int) -> int:
    """Jobs or ms at which a priority is shed: once, twice, four times the threshold for low, normal, high."""
    return limit << (LOW - rank)


def shed(rank: int, queue: str, pressure: Pressure, thresholds: Thresholds) -> TaskMasterError | None:
    """Why a job of priority *rank* may not come into *queue* now; None: it may.

    Whatever is shed, every lower priority is shed as well; critical jobs never are: the store itself is their limit.
    """
    if rank <= CRITICAL:
        return None
    facts = {"queue": queue, "priority": PRIORITIES[rank]}
    share, limit = pressure.memory_share, _share_of(rank, thresholds.memory_percent)
    if share is not None and thresholds.memory_percent and share >= limit:
        message = (
            f"the store's memory is {share:.0%} full, and jobs of priority {PRIORITIES[rank]} are taken up to {limit:.0%}; "
            f"repeat the request in {STORE_RETRY_S} s"
        )
        return StoreFilling(message, rule="memory", observed=round(share, 4), limit=round(limit, 4), retryAfterS=STORE_RETRY_S, **facts)
    for rule, what, threshold, observed in (
        ("waiting", "jobs wait in it", thresholds.waiting, pressure.waiting.get(queue, 0)),
        ("oldest", "ms is the age of the oldest that waits in it", thresholds.age_ms, pressure.oldest_ms.get(queue, 0)),
    ):
        most = _limit_of(rank, threshold)
        if threshold and observed >= most:
            message = (
                f"the queue {queue} is behind: {observed} {what}, and jobs of priority {PRIORITIES[rank]} are taken below {most}; "
                f"repeat the request in {QUEUE_RETRY_S} s"
            )
            return Overloaded(message, rule=rule, observed=observed, limit=most, retryAfterS=QUEUE_RETRY_S, **facts)
    return None


def is_calm(pressure: Pressure, thresholds: Thresholds) -> bool:
    """Whether `shed` lets every job come: nothing has reached what the lowest priority is shed at."""
    percent, waiting, age_ms = thresholds
    return (
        (pressure.memory_share is None or not percent or pressure.memory_share < _share_of(LOW, percent))
        and (not waiting or all(jobs < waiting for jobs in pressure.waiting.values()))
        and (not age_ms or all(oldest_ms < age_ms for oldest_ms in pressure.oldest_ms.values()))
    )


def is_filling(pressure: Pressure, thresholds: Thresholds) -> bool:
    """Whether the store is about to refuse whatever comes: half of what is left above the limit of high priority."""
    percent = thresholds.memory_percent or 90
    return pressure.memory_share is not None and pressure.memory_share >= (_share_of(1, percent) + 1) / 2
