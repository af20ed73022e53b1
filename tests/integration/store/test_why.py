"""Every cause that can keep a job from running, built on a real store: `/why` names the right one first, with the right numbers."""

from __future__ import annotations

import json
from typing import Any

import pytest

from support.desk import BEGINNING_MS, LEASE_MS, WINDOW_MS, Desk
from taskmaster.engine.queries import job_of
from taskmaster.engine.why import Explanation, Reason, explain
from taskmaster.model.breaker import BreakerRule
from taskmaster.model.lanes import key_name
from taskmaster.store import breakers, calls, flow, reads
from taskmaster.store.flow import Order

INFO = json.dumps({"host": "h1", "pid": 7, "queues": {"one": 2}})
ENTRY = json.dumps({"type": "alpha", "plugin": "shop", "version": "1.2"})


def order(op: str = "op", **more: Any) -> Order:
    return Order(**({"op": op, "known": None, "who": "ann", "reason": "because"} | more))


def ask(desk: Desk, job_id: str) -> Explanation:
    found = desk.run(reads.why(0, job_id))
    assert found is not None
    return explain(job_id, found)


def first(desk: Desk, job_id: str, by: str = "w") -> Reason:
    """What holds it now. The short reason of the job itself is the same word, and the fetch agrees: it does not claim the job."""
    explained = ask(desk, job_id)
    reason = explained.reasons[0]
    shown = desk.run(reads.show(0, job_id, ""))
    if explained.record.state == "waiting":
        known = ("no_worker", "paused", "rate_limited", "concurrency_limited", "breaker_open")
        assert shown.hold == (reason.code if reason.code in known else "")
        assert job_of(job_id, shown).reason == shown.hold
        if shown.hold:
            assert job_id not in desk.claim(by, 10)
    else:
        assert shown.hold == ""
    return reason


def facts(reason: Reason, *names: str) -> tuple[Any, ...]:
    return tuple(reason.facts[name] for name in names)


@pytest.fixture
def shop(desk: Desk) -> Desk:
    """One worker `w`: type alpha, two slots in queue one."""
    desk.register("w", "alpha", info=INFO, catalogue=[("alpha", ENTRY)])
    return desk


def test_no_worker_has_the_type(shop: Desk) -> None:
    """The plugin that published it is named; a type that nobody ever published says so."""
    known, strange = shop.submit(), shop.submit("beta")
    shop.now += 60_000  # the worker is not heard of any more
    shop.register("v", "gamma")

    reason = first(shop, known, by="v")
    assert (reason.code, *facts(reason, "type", "plugin", "plugin_version")) == ("no_worker", "alpha", "shop", "1.2")
    assert first(shop, strange, by="v").facts["plugin"] is None
    assert ask(shop, known).start_ms is None


def test_a_job_that_lost_a_worker_waits_for_one_that_takes_such_jobs(shop: Desk) -> None:
    """Its type is loaded, but not where suspects run."""
    job_id = shop.submit()
    shop.claim("w")
    shop.now += LEASE_MS + 5_000
    shop.register("w", "alpha")
    shop.reap()

    reason = first(shop, job_id)

    assert (reason.code, reason.facts["losses"]) == ("no_worker", 1)


def test_the_queue_is_paused(shop: Desk) -> None:
    """By whom, why, and since when."""
    job_id = shop.submit()
    shop.now += 1_000
    shop.run(flow.pause(0, "q/one", "pause", order(reason="migration")))

    reason = first(shop, job_id)

    expected = ("paused", "queue", "one", "ann", "migration", BEGINNING_MS + 1_000)
    assert (reason.code, *facts(reason, "scope", "name", "by", "reason", "since_ms")) == expected
    assert ask(shop, job_id).start_ms is None


def test_the_type_is_paused(shop: Desk) -> None:
    """The same; other types of the queue go on."""
    job_id = shop.submit()
    shop.run(flow.pause(0, "t/alpha", "pause", order()))

    reason = first(shop, job_id)

    assert (reason.code, *facts(reason, "scope", "name", "by")) == ("paused", "type", "alpha", "ann")


