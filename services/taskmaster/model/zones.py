"""Time zones from the `tzdata` package, so that an instant does not depend on the machine, and where their offsets change."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from functools import lru_cache
from importlib.resources import files
from typing import NamedTuple
from zoneinfo import ZoneInfo

__all__ = ["Span", "spans", "zone", "zone_names"]

EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
#: Offsets are compared that far apart: no zone has changed its offset and back within a quarter of a day.
_STEP_S = 6 * 3_600


class Span(NamedTuple):
    """A stretch of time with one offset from UTC; long ones are cut at the ends of years. Seconds.

    Attributes:
        before_s: the offset that came before it, after_s: the one that follows.
        shown_s: how far local time had come before it began: later than its own beginning where clocks were set back.
    """

    start_s: int
    end_s: int
    offset_s: int
    before_s: int
    after_s: int
    shown_s: int


@lru_cache(maxsize=1)
def zone_names() -> frozenset[str]:
    """All names of the IANA database."""
    return frozenset(files("tzdata").joinpath("zones").read_text(encoding="ascii").split())


@lru_cache(maxsize=1_024)
def zone(name: str) -> ZoneInfo:
    """The zone of that name.

    Raises:
        KeyError: the database has none.
    """
    if name not in zone_names():
        raise KeyError(name)
    with files("tzdata").joinpath("zoneinfo", *name.split("/")).open("rb") as data:
        return ZoneInfo.from_file(data, key=name)


def spans(name: str, from_s: int) -> Iterator[Span]:
    """The spans of a zone, one after the other, from the one that holds *from_s*, for about sixty years."""
    first = _at(from_s).year - 1
    start_s = _year_s(first)
    offset_s = before_s = _offset_s(name, start_s)
    shown_s = start_s + offset_s
    for year in range(first, min(first + 60, 9_998)):
        for end_s, follows_s in _ends(name, year):
            if end_s > from_s:
                yield Span(start_s, end_s, offset_s, before_s, follows_s, shown_s)
            shown_s = max(shown_s, end_s + offset_s)
            start_s, before_s, offset_s = end_s, offset_s, follows_s


@lru_cache(maxsize=4_096)
def _ends(name: str, year: int) -> tuple[tuple[int, int], ...]:
    """When the spans of a year end, and with what offset it goes on; the last one ends with the year."""
    found = []
    at_s, end_s = _year_s(year), _year_s(year + 1)
    offset_s = _offset_s(name, at_s)
    while at_s < end_s:
        next_s = min(at_s + _STEP_S, end_s)
        after_s = _offset_s(name, next_s)
        if after_s != offset_s:
            low, high = at_s, next_s
            while high - low > 1:
                middle = (low + high) // 2
                low, high = (middle, high) if _offset_s(name, middle) == offset_s else (low, middle)
            found.append((high, after_s))
        at_s, offset_s = next_s, after_s
    if not found or found[-1][0] < end_s:
        found.append((end_s, offset_s))
    return tuple(found)


def _offset_s(name: str, at_s: int) -> int:
    offset = _at(at_s).astimezone(zone(name)).utcoffset()
    return round(offset.total_seconds()) if offset is not None else 0


def _at(at_s: int) -> dt.datetime:
    return EPOCH + dt.timedelta(seconds=at_s)


def _year_s(year: int) -> int:
    return round((dt.datetime(year, 1, 1, tzinfo=dt.UTC) - EPOCH).total_seconds())
