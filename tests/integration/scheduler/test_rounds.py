"""Schedulers over a store whose clock is driven: what is fired, once each, whatever happens in between."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from typing import Any

import pytest

from support.cron_oracle import Clock, Expression
from support.schedules import Town, town_at
from support.servers import StoreServer
from taskmaster.engine import schedules as engine
from taskmaster.engine.firing import prepare_steps
from taskmaster.engine.scheduled_jobs import Who, fill, make, spec_of
from taskmaster.errors import Conflict, NotFound
from taskmaster.model.schedule import Schedule
from taskmaster.model.zones import zone
from taskmaster.plugins.schedules import Declared
from taskmaster.scheduler.rounds import LEASE_MS
from taskmaster.store import calls, flow, schedules
from taskmaster.store.schedules import Step
from taskmaster.store.status import Status

SECOND, MINUTE, HOUR, DAY = 1_000, 60_000, 3_600_000, 86_400_000
ME = Who("ann")


@pytest.fixture
def town(clean_server: StoreServer) -> Iterator[Town]:
    with town_at(clean_server) as made:
        made.at("2026-11-27T09:00:00Z")
        yield made


def _names(first: str, step_ms: int, n: int, schedule: str = "h") -> list[str]:
    begin = dt.datetime.fromisoformat(first)
    return [f"{schedule}@{begin + dt.timedelta(milliseconds=step_ms * k):%Y-%m-%dT%H:%M:%SZ}" for k in range(n)]


def test_a_schedule_fires_at_each_instant_once(town: Town) -> None:
    """Three schedulers go round and round; each instant has one job, and the history says how late it was."""
    town.put("h", cron="0 * * * *")

    for _ in range(3 * 60):
        town.desk.now += MINUTE
        town.turn("s1", "s2", "s3")

    assert town.made() == _names("2026-11-27T10:00:00Z", HOUR, 3)
    assert [(fire.outcome, fire.lag) for fire in town.fires("h")] == [("fired", 0)] * 3
    assert town.row("h").fields["runs"] == "3"
    town.desk.dump()


def test_only_the_leader_fires_and_another_takes_over_within_ten_seconds(town: Town) -> None:
    """A leader that goes gives its lease back; one that went silent is waited for as long as its lease says."""
    town.put("h", every_ms=SECOND)
    town.turn("s1", "s2")
    first = town.desk.raw.hget("tm:{0}:scheduler", "wid")
    town.desk.now += LEASE_MS - 1
    early = town.scheduler("s2").turn()
    town.desk.now += 2
    town.turn("s2")
    second = town.desk.raw.hget("tm:{0}:scheduler", "wid")
    town.scheduler("s2").leave()
    town.turn("s3")
    third = town.desk.raw.hget("tm:{0}:scheduler", "wid")

    assert (first, second, third) == ("s1", "s2", "s3")
    assert 0 < early <= 0.5
    assert LEASE_MS < 9_500


def test_what_a_paused_leader_still_sends_changes_nothing(town: Town) -> None:
    """It was told what is due, stood still beyond its lease, another fired; then it goes on: no double, no gap."""
    town.put("h", cron="0 * * * *", catch_up="all")
    town.at("2026-11-27T10:00:00Z")
    heard = town.desk.run(schedules.round_(0, "s1", lease_ms=LEASE_MS))
    late = [(row, list(prepare_steps(row, heard.now_ms, lambda _: town.jobs()))) for row in heard.rows]
    town.desk.now += LEASE_MS + 1
    town.turn("s2")
    town.at("2026-11-27T11:00:00Z")
    town.turn("s2")

    answers = [
        town.desk.run(schedules.fire(0, row.id, row.definition, step, jobs, key_window_ms=DAY)).status
        for row, steps in late
        for step, jobs in steps
    ]
    town.at("2026-11-27T12:00:00Z")
    town.turn("s1", "s2")

    assert answers == [Status.CONFLICT]
    assert town.made() == _names("2026-11-27T10:00:00Z", HOUR, 3)


@pytest.mark.parametrize("order", ["edit", "pause", "delete", "recreate"])
def test_nothing_is_fired_of_what_was_changed_meanwhile(town: Town, order: str) -> None:
    """The job was decided, then the schedule was edited, paused or deleted: after that answer the old definition makes no job."""
    town.put("h", cron="0 * * * *")
    town.at("2026-11-27T10:00:00Z")
    (row,) = town.desk.run(schedules.round_(0, "s1", lease_ms=LEASE_MS)).rows
    ((step, jobs),) = prepare_steps(row, town.desk.now, lambda _: town.jobs())
    if order == "edit":
        town.put("h", cron="30 * * * *")
    elif order == "pause":
        town.run(engine.switch("h", 1, ME, enabled=False))
    else:
        town.run(engine.delete("h", 1, ME))
        if order == "recreate":
            town.put("h", cron="0 * * * *")

    answer = town.desk.run(schedules.fire(0, "h", row.definition, step, jobs, key_window_ms=DAY))
    town.turn()

    assert answer.status is (Status.GONE if order == "delete" else Status.CONFLICT)
    assert town.made() == []
    town.desk.dump()


def test_nothing_is_fired_before_it_is_due_by_the_clock_of_the_store(town: Town) -> None:
    """The clock went back between the round that told of it and the step: it is left for its time."""
    town.put("h", cron="0 * * * *")
    town.at("2026-11-27T10:00:00Z")
    (row,) = town.desk.run(schedules.round_(0, "s1", lease_ms=LEASE_MS)).rows
    ((step, jobs),) = prepare_steps(row, town.desk.now, lambda _: town.jobs())
    town.desk.now -= SECOND

    answer = town.desk.run(schedules.fire(0, "h", row.definition, step, jobs, key_window_ms=DAY))

    assert answer.status is Status.CONFLICT
    assert town.made() == []


def test_a_change_that_meets_a_fire_is_decided_anew(town: Town) -> None:
    """The schedule fires between the reading and the writing of a change: its next instant is chosen with that in view."""
    town.put("h", cron="* * * * *")
    town.at("2026-11-27T09:01:00Z")
    plan = engine.put("h", engine.Body(type="alpha", cron="*/1 * * * *").definition, town.jobs(), ME)
    first = next(plan)
    answer = town.desk.run(first)
    town.turn()

    call = plan.send(answer)
    refused = town.desk.run(call)
    call = plan.send(refused)
    while True:
        try:
            call = plan.send(town.desk.run(call))
        except StopIteration:
            break
    town.turn()

    assert refused.status is Status.CONFLICT
    assert town.row("h").version == 2
    assert town.made() == ["h@2026-11-27T09:01:00Z"]


@pytest.mark.parametrize("jitter_ms", [0, 30 * MINUTE])
@pytest.mark.parametrize("by", ["person", "plugin"])
def test_an_instant_that_stands_there_unfired_outlives_an_edit(town: Town, jitter_ms: int, by: str) -> None:
    """It is due, or its jitter is not over, when the payload is changed: it is fired by the new definition, if that has it too."""

    def change(payload: dict[str, int], version: int) -> None:
        schedule = Schedule(type="alpha", cron="0 * * * *", jitter_ms=jitter_ms, payload=payload)
        if by == "plugin":
            assert town.run(engine.declare(Declared("h", schedule, "demo", version), town.jobs())) is Status.OK
        else:
            town.run(engine.put("h", schedule, town.jobs(), ME))

    change({"definition": 1}, 1)
    town.at("2026-11-27T10:00:00.200Z")
    change({"definition": 2}, 2)
    town.at("2026-11-27T10:59:00Z")
    town.desk.now = min(town.desk.now, town.row("h").due_ms or 0)
    town.turn("s1", "s2")

    (blob,) = (str(town.desk.raw.get(key)) for key in town.desk.raw.keys("tm:{0}:b:*"))
    assert town.made() == ["h@2026-11-27T10:00:00Z"]
    assert '{"definition":2}' in blob


def test_an_edit_that_lacks_the_instant_that_stands_there_begins_with_the_next(town: Town) -> None:
    """And so does one that is resumed: what came while it was paused is not made up for."""
    for name in ("edited", "paused"):
        town.put(name, cron="0 * * * *")
    town.run(engine.switch("paused", 1, ME, enabled=False))
    town.at("2026-11-27T10:00:00.200Z")
    town.put("edited", cron="*/7 * * * *", start_at=dt.datetime(2026, 11, 27, 10, 5, tzinfo=dt.UTC))
    town.run(engine.switch("paused", 1, ME, enabled=True))
    town.turn()

    assert town.made() == []
    assert town.row("edited").fields["next"] == str(town.desk.now - 200 + 7 * MINUTE)
    assert town.row("paused").fields["next"] == str(town.desk.now - 200 + HOUR)


def test_a_clock_that_goes_back_fires_nothing_again(town: Town) -> None:
    """An hour back: nothing until the clock is where it was; what was fired stays fired."""
    town.put("h", every_ms=10 * MINUTE)
    for _ in range(6):
        town.desk.now += 10 * MINUTE
        town.turn("s1", "s2")
    fired = town.made()
    town.desk.now -= HOUR
    for _ in range(6):
        town.turn("s1", "s2")
        assert town.made() == fired
        town.desk.now += 10 * MINUTE
    town.desk.now += 10 * MINUTE
    town.turn("s1", "s2")

    assert town.made() == _names("2026-11-27T09:10:00Z", 10 * MINUTE, 7)


@pytest.mark.parametrize(
    ("jump_ms", "policy", "made", "missed"), [(HOUR, "latest", 16, 3_584), (DAY, "none", 16, 86_384), (DAY, "all", 26, 86_374)]
)
def test_a_clock_that_jumps_ahead_makes_no_burst(town: Town, jump_ms: int, policy: Any, made: int, missed: int) -> None:
    """A run each second: the jobs are those that the policy allows, and all others are counted as missed."""
    town.put("h", every_ms=SECOND, catch_up=policy)
    town.desk.now += jump_ms
    town.turn("s1", "s2", "s3")

    row = town.row("h")
    assert len(town.made()) == made
    assert int(row.fields["missed"]) == missed
    assert made + missed == jump_ms // SECOND
    assert sum(fire.count for fire in town.fires("h") if fire.outcome == "missed") == missed
    town.desk.dump()


def test_six_hours_down_over_hourly_runs(town: Town) -> None:
    """Each policy, beside the others."""
    for policy in ("none", "latest", "all"):
        town.put(policy, cron="0 * * * *", catch_up=policy)
    town.at("2026-11-27T15:30:00Z")
    town.turn()

    assert town.made() == sorted([*_names("2026-11-27T10:00:00Z", HOUR, 6, "all"), "latest@2026-11-27T15:00:00Z"])
    assert town.outcomes("none") == ["missed"]
    assert town.outcomes("latest") == ["missed", "fired"]
    assert [town.row(name).fields.get("missed") for name in ("none", "latest", "all")] == ["6", "5", None]
    assert [town.row(name).fields.get("missed_at") for name in ("none", "latest", "all")] == [str(town.desk.now)] * 2 + [None]
    assert town.desk.run(schedules.schedules(0)).missed == 2
    assert {town.row(name).fields["next"] for name in ("none", "latest", "all")} == {str(town.desk.now + HOUR // 2)}


# ---------------------------------------------------------------- overlap


def _end(town: Town) -> None:
    """The running job ends."""
    (held,) = town.desk.claim("w1")
    town.desk.cycle("w1", finishes=[town.desk.end("w1", held)])


@pytest.mark.parametrize(
    ("policy", "outcomes"),
    [
        ("allow", ["fired", "fired", "fired"]),
        ("skip", ["fired", "skipped", "skipped"]),
        ("queue-one", ["fired", "queued", "skipped"]),
        ("cancel-previous", ["fired", "fired", "fired"]),
    ],
)
@pytest.mark.parametrize("is_running", [False, True])
def test_while_the_job_before_has_not_ended(town: Town, policy: Any, outcomes: list[str], is_running: bool) -> None:
    """Each policy, over a job that waits and one that runs."""
    town.put("h", every_ms=MINUTE, overlap=policy)
    town.desk.now += MINUTE
    town.turn()
    (first,) = (str(key)[9:] for key in town.desk.raw.keys("tm:{0}:j:*"))
    if is_running:
        assert town.desk.claim("w1") == [first]
    for _ in range(2):
        town.desk.now += MINUTE
        town.turn()

    assert town.outcomes("h") == outcomes
    assert len(town.made()) == outcomes.count("fired")
    if policy == "cancel-previous":
        assert (town.desk.field(first, "st"), bool(town.desk.field(first, "cr"))) == ("a" if is_running else "x", True)
    town.desk.dump()


def test_one_that_was_queued_follows_when_the_job_before_has_ended(town: Town) -> None:
    """Its job is that of the instant that waited, and it is made once over all schedulers."""
    town.put("h", every_ms=MINUTE, overlap="queue-one", payload={"at": "{{instant}}"})
    for _ in range(3):
        town.desk.now += MINUTE
        town.turn("s1", "s2")
    before = town.made()
    _end(town)
    town.turn("s1", "s2")
    town.turn("s2", "s1")

    assert before == ["h@2026-11-27T09:01:00Z"]
    assert town.made() == _names("2026-11-27T09:01:00Z", MINUTE, 2)
    assert town.outcomes("h") == ["fired", "queued", "skipped", "fired"]
    assert town.row("h").fields["runs"] == "2"
    town.desk.dump()


# ---------------------------------------------------------------- every kind of schedule


@pytest.mark.parametrize(
    ("fields", "fired"),
    [
        ({"run_at": dt.datetime(2026, 11, 27, 9, 0, 30, tzinfo=dt.UTC)}, ["09:00:30"]),
        ({"every_ms": 50 * SECOND}, ["09:00:50", "09:01:40", "09:02:30"]),
        ({"cron": "*/45 * * * * *"}, ["09:00:45", "09:01:00", "09:01:45", "09:02:00", "09:02:45", "09:03:00"]),
        ({"cron": "* * * * *", "start_at": dt.datetime(2026, 11, 27, 9, 2, tzinfo=dt.UTC)}, ["09:02:00", "09:03:00"]),
        ({"cron": "* * * * *", "end_at": dt.datetime(2026, 11, 27, 9, 2, tzinfo=dt.UTC)}, ["09:01:00", "09:02:00"]),
        ({"cron": "* * * * *", "exclude": ("2026-11-27",)}, []),
        ({"cron": "* * * * *", "exclude": ("2026-11-27",), "timezone": "Pacific/Honolulu"}, ["09:01:00", "09:02:00", "09:03:00"]),
        ({"cron": "* * * * *", "max_runs": 2}, ["09:01:00", "09:02:00"]),
    ],
    ids=["once", "interval", "seconds", "start", "end", "excluded", "excluded-elsewhere", "max-runs"],
)
def test_every_kind_of_schedule_fires_at_its_instants(town: Town, fields: dict[str, Any], fired: list[str]) -> None:
    """Second by second for three minutes; in Honolulu it is still the day before. What is over is due no more."""
    town.put("h", **fields)

    for _ in range(3 * 60):
        town.desk.now += SECOND
        town.turn("s1", "s2")

    assert town.made() == [f"h@2026-11-27T{at}Z" for at in fired]
    assert {fire.lag for fire in town.fires("h")} <= {0}
    assert (town.row("h").due_ms is None) == any(name in fields for name in ("run_at", "end_at", "max_runs"))
    town.desk.dump()


def test_jitter_delays_the_job_and_not_the_instant(town: Town) -> None:
    """It is fired when its drawn time has come, not a millisecond before, under the key of its instant."""
    row = town.put("h", cron="0 * * * *", jitter_ms=30 * MINUTE)
    at_ms, due_ms = int(row.fields["next"]), row.due_ms or 0
    town.desk.now = due_ms - 1
    town.turn()
    before = town.made()
    town.desk.now = due_ms
    town.turn()

    assert at_ms < due_ms <= at_ms + 30 * MINUTE
    assert before == []
    assert town.made() == ["h@2026-11-27T10:00:00Z"]
    assert [fire.lag for fire in town.fires("h")] == [0]


@pytest.mark.parametrize("slot", ["next", "held"])
@pytest.mark.parametrize("since", ["edited", "paused", "fired"])
def test_a_step_decided_on_what_was_is_not_made(town: Town, slot: str, since: str) -> None:
    """However late a scheduler comes with it: the schedule was edited, paused or brought further since, and nothing changes."""
    town.put("h", cron="0 * * * *", overlap="queue-one")
    town.desk.now += HOUR
    town.turn()
    if slot == "held":
        town.desk.now += HOUR
        town.turn()
    row = town.row("h")
    at_ms = int(row.fields[slot])
    step = Step(slot=slot, from_=str(at_ms), at=str(at_ms), due=at_ms, next=str(at_ms + HOUR), next_due=at_ms + HOUR)
    if slot == "next":
        town.desk.now = at_ms
    _end(town)
    if since == "edited":
        town.put("h", cron="0 * * * *", overlap="queue-one", payload={"n": 2})
    elif since == "paused":
        town.run(engine.switch("h", 1, ME, enabled=False))
    else:
        for _ in range(2):  # one more, so that it is not the newest step that comes again
            town.turn()
            _end(town)
            town.desk.now += HOUR  # so that the next one is due as well
    before, fires = town.made(), town.fires("h")

    job = make("h", spec_of(row), at_ms, town.jobs(), town.desk.now)
    answer = town.desk.run(schedules.fire(0, "h", row.fields["def"], step, [job], key_window_ms=DAY))

    assert answer.status is Status.CONFLICT
    assert (town.made(), town.fires("h")) == (before, fires)


# ---------------------------------------------------------------- the end of a schedule, and what cannot be run


def test_runs_at_most_so_often(town: Town) -> None:
    """Jobs made by hand do not count; when it is over it is due no more."""
    row = town.put("h", every_ms=MINUTE, max_runs=2)
    for ago in range(4):
        town.run(fill(row, town.desk.now - ago * MINUTE, town.jobs(), ME, town.desk.now, key_window_ms=DAY))
    for _ in range(4):
        town.desk.now += MINUTE
        town.turn()

    row = town.row("h")
    assert (row.fields["runs"], row.due_ms, "next" in row.fields) == ("2", None, False)
    assert len(town.made()) == 6
    town.desk.dump()


def test_an_instant_that_was_made_by_hand_is_not_made_again(town: Town) -> None:
    """It is fired as a duplicate, also when its key is long forgotten for a backfill."""
    row = town.put("h", every_ms=MINUTE)
    town.desk.now += MINUTE
    town.turn()
    _end(town)
    key = next(iter(town.desk.raw.keys("tm:{0}:k:*")))
    town.desk.raw.delete(key)

    is_new, _ = town.run(fill(row, town.desk.now, town.jobs(), ME, town.desk.now, key_window_ms=DAY))

    assert not is_new
    assert len(town.made()) == 1


@pytest.mark.parametrize("why", ["full", "draining", "payload", "type"])
def test_what_cannot_be_run_is_refused_told_and_counted(town: Town, why: str) -> None:
    """The schedule goes on with its next instant."""
    town.put("h", every_ms=MINUTE)
    order = flow.Order("op", None, "ann", "why")
    if why == "full":
        town.desk.run(flow.put_queue(0, "one", {"max": 1}, order))
        town.desk.submit()
    elif why == "draining":
        town.desk.run(flow.put_queue(0, "one", {"drain": 1}, order))
    elif why == "payload":
        town.desk.raw.hset("tm:{0}:cat", "alpha", str(town.desk.raw.hget("tm:{0}:cat", "alpha")).replace('"object"', '"array"'))
    else:
        town.desk.raw.hdel("tm:{0}:cat", "alpha")
    town.desk.now += MINUTE
    town.turn()

    (fire,) = town.fires("h")
    assert (fire.outcome, fire.job) == ("refused", "")
    assert {"full": "full", "draining": "draining", "payload": "schema", "type": "no job type"}[why] in fire.why
    assert town.row("h").fields["refused"] == "1"
    assert town.row("h").fields["next"] == str(town.desk.now + MINUTE)


def test_one_that_cannot_be_read_stops_no_other(town: Town) -> None:
    """Somebody's hand in the store: the others fire."""
    town.put("a", every_ms=MINUTE)
    town.put("b", every_ms=MINUTE)
    town.desk.raw.hset("tm:{0}:sc:a", "spec", "{no json")
    town.desk.now += MINUTE
    town.turn()

    assert town.made() == ["b@2026-11-27T09:01:00Z"]


