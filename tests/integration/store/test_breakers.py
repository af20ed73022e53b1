"""Breakers on both servers: when they open and close, who may probe, what waits, and that nothing of it burns an attempt."""

from __future__ import annotations

from typing import Any

import pytest

from support.desk import GRACE_MS, LEASE_MS, Desk
from taskmaster.model.breaker import BreakerRule
from taskmaster.store import breakers, calls, flow
from taskmaster.store.breakers import BreakerRow
from taskmaster.store.flow import Order
from taskmaster.store.status import Status

RULE = BreakerRule(minimum_calls=4, window_ms=10_000, cooldown_ms=1_000, cooldown_max_ms=4_000, probes=1, probes_max=4)
DOWN = {"delay_ms": 100, "reason": "dependency_down"}


def order(op: str = "op", known: int | None = None, who: str = "ann", reason: str = "because") -> Order:
    return Order(op, known, who, reason)


def at(desk: Desk) -> BreakerRow:
    (row,) = desk.run(breakers.breakers(0, "stripe"))
    return row


def delayed(desk: Desk) -> dict[str, int]:
    """Ids, and ms from now."""
    rows: Any = desk.raw.zrange("tm:{0}:delayed", 0, -1, withscores=True)
    return {job_id: int(score) - desk.now for job_id, score in rows}


def state(desk: Desk) -> str:
    return at(desk).fields.get("state", "closed")


@pytest.fixture
def pay(desk: Desk) -> Desk:
    """A worker `w` of the type `charge`, which depends on stripe."""
    desk.register("w", charge="stripe")
    desk.run(breakers.put_breaker(0, "stripe", RULE, order("put")))
    return desk


def claim(desk: Desk, slots: int = 1) -> list[str]:
    return desk.claim("w", slots)


def end(desk: Desk, ids: list[str], outcome: str, **facts: Any) -> None:
    """All of the last round's claims."""
    finishes = [desk.end("w", job_id, outcome, **facts) for job_id in ids]
    assert set(desk.cycle("w", finishes=finishes).codes) <= {Status.OK}


def outcome(desk: Desk, *outcomes: str) -> None:
    """One call after the other, each by a job of its own."""
    for one in outcomes:
        desk.submit("charge")
        end(desk, claim(desk), one, fingerprint="f", **(DOWN if one in "dr" else {}))


def break_it(desk: Desk) -> None:
    outcome(desk, *"dddd")
    assert state(desk) == "open"


def test_a_registration_makes_the_breaker_once(desk: Desk) -> None:
    """Of a dependency that nobody has set up, with the usual settings; one that is there stays as it is."""
    desk.register("w", charge="stripe")
    assert at(desk).types == ("charge",)
    assert desk.raw.hget("tm:{0}:L:!stripe", "ratio") == "0.5"

    desk.run(breakers.put_breaker(0, "stripe", RULE, order()))
    desk.register("x", charge="stripe", refund="stripe")

    assert at(desk).types == ("charge", "refund")
    assert desk.raw.hget("tm:{0}:L:!stripe", "least") == "4"


def test_a_type_keeps_its_other_limiters(desk: Desk) -> None:
    """Registering changes the breaker among a type's limiters, and nothing else."""
    desk.raw.hset("tm:{0}:tl", "charge", "slow")
    desk.register("w", charge="stripe")
    assert desk.raw.hget("tm:{0}:tl", "charge") == "slow,!stripe"

    desk.register("x", charge="adyen")
    assert desk.raw.hget("tm:{0}:tl", "charge") == "slow,!adyen"

    desk.register("y", "charge")
    assert desk.raw.hget("tm:{0}:tl", "charge") == "slow"


@pytest.mark.parametrize(
    ("ends", "is_open"),
    [
        ("dddd", True),
        ("ddd", False),  # fewer calls than the rule wants
        ("ccdd", True),
        ("cccdd", False),
        ("dddc", False),  # judged when something fails, not when something goes well
        ("rrrr", True),
        ("ffff", False),  # a fatal error says nothing of the dependency
        ("xxxx", False),
    ],
)
def test_it_opens_by_the_share_of_failures(pay: Desk, ends: str, is_open: bool) -> None:
    """At least half of at least four calls have failed; other ends say nothing."""
    outcome(pay, *ends)

    assert (state(pay) == "open") is is_open
    pay.dump()


