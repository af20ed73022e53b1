"""Pauses, settings of queues, unique work, expiry, LIFO, changes of waiting jobs, and how they are found: rule by rule on both servers."""

from __future__ import annotations

import json
from itertools import count
from typing import Any

import msgspec
import pytest

from support.desk import GRACE_MS, WINDOW_MS, Desk
from taskmaster.errors import StoreDefect
from taskmaster.maintenance.sweeper import Sweeper
from taskmaster.store import calls, flow, reads, upkeep
from taskmaster.store.status import Status

_ops = count()


def order(known: int | None = None) -> flow.Order:
    return flow.Order(f"op{next(_ops)}", known, "ann", "why")


def unique(until: str = "f", otherwise: str = "reject", digest: str = "work") -> calls.Unique:
    return calls.Unique(digest, until, 600_000, otherwise, WINDOW_MS)


def settle(desk: Desk, queue: str, **settings: Any) -> None:
    assert desk.run(flow.put_queue(0, queue, settings, order())).status is Status.OK


# ---------------------------------------------------------------- pause
@pytest.mark.parametrize(
    ("scope", "lane"), [("q/one", ""), ("q/one", "k"), ("t/alpha", ""), ("t/alpha", "k"), ("k/k", "k"), ("k/k", "k~few"), ("k/a@b", "a@b")]
)
def test_nothing_is_claimed_while_it_is_paused(desk: Desk, scope: str, lane: str) -> None:
    """What runs goes on, and due work moves on to wait; resumed, somebody is woken for it."""
    wid, sleeper = desk.register("w1"), desk.register("w2")
    running, later = desk.submit(lane=lane), desk.submit(lane=lane, delay_ms=1_000)
    assert desk.claim(wid) == [running]

    assert desk.run(flow.pause(0, scope, "pause", order())) == (Status.OK, 1)
    waiting = desk.submit(lane=lane)
    desk.now += 1_000
    answer = desk.cycle(wid, (2, "one"), finishes=[desk.end(wid, running)])
    assert (answer.codes, answer.claims) == ([Status.OK], [])
    assert desk.claim(sleeper) == []
    assert [desk.field(job_id, "st") for job_id in (waiting, later)] == ["w", "w"]
    desk.woken(wid, sleeper)
    desk.submit("beta", lane=lane)
    desk.dump()

    assert desk.run(flow.pause(0, scope, "resume", order(1))) == (Status.OK, 2)
    assert len(desk.woken(wid, sleeper)) == 1
    assert set(desk.claim(wid, 5)) == {waiting, later}
    desk.dump()


def test_a_paused_queue_wakes_nobody_for_what_comes(desk: Desk) -> None:
    """A thousand submissions to it are no thousand wake-ups."""
    desk.cycle(desk.register("keeper", "beta"))
    wid = desk.register("w1")
    desk.claim(wid)
    desk.run(flow.pause(0, "q/one", "pause", order()))

    for lane in ("", "k", "~few"):
        desk.submit(lane=lane)
        desk.submit(lane=lane, delay_ms=5)
    desk.now += 5
    desk.run(upkeep.promote(0))

    assert desk.woken(wid) == []
    desk.run(flow.pause(0, "q/one", "resume", order()))
    assert desk.woken(wid) == [wid]
    assert len(desk.claim(wid, 10)) == 6


def test_a_late_copy_of_a_pause_does_nothing(desk: Desk) -> None:
    """Pause, resume, and the first request once more: it is refused, or known; who paused and why is in the audit."""
    pause = flow.pause(0, "q/one", "pause", order(0))

    assert desk.run(pause) == (Status.OK, 1)
    assert json.loads(desk.dump()["pause"]["q/one"]) == {"who": "ann", "reason": "why", "since": desk.now}
    assert desk.run(flow.pause(0, "q/one", "pause", order())) == (Status.ALREADY, 1)
    assert desk.run(flow.pause(0, "q/one", "resume", order(1))) == (Status.OK, 2)
    assert desk.run(pause) == (Status.CONFLICT, 2)

    assert "pause" not in desk.dump()
    rows: Any = desk.raw.xrange("tm:{0}:audit")
    assert [(row["who"], row["action"], row["target"]) for _, row in rows] == [("ann", "paused", "q/one"), ("ann", "resumed", "q/one")]


