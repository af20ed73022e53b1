"""Schedules without a store: what is due, what was missed, what is refused."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskmaster.errors import InvalidRequest
from taskmaster.model.schedule import GRACE_MS, Due, Missed, Run, Schedule, check, due, due_at, explain, local_time, next_instants

HOUR, DAY = 3_600_000, 86_400_000
NINE = 1_795_770_000_000  # 2026-11-27 09:00 UTC


def _at(text: str) -> dt.datetime:
    return dt.datetime.fromisoformat(text)


def _ms(text: str) -> int:
    return round(_at(text).timestamp() * 1_000)


def _hourly(**options: Any) -> Schedule:
    return Schedule(type="report", cron="0 * * * *", **options)


@pytest.mark.parametrize(
    ("options", "missed", "fired"),
    [
        ({"catch_up": "none"}, 6, []),
        ({}, 5, [NINE + 5 * HOUR]),
        ({"catch_up": "latest"}, 5, [NINE + 5 * HOUR]),
        ({"catch_up": "all"}, 0, [NINE + n * HOUR for n in range(6)]),
        ({"catch_up": "all", "catch_up_max": 2}, 4, [NINE + 4 * HOUR, NINE + 5 * HOUR]),
    ],
)
def test_six_hours_down_over_six_hourly_runs(options: dict[str, Any], missed: int, fired: list[int]) -> None:
    """None, the latest or all of them, as the schedule says; what is not run is counted."""
    decided = due(_hourly(**options), "h", NINE, NINE + 5 * HOUR + HOUR // 2)

    assert decided.fire == tuple(fired)
    assert (decided.missed.total if decided.missed else 0) == missed
    assert decided.next_ms == NINE + 6 * HOUR


@pytest.mark.parametrize("timing", [{"cron": "0 9 * * 1-5", "timezone": "America/New_York"}, {"every_ms": HOUR}])
def test_the_calendar_has_a_beginning_and_an_end(timing: dict[str, Any]) -> None:
    """What a zone cannot be asked about is no instant; nobody who asks from there gets an error."""
    schedule = Schedule(type="report", **timing)
    first, late = next_instants(schedule, _ms("0001-01-01T00:00:00+14:00"), 1), _ms("9999-12-31T23:59:59-14:00")

    assert [local_time(schedule, run.at_ms).year for run in first] == [3]
    assert next_instants(schedule, late, 1) == []


@pytest.mark.parametrize("catch_up", ["none", "latest", "all"])
def test_what_is_a_few_seconds_late_was_not_missed(catch_up: Any) -> None:
    """A takeover takes seconds: all instants of that time are run, whatever the policy is."""
    schedule = Schedule(type="report", every_ms=5_000, catch_up=catch_up, catch_up_max=1)

    decided = due(schedule, "h", NINE, NINE + GRACE_MS)

    assert decided == Due(None, tuple(NINE + n * 5_000 for n in range(4)), NINE + 20_000)


def test_a_clock_that_jumped_makes_no_burst() -> None:
    """An hour later, a run each second: those of the last seconds are run, the others are missed and counted."""
    decided = due(Schedule(type="report", every_ms=1_000), "h", NINE, NINE + HOUR)

    assert decided.missed == Missed(3_585, NINE, NINE + HOUR - GRACE_MS - 1_000)
    assert len(decided.fire) == GRACE_MS // 1_000 + 1


def test_a_year_of_seconds_is_passed_over_in_bounded_steps() -> None:
    """Each step counts what it passes over, and none is passed over that a policy would run."""
    schedule = Schedule(type="report", every_ms=1_000, catch_up="all", catch_up_max=1_000)
    next_ms, now_ms, missed, fired = NINE, NINE + 30_000_000, 0, []

    while next_ms <= now_ms:
        decided = due(schedule, "h", next_ms, now_ms)
        missed += decided.missed.total if decided.missed else 0
        fired += decided.fire
        next_ms = decided.next_ms or 0

    in_time = GRACE_MS // 1_000 + 1
    assert fired == list(range(now_ms - (1_000 + in_time - 1) * 1_000, now_ms + 1, 1_000))
    assert missed == 30_001 - len(fired)


@settings(deadline=None)
@given(
    every=st.integers(1_000, 10 * HOUR),
    ago=st.integers(0, 8 * HOUR),
    jitter=st.sampled_from([0, 500, 30_000]),
    policy=st.sampled_from(["none", "latest", "all"]),
)
def test_every_instant_is_either_run_or_counted_as_missed(every: int, ago: int, jitter: int, policy: Any) -> None:
    """Nothing is passed over in silence, and nothing is run before it is due."""
    schedule = Schedule(type="report", every_ms=max(every, 30_000 if jitter else 1_000), catch_up=policy, jitter_ms=jitter)
    first = next_instants(schedule, NINE - ago, 1)[0].at_ms
    next_ms: int | None = first
    dealt_with: list[int] = []

    while next_ms is not None and due_at(schedule, "h", next_ms) <= NINE:
        decided = due(schedule, "h", next_ms, NINE)
        if decided.missed:
            dealt_with += range(decided.missed.first_ms, decided.missed.last_ms + 1, schedule.every_ms or 1)
            assert dealt_with[-1] == decided.missed.last_ms
        dealt_with += decided.fire
        assert all(due_at(schedule, "h", at) <= NINE for at in decided.fire)
        next_ms = decided.next_ms

    assert dealt_with == list(range(first, next_ms or 0, schedule.every_ms or 1))


def test_an_interval_counts_from_its_start_or_from_1970() -> None:
    """So every process, and every restart, finds the same instants."""
    assert next_instants(Schedule(type="r", every_ms=HOUR), NINE + 1, 2) == [Run(NINE + HOUR), Run(NINE + 2 * HOUR)]
    started = Schedule(type="r", every_ms=HOUR, start_at=_at("2026-11-27T09:20:00Z"))
    assert [run.at_ms - NINE for run in next_instants(started, NINE, 2)] == [20 * 60_000, 80 * 60_000]


def test_start_end_and_excluded_days_bound_a_schedule() -> None:
    """Start and end are instants of it if they fit; an excluded day is a day in the schedule's zone."""
    schedule = Schedule(
        type="r",
        cron="0 9 * * *",
        timezone="America/New_York",
        start_at=_at("2026-12-23T09:00:00-05:00"),
        end_at=_at("2026-12-29T09:00:00-05:00"),
        exclude=("2026-12-25", "2026-12-27/2026-12-28"),
    )
    check(schedule)

    days = [f"{local_time(schedule, run.at_ms):%d}" for run in next_instants(schedule, 0, 10)]

    assert days == ["23", "24", "26", "29"]