def test_a_rate_is_used_up(shop: Desk) -> None:
    """How much of it, and when the next may go; that is also the estimate."""
    shop.run(flow.put_queue(0, "one", {"lm": "few"}, order()))
    shop.run(flow.put_limit(0, "few", {"kind": "rate", "max": 2, "per": 60_000}, order()))
    ids = [shop.submit() for _ in range(3)]
    assert shop.claim("w", 2) == ids[:2]
    shop.now += 20_000

    reason = first(shop, ids[2])

    expected = ("rate_limited", "few", 2, 2, 60_000, BEGINNING_MS + 60_000)
    assert (reason.code, *facts(reason, "limit", "in_use", "max", "per_ms", "room_at_ms")) == expected
    assert ask(shop, ids[2]).start_ms == BEGINNING_MS + 60_000


def test_slots_are_taken(shop: Desk) -> None:
    """How many of how many run; when one gives back nobody can say."""
    shop.raw.hset("tm:{0}:tl", "alpha", "one-at-a-time")
    shop.run(flow.put_limit(0, "one-at-a-time", {"kind": "slots", "max": 1}, order()))
    ids = [shop.submit() for _ in range(2)]
    assert shop.claim("w", 2) == ids[:1]

    reason = first(shop, ids[1])

    assert (reason.code, *facts(reason, "limit", "in_use", "max", "room_at_ms")) == ("concurrency_limited", "one-at-a-time", 1, 1, None)
    assert ask(shop, ids[1]).start_ms is None


def test_slots_of_its_key_are_taken(shop: Desk) -> None:
    """A limiter by key: the instance and its own bound are told; another key is free."""
    shop.run(flow.put_queue(0, "one", {"lm": "tenant"}, order()))
    shop.run(flow.put_limit(0, "tenant", {"kind": "slots", "max": 1, "by": "key", "max/acme": 2}, order()))
    ids = [shop.submit(lane="acme") for _ in range(3)]
    assert shop.claim("w", 3) == ids[:2]
    other = shop.submit(lane="zoo")

    reason = first(shop, ids[2])

    assert (reason.code, *facts(reason, "limit", "in_use", "max")) == ("concurrency_limited", "tenant@acme", 2, 2)
    assert ask(shop, other).reasons[0].code not in ("concurrency_limited", "rate_limited")


def test_a_gate_is_shut(shop: Desk) -> None:
    """By its name."""
    shop.run(flow.put_limit(0, "acme-gate", {"kind": "gate"}, order()))
    job_id = shop.submit(lane="acme~acme-gate")

    reason = first(shop, job_id)

    assert (reason.code, *facts(reason, "scope", "name")) == ("paused", "gate", "acme-gate")


def test_the_tenant_is_paused(shop: Desk) -> None:
    """By whom, since when and why; another tenant's jobs are not; nobody can say when it goes on."""
    shop.run(flow.pause(0, f"k/{key_name('Kunde ä')}", "pause", order(reason="unpaid"), "Kunde ä"))
    job_id, other = shop.submit(lane=key_name("Kunde ä")), shop.submit(lane="zoo")
    shop.now += 5_000

    reason = first(shop, job_id)

    expected = ("paused", "tenant", "Kunde ä", "ann", BEGINNING_MS, "unpaid")
    assert (reason.code, *facts(reason, "scope", "name", "by", "since_ms", "reason")) == expected
    assert ask(shop, job_id).start_ms is None
    assert ask(shop, other).reasons[0].code != "paused"


def depend(desk: Desk) -> None:
    desk.register("w", info=INFO, alpha="stripe")
    rule = BreakerRule(minimum_calls=1, cooldown_ms=7_000)
    desk.run(breakers.put_breaker(0, "stripe", rule, order("put")))


def test_a_breaker_is_open(shop: Desk) -> None:
    """Of which dependency, why, since when and until when."""
    depend(shop)
    failed, job_id = shop.submit(), shop.submit()
    assert shop.claim("w") == [failed]
    shop.cycle("w", finishes=[shop.end("w", failed, "d", delay_ms=60_000, reason="dependency_down")])
    shop.now += 1_000

    reason = first(shop, job_id)

    expected = ("breaker_open", "stripe", "failures", BEGINNING_MS, BEGINNING_MS + 7_000)
    assert (reason.code, *facts(reason, "dependency", "cause", "since_ms", "open_until_ms")) == expected
    assert ask(shop, job_id).start_ms == BEGINNING_MS + 7_000


