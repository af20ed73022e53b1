"""What no index names, and keys of a wrong type: the walk over all keys finds, mends and tells it; what of it the sweep can tell."""

from __future__ import annotations

import pytest

from support.desk import WINDOW_MS, Desk
from support.protocol.dump import PATTERNS
from taskmaster.maintenance.sweeper import Sweeper
from taskmaster.store import calls, flow, upkeep
from taskmaster.store.upkeep import Repair

JOB = "01a3185c-5000-7000-8000-000000000001"


def key(name: str) -> str:
    return f"tm:{{0}}:{name}"


def sweep(desk: Desk) -> set[tuple[str, str]]:
    return told(Sweeper(desk.store, 0, 600_000, WINDOW_MS).whole())


def search(desk: Desk) -> set[tuple[str, str]]:
    return told(Sweeper(desk.store, 0, 600_000, WINDOW_MS).search())


def told(repairs: list[Repair]) -> set[tuple[str, str]]:
    return {(repair.what, repair.id) for repair in repairs}


def limit(desk: Desk, name: str, **rule: object) -> None:
    desk.run(flow.put_limit(0, name, rule, flow.Order("op", None, "ann", "why")))


@pytest.fixture
def yard(desk: Desk) -> Desk:
    """Two jobs of key k1 behind a limiter by key: one runs, the other waits; a third of key k2 runs, and nothing waits for its key."""
    limit(desk, "each", kind="slots", max=1, by="key")
    limit(desk, "fast", kind="rate", max=9, per=1_000)
    desk.register("w1")
    for lane in ("k1~each", "k2~each", "~fast"):
        desk.submit(lane=lane)
    assert len(desk.claim("w1", 9)) == 3
    desk.submit(lane="k1~each")
    assert desk.claim("w1", 9) == []
    desk.dump()
    return desk


def holder(yard: Desk) -> str:
    """The job of k2, which holds the one slot of its key."""
    found: list[str] = yard.raw.zrange(key("L:each@k2:s"), 0, -1)  # type: ignore[assignment]
    return found[0]


def test_nothing_is_found_where_nothing_is_wrong(yard: Desk) -> None:
    """Not even an event is left."""
    yard.bury(2)
    before = yard.dump()

    assert search(yard) == set()
    assert yard.dump() == before


def test_a_slot_of_a_lost_job_is_found_although_nothing_waits_for_it(yard: Desk) -> None:
    """The hash alone said which slots its attempt held, and instances by key are listed while something waits for them."""
    lost = holder(yard)
    yard.raw.delete(key(f"j:{lost}"))
    assert ("record_lost", lost) in sweep(yard)
    assert yard.raw.exists(key("L:each@k2:s"))

    assert search(yard) == {("slot_leaked", lost)}

    yard.dump()
    assert search(yard) == set()


def test_a_slot_of_a_lost_job_is_found_by_the_sweep_once_something_waits_for_it(yard: Desk) -> None:
    """So it holds up no job for longer than until the next sweep."""
    lost = holder(yard)
    yard.raw.delete(key(f"j:{lost}"))
    sweep(yard)
    waits = yard.submit(lane="k2~each")
    assert yard.claim("w1", 9) == []

    assert ("slot_leaked", lost) in sweep(yard)

    assert yard.claim("w1", 9) == [waits]
    yard.dump()


def test_limiters_that_are_not_listed_are_listed_again(yard: Desk) -> None:
    """Without it nobody sees that they are there, though they go on limiting."""
    yard.raw.delete(key("ls"))

    assert search(yard) == {("limiter_unlisted", "each"), ("limiter_unlisted", "fast")}
    assert yard.raw.smembers(key("ls")) == {"each", "fast"}


def test_a_limiter_that_was_taken_away_is_not_listed_again(yard: Desk) -> None:
    """Its number stays, for orders that come late."""
    limit(yard, "idle", kind="gate")
    yard.run(flow.put_limit(0, "idle", {}, flow.Order("op2", None, "ann", "why")))

    assert search(yard) == set()


def test_an_instance_for_which_something_waits_is_listed_again(yard: Desk) -> None:
    """Also where no lane of it is out of turn, so that a sweep has nothing to begin at."""
    yard.raw.delete(key("L:each:i"), key("ring:one/2/alpha~each"))
    sweep(yard)

    assert search(yard) == {("instance_unlisted", "each@k1")}

    assert sweep(yard) == {("wait_leaked", "one/2/alpha/k1~each"), ("index_wrong", "each@k1")}
    yard.dump()


