"""Declaring what a plugin runs by the clock."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from taskmaster_sdk.jobs import NAME

__all__ = ["Schedule"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """A schedule that comes with the plugin; handed over in `register_schedules`. Exactly one of *cron*, *every_ms* and *run_at*.

    It is brought in when a worker starts, once for each *version*: raise the version when anything here changes. An operator may pause it,
    or change it, which stays over later versions.

    Attributes:
        id: unique over all plugins, 1 to 64 of a-z 0-9 . _ -
        type: job type, of this plugin or another.
        version: 1, 2, 3 …
        payload: of each job; texts in it may hold {{instant}}, {{localDate}}, {{localTime}} and their like.
        cron: minute hour day month weekday, or seconds before these, or @daily and its like.
        every_ms: interval, 1 s at least, counted from *start_at* or else from the beginning of 1970.
        run_at: once, with its offset.
        timezone: IANA name.
        queue, priority: of the jobs; None: the type's, normal.
        catch_up: instants missed by more than 15 s: none is run, the latest, or all, but the newest *catch_up_max* at most.
        overlap: when the job before has not ended: allow, skip, queue-one or cancel-previous.
        dst_gap: a local time that does not exist: shift it behind the gap, or skip it.
        dst_overlap: a local time that comes twice: run once, or each time.
        jitter_ms: due up to so much later.
        start_at, end_at: no instant before, none after.
        max_runs: jobs at most.
        exclude: local days without a run, 2026-12-25 or 2026-12-24/2026-12-31.

    Raises:
        ValueError: no id, or no version, that can be.
    """

    id: str
    type: str
    version: int = 1
    payload: Mapping[str, Any] = field(default_factory=dict)
    cron: str | None = None
    every_ms: int | None = None
    run_at: dt.datetime | None = None
    timezone: str = "UTC"
    queue: str | None = None
    priority: Literal["critical", "high", "normal", "low"] | None = None
    catch_up: Literal["none", "latest", "all"] = "latest"
    catch_up_max: int = 10
    overlap: Literal["allow", "skip", "queue-one", "cancel-previous"] = "allow"
    dst_gap: Literal["shift", "skip"] = "shift"
    dst_overlap: Literal["once", "each"] = "once"
    jitter_ms: int = 0
    start_at: dt.datetime | None = None
    end_at: dt.datetime | None = None
    max_runs: int | None = None
    exclude: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what could never be brought in, where its author sees it."""
        if not NAME.fullmatch(self.id):
            raise ValueError(f"schedule {self.id!r}: use 1 to 64 of a-z 0-9 . _ - and begin with a letter or digit")
        if type(self.version) is not int or self.version < 1:
            raise ValueError(f"schedule {self.id}: version is {self.version!r}, 1 or more is meant")