def test_a_retry_that_says_nothing_of_the_dependency_is_no_failure_of_it(pay: Desk) -> None:
    """The worker says whether an error counts."""
    for _ in range(8):
        pay.submit("charge")
        end(pay, claim(pay), "r", delay_ms=60_000)

    assert (state(pay), at(pay).calls) == ("closed", 0)


def test_the_window_moves_on(pay: Desk) -> None:
    """Failures that are older than the window do not count, younger ones do."""
    outcome(pay, *"ddd")
    pay.now += 9_000
    assert (at(pay).calls, at(pay).failures) == (3, 3)
    pay.now += 1_000
    assert at(pay).calls == 0
    outcome(pay, *"ddd")
    assert state(pay) == "closed"
    outcome(pay, "d")
    assert state(pay) == "open"


def test_what_waits_is_parked_and_burns_no_attempt(pay: Desk) -> None:
    """While it is open nothing is claimed; those that met it wait for a while and have made no attempt that counts."""
    break_it(pay)
    more = [pay.submit("charge") for _ in range(3)]

    assert claim(pay, 10) == []
    assert at(pay).waiting == 1  # a unit, however many jobs
    met = delayed(pay)
    assert len(met) == 4
    for job_id in met:
        assert tuple(pay.field(job_id, name) for name in ("ep", "hb", "rs", "fl")) == ("1", "1", "dependency_down", None)
    assert {pay.field(job_id, "st") for job_id in more} == {"w"}
    pay.dump()


def test_other_types_go_on(pay: Desk) -> None:
    """Only what depends on it waits."""
    pay.register("w2", "charge", "other", charge="stripe")
    break_it(pay)
    pay.submit("charge")
    other = pay.submit("other")

    assert pay.claim("w2", 10) == [other]


def test_probes_are_few_and_a_good_step_doubles_them(pay: Desk) -> None:
    """After the cooldown one call at a time, then two, then four; then it is closed, and all go."""
    break_it(pay)
    for _ in range(30):
        pay.submit("charge")
    assert claim(pay, 20) == []
    pay.now += 1_000
    for step in (1, 2, 4):
        assert state(pay) == "open"
        probes = claim(pay, 20)
        assert len(probes) == step
        assert claim(pay, 20) == []  # no more until they tell; their token is of the round before
        end(pay, probes, "c", token=f"w.{pay.seqs['w'] - 1}")
    assert state(pay) == "closed"
    assert len(claim(pay, 20)) == 20
    pay.dump()


def test_a_probe_that_fails_opens_it_for_longer(pay: Desk) -> None:
    """1 s, 2 s, 4 s, and no longer than the longest; once it has been closed it begins anew."""
    break_it(pay)
    for cooldown in (1_000, 2_000, 4_000, 4_000):
        assert int(at(pay).fields["till"]) == pay.now + cooldown
        pay.submit("charge")
        pay.now += cooldown - 1
        assert claim(pay, 10) == []
        pay.now += 1
        probes = claim(pay, 10)
        assert len(probes) == 1
        end(pay, probes, "d", **DOWN)
    pay.now += 4_000
    for _ in range(7):
        outcome(pay, "c")
    assert state(pay) == "closed"
    break_it(pay)
    assert int(at(pay).fields["till"]) == pay.now + 1_000


def test_calls_from_before_say_nothing_of_the_probing(pay: Desk) -> None:
    """A call that began while it was closed, and ends well or badly while it is probed, neither closes nor opens it."""
    early = [pay.submit("charge") for _ in range(2)]
    assert claim(pay, 2) == early
    token = pay.token("w")
    break_it(pay)
    pay.now += 1_000
    till = at(pay).fields["till"]

    pay.cycle("w", finishes=[pay.end("w", early[0], "c", token), pay.end("w", early[1], "d", token, **DOWN)])

    fields = at(pay).fields
    assert (fields["state"], fields["till"], fields["probes"], fields["good"], fields["bad"]) == ("open", till, "1", "0", "0")


