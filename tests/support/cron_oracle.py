"""An independent reading of the rules of cron and of clocks that change: every minute of a stretch of time is looked at, one by one.

Nothing is shared with the engine: fields are parsed here, and a local time is found by going through all minutes of UTC.
"""

from __future__ import annotations

import calendar
import datetime as dt
from collections import defaultdict
from collections.abc import Iterable, Iterator
from zoneinfo import ZoneInfo

__all__ = ["Clock", "Expression"]

_DAYS = {name: number for number, name in enumerate(("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"))}
_MONTHS = {name: number for number, name in enumerate(calendar.month_abbr) if name for name in (name.upper(),)}
_MINUTE = dt.timedelta(minutes=1)


def _numbers(text: str, low: int, high: int, names: dict[str, int]) -> set[int]:
    found: set[int] = set()
    for part in text.upper().split(","):
        span, _, step = part.partition("/")
        first, _, last = span.partition("-")
        if span == "*":
            begin, end = low, high
        else:
            begin = names.get(first, -1) if first in names else int(first)
            end = (names[last] if last in names else int(last)) if last else (high if step else begin)
        found |= set(range(begin, end + 1, int(step or 1)))
    return found


class Expression:
    """Five fields: numbers, names, lists, ranges, steps; `L` as day of month, `5L` and `2#1` as weekday."""

    def __init__(self, text: str) -> None:
        minute, hour, self._day, month, self._weekday = text.split()
        self.minutes, self.hours = _numbers(minute, 0, 59, {}), _numbers(hour, 0, 23, {})
        self.months = _numbers(month, 1, 12, _MONTHS)
        self.is_hourly = len(self.hours) == 24

    def matches_day(self, day: dt.date) -> bool:
        if day.month not in self.months:
            return False
        last = calendar.monthrange(day.year, day.month)[1]
        by_number = day.day == last if self._day == "L" else day.day in _numbers(self._day, 1, 31, {})
        weekday = day.isoweekday() % 7
        if self._weekday.endswith("L"):
            by_weekday = weekday == int(self._weekday[:-1]) % 7 and day.day + 7 > last
        elif "#" in self._weekday:
            wanted, nth = self._weekday.split("#")
            by_weekday = weekday == int(wanted) % 7 and (day.day - 1) // 7 + 1 == int(nth)
        else:
            by_weekday = weekday in {number % 7 for number in _numbers(self._weekday, 0, 7, _DAYS)}
        # Both restricted: either will do. One of them open: the other decides.
        is_open = self._day.startswith("*") or self._weekday.startswith("*")
        return (by_number and by_weekday) if is_open else (by_number or by_weekday)

    def times(self, first: dt.date, last: dt.date) -> Iterator[dt.datetime]:
        """All local times that match, whether they exist in a zone or not."""
        for ordinal in range(first.toordinal(), last.toordinal() + 1):
            day = dt.date.fromordinal(ordinal)
            if self.matches_day(day):
                for hour in sorted(self.hours):
                    for minute in sorted(self.minutes):
                        yield dt.datetime(day.year, day.month, day.day, hour, minute)  # noqa: DTZ001 - of no zone


class Clock:
    """What the clocks of a zone show in every minute from *begin* to *end* (UTC, both whole days)."""

    def __init__(self, zone: ZoneInfo, begin: dt.datetime, end: dt.datetime) -> None:
        self.begin, self.end = begin, end
        self._shown: list[tuple[dt.datetime, dt.datetime]] = []
        self._when: dict[dt.datetime, list[dt.datetime]] = defaultdict(list)
        at = begin
        while at < end:
            local = at.astimezone(zone).replace(tzinfo=None)
            self._shown.append((at, local))
            self._when[local].append(at)
            at += _MINUTE

    def instants(self, expression: Expression, gap: str, overlap: str) -> list[dt.datetime]:
        """The instants of *expression* by the rules, a day inside both ends."""
        matches = self._by_elapsed_time(expression) if expression.is_hourly else self._by_local_time(expression, gap, overlap)
        found = set(matches)
        inside = dt.timedelta(days=1)
        return sorted(at for at in found if self.begin + inside <= at < self.end - inside)

    def _by_elapsed_time(self, expression: Expression) -> Iterable[dt.datetime]:
        days = {local.date() for _, local in self._shown}
        good = {day for day in days if expression.matches_day(day)}
        return (at for at, local in self._shown if local.minute in expression.minutes and local.date() in good)

    def _by_local_time(self, expression: Expression, gap: str, overlap: str) -> Iterator[dt.datetime]:
        for local in expression.times(self._shown[0][1].date(), self._shown[-1][1].date()):
            when = self._when.get(local, [])
            if when:
                yield from when if overlap == "each" else when[:1]
            elif gap == "shift" and self._shown[0][1] < local < self._shown[-1][1]:
                yield self._first_after(local)

    def _first_after(self, missing: dt.datetime) -> dt.datetime:
        """The first minute at which the clocks have gone past a local time that they never showed."""
        local = missing
        while local not in self._when:
            local += _MINUTE
        return self._when[local][0]
