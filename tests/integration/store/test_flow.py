"""Who runs when and how fast: turns of fairness keys, limiters, and units that wait for them, rule by rule on both servers."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable
from itertools import count
from random import Random
from typing import Any

import pytest

from support.desk import GRACE_MS, LEASE_MS, WINDOW_MS, Desk
from taskmaster.maintenance.sweeper import Sweeper
from taskmaster.store import calls, flow, upkeep
from taskmaster.store.status import Status

_ops = count()


def order(known: int | None = None) -> flow.Order:
    return flow.Order(f"op{next(_ops)}", known, "ann", "why")


def limit(desk: Desk, name: str, **rule: Any) -> None:
    assert desk.run(flow.put_limit(0, name, rule, order())).status is Status.OK


def attach(desk: Desk, queue: str, limits: str, **settings: Any) -> None:
    assert desk.run(flow.put_queue(0, queue, {"lm": limits, **settings}, order())).status is Status.OK


def submit_many(desk: Desk, items: Iterable[calls.NewJob]) -> list[str]:
    jobs = list(items)
    for first in range(0, len(jobs), 1_000):
        assert {said.status for said in desk.run(calls.submit(0, jobs[first : first + 1_000]))} == {Status.OK}
    return [job.id for job in jobs]


def waiting(desk: Desk, instance: str) -> list[str]:
    found: Any = desk.raw.zrange(f"tm:{{0}}:L:{instance}:w", 0, -1)
    return list(found)


def claims_of(desk: Desk, wid: str, n: int, of: dict[str, str], queue: str = "one", batch: int = 1) -> list[str]:
    """What *n* claims were of, by *of* (id to name); each job ends in the call that fetches the next."""
    out: list[str] = []
    ends: list[calls.Finish] = []
    while len(out) < n:
        answer = desk.cycle(wid, (min(batch, n - len(out)), queue), finishes=ends)
        assert answer.claims, f"nothing after {len(out)} claims"
        out += [of[claim.id] for claim in answer.claims]
        ends = [desk.end(wid, claim.id) for claim in answer.claims]
    desk.cycle(wid, finishes=ends)
    return out


def named(desk: Desk, lanes: dict[str, int], kind: str = "alpha", **fields: Any) -> dict[str, str]:
    """So many jobs of each lane, one lane after the other; id to lane."""
    items = {lane: [desk.item(kind, lane=lane, **fields) for _ in range(n)] for lane, n in lanes.items()}
    submit_many(desk, [item for some in items.values() for item in some])
    return {item.id: lane for lane, some in items.items() for item in some}


# ---------------------------------------------------------------- turns of keys
@pytest.mark.parametrize("batch", [1, 7])
def test_a_flood_of_one_key_does_not_hold_up_another(desk: Desk, batch: int) -> None:
    """A waits with 10,000 jobs when B comes with 10: B's first turn is within 2(n - 1) claims of others, then every round has one."""
    wid = desk.register("w1")
    of = named(desk, {"A": 10_000})
    claims_of(desk, wid, 50, of, batch=batch)
    of |= named(desk, {"B": 10})

    got = claims_of(desk, wid, 30, of, batch=batch)

    places = [i for i, lane in enumerate(got) if lane == "B"]
    assert len(places) == 10
    assert all(place <= 2 + 2 * n for n, place in enumerate(places)), places


def test_a_new_key_waits_for_one_round_of_the_others(desk: Desk) -> None:
    """N keys of equal weight: at most 2(n - 1) claims of others come before the first turn of one that is new."""
    wid, keys = desk.register("w1"), [f"k{n}" for n in range(9)]
    of = named(desk, dict.fromkeys(keys, 12))

    for rounds in range(3):
        claims_of(desk, wid, 13, of)
        of |= named(desk, {f"new{rounds}": 1})
        got = claims_of(desk, wid, 2 * 9 + 1, of)
        assert got.index(f"new{rounds}") <= 2 * 9


def test_weights_of_keys_hold(desk: Desk) -> None:
    """Of 10,000 claims each key has its share by weight, within 5 %."""
    wid, weights = desk.register("w1"), {"a": 1, "b": 2, "c": 5, "d": 0.5}
    attach(desk, "one", "", weights='{"b":2,"c":5,"d":0.5}')
    of = named(desk, {"a": 1_400, "b": 2_600, "c": 6_300, "d": 800})

    got = Counter(claims_of(desk, wid, 10_000, of, batch=61))

    for key, weight in weights.items():
        share = weight / sum(weights.values())
        assert abs(got[key] / 10_000 - share) <= 0.05 * share, got