def test_a_paused_tenant_holds_up_nobody_else(desk: Desk) -> None:
    """Each of its lanes is looked at once; jobs of others, and without a tenant, go on; nobody is woken for what comes."""
    wid = desk.register("w1", "alpha", "beta")
    desk.run(flow.put_limit(0, "few", {"kind": "slots", "max": 9}, order()))
    held = [desk.submit(kind, priority=p, lane=lane) for kind in ("alpha", "beta") for p in (1, 2) for lane in ("k", "k~few")]
    free = [desk.submit(lane=lane) for lane in ("", "other", "~few")]
    assert desk.run(flow.pause(0, "k/k", "pause", order())).status is Status.OK

    assert sorted(desk.claim(wid, 20)) == sorted(free)
    assert desk.raw.zcard("tm:{0}:L:=tenant@k:w") == len(held)
    assert desk.claim(wid, 20) == []
    desk.woken(wid)
    more = desk.submit(lane="k")
    assert desk.woken(wid) == []
    desk.dump()

    assert desk.run(flow.pause(0, "k/k", "resume", order())).status is Status.OK
    claimed = desk.claim(wid, 20)
    assert sorted(claimed) == sorted([*held, more])
    assert {desk.field(job_id, "ep") for job_id in claimed} == {"1"}
    desk.dump()


def test_a_paused_tenant_with_many_jobs_costs_what_one_costs(desk: Desk) -> None:
    """The lane waits, not the job: rounds beside 2,000 held jobs run as many commands as beside one."""
    wid, spent = desk.register("w1"), []
    desk.run(flow.pause(0, "k/k", "pause", order()))
    for count_held in (1, 2_000):
        desk.run(calls.submit(0, [desk.item(lane="k") for _ in range(min(count_held, 1_000))]))
        if count_held > 1_000:
            desk.run(calls.submit(0, [desk.item(lane="k") for _ in range(count_held - 1_000)]))
        desk.claim(wid, 5)
        desk.submit(lane="other")
        desk.raw.config_resetstat()
        assert len(desk.claim(wid, 5)) == 1
        spent.append(sum(row["calls"] for row in desk.raw.info("commandstats").values()))

    assert spent[0] == spent[1]


def test_the_sweep_lets_a_stranded_lane_of_a_tenant_go(desk: Desk) -> None:
    """A lane that waits for the gate is left alone while the tenant is paused, and looked at when the kick was lost."""
    wid, sweeper = desk.register("w1"), Sweeper(desk.store, 0, 600_000, WINDOW_MS)
    job_id = desk.submit(lane="k")
    desk.run(flow.pause(0, "k/k", "pause", order()))
    assert desk.claim(wid) == []
    assert sweeper.whole() == []
    desk.raw.hdel("tm:{0}:pause", "k/k")

    assert [repair.what for repair in sweeper.whole()] == ["kick_missing"]

    assert desk.claim(wid) == [job_id]
    desk.dump()


# ---------------------------------------------------------------- settings of a queue
def test_a_queue_takes_no_more_than_its_length(desk: Desk) -> None:
    """Waiting and delayed jobs count, running ones do not; known requests are answered, also when it is full."""
    settle(desk, "one", max=3)
    items = [desk.item(), desk.item(delay_ms=5_000), desk.item(key="k" * 22), desk.item()]

    said = desk.run(calls.submit(0, items))
    assert [(one.status, one.why) for one in said] == [(Status.OK, "")] * 3 + [(Status.REJECTED, "full")]
    again = desk.run(calls.submit(0, [items[0], items[2]]))
    assert [one.status for one in again] == [Status.OK, Status.OK]
    assert desk.run(calls.submit(0, [desk.item(queue="two")]))[0].status is Status.OK
    desk.claim(desk.register("w1"))
    assert [one.status for one in desk.run(calls.submit(0, [desk.item(), desk.item()]))] == [Status.OK, Status.REJECTED]
    settle(desk, "one", max="", drain=1)
    assert desk.run(calls.submit(0, [desk.item()]))[0].why == "draining"
    desk.dump()