def test_orders_to_nobody_are_refused(town: Town) -> None:
    """Pause, delete and put by a version that is not there."""
    with pytest.raises(NotFound):
        town.run(engine.switch("nobody", 1, ME, enabled=False))
    with pytest.raises(NotFound):
        town.run(engine.delete("nobody", 1, ME))
    with pytest.raises(Conflict):
        town.run(engine.put("nobody", engine.Body(type="alpha", every_ms=SECOND).definition, town.jobs(), ME, known=3))


# ---------------------------------------------------------------- plugins declare


def _declare(town: Town, version: int, cron: str, name: str = "daily") -> Status:
    schedule = engine.Body(type="alpha", cron=cron).definition
    answer: Status = town.run(engine.declare(Declared(name, schedule, "demo", version), town.jobs()))
    return answer


def test_a_declaration_is_taken_by_version_and_yields_to_people(town: Town) -> None:
    """New, the same, older, newer; paused stays paused; what a person changed stays; what a person made is not taken."""
    steps = [_declare(town, 1, "0 1 * * *"), _declare(town, 1, "0 2 * * *")]
    town.run(engine.switch("daily", 1, ME, enabled=False))
    steps += [_declare(town, 3, "0 3 * * *"), _declare(town, 2, "0 2 * * *")]
    after_deploy = town.row("daily").fields
    town.run(engine.patch("daily", {"cron": "0 9 * * *"}, town.jobs(), ME, enabled=None, known=None))
    steps += [_declare(town, 4, "0 4 * * *")]
    town.put("mine", cron="0 0 * * *")
    steps += [_declare(town, 9, "0 4 * * *", "mine")]

    ok, already, done, conflict = Status.OK, Status.ALREADY, Status.DONE, Status.CONFLICT
    assert steps == [ok, already, ok, already, done, conflict]
    assert '"0 3 * * *"' in after_deploy["spec"]
    assert "paused" in after_deploy
    assert '"0 9 * * *"' in town.row("daily").fields["spec"]
    town.desk.dump()


