"""Cron expressions: held against an independent reading of the rules, and the cases that others get wrong."""

from __future__ import annotations

import datetime as dt
import os
from itertools import takewhile

import pytest
from apscheduler.triggers.cron import CronTrigger

from support.cron_oracle import Clock, Expression
from taskmaster.model import cron
from taskmaster.model.zones import zone, zone_names

EXPRESSIONS = (
    "* * * * *",
    "*/30 * * * *",
    "0 9 * * 1-5",
    "30 2 * * *",
    "30 1 * * *",
    "0 0 * * *",
    "15,45 0-3 * * *",
    "0 */2 * * *",
    "0 0 13 * 5",
    "0 0 1 * *",
    "59 23 L * *",
    "0 3 * * 0#1",
    "30 0 * * 7L",
    "0 12 */7 * MON",
    "5 4 * JAN-MAR,oct sun",
)
RULES = (("shift", "once"), ("skip", "each"))
#: Zones of all kinds: without a change, by half an hour, by two hours, at midnight, before midnight, in Ramadan, in both hemispheres.
ZONES = (
    "UTC",
    "America/New_York",
    "Europe/Berlin",
    "Australia/Lord_Howe",
    "Africa/Cairo",
    "America/Havana",
    "Asia/Kathmandu",
    "America/Scoresbysund",
    "Africa/Casablanca",
    "Pacific/Chatham",
    "America/Asuncion",
    "Antarctica/Troll",
)
UTC = dt.UTC


def _hold_against_the_oracle(name: str, begin: dt.datetime, end: dt.datetime, expressions: tuple[str, ...] = EXPRESSIONS) -> None:
    clock, inside = Clock(zone(name), begin, end), dt.timedelta(days=1)
    low, high = (begin + inside).timestamp(), (end - inside).timestamp()
    for text in expressions:
        for gap, overlap in RULES:
            expected = [round(at.timestamp()) for at in clock.instants(Expression(text), gap, overlap)]

            found = takewhile(lambda one: one.at_s < high, cron.instants(text, name, int(low) - 1, gap, overlap))

            assert [one.at_s for one in found] == expected, (name, text, gap, overlap)


def _changes(name: str, year: int) -> list[dt.datetime]:
    """Days on which the offset is another than the day before."""
    days = [dt.datetime(year, 1, 1, tzinfo=UTC) + dt.timedelta(days=n) for n in range(366)]
    offsets = [day.astimezone(zone(name)).utcoffset() for day in days]
    return [days[n] for n in range(1, 366) if offsets[n] != offsets[n - 1]]


@pytest.mark.parametrize("name", ZONES)
def test_instants_around_every_change_of_clocks_are_those_of_the_oracle(name: str) -> None:
    """Each zone, on the days around each of its changes in 2026 and at new year: the lists are equal."""
    days = [*_changes(name, 2026), dt.datetime(2027, 1, 1, tzinfo=UTC)]
    for day in days:
        _hold_against_the_oracle(name, day - dt.timedelta(days=2), day + dt.timedelta(days=2))


@pytest.mark.timeout(180)
def test_every_zone_on_the_days_when_its_clocks_change_is_that_of_the_oracle() -> None:
    """All IANA zones, each of their changes in 2026, all expressions and rules. Zones whose clocks agree all year are held once."""
    seen: set[tuple[tuple[dt.datetime, dt.timedelta | None], ...]] = set()
    for name in sorted(zone_names()):
        days = tuple((day, day.astimezone(zone(name)).utcoffset()) for day in _changes(name, 2026))
        if days and days not in seen:
            seen.add(days)
            for day, _ in days:
                _hold_against_the_oracle(name, day - dt.timedelta(days=2), day + dt.timedelta(days=2))

    assert len(seen) > 20


@pytest.mark.parametrize(
    ("name", "day"), [("Pacific/Apia", dt.datetime(2011, 12, 30, tzinfo=UTC)), ("Asia/Pyongyang", dt.datetime(2018, 5, 5, tzinfo=UTC))]
)
def test_a_day_that_was_left_out_and_half_an_hour_that_was(name: str, day: dt.datetime) -> None:
    """A zone that crossed the date line, and one that moved by half an hour just before midnight."""
    _hold_against_the_oracle(name, day - dt.timedelta(days=3), day + dt.timedelta(days=3))


@pytest.mark.timeout(7_200)
@pytest.mark.skipif(not os.environ.get("TM_ORACLE"), reason="TM_ORACLE=2026 holds every zone against the oracle for that year: minutes")
def test_every_zone_for_a_year_is_that_of_the_oracle() -> None:
    """Every IANA zone, a whole year, all expressions and rules: the lists are equal. Zones with equal clocks all year are held once."""
    year = int(os.environ["TM_ORACLE"])
    begin, end = dt.datetime(year, 1, 1, tzinfo=UTC) - dt.timedelta(days=1), dt.datetime(year + 1, 1, 1, tzinfo=UTC) + dt.timedelta(days=1)
    quarters = [begin + dt.timedelta(minutes=15 * n) for n in range(367 * 96)]
    seen: set[tuple[dt.timedelta | None, ...]] = set()
    for name in sorted(zone_names()):
        clocks = tuple(at.astimezone(zone(name)).utcoffset() for at in quarters)
        if clocks not in seen:
            seen.add(clocks)
            _hold_against_the_oracle(name, begin, end, EXPRESSIONS[1:])