@pytest.mark.parametrize("how", ["reaped", "handed back", "fatal"])
def test_a_probe_that_says_nothing_gives_its_place_back(pay: Desk, how: str) -> None:
    """It died with its worker, was handed back, or failed for a reason of its own: another is let through."""
    break_it(pay)
    for _ in range(3):
        pay.submit("charge")
    pay.now += 1_000
    (probe,) = claim(pay, 10)
    assert claim(pay, 10) == []
    token = f"w.{pay.seqs['w'] - 1}"

    if how == "reaped":
        pay.now += LEASE_MS + GRACE_MS
        pay.register("w3", charge="stripe")
        assert pay.reap() == (False, (probe,))
    else:
        pay.cycle("w", finishes=[pay.end("w", probe, "h" if how == "handed back" else "f", token, reason="x", fingerprint="f")])

    who = "w3" if how == "reaped" else "w"
    again = pay.claim(who, 10)
    assert len(again) == 1
    assert at(pay).probing == 1
    pay.dump()


def test_whoever_waits_is_let_go_when_it_closes(pay: Desk) -> None:
    """Several lanes wait: keys of several customers. After the last probe they all go, and a sleeper is woken for them."""
    for n in range(12):
        pay.submit("charge", lane=f"k{n}")
    break_first = claim(pay, 4)
    end(pay, break_first, "d", **DOWN)
    assert state(pay) == "open"
    assert claim(pay, 20) == []
    pay.now += 1_000
    done = 0
    for _ in range(20):
        got = pay.cycle("w", (20, "one"))
        if not got.claims:
            pay.now += 10
            continue
        done += len(got.claims)
        end(pay, [one.id for one in got.claims], "c")
        if done >= 12:
            break
    assert done == 12
    assert state(pay) == "closed"
    pay.dump()


def test_the_keeper_is_told_when_to_probe(pay: Desk) -> None:
    """Jobs wait for it: the next due time is the end of the cooldown, so nobody polls."""
    break_it(pay)
    pay.raw.delete("tm:{0}:delayed")
    pay.submit("charge")

    answer = pay.cycle("w", (1, "one"))

    assert (answer.claims, answer.next_ms) == ([], 1_000)


def test_a_rate_limit_of_the_provider_holds_for_all(pay: Desk) -> None:
    """Nobody calls before the time that it named; the job that heard it has made no attempt that counts; then it is probed."""
    first, second = pay.submit("charge"), pay.submit("charge")
    (held,) = claim(pay)
    assert held == first

    end(pay, [held], "l", delay_ms=30_000, reason="rate_limited")

    assert claim(pay, 10) == []
    assert (pay.field(first, "rs"), pay.field(first, "hb"), pay.field(first, "ra")) == ("rate_limited", "1", str(pay.now + 30_000))
    pay.now += 29_999
    assert claim(pay, 10) == []
    pay.now += 1
    assert claim(pay, 10) == [second]
    assert at(pay).fields["how"] == "rate_limited"


def test_a_shorter_rate_limit_does_not_shorten_a_longer_one(pay: Desk) -> None:
    """Ten calls are told ten times: the latest instant holds."""
    ids = [pay.submit("charge") for _ in range(2)]
    assert claim(pay, 2) == ids
    token = pay.token("w")
    facts: dict[str, Any] = {"reason": "rate_limited"}

    pay.cycle("w", finishes=[pay.end("w", one, "l", token, delay_ms=ms, **facts) for one, ms in zip(ids, (9_000, 2_000), strict=True)])

    assert int(at(pay).fields["till"]) == pay.now + 9_000


def test_a_job_that_its_dependency_cannot_bear_is_not_spared_for_ever(pay: Desk) -> None:
    """Others go well: after 20 times it burns attempts like any failure, and ends in the dead letters."""
    poison = pay.submit("charge", max_attempts=2, delay_ms=20_000)
    for n in range(22):
        for _ in range(2):
            good = pay.submit("charge")
            assert claim(pay) == [good]
            end(pay, [good], "c")
        pay.now += 20_000
        assert claim(pay) == [poison]
        assert pay.field(poison, "fl") in ((None,) if n < 21 else ("1",))
        end(pay, [poison], "d", fingerprint="f", **DOWN)

    assert pay.field(poison, "st") == "f"
    assert pay.field(poison, "hb") == "20"


def test_a_job_without_a_breaker_may_say_it_too(desk: Desk) -> None:
    """Nothing opens; it waits without burning an attempt, as often as any."""
    desk.register("w")
    job_id = desk.submit()
    assert claim(desk) == [job_id]

    end(desk, [job_id], "d", **DOWN)

    assert (desk.field(job_id, "st"), desk.field(job_id, "hb"), desk.field(job_id, "dd")) == ("d", "1", "1")
    desk.dump()


