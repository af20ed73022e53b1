"""What TaskMaster has to reach: ratios of one run. A bound in ms, us or jobs a second was set on one machine; a slower one is allowed
more, by what another system takes on both.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

__all__ = ["TARGETS", "Outcome", "Pace", "Target", "judge"]

Medians = Mapping[tuple[str, str], Mapping[str, float]]


@dataclass(frozen=True, slots=True)
class Pace:
    """The speed of the machine that a bound was set on: *subject* reached *there* in *figure* of the same part."""

    subject: str
    figure: str
    there: float


@dataclass(frozen=True, slots=True)
class Target:
    """*figure* of TaskMaster in *part*, divided by that of *beside* or by its own *over* if one is named, is at least (at most) *bound*.

    With a *pace* the bound is for a machine that is as fast as that, or faster; a slower one is allowed as much more as it is slower.
    """

    part: str
    figure: str
    bound: float
    goal: float
    beside: str = ""
    is_ceiling: bool = False
    pace: Pace | None = None
    over: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """A target and what was reached; *speed*: what the pace's figure is here for each 1 of there, 1 without one."""

    target: Target
    reached: float
    speed: float = 1.0

    @property
    def bound(self) -> float:
        """What is asked here: no more than on the machine that the bound was set on."""
        eased = self.target.bound * self.speed
        return max(self.target.bound, eased) if self.target.is_ceiling else min(self.target.bound, eased)

    @property
    def is_met(self) -> bool:
        return self.reached <= self.bound if self.target.is_ceiling else self.reached >= self.bound


#: Stock Dramatiq is the yardstick of the server's time, whose commands are the same everywhere, BullMQ that of waking up and of bulk.
_SERVER = Pace("dramatiq", "drain us/job", 59.1)
_WAKING, _WAKING_P99 = Pace("bullmq", "p50 ms", 2.11), Pace("bullmq", "p99 ms", 6.56)
_BULK, _REQUEST = Pace("bullmq", "bulk jobs/s", 20_923), Pace("express", "p99 ms", 9.36)

TARGETS = (
    Target("drain", "jobs/s", 7, 10, beside="dramatiq"),
    Target("drain", "jobs/s", 1, 1.5, beside="bullmq"),
    Target("drain2", "jobs/s", 4.5, 7, beside="dramatiq"),
    Target("flow", "on/off", 0.7, 0.85),
    Target("observed", "on/off", 0.75, 0.85),
    Target("unread", "unread/read", 0.9, 1),
    Target("neighbours", "beside p99 ms", 1.2, 1.1, is_ceiling=True, over="alone p99 ms"),
    Target("cost", "life us/job", 55, 45, is_ceiling=True, pace=_SERVER),
    Target("idle", "p50 ms", 2, 1.2, is_ceiling=True, pace=_WAKING),
    Target("idle", "p99 ms", 6, 3, is_ceiling=True, pace=_WAKING_P99),
    Target("open", "p99 ms", 5, 2, is_ceiling=True),
    Target("busy", "p99 ms", 5, 2, is_ceiling=True),
    Target("submit", "bulk jobs/s", 40_000, 60_000, pace=_BULK),
    Target("http", "req/s", 0.75, 0.85, beside="storeless"),  # served by the framework, as where the bound was set
    Target("http", "req/s", 1.3, 1.6, beside="express"),
    Target("http", "p99 ms", 8, 5, is_ceiling=True, pace=_REQUEST),
    Target("async", "jobs/s", 4_000, 4_500),
    Target("async", "grown MB", 30, 30, is_ceiling=True),
    Target("async", "threads", 100, 50, is_ceiling=True),
    Target("delayed", "grown MB", 10, 0.5, is_ceiling=True),
    Target("delayed", "late max ms", 50, 10, is_ceiling=True),
    Target("import", "grown MB", 10, 0.5, is_ceiling=True),
    Target("import", "late p99 ms", 50, 10, is_ceiling=True),
    Target("size", "waiting B/job", 850, 750, is_ceiling=True),
    Target("size", "finished B/job", 1_050, 950, is_ceiling=True),
    Target("backlog", "many/few", 0.8, 0.9),
    Target("schedules", "lag p99 ms", 1_000, 500, is_ceiling=True),
    Target("schedules", "beside max ms", 1_000, 500, is_ceiling=True),
    Target("up", "seconds", 2, 1, is_ceiling=True),
)


def judge(medians: Medians) -> Iterable[Outcome]:
    """An outcome for each target whose figures were measured."""
    for target in TARGETS:
        ours = medians.get((target.part, "taskmaster"), {})
        own, other = ours.get(target.figure), ours.get(target.over) if target.over else 1.0
        if target.beside:
            other = medians.get((target.part, target.beside), {}).get(target.figure)
        if own is not None and other:
            pace = target.pace
            here = medians.get((target.part, pace.subject), {}).get(pace.figure) if pace else None
            yield Outcome(target, own / other, here / pace.there if pace and here else 1.0)
