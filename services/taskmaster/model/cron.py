"""Cron expressions: standard cron as `cronsim` reads it, over the local time of a zone, with stated rules for the days when clocks change.

`cronsim` is asked about local times only. How local times become instants is decided here, span by span of one offset from UTC:

- The *gap* in spring: a time that does not exist is run at the first instant after the gap (`shift`), once however many there were, or
  not at all (`skip`).
- The *overlap* in autumn: a time that comes twice is run the first time (`once`) or both times (`each`).
- An expression that runs in all 24 hours names no hour: it goes by elapsed time, whatever the rules say.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from copy import copy
from functools import lru_cache
from typing import Literal, NamedTuple

import cronsim

from taskmaster.model.zones import spans

__all__ = ["CronError", "Found", "Gap", "Overlap", "check", "explain", "instants", "is_hourly"]

Gap = Literal["shift", "skip"]
Overlap = Literal["once", "each"]
_ZERO = dt.datetime(1970, 1, 1)  # noqa: DTZ001 - local times have no zone
_NAMES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}


class CronError(ValueError):
    """The text is no cron expression, or one that never matches. Says what is wrong with it."""


class Found(NamedTuple):
    """An instant of an expression.

    Attributes:
        at_s: Unix seconds.
        local: the local time that the expression names.
        note: what is special about it, or empty.
    """

    at_s: int
    local: dt.datetime
    note: str


def check(text: str) -> None:
    """Whether *text* can be run.

    Raises:
        CronError: it cannot.
    """
    if len(text) > 256:
        raise CronError("at most 256 characters are meant")
    try:
        first = next(cronsim.CronSim(_plain(text), _ZERO), None)
    except (cronsim.CronSimError, AssertionError, ValueError) as error:
        what = str(error) or "not a cron expression"
        raise CronError(f"{what}; minute hour day month weekday are meant, seconds before them if there are six, or @daily") from error

    if first is None:
        raise CronError("it never matches")


def explain(text: str) -> str:
    """The expression in words."""
    return str(_parsed(_plain(text)).explain())


def is_hourly(text: str) -> bool:
    """Whether it runs in all 24 hours of a day, so that it names no hour."""
    return len(_parsed(_plain(text)).hours) == 24


def instants(text: str, zone: str, after_s: int, gap: Gap, overlap: Overlap) -> Iterator[Found]:
    """The instants later than *after_s*, in order."""
    plain = _plain(text)
    by_elapsed_time = is_hourly(text)
    for start_s, end_s, offset_s, before_s, follows_s, shown_s in spans(zone, after_s):
        begin, end = _local(start_s + offset_s), _local(end_s + offset_s)
        if offset_s > before_s and start_s > after_s and gap == "shift" and not by_elapsed_time:
            missing = _first(plain, start_s + before_s)
            if missing is not None and missing < begin and _first(plain, start_s + offset_s) != begin:
                yield Found(start_s, missing, f"{missing:%H:%M} does not exist on this day; runs at {begin:%H:%M}")
        low_s = max(start_s, after_s + 1) + offset_s
        if overlap == "once" and not by_elapsed_time:
            low_s = max(low_s, shown_s)
        shown, again_from = _local(shown_s), _local(end_s + follows_s)
        for local in _matches(plain, low_s):
            if local >= end:
                break
            note = ""
            if local < shown:
                note = f"{local:%H:%M} comes twice on this day; the second time"
            elif local >= again_from:
                note = f"{local:%H:%M} comes twice on this day; the first time"
            yield Found(_seconds(local) - offset_s, local, note)
        else:
            return  # no match in fifty years


def _first(plain: str, low_s: int) -> dt.datetime | None:
    return next(_matches(plain, low_s), None)


def _matches(plain: str, low_s: int) -> Iterator[dt.datetime]:
    """Local times from *low_s* on that match."""
    matches = copy(_parsed(plain))
    matches.dt = _local(low_s - 1)
    return matches


@lru_cache(maxsize=1_024)
def _parsed(plain: str) -> cronsim.CronSim:
    """To be copied: reading the fields takes as long as finding the next match."""
    return cronsim.CronSim(plain, _ZERO)


def _plain(text: str) -> str:
    return _NAMES.get(text.strip().lower(), text)


def _local(seconds: int) -> dt.datetime:
    return _ZERO + dt.timedelta(seconds=seconds)


def _seconds(local: dt.datetime) -> int:
    return round((local - _ZERO).total_seconds())