def test_a_one_off_runs_once() -> None:
    """And nothing follows."""
    schedule = Schedule(type="r", run_at=_at("2026-11-27T09:00:00Z"))

    assert next_instants(schedule, NINE - 1, 3) == [Run(NINE)]
    assert next_instants(schedule, NINE, 3) == []
    assert due(schedule, "h", NINE, NINE) == Due(None, (NINE,), None)


def test_jitter_is_drawn_once_for_all() -> None:
    """The same in every process; within its bound; not the same for two schedules or two instants."""
    schedule = Schedule(type="r", cron="0 9 * * *", jitter_ms=60_000)

    drawn = [due_at(schedule, name, NINE + n * DAY) - NINE - n * DAY for name in ("a", "b") for n in range(20)]

    assert all(0 <= one <= 60_000 for one in drawn)
    assert len(set(drawn)) > 30
    assert due_at(schedule, "a", NINE) == due_at(schedule, "a", NINE)
    assert due(schedule, "a", NINE, NINE + drawn[0] - 1).fire == (NINE,)  # asked early, it answers for what it is asked


@pytest.mark.parametrize(
    ("options", "pointer"),
    [
        ({}, ""),
        ({"cron": "0 9 * * *", "every_ms": 1_000}, ""),
        ({"cron": "0 9 * *"}, "/cron"),
        ({"cron": "0 9 * * *", "timezone": "Mars/Olympus"}, "/timezone"),
        ({"cron": "0 9 * * *", "timezone": "../../etc/passwd"}, "/timezone"),
        ({"cron": "0 9 * * *", "exclude": ("2026-02-30",)}, "/exclude"),
        ({"cron": "0 9 * * *", "payload": {"day": ["{{yesterday}}"]}}, "/payload"),
        ({"every_ms": 1_000, "start_at": _at("2027-01-01T00:00:00Z"), "end_at": _at("2026-01-01T00:00:00Z")}, "/endAt"),
    ],
)
def test_what_cannot_be_carried_out_is_refused_at_the_place_that_is_wrong(options: dict[str, Any], pointer: str) -> None:
    """Each with a pointer to the member and words on what is meant."""
    with pytest.raises(InvalidRequest) as refused:
        check(Schedule(type="r", **options))

    assert [error["pointer"] for error in refused.value.facts["errors"]] == [pointer]