def test_an_atomic_submission_fits_or_does_not(desk: Desk) -> None:
    """All or none, counted over the whole call; what is known takes no place."""
    settle(desk, "one", max=3)
    known = desk.item()
    desk.run(calls.submit(0, [known]))
    keyed = desk.item(key="k" * 22)

    assert {one.status for one in desk.run(calls.submit(0, [desk.item() for _ in range(3)], atomic=True))} == {
        Status.ABORTED,
        Status.REJECTED,
    }
    said = desk.run(calls.submit(0, [known, keyed, desk.item(), msgspec.structs.replace(keyed, id=desk.item().id)], atomic=True))
    assert [one.status for one in said] == [Status.OK, Status.OK, Status.OK, Status.DUPLICATE]
    assert int(desk.dump()["n"]["one/w"]) == 3


def test_a_strict_queue_claims_the_highest_priority_first(desk: Desk) -> None:
    """No turns of levels; without keys and with them."""
    settle(desk, "one", strict=1)
    for lane in ("", "k"):
        low = [desk.submit(priority=3, lane=lane) for _ in range(2)]
        critical = [desk.submit(priority=0, lane=lane) for _ in range(20)]
        assert desk.claim(desk.register(f"w{lane}"), 22) == critical + low
    desk.dump()


def test_settings_that_cannot_be_read_are_refused(desk: Desk) -> None:
    """Weights that are no JSON would stop every fetch of the queue."""
    desk.submit(lane="k")

    with pytest.raises(StoreDefect):
        desk.run(flow.put_queue(0, "one", {"weights": "{"}, order()))

    assert len(desk.claim(desk.register("w1"))) == 1


# ---------------------------------------------------------------- unique work
@pytest.mark.parametrize(
    ("until", "stage", "holds"),
    [
        ("s", "waiting", True),
        ("s", "delayed", True),
        ("s", "active", False),
        ("s", "retrying", False),
        ("f", "waiting", True),
        ("f", "active", True),
        ("f", "retrying", True),
        ("f", "ended", False),
        ("f", "purged", False),
        ("t", "ended", True),
        ("t", "purged", True),
    ],
)
def test_work_is_unique_until(desk: Desk, until: str, stage: str, holds: bool) -> None:
    """Until the first attempt has started, until the job has ended, or for a time, whatever becomes of the job."""
    first = desk.submit(unique=unique(until), delay_ms=5_000 if stage == "delayed" else 0)
    wid = desk.register("w1")
    if stage in ("active", "retrying", "ended", "purged"):
        desk.claim(wid)
    if stage in ("retrying", "ended", "purged"):
        desk.cycle(wid, finishes=[desk.end(wid, first, "r" if stage == "retrying" else "c", delay_ms=60_000)])
    if stage == "purged":
        assert desk.run(calls.purge(0, [first])) == (Status.OK,)
    desk.dump()

    rejected, existing = desk.run(calls.submit(0, [desk.item(unique=unique(until)), desk.item(unique=unique(until, "existing"))]))

    if holds:
        assert (rejected.status, rejected.id) == (Status.CONFLICT, first)
        assert (existing.status, existing.id) == (Status.DUPLICATE, first)
    else:
        assert rejected.status is Status.OK
        assert (existing.status, existing.id) == (Status.DUPLICATE, rejected.id)
    desk.dump()


def test_the_later_replaces_the_one_that_waits(desk: Desk) -> None:
    """Cancelled as replaced, its key let go; one that runs is not replaced."""
    first = desk.submit(unique=unique(), key="k" * 22, lane="k1", expires_ms=desk.now + 9_000, tags=("red",))

    second = desk.submit(unique=unique("f", "replace"))

    assert [desk.field(first, name) for name in ("st", "rs")] == ["x", "replaced"]
    desk.dump()
    assert desk.claim(desk.register("w1"), 5) == [second]
    assert desk.run(calls.submit(0, [desk.item(unique=unique("f", "replace"))]))[0].status is Status.CONFLICT
    desk.dump()