def test_retries_are_a_share_of_the_calls(pay: Desk) -> None:
    """Ten in a window are free; what is beyond waits, spread over the windows to come, and none is lost."""
    rule = BreakerRule(minimum_calls=1_000, window_ms=10_000, retry_ratio=0.1)
    pay.run(breakers.put_breaker(0, "stripe", rule, order("more")))
    ids = [pay.submit("charge") for _ in range(40)]
    assert claim(pay, 40) == ids

    end(pay, ids, "r", delay_ms=0, reason="dependency_down")

    due = delayed(pay)
    assert sum(ms <= 0 for ms in due.values()) == 10
    assert [due[job_id] for job_id in ids[10:]] == [1_000 * n for n in range(1, 31)]
    assert {pay.field(job_id, "rs") for job_id in ids[10:]} == {"retry_budget"}
    assert {pay.field(job_id, "rs") for job_id in ids[:10]} == {"retrying"}


def test_many_calls_have_many_retries(pay: Desk) -> None:
    """The budget grows with the calls: a tenth of 400 in a window is 40."""
    rule = BreakerRule(minimum_calls=1_000, window_ms=10_000, retry_ratio=0.1)
    pay.run(breakers.put_breaker(0, "stripe", rule, order("more")))
    for _ in range(4):
        ids = [pay.submit("charge") for _ in range(90)]
        end(pay, claim(pay, 90), "c")
    ids = [pay.submit("charge") for _ in range(60)]
    assert claim(pay, 60) == ids

    end(pay, ids, "r", delay_ms=0, reason="dependency_down")

    free = sum(ms <= 0 for ms in delayed(pay).values())
    assert 36 <= free <= 42


def test_by_order_it_is_open_until_it_is_closed_by_order(pay: Desk) -> None:
    """Who and why are on record; no clock ends it; the order to close lets everybody go."""
    ids = [pay.submit("charge") for _ in range(3)]
    assert pay.run(breakers.force(0, "stripe", "open", order("o1", who="ann", reason="their incident"))).status is Status.OK

    assert claim(pay, 10) == []
    pay.now += 86_400_000
    pay.register("w4", charge="stripe")
    assert pay.claim("w4", 10) == []
    fields = at(pay).fields
    assert (fields["state"], fields["how"], fields["who"], fields["why"], fields.get("till")) == (
        "open",
        "order",
        "ann",
        "their incident",
        None,
    )
    assert pay.run(breakers.force(0, "stripe", "close", order("o2"))).status is Status.OK
    assert pay.woken("w4") == ["w4"]
    assert pay.claim("w4", 10) == ids
    audit: Any = pay.raw.xrange("tm:{0}:audit")
    assert [row[1]["action"] for row in audit] == ["limit.put", "breaker.forced_open", "breaker.forced_closed"]
    pay.dump()


def test_an_order_repeats_safely_and_an_old_one_is_refused(pay: Desk) -> None:
    """The same request answers ALREADY; one that was decided on an older state CONFLICT; an unknown dependency GONE."""
    first = pay.run(breakers.force(0, "stripe", "open", order("o1")))
    assert pay.run(breakers.force(0, "stripe", "open", order("o1"))) == flow.Changed(Status.ALREADY, first.revision)
    second = pay.run(breakers.force(0, "stripe", "close", order("o2", known=first.revision)))
    assert second.status is Status.OK

    late = pay.run(breakers.force(0, "stripe", "open", order("o3", known=first.revision)))

    assert (late.status, state(pay)) == (Status.CONFLICT, "closed")
    assert pay.run(breakers.force(0, "nobody", "open", order("o4"))).status is Status.GONE


def test_settings_change_without_touching_the_state(pay: Desk) -> None:
    """An open breaker stays open, for as long as it would have."""
    break_it(pay)
    till = at(pay).fields["till"]

    pay.run(breakers.put_breaker(0, "stripe", BreakerRule(minimum_calls=50), order("again")))

    assert (at(pay).fields["state"], at(pay).fields["till"], at(pay).fields["least"]) == ("open", till, "50")


def test_a_repeated_round_counts_once(pay: Desk) -> None:
    """The answer was lost and the call is sent again: the breaker has heard it once."""
    pay.submit("charge")
    (job_id,) = claim(pay)
    call = pay.next_cycle("w", finishes=[pay.end("w", job_id, "d", **DOWN)])

    pay.run(call)
    pay.run(call)

    assert (at(pay).calls, at(pay).failures) == (1, 1)