def test_a_schedule_is_told_in_words() -> None:
    """Each kind."""
    assert explain(Schedule(type="r", cron="0 9 * * 1-5", timezone="America/New_York")) == (
        "At 09:00 on Monday through Friday, America/New_York time"
    )
    assert explain(Schedule(type="r", every_ms=5 * 60_000)) == "Every 5 minutes, counted from the beginning of 1970 UTC"
    assert explain(Schedule(type="r", run_at=_at("2026-12-24T18:00:00+01:00"))) == "Once, at 2026-12-24T17:00:00Z"


@pytest.mark.parametrize("timing", [{"every_ms": 1_000}, {"cron": "* * * * *"}])
def test_a_long_exclusion_is_passed_over_at_once(timing: dict[str, Any]) -> None:
    """Day by day would be a minute for a year of seconds, and for ever until the year 9999."""
    ten_years = Schedule(type="report", exclude=("2026-01-01/2035-12-31",), **timing)
    for_ever = Schedule(type="report", exclude=("2000-01-01/9999-12-31",), **timing)

    assert next_instants(ten_years, NINE, 2) == [
        Run(_ms("2036-01-01T00:00:00Z")),
        Run(_ms("2036-01-01T00:00:00Z") + timing.get("every_ms", 60_000)),
    ]
    assert next_instants(for_ever, NINE, 1) == []


@given(
    days=st.lists(st.tuples(st.integers(-1, 8), st.integers(0, 3)), max_size=4),
    every_ms=st.sampled_from([3_600_000, 5_400_000, 25 * 3_600_000]),
    zone_name=st.sampled_from(["UTC", "America/New_York", "Asia/Beirut", "America/Havana", "Pacific/Apia"]),
    start=st.sampled_from(
        [NINE, _ms("2026-03-26T00:00:00Z"), _ms("2026-10-22T00:00:00Z"), _ms("2026-10-30T00:00:00Z"), _ms("2011-12-27T00:00:00Z")]
    ),
)
@settings(max_examples=60, deadline=None)
def test_passing_over_is_the_same_as_looking_at_each(days: list[tuple[int, int]], every_ms: int, zone_name: str, start: int) -> None:
    """Whatever the clocks do at midnight: what is left are the instants whose local day is not excluded."""
    first = dt.datetime.fromtimestamp(start / 1_000, dt.UTC).date()
    exclude = tuple(f"{first + dt.timedelta(begin)}/{first + dt.timedelta(begin + more)}" for begin, more in days)
    plain = Schedule(type="report", every_ms=every_ms, timezone=zone_name)
    ends = start + 12 * DAY

    def is_excluded(at_ms: int) -> bool:
        day = local_time(plain, at_ms).date()
        return any(first + dt.timedelta(begin) <= day <= first + dt.timedelta(begin + more) for begin, more in days)

    each = [run.at_ms for run in next_instants(plain, start, 400) if run.at_ms <= ends and not is_excluded(run.at_ms)]
    passed = Schedule(type="report", every_ms=every_ms, timezone=zone_name, exclude=exclude)

    assert [run.at_ms for run in next_instants(passed, start, 400) if run.at_ms <= ends] == each


@pytest.mark.parametrize(
    ("options", "pointer"),
    [
        ({"every_ms": 60_000, "start_at": _at("0001-01-01T00:00:00+14:00")}, "/startAt"),
        ({"every_ms": 60_000, "end_at": _at("9999-12-31T23:59:59-14:00")}, "/endAt"),
        ({"run_at": _at("9999-12-31T23:59:59+00:00"), "timezone": "Asia/Tokyo"}, "/runAt"),
        ({"every_ms": 60_000, "exclude": ("2026-12-31/2026-12-24",)}, "/exclude"),
    ],
)
def test_what_no_clock_shows_is_refused(options: dict[str, Any], pointer: str) -> None:
    """Instants that have no date in some zone, and ranges that end before they begin."""
    with pytest.raises(InvalidRequest) as refused:
        check(Schedule(type="report", **options))

    assert [error["pointer"] for error in refused.value.facts["errors"]] == [pointer]
