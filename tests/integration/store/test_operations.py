"""Operations over many dead letters and jobs on both servers: what a step does, what stops it, what survives one that was cut off."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from support.desk import WINDOW_MS, Desk, keeping
from support.operations import duty
from support.protocol.dump import Snapshot
from taskmaster import failpoints
from taskmaster.engine import operations as engine
from taskmaster.engine.orders import Order, OrderFilter, plan
from taskmaster.errors import Conflict, KeyReused, StoreDefect
from taskmaster.failpoints import FailpointHit
from taskmaster.maintenance.sweeper import Sweeper
from taskmaster.maintenance.upkeep import Upkeep
from taskmaster.store import calls, effects, letters, operations, webhooks

BLOB = '["alpha",{"n":1},"","api",1]'
EVERYTHING = OrderFilter()


def order(action: str = "replay", **fields: Any) -> Order:
    usual: dict[str, Any] = {"filter": None if "ids" in fields else EVERYTHING, "reason": "mended", "by": "ann", "rate_per_s": 1_000.0}
    return Order(action=action, **(usual | fields))


def open_(desk: Desk, action: str = "replay", key: str = "", **fields: Any) -> str:
    """Opened a millisecond after what was there before."""
    desk.now += 1
    talk = engine.open_order(plan(order(action, **fields), 1), key, 1, now_ms=desk.now)
    return desk.store.converse(talk)[0]


def step(desk: Desk, *, after_ms: int = 1_000) -> None:
    """The next second's step."""
    desk.now += after_ms
    duty(desk.store, key_window_ms=WINDOW_MS).step()


def view(desk: Desk, operation_id: str) -> engine.OperationView:
    return desk.store.converse(engine.of_id(operation_id, 1))


def counts(desk: Desk, operation_id: str) -> dict[str, int]:
    return {name: n for name, n in view(desk, operation_id).counts.items() if n}


def waiting(desk: Desk) -> list[str]:
    """Sources of the replays that wait, in the order in which they do."""
    return [str(desk.field(job_id, "rp")) for job_id in desk.raw.zrange("tm:{0}:lane:one/2/alpha/-", 0, -1)]


def records(snap: Snapshot) -> Snapshot:
    return {key: value for key, value in snap.items() if key.startswith(("d:", "dlq:", "fp"))}


def audit(desk: Desk) -> list[tuple[str, str, str, str]]:
    rows: Any = desk.raw.xrange("tm:{0}:audit")
    return [(fields["who"], fields["action"], fields["target"], fields["reason"]) for _, fields in rows]