def test_a_breaker_is_probed(shop: Desk) -> None:
    """The cooldown is over, and the one probe that may be is under way."""
    depend(shop)
    failed, probe, job_id = (shop.submit() for _ in range(3))
    assert shop.claim("w") == [failed]
    shop.cycle("w", finishes=[shop.end("w", failed, "d", delay_ms=60_000, reason="dependency_down")])
    shop.now += 7_000
    assert shop.claim("w", 5) == [probe]

    reason = first(shop, job_id)

    assert (reason.code, *facts(reason, "probing", "probes")) == ("breaker_open", 1, 1)


def test_a_breaker_is_open_by_order(shop: Desk) -> None:
    """By whom and why; nobody can say until when."""
    depend(shop)
    job_id = shop.submit()
    shop.run(breakers.force(0, "stripe", "open", order("force", reason="incident 7")))

    reason = first(shop, job_id)

    assert (reason.code, *facts(reason, "by", "reason", "open_until_ms")) == ("breaker_open", "ann", "incident 7", None)
    assert ask(shop, job_id).start_ms is None


def test_no_slot_is_free(shop: Desk) -> None:
    """Both slots of the queue's only worker are taken: how many, and what stands before it."""
    ids = [shop.submit() for _ in range(5)]
    assert shop.claim("w", 2) == ids[:2]
    urgent = shop.submit(priority=0)

    reason = first(shop, ids[4])
    turn = ask(shop, ids[4]).reasons[1]

    assert (reason.code, *facts(reason, "active", "slots", "workers")) == ("no_free_slot", 2, 2, 1)
    expected = ("waiting_its_turn", 2, 3, 2, 1, True)
    assert (turn.code, *facts(turn, "ahead_in_lane", "in_lane", "ahead_in_level", "in_higher_levels", "counted_all")) == expected
    assert facts(ask(shop, urgent).reasons[1], "ahead_in_lane", "in_higher_levels") == (0, 0)


def test_it_waits_for_its_turn_among_keys(shop: Desk) -> None:
    """Its own lane is short; others of its level came earlier; how many lanes take turns is told."""
    for _ in range(4):
        shop.submit(lane="big")
    mine = shop.submit(lane="small")
    shop.cycle("w")  # the worker does not sleep there

    (turn,) = [one for one in ask(shop, mine).reasons if one.code == "waiting_its_turn"]

    assert facts(turn, "ahead_in_lane", "in_lane", "lanes", "ahead_in_level") == (0, 1, 2, 4)


def test_a_worker_that_sleeps_is_about_to_take_it(shop: Desk) -> None:
    """Nothing holds it: no reason but its turn."""
    assert shop.claim("w", 2) == []
    job_id = shop.submit()
    shop.cycle(shop.register("v", "alpha"), (1, "two"))
    shop.raw.zadd("tm:{0}:idle:one/cap-alpha", {"w": 1})

    assert [one.code for one in ask(shop, job_id).reasons] == ["waiting_its_turn"]
    assert ask(shop, job_id).start_ms == shop.now


def test_no_worker_takes_from_the_queue(shop: Desk) -> None:
    """The type is loaded, but its workers serve other queues."""
    job_id = shop.submit(queue="elsewhere")

    reason = first(shop, job_id)

    assert (reason.code, reason.facts["queue"]) == ("queue_not_served", "elsewhere")


@pytest.mark.parametrize(
    ("outcome", "delay_ms", "reason", "code"),
    [("r", 30_000, "", "retrying"), ("d", 9_000, "dependency_down", "dependency_down"), ("l", 12_000, "rate_limited", "rate_limited")],
)
def test_it_waits_after_an_attempt(shop: Desk, outcome: str, delay_ms: int, reason: str, code: str) -> None:
    """Why, until when, and how many failures of how many there were."""
    job_id = shop.submit()
    assert shop.claim("w") == [job_id]
    shop.cycle("w", finishes=[shop.end("w", job_id, outcome, delay_ms=delay_ms, reason=reason)])

    found = first(shop, job_id)

    failures = 1 if outcome == "r" else 0
    assert (found.code, *facts(found, "due_at_ms", "failures", "max_attempts")) == (code, shop.now + delay_ms, failures, 5)
    assert ask(shop, job_id).start_ms == shop.now + delay_ms


