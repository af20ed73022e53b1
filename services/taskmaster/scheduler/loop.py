"""APScheduler's loop, going round: one job of it, run again after as many seconds as it says.

What is due is decided by the store's clock, so the loop must not depend on the local one: the times that APScheduler compares are made
up, at each question, from a monotonic clock. A local clock that is set an hour back or forward neither stops the rounds nor hurries them.
APScheduler has no list of schedules and nothing is pickled; what it calls a misfire cannot happen: missed instants are a matter of each
schedule's own policy.
"""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable
from typing import Any

from apscheduler.executors.debug import DebugExecutor
from apscheduler.job import Job
from apscheduler.jobstores.base import BaseJobStore, JobLookupError
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.base import BaseTrigger

__all__ = ["Loop"]

#: A round that raised is tried again after that; APScheduler logs what it raised.
_AFTER_ERROR_S = 1.0


class Loop:
    """Calls *round_* again and again on one thread of its own.

    Args:
        round_: does its work and says after how many seconds to come again. It does not raise.
    """

    def __init__(self, round_: Callable[[], float]) -> None:
        self._round = round_
        self._ended_at = time.monotonic()
        self._pace = _Pace()
        self._scheduler = _Steady(
            self._pace, timezone=dt.UTC, jobstores={"default": _OneJob(self._pace)}, executors={"default": DebugExecutor()}, daemon=True
        )
        self._scheduler.add_job(self._turn, _Again(self._pace), misfire_grace_time=None, coalesce=True, max_instances=1)

    def start(self) -> None:
        """The first round begins at once."""
        self._scheduler.start()

    def stop(self) -> None:
        """Returns when the round under way has ended."""
        self._scheduler.shutdown(wait=True)

    @property
    def quiet_s(self) -> float:
        """Seconds since a round ended."""
        return time.monotonic() - self._ended_at

    def _turn(self) -> None:
        self._pace.rest(_AFTER_ERROR_S)
        self._pace.rest(self._round())
        self._ended_at = time.monotonic()


class _Pace:
    """When the next round is due, by the monotonic clock."""

    def __init__(self) -> None:
        self._due_s = time.monotonic()

    def rest(self, seconds: float) -> None:
        self._due_s = time.monotonic() + seconds

    @property
    def left(self) -> dt.timedelta:
        return dt.timedelta(seconds=max(0.0, self._due_s - time.monotonic()))


class _Steady(BackgroundScheduler):  # type: ignore[misc]
    """Sleeps by the pace: APScheduler's own sleep is a difference of two readings of the local clock, which may be set between them."""

    def __init__(self, pace: _Pace, **options: Any) -> None:
        self._pace = pace
        super().__init__(**options)

    def _process_jobs(self) -> float | None:
        wait_s = super()._process_jobs()
        return None if wait_s is None else self._pace.left.total_seconds()


class _Again(BaseTrigger):  # type: ignore[misc]
    """Due when the pace says so, and never over."""

    def __init__(self, pace: _Pace) -> None:
        self._pace = pace

    def get_next_fire_time(self, previous_fire_time: dt.datetime | None, now: dt.datetime) -> dt.datetime:  # noqa: ARG002
        # Always later than `now`: APScheduler collects the times up to it.
        return now + max(self._pace.left, dt.timedelta(microseconds=1))


class _OneJob(BaseJobStore):  # type: ignore[misc]
    """Holds the one job of the loop, whose time is asked for anew at each question."""

    def __init__(self, pace: _Pace) -> None:
        super().__init__()
        self._pace = pace
        self._jobs: list[Job] = []

    def get_due_jobs(self, now: dt.datetime) -> list[Job]:
        if self._pace.left:
            return []
        for job in self._jobs:
            job._modify(next_run_time=now)  # noqa: SLF001 - as APScheduler's own stores do
        return list(self._jobs)

    def get_next_run_time(self) -> dt.datetime | None:
        return dt.datetime.now(dt.UTC) + self._pace.left if self._jobs else None

    def lookup_job(self, job_id: str) -> Job | None:
        return next((job for job in self._jobs if job.id == job_id), None)

    def get_all_jobs(self) -> list[Job]:
        return list(self._jobs)

    def add_job(self, job: Job) -> None:
        self._jobs.append(job)

    def update_job(self, job: Job) -> None:
        """Its time is not kept."""

    def remove_job(self, job_id: str) -> None:
        job = self.lookup_job(job_id)
        if job is None:
            raise JobLookupError(job_id)
        self._jobs.remove(job)

    def remove_all_jobs(self) -> None:
        self._jobs.clear()