@pytest.fixture(autouse=True)
def readable(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs whose submissions can be read again."""
    made = desk.item
    monkeypatch.setattr(desk, "item", lambda *args, **fields: made(*args, **({"blob": BLOB} | fields)))


# ---------------------------------------------------------------- replay
def test_a_replay_takes_the_oldest_first_and_leaves_the_records_alone(desk: Desk) -> None:
    """Each dead letter becomes one new job with lineage; not a byte of the records changes."""
    first = desk.bury(3)
    desk.now += 10
    first += desk.bury(3, fingerprint="g")
    before = records(desk.dump())
    operation_id = open_(desk)

    step(desk)

    assert waiting(desk) == first
    assert records(desk.dump()) == before
    assert counts(desk, operation_id) == {"done": 6, "replayed": 6}
    shown = view(desk, operation_id)
    assert (shown.state, shown.total, shown.is_exact, shown.pending) == ("completed", 6, True, 6)


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (OrderFilter(fingerprint="f"), "ab"),
        (OrderFilter(queue="two"), "d"),
        (OrderFilter(type="beta"), "c"),
        (OrderFilter(reason="fatal", text="NO ROUTE"), "cd"),
        (OrderFilter(fingerprint="g", queue="two"), "d"),
        (OrderFilter(reason="other"), ""),
        (OrderFilter(plugin_version="1"), "abcd"),
        (OrderFilter(plugin_version="2"), ""),
    ],
)
def test_a_filter_means_what_it_says(desk: Desk, wanted: OrderFilter, expected: str) -> None:
    """Preview, step and search agree on what is meant."""
    ids = desk.bury(2)
    ids += desk.bury(1, "beta", fingerprint="g", message="no route to host")
    ids += desk.bury(1, "alpha", "two", fingerprint="g", message="No Route")
    meant = ["abcd".index(letter) for letter in expected]
    planned = plan(order(filter=wanted), 1)

    total = desk.store.converse(engine.count(planned, 0, upto_ms=desk.now))
    operation_id = open_(desk, filter=wanted)
    step(desk)
    step(desk)

    assert (total.matched, total.is_exact, list(total.sample)) == (len(meant), True, [ids[n] for n in meant])
    sources = {value["rp"] for key, value in desk.dump().items() if key.startswith("j:") and "rp" in value}
    assert sources == {ids[n] for n in meant}
    assert view(desk, operation_id).state == "completed"


def test_what_fails_after_the_order_is_not_meant(desk: Desk) -> None:
    """Replays that die again are not replayed in a loop, nor is what else dies meanwhile."""
    old = desk.bury(3)
    operation_id = open_(desk, rate_per_s=2.0)
    step(desk)
    desk.now += 5
    claimed = desk.claim("grave", 10)
    desk.cycle("grave", finishes=[desk.end("grave", job_id, "f", reason="fatal", fingerprint="f") for job_id in claimed])
    desk.bury(2)
    for _ in range(5):
        step(desk)

    assert (len(claimed), counts(desk, operation_id)["done"]) == (2, 3)
    assert view(desk, operation_id).state == "completed"
    assert {desk.field(job_id, "rp") for job_id in [*claimed, *desk.claim("grave", 10)]} == set(old)


@pytest.mark.parametrize(("rate", "seconds", "done"), [(100.0, 1, 100), (100.0, 3, 300), (3.0, 2, 6), (0.5, 5, 2), (1_000.0, 1, 600)])
def test_the_rate_is_kept_by_the_clock_of_the_store(desk: Desk, rate: float, seconds: int, done: int) -> None:
    """So many entries a second, whatever their number."""
    for _ in range(3):
        desk.bury(200)
    operation_id = open_(desk, rate_per_s=rate)

    for _ in range(seconds):
        step(desk)

    assert counts(desk, operation_id)["done"] == done


def test_a_long_silence_saves_up_no_more_than_a_second(desk: Desk) -> None:
    """No worker was there for an hour: the rate goes on, it does not catch up."""
    desk.bury(200)
    operation_id = open_(desk, rate_per_s=20.0)

    step(desk, after_ms=3_600_000)

    assert counts(desk, operation_id)["done"] == 25


def test_ids_are_taken_as_they_were_chosen(desk: Desk) -> None:
    """Also those that failed later, or that are gone; each once."""
    ids = desk.bury(3)
    desk.run(letters.discard(0, [ids[1]], who="ann", reason="x"))
    operation_id = open_(desk, ids=[ids[2], ids[1], ids[0], ids[2]])

    step(desk)
    step(desk)

    assert waiting(desk) == [ids[2], ids[0]]
    assert counts(desk, operation_id) == {"done": 3, "replayed": 2, "gone": 1}
    assert view(desk, operation_id).state == "completed"


def test_open_effects_are_skipped_and_counted(desk: Desk) -> None:
    """Nobody knows whether it happened: not forced, unless that is asked for."""
    wid, job_id = desk.register("w1"), desk.submit()
    desk.claim(wid)
    token = desk.token(wid)
    desk.run(effects.reserve(0, job_id, token, 1, "5" * 32, name="smtp", key="", again=False))
    desk.cycle(wid, finishes=[desk.end(wid, job_id, "f", token=token, reason="effect_unknown", fingerprint="f")])
    careful = open_(desk)
    step(desk)
    bold = open_(desk, accept_unknown=True)
    step(desk)

    assert counts(desk, careful) == {"done": 1, "skipped/effect_unknown": 1}
    assert counts(desk, bold) == {"done": 1, "replayed": 1}
    desk.dump()


def test_a_record_that_cannot_be_read_is_skipped(desk: Desk) -> None:
    """One that is not ours does not hold up the others."""
    ids = desk.bury(3)
    desk.raw.hset(f"tm:{{0}}:d:{ids[1]}", "b", "not JSON")
    operation_id = open_(desk)

    step(desk)

    assert counts(desk, operation_id) == {"done": 3, "replayed": 2, "skipped/unreadable": 1}


# ---------------------------------------------------------------- what becomes of the jobs
def _end_replays(desk: Desk, *outcomes: str) -> list[str]:
    claimed = desk.claim("grave", len(outcomes))
    finishes = [
        desk.end("grave", job_id, outcome, reason="fatal", fingerprint="f", delay_ms=60_000)
        for job_id, outcome in zip(claimed, outcomes, strict=True)
    ]
    desk.cycle("grave", finishes=finishes)
    return claimed


def test_the_jobs_that_were_made_are_followed(desk: Desk) -> None:
    """Also when all is replayed, until none is left: succeeded, failed at least once, ended otherwise, or still open."""
    desk.bury(5)
    operation_id = open_(desk)
    step(desk)
    ids = _end_replays(desk, "c", "r", "f", "x")
    step(desk)

    assert {name: n for name, n in counts(desk, operation_id).items() if name not in ("done", "replayed")} == {
        "succeeded": 1,
        "failed": 2,
        "otherwise": 1,
    }
    assert (view(desk, operation_id).pending, view(desk, operation_id).last_failed in ids[1:3]) == (1, True)

    _end_replays(desk, "c")
    step(desk)

    assert (counts(desk, operation_id)["succeeded"], view(desk, operation_id).pending) == (2, 0)
    assert not desk.raw.zcard("tm:{0}:ops")


def test_jobs_that_never_end_are_followed_for_an_hour(desk: Desk) -> None:
    """Nobody has their type: the operation is not looked after for ever."""
    desk.bury(2)
    operation_id = open_(desk)
    step(desk)
    step(desk, after_ms=3_590_000)
    assert view(desk, operation_id).pending == 2
    step(desk, after_ms=20_000)

    assert not desk.raw.exists("tm:{0}:ops", f"tm:{{0}}:opj:{operation_id}")
    desk.dump()


def test_it_stops_at_so_many_failures(desk: Desk) -> None:
    """As soon as that many of its jobs have had a failed attempt; told why, audited, and nothing more is replayed."""
    desk.bury(50)
    operation_id = open_(desk, stop_on_failures=3, rate_per_s=10.0)
    step(desk)
    _end_replays(desk, *"rrcccccccc")
    step(desk)
    assert (view(desk, operation_id).state, counts(desk, operation_id)["done"]) == ("running", 20)
    _end_replays(desk, *"frrccccccc")
    step(desk)
    step(desk)

    shown = view(desk, operation_id)
    assert (shown.state, shown.why) == ("stopped", "5 of its jobs have failed")
    assert (shown.counts["done"], shown.counts["failed"], shown.pending) == (20, 5, 0)
    assert audit(desk)[-1] == ("ann", "operation.stopped", operation_id, "mended")


def test_it_waits_when_too_many_of_its_jobs_have_not_ended(desk: Desk) -> None:
    """A queue that does not keep up is not flooded; what an operation remembers is bounded."""
    ids = desk.bury(5)
    operation_id = open_(desk)
    desk.raw.zadd(f"tm:{{0}}:opj:{operation_id}", {desk.item().id: 1.0 for _ in range(4_998)})
    page = desk.run(operations.page(0, operation_id, 3))
    desk.now += 1_000
    page = desk.run(operations.page(0, operation_id))

    assert ([row.id for row in page.rows], page.waits_for, page.is_end) == (ids[:2], "jobs", False)


def test_jobs_that_retention_has_removed_are_told_apart(desk: Desk) -> None:
    """Purged before anybody looked: dead ones have left a letter, of the others nobody can tell."""
    desk.bury(3)
    operation_id = open_(desk)
    step(desk)
    desk.run(calls.purge(0, _end_replays(desk, "c", "f", "c")))
    step(desk)

    assert {name: n for name, n in counts(desk, operation_id).items() if name in ("forgotten", "failed")} == {"forgotten": 2, "failed": 1}


# ---------------------------------------------------------------- cut off, twice at once
@pytest.fixture
def dies_before_the_note(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """The next step dies between the deed and the note."""

    def arm() -> None:
        def die(name: str) -> None:
            monkeypatch.undo()
            raise FailpointHit(name)

        monkeypatch.setattr(failpoints, "hit", die)

    return arm


def test_a_step_that_died_before_its_note_makes_no_duplicates(desk: Desk, dies_before_the_note: Callable[[], None]) -> None:
    """Its page is done again, finds its own jobs by their keys, and counts them as its own."""
    ids = [job_id for _ in range(3) for job_id in desk.bury(100)]
    operation_id = open_(desk, rate_per_s=150.0)
    step(desk)
    dies_before_the_note()
    with pytest.raises(FailpointHit):
        step(desk)
    made = len(waiting(desk))
    for _ in range(3):
        step(desk)

    assert made == 300
    assert Counter(waiting(desk)) == Counter(ids)
    assert counts(desk, operation_id) == {"done": 300, "replayed": 300, "duplicates": 150}
    assert view(desk, operation_id).pending == 300
    desk.dump()


def test_two_steps_at_once_are_one(desk: Desk) -> None:
    """The second to note finds that the place has been passed."""
    ids = desk.bury(4)
    operation_id = open_(desk)
    desk.now += 1_000
    page = desk.run(operations.page(0, operation_id, 2))
    place = operations.Step(operation_id, page.before, page.behind, page.is_end)
    job = desk.submit()

    said = [desk.run(operations.note(0, place, spent=2, counts={"done": 2, "replayed": 2}, made=[job])).name for _ in range(2)]

    assert said == ["OK", "STALE"]
    assert counts(desk, operation_id) == {"done": 2, "replayed": 2}
    assert [row.id for row in desk.run(operations.page(0, operation_id)).rows] == ids[2:]


def test_what_was_done_before_a_cancellation_is_counted(desk: Desk) -> None:
    """A person ends the operation between the deed and the note: the deed is noted, nothing more is done."""
    desk.bury(4)
    operation_id = open_(desk)
    desk.now += 1_000
    page = desk.run(operations.page(0, operation_id, 2))
    desk.store.converse(engine.cancel(operation_id, 1, by="bob", reason="enough"))
    place = operations.Step(operation_id, page.before, page.behind, page.is_end)
    assert desk.run(operations.note(0, place, spent=2, counts={"done": 2, "replayed": 2}, made=[desk.submit()])).name == "OK"
    step(desk)

    shown = view(desk, operation_id)
    assert (shown.state, shown.counts["done"], shown.pending) == ("cancelled", 2, 1)
    assert audit(desk)[-1] == ("bob", "operation.cancelled", operation_id, "enough")
    desk.dump()


# ---------------------------------------------------------------- discard, cancel
def test_an_operation_discards(desk: Desk) -> None:
    """Record, places, group, and the failed job: gone in the step, each audited in the operation's course."""
    ids = desk.bury(3)
    other = desk.bury(1, fingerprint="g")
    operation_id = open_(desk, "discard", filter=OrderFilter(fingerprint="f"))

    step(desk)

    snap = desk.dump()
    assert {key for key in snap if key.startswith("d:")} == {f"d:{other[0]}"}
    assert not [key for key in snap if key.startswith("j:") and key[2:] in ids]
    assert counts(desk, operation_id) == {"done": 3, "discarded": 3}
    discarded = [row for row in audit(desk) if row[1] == "dead_letter.discarded"]
    assert discarded == [("ann", "dead_letter.discarded", job_id, "mended") for job_id in ids]
    rows: Any = desk.raw.xrevrange("tm:{0}:audit", count=2)
    _, fields = rows[1]
    assert json.loads(fields["detail"]) == {
        "type": "alpha",
        "queue": "one",
        "fingerprint": "f",
        "failedFor": "fatal",
        "operation": operation_id,
    }
    assert view(desk, operation_id).state == "completed"


@pytest.mark.parametrize("state", ["waiting", "delayed"])
def test_an_operation_cancels_what_was_there(desk: Desk, state: str) -> None:
    """Jobs that wait or are delayed and fit the filter; not those that came after the order, nor those that run."""
    delay = {"delay_ms": 60_000} if state == "delayed" else {}
    running = desk.submit(queue="one")
    desk.claim(desk.register("w1"))
    old = [desk.submit(queue="one", **delay) for _ in range(3)]
    others = [desk.submit("beta", "one", **delay), desk.submit("alpha", "two", **delay)]
    operation_id = open_(desk, "cancel", filter=OrderFilter(state=state, type="alpha", queue="one"), rate_per_s=2.0)
    desk.now += 1
    others.append(desk.submit(queue="one", **delay))
    for _ in range(4):
        step(desk)

    assert {desk.field(job_id, "st") for job_id in old} == {"x"}
    assert {desk.field(job_id, "st") for job_id in others} == {state[0]}
    assert desk.field(running, "st") == "a"
    assert counts(desk, operation_id) == {"done": 3, "cancelled": 3}
    assert view(desk, operation_id).state == "completed"
    desk.dump()


# ---------------------------------------------------------------- opening, keeping
@pytest.mark.parametrize("state", ["waiting", "delayed"])
def test_when_a_job_arrived_is_told_by_the_store(desk: Desk, state: str) -> None:
    """Not by its id: whoever submitted it may be ahead, or behind, and the order means what was there when it was given."""
    delay_ms = 60_000 if state == "delayed" else 0
    ahead = desk.item(at_ms=desk.now + 20_000, delay_ms=delay_ms)
    desk.run(calls.submit(0, [ahead]))
    desk.now += 1_000
    operation_id = open_(desk, "cancel", filter=OrderFilter(state=state))
    desk.now += 1_000
    behind = desk.item(at_ms=desk.now - 20_000, delay_ms=delay_ms)
    desk.run(calls.submit(0, [behind]))
    step(desk)

    assert counts(desk, operation_id) == {"done": 1, "cancelled": 1}
    assert [desk.field(item.id, "st") for item in (ahead, behind)] == ["x", state[0]]


def test_one_key_is_one_operation(desk: Desk) -> None:
    """The same order again is the same operation; another one under its key is refused."""
    desk.bury(1)
    first = open_(desk, key="k1")
    again = open_(desk, key="k1")
    other = open_(desk, key="k2")

    assert (first == again, first == other) == (True, False)
    with pytest.raises(KeyReused):
        open_(desk, "discard", key="k1")
    assert [row[2] for row in audit(desk) if row[1] == "operation.started"] == [first, other]


def test_no_more_than_fifty_are_open(desk: Desk) -> None:
    """The next one is refused, and told."""
    for _ in range(50):
        open_(desk)

    with pytest.raises(Conflict, match="50 operations"):
        open_(desk)


def test_ended_operations_are_kept_for_a_while(desk: Desk) -> None:
    """Thirty days, the last 1,000: then the record goes by itself, and the list forgets it."""
    operation_id = open_(desk)
    step(desk)
    left = desk.raw.pttl(f"tm:{{0}}:op:{operation_id}")
    desk.raw.delete(f"tm:{{0}}:op:{operation_id}")
    desk.raw.zadd("tm:{0}:oplog", {f"{n:022d}": 1.0 for n in range(1_200)})
    for _ in range(14):
        open_(desk)
        step(desk)

    assert 29 * 86_400_000 < left <= 30 * 86_400_000
    assert desk.raw.zscore("tm:{0}:oplog", operation_id) is None
    assert desk.raw.zcard("tm:{0}:oplog") == 14
    desk.dump()


def test_a_list_that_lost_it_finds_it_again(desk: Desk) -> None:
    """The sweeper lists an operation that runs; one whose record is gone is forgotten."""
    desk.bury(1)
    operation_id = open_(desk)
    desk.raw.delete("tm:{0}:ops")
    repairs = Sweeper(desk.store, 0, 600_000, WINDOW_MS).whole()
    step(desk)
    assert [repair.what for repair in repairs] == ["operation_unlisted"]
    assert view(desk, operation_id).state == "completed"

    desk.raw.delete(f"tm:{{0}}:op:{operation_id}")
    step(desk)
    repairs = Sweeper(desk.store, 0, 600_000, WINDOW_MS).whole()

    assert [(repair.what, repair.id) for repair in repairs] == [("operation_lost", operation_id)]
    assert not desk.raw.exists("tm:{0}:ops", f"tm:{{0}}:opj:{operation_id}")


def test_a_foreign_key_stops_a_step_and_not_the_store(desk: Desk) -> None:
    """The next second tries again."""
    desk.bury(1)
    operation_id = open_(desk)
    desk.raw.rename("tm:{0}:dlq:one", "tm:{0}:dlq:aside")
    desk.raw.set("tm:{0}:dlq:one", "foreign")
    with pytest.raises(StoreDefect):
        step(desk)
    desk.raw.rename("tm:{0}:dlq:aside", "tm:{0}:dlq:one")
    step(desk)

    assert view(desk, operation_id).state == "completed"


def test_a_foreign_key_of_an_operation_holds_up_no_other_duty(desk: Desk) -> None:
    """Ends are told of, other operations go on, the sweep, which mends such keys, has its turn; the error is told all the same."""
    dead = desk.bury(2)
    open_(desk, "replay", ids=dead[:1])
    other = open_(desk, "discard", ids=dead[1:])
    desk.raw.rename(f"tm:{{0}}:d:{dead[0]}", "tm:{0}:d:aside")
    desk.raw.set(f"tm:{{0}}:d:{dead[0]}", "foreign")
    job_id = desk.submit(callback="https://example.com/hook")
    desk.run(calls.cancel(0, job_id, who="me", key_window_ms=WINDOW_MS))
    desk.now += 1_000
    duties = Upkeep(desk.store, 0, keeping(1_000), lambda _: pytest.fail("no backfill"))
    with pytest.raises(StoreDefect):
        duties.tick()
    duties.sweep()

    assert desk.run(webhooks.outbox(0)) == []
    assert view(desk, other).state == "completed"
    assert desk.raw.hget("tm:{0}:sweep", "ended")