def test_jobs_of_one_call_replace_each_other(desk: Desk) -> None:
    """The last one stays, in lanes and delayed; each that went is counted once."""
    items = [desk.item(unique=unique("s", "replace"), lane=lane, delay_ms=delay) for lane, delay in (("", 0), ("k", 0), ("", 9), ("k", 0))]

    said = desk.run(calls.submit(0, items))

    assert {one.status for one in said} == {Status.OK}
    assert [desk.field(item.id, "st") for item in items] == ["x", "x", "x", "w"]
    desk.dump()
    assert desk.claim(desk.register("w1"), 5) == [items[-1].id]


def test_an_atomic_submission_sees_its_own_unique_work(desk: Desk) -> None:
    """Two jobs of one call with the same work: refused together, or the second is answered with the first."""
    two = [desk.item(unique=unique()), desk.item(unique=unique())]
    assert [one.status for one in desk.run(calls.submit(0, two, atomic=True))] == [Status.ABORTED, Status.CONFLICT]
    assert "j:" + two[0].id not in desk.dump()

    two = [desk.item(unique=unique()), desk.item(unique=unique("f", "existing"))]
    said = desk.run(calls.submit(0, two, atomic=True))

    assert [(one.status, one.id) for one in said] == [(Status.OK, two[0].id), (Status.DUPLICATE, two[0].id)]
    desk.dump()


def test_a_purge_takes_the_record_of_its_own_work_only(desk: Desk) -> None:
    """A later job has the work: it keeps it when the earlier one is forgotten, by purge as by retention."""
    wid = desk.register("w1")
    ids = []
    for _ in range(3):
        ids.append(desk.submit(unique=unique()))
        desk.claim(wid)
        desk.cycle(wid, finishes=[desk.end(wid, ids[-1])], limits=calls.Limits(completed=calls.Kept(2)))
        desk.now += 1
    last = desk.submit(unique=unique())

    assert desk.run(calls.purge(0, ids)) == (Status.GONE, Status.OK, Status.OK)  # retention took the first
    assert desk.dump()["u:work"] == last
    desk.run(calls.cancel(0, last, who="me", key_window_ms=WINDOW_MS))
    desk.run(calls.purge(0, [last]))
    assert "u:work" not in desk.dump()


# ---------------------------------------------------------------- expiry
@pytest.mark.parametrize("lane", ["", "k", "k~few"])
@pytest.mark.parametrize("delay_ms", [0, 900, 5_000])
def test_what_comes_too_late_never_begins(desk: Desk, lane: str, delay_ms: int) -> None:
    """Cancelled as expired at its time, wherever it waits; the keeper is told of that time."""
    wid = desk.register("w1")
    assert desk.cycle(wid).next_ms == -1
    desk.run(flow.put_limit(0, "few", {"kind": "gate"}, order()))

    job_id = desk.submit(lane=lane, delay_ms=min(delay_ms, 900), expires_ms=desk.now + 1_000, key="k" * 22)
    if delay_ms > 900:  # a submission that could only be late is refused
        desk.run(flow.patch(0, job_id, {"due": desk.now + delay_ms}, op="later"))
    assert desk.woken(wid) == [wid]
    assert desk.cycle(wid).next_ms == min(delay_ms or 1_000, 1_000)
    desk.now += 1_000
    answer = desk.cycle(wid, (1, "one"))

    assert (answer.claims, answer.next_ms) == ([], -1)
    assert [desk.field(job_id, name) for name in ("st", "rs")] == ["x", "expired"]
    assert int(desk.dump()["n"]["alpha/one/cancelled"]) == 1


def test_a_job_that_expires_in_the_call_that_makes_it_ready_stands_nowhere(desk: Desk) -> None:
    """Promoted, handed back or retried in the same call in which its time is over."""
    wid = desk.register("w1")
    expires = desk.now + 1_000
    back, retried = desk.submit(expires_ms=expires), desk.submit(expires_ms=expires, lane="k")
    due = desk.submit(expires_ms=expires, delay_ms=999, lane="k")
    assert len(desk.claim(wid, 2)) == 2
    desk.now += 1_000

    desk.cycle(wid, (5, "one"), finishes=[desk.end(wid, back, "h"), desk.end(wid, retried, "r", delay_ms=0, fingerprint="f")])
    desk.dump()
    desk.cycle(wid, (5, "one"))

    assert [desk.field(job_id, "rs") for job_id in (back, retried, due)] == ["expired"] * 3
    desk.dump()