def test_a_rate_by_key_that_has_no_end_is_given_one(yard: Desk) -> None:
    """As long as its entries count, and a while."""
    limit(yard, "calls", kind="rate", max=9, per=1_000, by="key")
    yard.submit(lane="k3~calls")
    assert len(yard.claim("w1", 9)) == 1
    yard.raw.persist(key("L:calls@k3:t"))

    assert search(yard) == {("rate_endless", "calls@k3")}
    assert 0 < yard.raw.pttl(key("L:calls@k3:t")) <= 61_000


def test_the_key_of_a_job_that_vanished_ends(desk: Desk) -> None:
    """Else whoever shows it is told of a job that is not there, for ever."""
    job_id = desk.submit(key="k" * 22)
    desk.raw.delete(key(f"j:{job_id}"))
    sweep(desk)
    assert desk.raw.pttl(key(f"k:{'k' * 22}")) == -1

    assert search(desk) == {("key_endless", job_id)}

    assert 0 < desk.raw.pttl(key(f"k:{'k' * 22}")) <= WINDOW_MS
    assert search(desk) == set()


def test_a_dead_letter_without_job_and_without_row_is_listed_again(desk: Desk) -> None:
    """Then it can be seen, replayed and discarded; its group is the next sweep's."""
    [job_id] = desk.bury()
    desk.run(calls.purge(0, [job_id]))
    desk.raw.delete(key("dlq:one"), key("fp:f"), key("fps"))
    assert sweep(desk) == set()

    assert search(desk) == {("dead_letter_unlisted", job_id)}

    sweep(desk)
    desk.dump()


@pytest.mark.parametrize("name", ["L:fast:t", "L:each@-:s", "L:each@k1:s", "L:each@k1:w"])
def test_what_a_claim_would_read_and_is_foreign_is_told_by_the_sweep(yard: Desk, name: str) -> None:
    """Of limiters all, of instances by key those of lanes that have jobs: no round could claim from these."""
    yard.raw.delete(key(name))
    yard.raw.set(key(name), "foreign")

    assert ("foreign_key", name) in sweep(yard)


# One name of each kind of key.
NAMES = f"""
    meta n keeper maint cat sweep swept qs bands:one lane:one/2/alpha/- ring:one/2/alpha~few flow:one/2 vt:one q:one
    turns:{"0" * 40} delayed active ws exp kick parked ls pause orders tl L:few L:!mail L:few:s L:few@k1:w L:few:i L:=tenant:i
    L:=tenant@k1:w L:!mail:c L:few:t L:few@k1:b u:work ig:red fin:one/c j:{JOB} d:{JOB} e:{JOB} line:{JOB} eu b:{JOB} r:{JOB}
    h:{JOB} g:{JOB} dlq:one fp:print fps it:alpha k:{"k" * 22} gone:1 w:a o:a set:c cap:c tc:alpha idle:one/c in:a ev audit ob cb
    wh:we_{"0" * 16} whs whl chain ops oplog op:{"o" * 22} opj:{"o" * 22} sc:a scheduler scdue scall scmissed scs scheld scfire:a
""".split()


def test_each_key_of_a_wrong_type_is_told_and_left_alone(desk: Desk) -> None:
    """Whatever it is, and whether or not any script reads it."""
    assert all(any(pattern.fullmatch(name) for name in NAMES) for pattern, _, _ in PATTERNS), "a name for each pattern"
    kinds = {name: next(kind for pattern, kind, _ in PATTERNS if pattern.fullmatch(name)) for name in NAMES}
    for name, kind in kinds.items():
        desk.raw.lpush(key(name), "foreign") if kind == "string" else desk.raw.set(key(name), "foreign")
    desk.raw.set(key("nobody's"), "not ours, so not foreign in the place of ours")
    desk.raw.set(b"tm:{0}:j:\xff\xfe", "a name that is no text")

    found = desk.run(upkeep.mend(0, NAMES, key_window_ms=WINDOW_MS))

    assert told(list(found)) == {("foreign_key", name) for name in NAMES}
    assert not any(repair.mended for repair in found)
    assert {what for what, _ in search(desk)} == {"foreign_key"}
    assert {name: desk.raw.type(key(name)) for name in NAMES} == {name: "list" if kinds[name] == "string" else "string" for name in NAMES}