def test_a_cancelled_job_tells_what_it_met(pay: Desk) -> None:
    """The job ends as cancelled; that its call failed counts all the same."""
    pay.submit("charge")
    (job_id,) = claim(pay)
    pay.run(calls.cancel(0, job_id, who="me", key_window_ms=1_000))

    pay.cycle("w", finishes=[pay.end("w", job_id, "d", f"w.{pay.seqs['w']}", **DOWN)])

    assert (pay.field(job_id, "st"), at(pay).failures) == ("x", 1)


# ---------------------------------------------------------------- fallbacks
@pytest.fixture
def mild(desk: Desk) -> Desk:
    """A worker `w` of the type `charge`, which depends on stripe and has a fallback."""
    desk.register("w", charge="stripe?")
    desk.run(breakers.put_breaker(0, "stripe", RULE, order("put")))
    return desk


def test_a_type_with_a_fallback_does_not_wait(mild: Desk) -> None:
    """While the breaker is open its jobs are claimed for the fallback; nothing is parked, and what they did is marked."""
    break_it(mild)
    ids = [mild.submit("charge") for _ in range(2)]

    answer = mild.cycle("w", (5, "one"))

    assert ([one.id for one in answer.claims], answer.fallbacks) == (ids, frozenset(ids))
    assert at(mild).waiting == 0
    end(mild, ids, "c")
    assert [(mild.field(job_id, "st"), mild.field(job_id, "fb")) for job_id in ids] == [("c", "1")] * 2
    mild.dump()


def test_a_fallback_says_nothing_of_the_dependency(mild: Desk) -> None:
    """However it ends; and it is no probe."""
    break_it(mild)
    before = at(mild)

    outcome(mild, *"cdrf")

    assert at(mild)._replace(fields={}) == before._replace(fields={})
    assert (at(mild).fields["state"], at(mild).fields["till"]) == ("open", before.fields["till"])


def test_its_dependency_is_probed_all_the_same(mild: Desk) -> None:
    """After the cooldown as many as may go to the dependency itself; the others still fall back, and no longer once it is closed."""
    break_it(mild)
    mild.now += 1_000
    ids = [mild.submit("charge") for _ in range(3)]

    answer = mild.cycle("w", (3, "one"))

    assert ([one.id for one in answer.claims], answer.fallbacks) == (ids, frozenset(ids[1:]))
    assert at(mild).probing == 1
    mild.run(breakers.force(0, "stripe", "close", order("close")))
    mild.submit("charge")
    assert mild.cycle("w", (1, "one")).fallbacks == frozenset()


def test_a_repeated_round_tells_its_fallbacks_again(mild: Desk) -> None:
    """The answer was lost: the same claims, for the same purpose."""
    break_it(mild)
    ids = [mild.submit("charge") for _ in range(2)]
    call = mild.next_cycle("w", (2, "one"))
    mild.run(call)

    answer = mild.run(call)

    assert ([one.id for one in answer.claims], answer.fallbacks) == (ids, frozenset(ids))


def test_a_fallback_that_fails_is_retried_by_the_handler_once_all_is_well(mild: Desk) -> None:
    """The mark is of the attempt that completed the job, not of an earlier one."""
    break_it(mild)
    job_id = mild.submit("charge")
    assert mild.cycle("w", (1, "one")).fallbacks == frozenset([job_id])
    end(mild, [job_id], "r", delay_ms=50)
    mild.run(breakers.force(0, "stripe", "close", order("close")))
    mild.now += 50

    answer = mild.cycle("w", (5, "one"))
    end(mild, [one.id for one in answer.claims], "c")

    assert answer.fallbacks == frozenset()
    assert (mild.field(job_id, "st"), mild.field(job_id, "fb"), mild.field(job_id, "fl")) == ("c", None, "1")


def test_other_types_of_the_dependency_wait_as_ever(mild: Desk) -> None:
    """The fallback is of the type, the breaker is of the dependency."""
    mild.register("w5", charge="stripe?", refund="stripe")
    break_it(mild)
    mild.submit("refund")

    assert mild.claim("w5", 5) == []
    assert at(mild).types == ("charge", "refund")