def test_thousands_of_expired_jobs_are_cleared_in_bounded_calls(desk: Desk) -> None:
    """No call looks at more than its bound; the answer says that there is more, and what comes behind is claimed."""
    for _ in range(4):
        desk.run(calls.submit(0, [desk.item(lane=f"k{n % 50}", expires_ms=desk.now + 1_000) for n in range(300)]))
    good = desk.submit(lane="good")
    wid = desk.register("w1")
    desk.now += 1_000

    rounds, got = 0, []
    more = True
    while more:
        before = int(desk.raw.hget("tm:{0}:n", "one/x") or 0)
        answer = desk.cycle(wid, (10, "one"))
        got += [claim.id for claim in answer.claims]
        more, rounds = answer.more, rounds + 1
        assert int(desk.raw.hget("tm:{0}:n", "one/x") or 0) - before <= 120
    desk.dump()

    assert got == [good]
    assert rounds >= 10


def test_a_job_that_runs_does_not_expire_and_one_that_comes_back_does(desk: Desk) -> None:
    """It has begun in time; lost, it is listed again and ends at its time."""
    job_id, wid = desk.submit(expires_ms=desk.now + 10_000, lane="k"), desk.register("w1")
    desk.claim(wid)
    assert "exp" not in desk.dump()
    desk.run(upkeep.abandon(0, wid))
    desk.now += GRACE_MS
    assert desk.reap()[1] == (job_id,)
    desk.dump()
    desk.now += 5_000

    assert desk.run(upkeep.tick(0, grace_ms=GRACE_MS)).to_promote == 1
    desk.run(upkeep.promote(0))

    assert desk.field(job_id, "rs") == "expired"
    desk.dump()


# ---------------------------------------------------------------- LIFO and changes
def test_last_in_first_out_goes_before_what_waits(desk: Desk) -> None:
    """In its lane, the latest first; also when it was delayed."""
    plain = [desk.submit(lane="k") for _ in range(2)]
    first, second = desk.submit(lane="k", lifo=1), desk.submit(lane="k", lifo=1)
    later = desk.submit(lane="k", lifo=1, delay_ms=5)
    desk.now += 5

    assert desk.claim(desk.register("w1"), 9) == [later, second, first, *plain]


def test_a_job_that_waits_changes_its_priority(desk: Desk) -> None:
    """To the end of its new level, in lanes with and without a name; a revision guards against older orders."""
    wid = desk.register("w1")
    for lane in ("", "k"):
        settle(desk, "one", strict=1)
        others, job_id = [desk.submit(lane=lane) for _ in range(2)], desk.submit(lane=lane, priority=3)

        assert desk.run(flow.patch(0, job_id, {"pr": 0}, op="a", known=0)) == (Status.OK, "waiting", 1)
        assert desk.run(flow.patch(0, job_id, {"pr": 3}, op="b", known=0)) == (Status.CONFLICT, "waiting", 1)
        desk.dump()
        assert desk.claim(wid, 9) == [job_id, *others]
        assert desk.run(flow.patch(0, job_id, {"pr": 3}, op="c")) == (Status.CONFLICT, "active", 1)