def test_it_is_not_due(shop: Desk) -> None:
    """When; and what will hold it then, if that were now."""
    job_id = shop.submit(delay_ms=90_000)
    shop.run(flow.pause(0, "q/one", "pause", order()))

    reasons = ask(shop, job_id).reasons

    assert [one.code for one in reasons] == ["not_due", "paused"]
    assert reasons[0].facts["due_at_ms"] == BEGINNING_MS + 90_000
    assert ask(shop, job_id).start_ms is None


def test_it_came_too_late(shop: Desk) -> None:
    """It was to begin earlier; the next round cancels it."""
    job_id = shop.submit(expires_ms=BEGINNING_MS + 100)
    shop.now += 100

    reason = ask(shop, job_id).reasons[0]

    assert (reason.code, reason.facts["expires_at_ms"]) == ("expired", BEGINNING_MS + 100)
    assert shop.claim("w") == []
    assert ask(shop, job_id).reasons[0].code == "cancelled"


def test_it_runs(shop: Desk) -> None:
    """Where and since when; cancelling once somebody asked; and when its worker went silent."""
    job_id = shop.submit()
    assert shop.claim("w") == [job_id]
    shop.now += 5_000

    running = first(shop, job_id)
    shop.run(calls.cancel(0, job_id, who="me", key_window_ms=WINDOW_MS))
    cancelling = first(shop, job_id)
    shop.now += LEASE_MS
    silent = first(shop, job_id)

    assert (running.code, *facts(running, "host", "pid", "since_ms", "attempt")) == ("running", "h1", 7, BEGINNING_MS, 1)
    assert (cancelling.code, silent.code) == ("cancelling", "worker_silent")


def test_it_has_ended(shop: Desk) -> None:
    """How and when; that is all there is to say."""
    job_id = shop.submit()
    assert shop.claim("w") == [job_id]
    shop.cycle("w", finishes=[shop.end("w", job_id, "f", reason="fatal", fingerprint="f")])

    explained = ask(shop, job_id)

    assert [(one.code, one.facts) for one in explained.reasons] == [("failed", {"ended_at_ms": shop.now, "cause": "fatal"})]


def test_all_of_several_reasons_are_told_in_order(shop: Desk) -> None:
    """Whoever lifts the first knows what comes next: paused queue, paused type, then limits from the shared to the special."""
    depend(shop)
    shop.run(flow.put_queue(0, "one", {"lm": "shared"}, order()))
    shop.run(flow.put_limit(0, "shared", {"kind": "rate", "max": 1, "per": 1_000}, order()))
    shop.run(flow.put_limit(0, "own", {"kind": "gate"}, order()))
    shop.submit()
    assert len(shop.claim("w")) == 1
    job_id = shop.submit(lane="k~own")
    shop.run(flow.pause(0, "q/one", "pause", order()))
    shop.run(flow.pause(0, "t/alpha", "pause", order()))
    shop.run(breakers.force(0, "stripe", "open", order("f")))

    codes = [(one.code, one.facts.get("scope")) for one in ask(shop, job_id).reasons]

    expected = [("paused", "queue"), ("paused", "type"), ("rate_limited", None), ("breaker_open", None), ("paused", "gate")]
    assert codes[:5] == expected


def test_asking_changes_nothing(shop: Desk) -> None:
    """Not even what a fetch would park."""
    shop.run(flow.put_queue(0, "one", {"lm": "few"}, order()))
    shop.run(flow.put_limit(0, "few", {"kind": "slots", "max": 1}, order()))
    ids = [shop.submit(lane="k") for _ in range(3)]
    shop.claim("w")
    before = shop.dump()

    for job_id in ids:
        ask(shop, job_id)
        shop.run(reads.show(0, job_id))

    assert shop.dump() == before


def test_many_lanes_are_counted_up_to_a_bound(shop: Desk) -> None:
    """A thousand keys: the answer says that it has not counted all of them, and is quick."""
    mine = shop.submit(lane="mine")
    shop.run(calls.submit(0, [shop.item(lane=f"k{n}") for n in range(1_000)]))

    (turn,) = [one for one in ask(shop, mine).reasons if one.code == "waiting_its_turn"]

    assert facts(turn, "lanes", "counted_all", "ahead_in_lane") == (1_001, False, 0)


def test_nobody_knows_such_a_job(desk: Desk) -> None:
    """Nothing is explained."""
    assert desk.run(reads.why(0, "01a20557-4f89-7362-bf7c-8356bbe4029a")) is None