@pytest.mark.parametrize(("slots", "claimed"), [(1, 1_000), (7, 3_000), (64, 10_000)])
def test_weights_of_queues_that_share_slots_hold(desk: Desk, slots: int, claimed: int) -> None:
    """Of up to 10,000 claims each queue has its share by weight, within 5 %; weights changed meanwhile hold from then on."""
    wids, names = [desk.register(f"w{n}") for n in range(3)], ("one", "two", "three")
    held: dict[str, list[calls.Finish]] = {}
    desk.submit(queue="three", lane="k1")

    for weights in ({"one": 5, "two": 2}, {"one": 1, "two": 1, "three": 8}):
        whole = sum(weights.get(queue, 1) for queue in names)
        for queue in names:
            desk.run(flow.put_queue(0, queue, {"share": weights.get(queue, "")}, order()))
            submit_many(desk, [desk.item(queue=queue) for _ in range(claimed * weights.get(queue, 1) // whole + 300)])
        of = Counter[str]()
        while of.total() < claimed:
            for n, wid in enumerate(wids):
                claims = desk.cycle(wid, (slots, *names[n:], *names[:n]), finishes=held.pop(wid, [])).claims
                assert len(claims) == slots
                held[wid] = [desk.end(wid, one.id) for one in claims]
                of.update(one.queue for one in claims)
        for queue in names:
            share = weights.get(queue, 1) / whole
            assert abs(of[queue] / of.total() - share) <= 0.05 * share, (weights, of)


def test_a_queue_of_a_group_has_the_slots_that_others_have_no_jobs_for(desk: Desk) -> None:
    """Whatever the weights; and a queue that had nothing saves up no turns for later."""
    wid = desk.register("w1")
    desk.run(flow.put_queue(0, "one", {"share": 9}, order()))
    desk.run(calls.submit(0, [desk.item(queue="two") for _ in range(200)]))
    desk.run(calls.submit(0, [desk.item(queue="one") for _ in range(3)]))

    first = Counter(one.queue for one in desk.cycle(wid, (20, "one", "two")).claims)
    desk.cycle(wid, (100, "one", "two"))
    desk.run(calls.submit(0, [desk.item(queue="one") for _ in range(200)]))
    later = Counter(one.queue for one in desk.cycle(wid, (20, "one", "two")).claims)

    assert first == {"one": 3, "two": 17}
    assert later["two"] in (1, 2, 3), later
    desk.dump()


def test_the_turn_belongs_to_the_key_not_to_its_lanes(desk: Desk) -> None:
    """A key with ten types, or with several sets of limiters, gets no more turns than one with a single lane."""
    wid, types = desk.register("w1", *(f"type{n}" for n in range(10))), [f"type{n}" for n in range(10)]
    of: dict[str, str] = {}
    for kind in types:
        of |= named(desk, {"many": 10}, kind)
        of |= named(desk, {"many~own": 10}, kind)
    of |= named(desk, {"single": 60}, "type0")

    got = Counter(lane.partition("~")[0] for lane in claims_of(desk, wid, 60, of, batch=6))

    assert got == {"many": 30, "single": 30}


@pytest.mark.parametrize("idle", ["idle", ""])
def test_an_idle_key_saves_up_no_turns(desk: Desk, idle: str) -> None:
    """A key that had no work for 500 claims takes turns when it comes back, and does not catch up; so do jobs without a key."""
    wid = desk.register("w1")
    of = named(desk, {idle: 1})
    of |= named(desk, {"busy": 700})
    claims_of(desk, wid, 500, of, batch=20)
    of |= named(desk, {idle: 50})

    got = claims_of(desk, wid, 40, of)

    assert abs(Counter(got)[idle] - 20) <= 1


def test_jobs_of_one_key_are_first_come_first_served_over_types(desk: Desk) -> None:
    """Equal tags go to the older job; jobs without a key take turns as one key."""
    wid = desk.register("w1", "alpha", "beta")
    plain = {desk.submit(kind): f"plain{n}" for n, kind in enumerate(["alpha", "beta", "beta", "alpha"])}
    keyed = {desk.submit(kind, lane="k"): f"keyed{n}" for n, kind in enumerate(["beta", "alpha", "alpha", "beta"])}

    got = claims_of(desk, wid, 8, plain | keyed)

    assert [name for name in got if name.startswith("plain")] == [f"plain{n}" for n in range(4)]
    assert [name for name in got if name.startswith("keyed")] == [f"keyed{n}" for n in range(4)]
    assert {name[:5] for name in got[:2]} == {name[:5] for name in got[2:4]} == {"plain", "keyed"}


@pytest.mark.parametrize("limits", ["", "~few"])
@pytest.mark.parametrize("keys", [("",), ("k1", "k2", "k3")])
def test_no_level_starves_with_keys_and_limiters(desk: Desk, keys: tuple[str, ...], limits: str) -> None:
    """Random arrivals and claims: the head of a level waits for at most 3, 5, 9, 17 claims of others, as without keys and limiters."""
    dice, wid = Random(7), desk.register("w1")
    limit(desk, "few", kind="slots", max=1)
    level_of: dict[str, int] = {}
    waits: Counter[int] = Counter()
    overtaken: Counter[int] = Counter()
    ends: list[calls.Finish] = []
    for _ in range(500):
        some = [desk.item(priority=dice.randrange(4), lane=dice.choice(keys) + limits) for _ in range(dice.choice((0, 0, 1, 2, 3)))]
        submit_many(desk, some)
        level_of |= {item.id: item.priority for item in some}
        waits.update(item.priority for item in some)
        answer = desk.cycle(wid, (1, "one"), finishes=ends)
        ends = [desk.end(wid, claim.id) for claim in answer.claims]
        for claim in answer.claims:
            won = level_of[claim.id]
            waits[won] -= 1
            overtaken = Counter({level: overtaken[level] + 1 for level in range(4) if waits[level] and level != won})
            assert all(overtaken[level] <= (3, 5, 9, 17)[level] for level in range(4)), overtaken


@pytest.mark.server("valkey")
@pytest.mark.parametrize("lane", ["", "key"])
def test_a_level_that_was_alone_has_had_its_turns(desk: Desk, lane: str) -> None:
    """Four claims of the only level are four turns of it, in whatever way they are counted: a higher level that comes then is ahead."""
    wid = desk.register("w1")
    of = dict.fromkeys(submit_many(desk, [desk.item(priority=2, lane=lane) for _ in range(9)]), "normal")
    claims_of(desk, wid, 4, of, batch=4)
    of |= dict.fromkeys(submit_many(desk, [desk.item(priority=1, lane=lane) for _ in range(9)]), "high")

    assert claims_of(desk, wid, 5, of) == ["high", "high", "high", "normal", "high"]


def test_many_keys_cost_no_more_than_few(desk: Desk) -> None:
    """A fetch among very many keys (MANY_KEYS=100000 by hand) runs as many commands as one among ten."""
    most = int(os.environ.get("MANY_KEYS", "10000"))

    def commands(lanes: int, jobs: int, queue: str) -> float:
        submit_many(desk, [desk.item(queue=queue, lane=f"key{n % lanes}") for n in range(jobs)])
        wid, before = desk.register(f"w-{queue}"), 0
        desk.raw.config_resetstat()
        got = 0
        for _ in range(25):
            got += len(desk.claim(wid, 8, queue))
        stats: Any = desk.raw.info("commandstats")
        before = sum(row["calls"] for row in stats.values())
        return before / got

    few, many = commands(10, 1_000, "one"), commands(most, most, "two")

    assert many <= 1.5 * few, f"{few} commands a claim with 10 keys, {many} with {most}"


# ---------------------------------------------------------------- rates
class Crowd:
    """Consumers that sleep and wake as real ones do: for an end of their handlers, a marker, or their timer."""

    def __init__(self, desk: Desk, n: int, *wants: tuple[int | str, ...]) -> None:
        self.desk, self.wants = desk, wants
        self.wids = [desk.register(f"w{n}") for n in range(n)]
        self.held: dict[str, list[calls.Finish]] = {wid: [] for wid in self.wids}
        self.timers: dict[str, int] = dict.fromkeys(self.wids, desk.now)
        self.times: list[int] = []

    def millisecond(self) -> int:
        """Whoever has a reason calls, and the clock goes on; handlers end within the millisecond. How many calls that were."""
        called = 0
        for wid in self.wids:
            if self.desk.woken(wid) or self.held[wid] or self.timers.get(wid, self.desk.now + 1) <= self.desk.now:
                answer = self.desk.cycle(wid, *self.wants, finishes=self.held[wid])
                self.times += [self.desk.now] * len(answer.claims)
                self.held[wid] = [self.desk.end(wid, claim.id) for claim in answer.claims]
                self.timers.pop(wid, None)
                if answer.next_ms >= 0 or answer.more:
                    self.timers[wid] = self.desk.now + max(1, answer.next_ms)
                called += 1
        self.desk.now += 1
        if self.desk.now % 10_000 == 0:
            for wid in self.wids:
                self.desk.run(calls.extend(0, wid, [], lease_ms=LEASE_MS, alive_ms=30_000))
        return called


def most_in_a_window(times: list[int], ms: int) -> int:
    return max(sum(at - ms < other <= at for other in times) for at in set(times))


def test_a_rate_is_kept_in_every_window_and_used(desk: Desk) -> None:
    """100 a second over four consumers that sleep and wake: never more in any 1,000 ms, and at least 98 % of what is allowed."""
    limit(desk, "fast", kind="rate", max=100, per=1_000)
    attach(desk, "one", "fast")
    submit_many(desk, [desk.item() for _ in range(1_500)])
    crowd = Crowd(desk, 4, (8, "one"))

    called = sum(crowd.millisecond() for _ in range(10_000))

    assert most_in_a_window(crowd.times, 1_000) == 100
    assert len(crowd.times) >= 0.98 * 1_000
    assert called < 3 * len(crowd.times), "nobody polls"
    desk.dump()


def test_a_rate_opens_to_the_millisecond(desk: Desk) -> None:
    """Whoever asks a millisecond early gets nothing, though nobody told it to wait; at its time, as much as has left the window."""
    limit(desk, "fast", kind="rate", max=2, per=1_000)
    attach(desk, "one", "fast")
    ids = [desk.submit() for _ in range(5)]
    wid = desk.register("w1")
    assert desk.claim(wid) == ids[:1]
    desk.now += 300
    assert desk.claim(wid, 5) == ids[1:2]

    desk.now += 699
    early = desk.claim(wid, 5)
    desk.now += 1
    first = desk.claim(wid, 5)
    desk.now += 300
    second = desk.claim(wid, 5)

    assert (early, first, second) == ([], ids[2:3], ids[3:4])


def test_a_bucket_bounds_the_burst_and_the_rate(desk: Desk) -> None:
    """50 a second with a burst of 5: at most 5 and what flows in are claimed in any stretch of time."""
    limit(desk, "drip", kind="rate", max=50, per=1_000, burst=5)
    submit_many(desk, [desk.item(lane=f"k{n % 7}~drip") for n in range(300)])
    crowd = Crowd(desk, 3, (8, "one"))

    for _ in range(4_000):
        crowd.millisecond()

    for ms in (1, 20, 100, 1_000, 3_000):
        assert most_in_a_window(crowd.times, ms) <= 5 + 50 * ms / 1_000
    assert len(crowd.times) >= 0.98 * 50 * 4
    desk.dump()


def test_each_key_has_a_rate_of_its_own(desk: Desk) -> None:
    """By key: what one has used up does not hold up another, and an override counts for its key."""
    limit(desk, "keyed", kind="rate", max=2, per=1_000, by="key", **{"max/vip": 5})
    attach(desk, "one", "keyed")
    of = named(desk, {"k1": 9, "k2": 9, "vip": 10})
    wid = desk.register("w1")

    first = Counter(of[claim] for claim in desk.claim(wid, 50))
    desk.now += 999
    nothing = desk.claim(wid, 50)
    desk.now += 1
    second = Counter(of[claim] for claim in desk.claim(wid, 50))

    assert first == second == {"k1": 2, "k2": 2, "vip": 5}
    assert nothing == []
    desk.dump()


# ---------------------------------------------------------------- slots
@pytest.mark.parametrize("outcome", ["c", "r", "f", "x", "h", "s"])
def test_every_end_of_an_attempt_gives_its_slots_back(desk: Desk, outcome: str) -> None:
    """The slot is free in the call that ends the attempt, and the next job gets it there."""
    limit(desk, "few", kind="slots", max=1)
    first, second = desk.submit(lane="~few"), desk.submit(lane="~few")
    wid = desk.register("w1")
    assert desk.claim(wid, 2) == [first]
    desk.dump()

    answer = desk.cycle(wid, (2, "one"), finishes=[desk.end(wid, first, outcome, reason="x", fingerprint="f", delay_ms=5_000)])

    assert [claim.id for claim in answer.claims] == [first if outcome == "h" else second]
    desk.dump()


def test_a_lost_attempt_gives_its_slots_back_and_waits_with_its_limits(desk: Desk) -> None:
    """Reaped: whoever could go on is woken; the job waits in the band of jobs that lost a worker, under the same limiter."""
    limit(desk, "few", kind="slots", max=1)
    lost, other = desk.submit(lane="k~few"), desk.submit(lane="k~few")
    dead, wids = desk.register("w1"), [desk.register("w2"), desk.register("w3", "alpha!")]
    assert desk.claim(dead) == [lost]
    for wid in wids:
        assert desk.claim(wid) == []
    desk.run(upkeep.abandon(0, dead))
    desk.now += GRACE_MS

    def let_call() -> dict[str, str]:
        """Whoever is woken calls, until all sleep; who got what."""
        got: dict[str, str] = {}
        while woken := desk.woken(*wids):
            for wid in woken:
                got |= dict.fromkeys(desk.claim(wid), wid)
        return got

    assert let_call() == {}
    assert desk.reap()[1] == (lost,)
    first = let_call()
    assert len(first) == 1, "there is one slot"
    assert len(waiting(desk, "few")) == 1
    desk.dump()
    ((job_id, wid),) = first.items()
    desk.cycle(wid, finishes=[desk.end(wid, job_id)])
    second = let_call()

    assert first | second == {lost: "w3", other: "w2"}
    desk.dump()


@pytest.mark.parametrize(
    ("rule", "lanes"),
    [({"by": "key", "max": 1}, ("k1", "k2")), ({"max": 2}, ("k1", "k2")), ({"max": 2}, ("-", "-")), ({"max": 2}, ("k1~few", "k2~few"))],
)
def test_a_lane_that_this_call_empties_waits_for_nothing(desk: Desk, rule: dict[str, Any], lanes: tuple[str, ...]) -> None:
    """The last slot and the last job go in one call: no limiter is asked for what is not there, and nobody comes again in vain."""
    limit(desk, "few", kind="slots", **rule)
    if "~" not in lanes[0]:
        attach(desk, "one", "few")
    ids = [desk.submit(lane=lane) for lane in lanes]
    wid = desk.register("w1")

    assert sorted(desk.claim(wid, 5)) == sorted(ids)
    snap = desk.dump()
    assert [name for name in snap if name.endswith(":w") or name in ("parked", "kick")] == []
    assert [name for name in snap if name.startswith(("ring:", "bands:"))] == []


def test_all_limiters_are_taken_or_none(desk: Desk) -> None:
    """A job that is refused by its second limiter takes nothing of the first, which others may have."""
    limit(desk, "wide", kind="slots", max=2)
    limit(desk, "shut", kind="gate")
    limit(desk, "fast", kind="rate", max=1, per=1_000)
    blocked, free = desk.submit(lane="~fast~shut~wide"), desk.submit(lane="~fast~wide")
    wid = desk.register("w1")

    assert desk.claim(wid, 5) == [free]
    assert desk.dump()["L:wide:s"] == [(free, 1.0)]
    assert waiting(desk, "shut") == ["one/2/alpha~fast~shut~wide*"]
    limit(desk, "shut")
    desk.now += 1_000
    assert desk.claim(wid, 5) == [blocked]
    desk.dump()


def test_a_limiter_that_is_named_twice_counts_once(desk: Desk) -> None:
    """At the queue, at the type and in the job: one slot for one job."""
    limit(desk, "few", kind="slots", max=2)
    attach(desk, "one", "few")
    desk.raw.hset("tm:{0}:tl", "alpha", "few")
    ids = [desk.submit(lane="~few") for _ in range(3)]

    assert desk.claim(desk.register("w1"), 5) == ids[:2]
    assert desk.field(ids[0], "hl") == "few"
    desk.dump()


def test_a_full_limiter_holds_up_nothing_else(desk: Desk) -> None:
    """Jobs without it, of the same queue and level, go on; one row stands for all that wait."""
    limit(desk, "few", kind="slots", max=1)
    of = named(desk, {f"k{n}~few": 20 for n in range(20)})
    free = [desk.submit() for _ in range(3)]
    wid = desk.register("w1")

    got = desk.claim(wid, 10)

    assert len([claim for claim in got if claim in of]) == 1
    assert set(free) < set(got)
    assert waiting(desk, "few") == ["one/2/alpha~few*"]
    desk.dump()


def test_a_limiter_may_have_any_name(desk: Desk) -> None:
    """Also one that a limiter's fields have."""
    for name in ("max", "per", "kind", "state", "instances", "by_key"):
        limit(desk, name, kind="slots", max=1)
    ids = [desk.submit(lane="~instances~kind~max~per"), desk.submit(lane="~by_key~state")]

    assert set(desk.claim(desk.register("w1"), 2)) == set(ids)
    desk.dump()


def test_a_saturated_limiter_wakes_nobody_in_vain(desk: Desk) -> None:
    """Who ends a job takes the next under the same limiter in the same call; sleepers sleep on."""
    limit(desk, "few", kind="slots", max=2)
    attach(desk, "one", "few")
    submit_many(desk, [desk.item() for _ in range(200)])
    busy, sleepers = desk.register("w0"), [desk.register(f"w{n}") for n in range(1, 6)]
    held = desk.claim(busy, 4)
    for wid in sleepers:
        desk.claim(wid)
    desk.woken("w0", *sleepers)

    for _ in range(40):
        answer = desk.cycle(busy, (4, "one"), finishes=[desk.end(busy, claim) for claim in held])
        held = [claim.id for claim in answer.claims]
        assert len(held) == 2
        assert desk.woken(*sleepers) == []
    desk.dump()


def test_room_that_the_call_cannot_use_wakes_one_that_can(desk: Desk) -> None:
    """The consumer that frees the slot has not the type of what waits for it."""
    limit(desk, "few", kind="slots", max=1)
    attach(desk, "one", "few")
    first, second = desk.submit("alpha"), desk.submit("beta")
    wid, other = desk.register("w1", "alpha"), desk.register("w2", "beta")
    assert desk.claim(wid) == [first]
    assert desk.claim(other) == []
    desk.woken(wid, other)

    desk.cycle(wid, (1, "one"), finishes=[desk.end(wid, first)])

    assert desk.woken(wid, other) == [other]
    assert desk.claim(other) == [second]
    desk.dump()


def test_room_that_another_used_up_is_waited_for(desk: Desk) -> None:
    """The unit that was let go is not that whose job got the slot: nobody is woken in vain, and it is found when the slot is free."""
    limit(desk, "few", kind="slots", max=1)
    held, beta = desk.submit(lane="~few"), desk.submit("beta", lane="~few")
    wid, other = desk.register("w1", "alpha"), desk.register("w2", "beta")
    assert desk.claim(wid) == [held]
    assert desk.claim(other) == []
    desk.now += 1
    alpha = desk.submit(lane="~few")
    assert desk.claim(wid) == []
    assert waiting(desk, "few") == ["one/2/beta~few*", "one/2/alpha~few*"]
    desk.woken(wid, other)

    answer = desk.cycle(wid, (1, "one"), finishes=[desk.end(wid, held, token=str(desk.field(held, "tk")))])

    assert [claim.id for claim in answer.claims] == [alpha]
    assert desk.woken(other) == []
    desk.dump()
    desk.cycle(wid, (1, "one"), finishes=[desk.end(wid, alpha)])
    desk.now += 10  # the band of what has ended was first in the row
    desk.cycle(wid)
    assert desk.woken(other) == [other]
    assert desk.claim(other) == [beta]


def test_what_waits_behind_the_first_unit_is_looked_at_again(desk: Desk) -> None:
    """Two types wait for one slot, and nobody is there for the first: the limiter lets go of the second by itself."""
    limit(desk, "few", kind="slots", max=1)
    attach(desk, "one", "")
    held, nobodys, mine = desk.submit("alpha", lane="~few"), desk.submit("beta", lane="~few"), desk.submit("gamma", lane="~few")
    wid, gone, sleeper = desk.register("w1", "alpha"), desk.register("w2", "beta"), desk.register("w3", "gamma")
    assert desk.claim(wid) == [held]
    assert desk.claim(gone) == desk.claim(sleeper) == []
    desk.run(calls.unregister(0, gone))
    desk.woken(wid, sleeper)

    answer = desk.cycle(wid, finishes=[desk.end(wid, held)])
    assert (desk.woken(sleeper), answer.next_ms) == ([], 10)
    desk.now += 10
    desk.cycle(wid)

    assert desk.woken(sleeper) == [sleeper]
    assert desk.claim(sleeper) == [mine]
    assert desk.field(nobodys, "st") == "w"
    desk.dump()


def test_keys_that_become_free_together_go_on_together(desk: Desk) -> None:
    """One slot for each of 200 keys: the call that ends 200 jobs gets the next of every key."""
    limit(desk, "each", kind="slots", max=1, by="key")
    attach(desk, "one", "each")
    of = named(desk, {f"k{n}": 3 for n in range(200)})
    wid = desk.register("w1")
    held = desk.claim(wid, 250)
    assert len({of[claim] for claim in held}) == len(held) == 200
    desk.dump()

    for _ in range(2):
        answer = desk.cycle(wid, (250, "one"), finishes=[desk.end(wid, claim) for claim in held])
        held = [claim.id for claim in answer.claims]
        assert len({of[claim] for claim in held}) == len(held) == 200
    desk.dump()


def test_a_lane_emptied_while_it_waits_goes_and_comes_back(desk: Desk) -> None:
    """Its last job is cancelled, or moved to another priority; the slot frees; a new job of the lane is found like any other."""
    limit(desk, "each", kind="slots", max=1, by="key")
    held, waits, moves = desk.submit(lane="k~each"), desk.submit(lane="k~each"), desk.submit(lane="k~each", priority=3)
    wid = desk.register("w1")
    assert desk.claim(wid, 3) == [held]
    desk.run(calls.cancel(0, waits, who="me", key_window_ms=WINDOW_MS))
    assert desk.run(flow.patch(0, moves, {"pr": 0}, op="op")).status is Status.OK
    desk.dump()

    assert [claim.id for claim in desk.cycle(wid, (3, "one"), finishes=[desk.end(wid, held)]).claims] == [moves]
    desk.cycle(wid, finishes=[desk.end(wid, moves)])
    desk.now += 10
    desk.cycle(wid)

    snap = desk.dump()
    assert not [name for name in snap if name.startswith(("L:each@", "L:each:i", "ring:one/2", "ring:one/3"))]
    late = desk.submit(lane="k~each")
    assert desk.claim(wid) == [late]
    desk.dump()


def test_the_repeat_of_a_call_takes_nothing_twice(desk: Desk) -> None:
    """The reply was lost: the same claims, the same slots, the same entries of the rate."""
    limit(desk, "few", kind="slots", max=2)
    limit(desk, "fast", kind="rate", max=3, per=1_000)
    for _ in range(4):
        desk.submit(lane="k~fast~few")
    wid = desk.register("w1")
    call = desk.next_cycle(wid, (5, "one"))
    first = desk.run(call)
    before = desk.dump()

    second = desk.run(call)

    assert [claim.id for claim in second.claims] == [claim.id for claim in first.claims]
    assert len(first.claims) == 2
    assert desk.dump() == before


# ---------------------------------------------------------------- limiters that change
CHANGES: dict[str, tuple[dict[str, Any], dict[str, Any], int]] = {
    "more slots": ({"kind": "slots", "max": 1}, {"kind": "slots", "max": 3}, 2),
    "fewer slots": ({"kind": "slots", "max": 2}, {"kind": "slots", "max": 1}, 0),
    "none any more": ({"kind": "slots", "max": 1}, {}, 5),
    "a rate instead": ({"kind": "slots", "max": 1}, {"kind": "rate", "max": 2, "per": 1_000}, 2),
    "slots for each key instead": ({"kind": "slots", "max": 1}, {"kind": "slots", "max": 1, "by": "key"}, 2),
    "slots for all keys instead": ({"kind": "slots", "max": 1, "by": "key"}, {"kind": "slots", "max": 1}, 1),
    "a key may have more": ({"kind": "slots", "max": 1, "by": "key"}, {"kind": "slots", "max": 1, "by": "key", "max/k1": 2}, 1),
    "a gate is opened": ({"kind": "gate"}, {}, 6),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_limiter_is_looked_at_at_once(desk: Desk, change: str) -> None:
    """Units that wait are let go as far as the new rule has room, whatever form it had; what attempts hold stays theirs until they end."""
    old, new, more = CHANGES[change]
    limit(desk, "it", **old)
    for _ in range(3):
        desk.submit(lane="k1~it"), desk.submit(lane="k2~it")
    wid, sleeper = desk.register("w1"), desk.register("w2")
    held = desk.claim(wid, 6)
    assert desk.claim(sleeper, 6) == []
    desk.woken(wid, sleeper)

    limit(desk, "it", **new)
    desk.dump()
    assert desk.woken(wid, sleeper) == [wid], "the keeper looks"
    got = [claim.id for claim in desk.cycle(wid, (6, "one")).claims]
    for _ in range(3):  # what waited under the old form is let go a step later
        desk.now += 10
        got += desk.claim(wid, 6)

    assert len(got) == more, got
    for held_now in (held, got):
        ends = [desk.end(wid, claim, token=str(desk.field(claim, "tk"))) for claim in held_now]
        assert set(desk.cycle(wid, finishes=ends).codes) <= {Status.OK}
    desk.dump()


def test_many_instances_are_looked_at_page_by_page(desk: Desk) -> None:
    """A limiter by key for which 350 keys wait is taken away: some calls later all are free."""
    limit(desk, "each", kind="slots", max=0, by="key")
    attach(desk, "one", "each")
    named(desk, {f"k{n}": 1 for n in range(350)})
    wid = desk.register("w1")
    got = sum(len(desk.claim(wid, 400)) for _ in range(4))
    assert got == 0
    assert len(desk.dump()["L:each:i"]) == 350

    limit(desk, "each")
    for _ in range(12):
        desk.now += 10
        got += len(desk.claim(wid, 400))

    assert got == 350
    desk.now += 10
    desk.cycle(wid)
    snap = desk.dump()
    assert "kicked" not in snap["L:each"]
    assert not [name for name in snap if name.startswith("L:each:") or name == "kick"]


def test_a_limiter_taken_off_a_queue_lets_its_lanes_go(desk: Desk) -> None:
    """A key that may have no slot at all waits for nothing any more once its queue has not that limiter."""
    limit(desk, "each", kind="slots", max=0, by="key")
    attach(desk, "one", "each")
    job_id = desk.submit(lane="k1")
    wid = desk.register("w1")
    assert desk.claim(wid) == []
    assert waiting(desk, "each@k1") == ["one/2/alpha/k1"]
    desk.woken(wid)

    attach(desk, "one", "")

    assert desk.woken(wid) == [wid]
    desk.cycle(wid)
    desk.now += 10
    assert desk.claim(wid) == [job_id]
    desk.dump()


def test_an_older_order_never_undoes_a_newer_one(desk: Desk) -> None:
    """Limiters go by revisions, also one that was taken away and made again."""
    limit(desk, "few", kind="slots", max=1)
    first = order(1)

    assert desk.run(flow.put_limit(0, "few", {}, first)) == (Status.OK, 2)
    assert desk.run(flow.put_limit(0, "few", {"kind": "slots", "max": 9}, order(1))) == (Status.CONFLICT, 2)
    assert desk.run(flow.put_limit(0, "few", {"kind": "slots", "max": 9}, order(2))) == (Status.OK, 3)
    assert desk.run(flow.put_limit(0, "few", {}, first)) == (Status.CONFLICT, 3)
    assert [row.fields["max"] for row in desk.run(flow.limits(0))] == ["9"]


# ---------------------------------------------------------------- who looks after it
@pytest.mark.parametrize("how", ["round", "tick"])
def test_a_limiter_whose_time_has_come_is_looked_at(desk: Desk, how: str) -> None:
    """By the keeper's round; where none comes, by what the tick says is due."""
    limit(desk, "fast", kind="rate", max=1, per=1_000)
    attach(desk, "one", "fast")
    first, second = desk.submit(), desk.submit()
    keeper, sleeper = desk.register("w1"), desk.register("w2")
    assert desk.claim(keeper) == [first]
    assert desk.cycle(keeper).next_ms == 1_000
    assert desk.claim(sleeper) == []
    desk.now += 1_000

    if how == "round":
        desk.cycle(keeper)
    else:
        said = desk.run(upkeep.tick(0, grace_ms=GRACE_MS))
        assert (said.mine, said.to_promote) == (True, 1)
        assert desk.woken(sleeper) == []
        assert desk.run(upkeep.promote(0)) is False

    assert desk.woken(sleeper) == [sleeper]
    assert desk.claim(sleeper) == [second]
    desk.dump()


def test_a_bulk_over_many_keys_wakes_a_few(desk: Desk) -> None:
    """At most four for the lanes of a band, as for the jobs of one lane."""
    sleepers = [desk.register(f"w{n}") for n in range(8)]
    for wid in sleepers:
        desk.claim(wid)
    desk.woken(*sleepers)

    named(desk, {f"k{n}": 2 for n in range(100)})

    assert len(desk.woken(*sleepers)) == 4


def test_full_consumers_do_not_wake_each_other_for_what_nobody_may_claim(desk: Desk) -> None:
    """Work of a paused type, and lanes that wait for a limiter: who is full passes its wake-up on only if there is something to claim."""
    limit(desk, "each", kind="slots", max=1, by="key")
    attach(desk, "two", "each")
    wids = [desk.register("w1", "alpha", "beta"), desk.register("w2", "alpha", "beta")]
    held = [desk.submit("alpha", "two", lane="k") for _ in range(3)]
    desk.submit("beta", "one")
    assert desk.run(flow.pause(0, "t/beta", "pause", order())).status is Status.OK
    assert desk.claim(wids[0], 1, "two") == held[:1]
    assert desk.claim(wids[1], 1, "two") == []
    desk.woken(*wids)

    for _ in range(3):
        for wid, wants in ((wids[0], [(1, "one"), (0, "two")]), (wids[1], [(0, "one"), (1, "two")])):
            desk.cycle(wid, *wants)

    assert desk.woken(*wids) == []
    desk.dump()


def test_the_sweep_has_many_lanes_and_waiting_units_to_look_at_and_finds_nothing(desk: Desk) -> None:
    """A sound store with 700 lanes of which most wait: page by page, nothing is reported and nothing changed."""
    limit(desk, "each", kind="slots", max=0, by="key")
    limit(desk, "fast", kind="rate", max=1, per=1_000)
    attach(desk, "one", "each")
    named(desk, {f"k{n}": 1 for n in range(700)})
    named(desk, {"~fast": 3}, queue="two")
    wid = desk.register("w1")
    for _ in range(6):
        desk.cycle(wid, (256, "one"), (2, "two"))
    before = desk.dump()
    assert len(before["L:each:i"]) > 500

    pages, said = 0, desk.run(upkeep.sweep(0, every_ms=600_000, key_window_ms=WINDOW_MS, now=True))
    while not said.is_done:
        pages, said = pages + 1, desk.run(upkeep.sweep(0, every_ms=600_000, key_window_ms=WINDOW_MS))
        assert said.repairs == ()

    after = desk.dump()
    after.pop("sweep")
    assert after == before


Damage = Callable[[Desk], object]
DAMAGE: dict[str, tuple[Damage, set[tuple[str, str]]]] = {
    "a slot of a job that has ended": (
        lambda desk: desk.raw.zadd("tm:{0}:L:few:s", {"0" * 36: 1}),
        {("slot_leaked", "0" * 36)},
    ),
    "a slot of a key that somebody waits for": (
        lambda desk: desk.raw.zadd("tm:{0}:L:each@k1:s", {"0" * 36: 1}),
        {("slot_leaked", "0" * 36)},
    ),
    "the slots of a limiter are gone": (lambda desk: desk.raw.delete("tm:{0}:L:few:s"), {("slot_lost", "held")}),
    "a kick is gone": (lambda desk: desk.raw.delete("tm:{0}:kick"), {("kick_missing", "fast")}),
    "a waiting list is gone": (
        lambda desk: desk.raw.delete("tm:{0}:L:each@k1:w"),
        {("lane_stranded", "one/2/alpha/k1~each"), ("index_wrong", "each@k1")},
    ),
    "the list of instances is gone": (lambda desk: desk.raw.delete("tm:{0}:L:each:i"), {("instance_unlisted", "each@k1")}),
    "units are marked that wait for nothing": (
        lambda desk: desk.raw.sadd("tm:{0}:parked", "one", "one/2/alpha~fast~wide*"),
        {("unit_stranded", "one"), ("unit_stranded", "one/2/alpha~fast~wide*")},
    ),
    "a ring is gone": (lambda desk: desk.raw.delete("tm:{0}:ring:one/2/alpha~fast"), {("lane_unlisted", "slow")}),
    "the ring of a lane that waits is gone": (
        lambda desk: desk.raw.delete("tm:{0}:ring:one/2/alpha~each"),
        {("lane_unlisted", "queued"), ("wait_leaked", "one/2/alpha/k1~each"), ("index_wrong", "each@k1")},
    ),
    "what a rate remembers has no end": (lambda desk: desk.raw.persist("tm:{0}:L:fast:t"), {("rate_endless", "fast")}),
    "a lane is gone": (lambda desk: desk.raw.delete("tm:{0}:lane:one/2/alpha/~fast"), {("index_missing", "slow")}),
    "expiries are gone": (lambda desk: desk.raw.delete("tm:{0}:exp"), {("index_missing", "slow")}),
    "an expiry of a job that runs": (lambda desk: desk.raw.zadd("tm:{0}:exp", {desk.kept["held"]: 5}), {("index_wrong", "held")}),  # type: ignore[attr-defined]
    "a tag is gone": (lambda desk: desk.raw.delete("tm:{0}:ig:red"), {("index_missing", "slow")}),
    "unique work is forgotten": (lambda desk: desk.raw.delete("tm:{0}:u:work"), {("unique_lost", "slow")}),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_the_sweep_mends_what_flow_control_keeps(desk: Desk, kind: str) -> None:
    """All invariants hold after one sweep, the report says what was done, and a second sweep finds nothing."""
    limit(desk, "few", kind="slots", max=2)
    limit(desk, "each", kind="slots", max=1, by="key")
    limit(desk, "fast", kind="rate", max=1, per=1_000)
    wid = desk.register("w1")
    ids = {"held": desk.submit(lane="~few"), "first": desk.submit(lane="~fast"), "k": desk.submit(lane="k1~each")}
    assert set(desk.claim(wid, 5)) == set(ids.values())
    ids["slow"] = desk.submit(
        lane="~fast", expires_ms=desk.now + 60_000, tags=("red",), unique=calls.Unique("work", "f", 0, "reject", WINDOW_MS)
    )
    ids["queued"] = desk.submit(lane="k1~each")
    desk.claim(wid, 5)
    desk.dump()
    desk.kept = ids  # type: ignore[attr-defined]
    do, rows = DAMAGE[kind]

    do(desk)
    repairs = Sweeper(desk.store, 0, 600_000, WINDOW_MS).whole()

    assert {(repair.what, repair.id) for repair in repairs} == {(what, ids.get(whose, whose)) for what, whose in rows}
    assert all(repair.mended for repair in repairs)
    desk.dump()
    assert Sweeper(desk.store, 0, 600_000, WINDOW_MS).whole() == []