def _local(text: str, name: str, after: str, n: int, **rules: str) -> list[str]:
    after_s = round(dt.datetime.fromisoformat(after).timestamp())
    gap, overlap = rules.get("gap", "shift"), rules.get("overlap", "once")
    found = cron.instants(text, name, after_s, gap, overlap)
    return [dt.datetime.fromtimestamp(next(found).at_s, zone(name)).isoformat() for _ in range(n)]


def test_monday_is_monday() -> None:
    """Day 1 of a week is Monday, as in every cron; APScheduler's own reading, which is not used, takes it for Tuesday."""
    sunday = dt.datetime(2026, 11, 22, tzinfo=UTC)

    theirs = CronTrigger.from_crontab("0 0 * * 1", timezone=UTC).get_next_fire_time(None, sunday)

    assert _local("0 0 * * 1", "UTC", sunday.isoformat(), 1) == ["2026-11-23T00:00:00+00:00"]
    assert theirs == dt.datetime(2026, 11, 24, tzinfo=UTC)


def test_a_day_of_month_or_a_weekday() -> None:
    """Where both are given either will do: the 13th, and every Friday."""
    assert _local("0 0 13 * 5", "UTC", "2026-11-22T00:00:00+00:00", 4) == [
        "2026-11-27T00:00:00+00:00",
        "2026-12-04T00:00:00+00:00",
        "2026-12-11T00:00:00+00:00",
        "2026-12-13T00:00:00+00:00",
    ]


@pytest.mark.parametrize(
    ("gap", "expected"),
    [
        ("shift", ["2026-03-28T02:30:00+01:00", "2026-03-29T03:00:00+02:00", "2026-03-30T02:30:00+02:00"]),
        ("skip", ["2026-03-28T02:30:00+01:00", "2026-03-30T02:30:00+02:00", "2026-03-31T02:30:00+02:00"]),
    ],
)
def test_a_time_that_does_not_exist_is_run_after_the_gap_or_not_at_all(gap: str, expected: list[str]) -> None:
    """Spring in Berlin: 02:00 to 03:00 is left out."""
    assert _local("30 2 * * *", "Europe/Berlin", "2026-03-28T00:00:00+01:00", 3, gap=gap) == expected


@pytest.mark.parametrize(
    ("overlap", "expected"),
    [
        ("once", ["2026-11-01T01:30:00-04:00", "2026-11-02T01:30:00-05:00"]),
        ("each", ["2026-11-01T01:30:00-04:00", "2026-11-01T01:30:00-05:00"]),
    ],
)
def test_a_time_that_comes_twice_is_run_once_or_each_time(overlap: str, expected: list[str]) -> None:
    """Autumn in New York: 01:00 to 02:00 comes twice."""
    assert _local("30 1 * * *", "America/New_York", "2026-11-01T00:00:00-04:00", 2, overlap=overlap) == expected


@pytest.mark.parametrize(("day", "runs"), [("2026-03-08T00:00:00-05:00", 46), ("2026-11-01T00:00:00-04:00", 50)])
def test_what_runs_in_every_hour_goes_by_elapsed_time(day: str, runs: int) -> None:
    """Every half hour, on days of 23 and 25 hours: no silence and no doubles, whatever the rules for named hours are."""
    begin = round(dt.datetime.fromisoformat(day).timestamp())
    midnight = round((dt.datetime.fromtimestamp(begin, zone("America/New_York")) + dt.timedelta(days=1)).timestamp())

    found = cron.instants("*/30 * * * *", "America/New_York", begin - 1, "shift", "once")
    instants = [one.at_s for one in takewhile(lambda one: one.at_s < midnight, found)]

    assert instants == [begin + 1_800 * n for n in range(runs)]


def test_six_fields_begin_with_seconds() -> None:
    """`*/20` seconds; and an expression with seconds keeps the rules for clocks that change."""
    assert _local("*/20 0 9 * * *", "UTC", "2026-01-01T00:00:00+00:00", 4) == [
        "2026-01-01T09:00:00+00:00",
        "2026-01-01T09:00:20+00:00",
        "2026-01-01T09:00:40+00:00",
        "2026-01-02T09:00:00+00:00",
    ]
    assert _local("5 30 2 * * *", "Europe/Berlin", "2026-03-28T12:00:00+01:00", 1) == ["2026-03-29T03:00:00+02:00"]


@pytest.mark.parametrize(
    "text", ["", "* * * *", "60 * * * *", "0 0 31 2 *", "0 0 * * MON-SUN", "x * * * *", "0 0 * * 1#6", "*/0 * * * *", "@often", "* " * 200]
)
def test_what_is_no_expression_is_refused_with_words(text: str) -> None:
    """Also one that can never match."""
    with pytest.raises(cron.CronError, match=r"\w"):
        cron.check(text)


@pytest.mark.parametrize(
    ("text", "same"), [("@daily", "0 0 * * *"), ("@HOURLY", "0 * * * *"), ("@weekly", "0 0 * * 0"), ("@yearly", "0 0 1 1 *")]
)
def test_names_stand_for_expressions(text: str, same: str) -> None:
    """@daily and its like."""
    after = "2026-06-01T00:00:00+00:00"

    assert _local(text, "UTC", after, 3) == _local(same, "UTC", after, 3)
    cron.check(text)