def test_a_job_runs_now_or_later_by_order(desk: Desk) -> None:
    """Due 0: at once, and somebody is woken; a time: delayed until then, and the keeper is told; it was due when it was ordered."""
    wid = desk.register("w1")
    desk.claim(wid)
    job_id = desk.submit(delay_ms=60_000, lane="k", tags=("red", "blue"))
    desk.woken(wid)
    desk.cycle(wid, (1, "one"))
    desk.now += 500

    assert desk.run(flow.patch(0, job_id, {"due": 0, "tg": ["red", "green"]}, op="a")) == (Status.OK, "waiting", 1)
    assert desk.woken(wid) == [wid]
    assert desk.field(job_id, "ra") == str(desk.now)
    assert [name for name in desk.dump() if name.startswith("ig:")] == ["ig:green", "ig:red"]
    assert desk.run(flow.patch(0, job_id, {"due": desk.now + 700, "b": "[1]"}, op="b")) == (Status.OK, "delayed", 2)
    desk.dump()
    assert desk.cycle(wid, (1, "one")).next_ms == 700
    desk.now += 700
    (claim,) = desk.cycle(wid, (1, "one")).claims
    assert (claim.id, claim.blob) == (job_id, b"[1]")


# ---------------------------------------------------------------- how they are found
def page_through(desk: Desk, limit: int, **filters: Any) -> list[str]:
    found: list[str] = []
    after = ("", "")
    while True:
        page = desk.run(reads.find(0, "waiting", after=after, limit=limit, **filters))
        found += [row.id for row in page.rows]
        if not page.has_more:
            return found
        after = page.last


@pytest.mark.parametrize("keys", [7, 700])
def test_waiting_jobs_are_found_in_all_lanes(desk: Desk, keys: int) -> None:
    """Each once, newest first, over lanes with and without names; with very many lanes by creation."""
    items = [desk.item(lane=("", f"k{n % keys}", f"k{n % keys}~few")[n % 3], priority=n % 4) for n in range(800)]
    items += [desk.item("beta", "two", lane="k")]
    for item in items:
        desk.now += 1
        desk.run(calls.submit(0, [item]))
    desk.claim(desk.register("w1"), 5)
    waiting = [item for item in items if desk.field(item.id, "st") == "w"]

    everything = page_through(desk, 90)
    some = page_through(desk, 90, queue="one", job_type="alpha")

    assert sorted(everything) == sorted(item.id for item in waiting)
    assert sorted(some) == sorted(item.id for item in waiting if item.queue == "one")
    assert everything == sorted(everything, reverse=True)


def test_a_page_goes_on_when_lanes_become_too_many(desk: Desk) -> None:
    """The first page came from few lanes, the next from creation: nothing is shown twice, nothing that was there is left out."""
    old = []
    for n in range(50):
        desk.now += 1
        old.append(desk.submit(lane=f"k{n % 5}"))
    first = desk.run(reads.find(0, "waiting", limit=20))
    for n in range(600):
        desk.submit(lane=f"new{n}")

    rest = desk.run(reads.find(0, "waiting", after=first.last, limit=100))

    assert [row.id for row in (*first.rows, *rest.rows)] == old[::-1]


def test_queues_count_what_waits_in_lanes(desk: Desk) -> None:
    """By priority, with the oldest of all lanes and the types that nobody has; of very many lanes the count is an estimate."""
    desk.register("w1", "alpha")
    first = desk.item(lane="k7", priority=1)
    desk.run(calls.submit(0, [first]))
    desk.now += 2_000
    desk.run(calls.submit(0, [desk.item(lane=f"k{n % 40}", priority=1) for n in range(120)]))
    desk.run(calls.submit(0, [desk.item("beta", lane="~few"), desk.item(priority=3)]))

    (row,) = desk.run(reads.queues(0, queue="one"))
    assert (row.by_priority, row.oldest_ms, row.orphan_types) == ((0, 121, 1, 1), 2_000, ("beta",))

    desk.run(calls.submit(0, [desk.item(lane=f"many{n}", priority=0) for n in range(900)]))
    (row,) = desk.run(reads.queues(0, queue="one"))
    assert abs(row.by_priority[0] - 900) <= 9


def test_the_first_attempt_of_a_job_that_may_expire_is_the_first(desk: Desk) -> None:
    """When it must not begin any more has no part in the count of its attempts."""
    wid, job_id = desk.register("w1"), desk.submit(expires_ms=desk.now + 60_000)

    (claim,) = desk.cycle(wid, (1, "one")).claims

    assert (claim.id, claim.epoch, claim.attempt, claim.failures) == (job_id, 1, 1, 0)