# ---------------------------------------------------------------- the report of nine o'clock


def test_the_nine_oclock_report_of_new_york_over_the_days_when_clocks_change(town: Town) -> None:
    """Weekdays at nine, from October to the end of the year: the jobs are those of the oracle, on time, and each is for its local day."""
    begin, end = dt.datetime(2026, 10, 20, tzinfo=dt.UTC), dt.datetime(2027, 1, 1, tzinfo=dt.UTC)
    expected = Clock(zone("America/New_York"), begin - dt.timedelta(days=1), end + dt.timedelta(days=1)).instants(
        Expression("0 9 * * 1-5"), "shift", "once"
    )
    town.at(begin.isoformat())
    town.put("report", cron="0 9 * * 1-5", timezone="America/New_York", payload={"day": "{{localDate}}", "at": "{{localTime}}"})

    payloads = []
    while town.desk.now < end.timestamp() * 1_000:
        town.turn("s1", "s2", "s3")
        claims = town.desk.cycle("w1", (1, "one")).claims
        for claim in claims:
            payloads.append((town.desk.now, claim.blob))
            town.desk.cycle("w1", finishes=[calls.Finish(claim.id, town.desk.token("w1"), "c")])
        town.desk.now += 30 * MINUTE

    assert town.made() == [f"report@{at:%Y-%m-%dT%H:%M:%SZ}" for at in expected]
    assert [now for now, _ in payloads] == [round(at.timestamp() * 1_000) for at in expected]
    for (_, blob), at in zip(payloads, expected, strict=True):
        assert f'"day":"{at:%Y-%m-%d}","at":"09:00:00"' in bytes(blob).decode()
