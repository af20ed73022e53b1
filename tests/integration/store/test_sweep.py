"""What the sweeper finds, mends and reports, for each kind of damage that a foreign hand, an eviction or a lost write can do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest

from support.desk import WINDOW_MS, Desk, keeping
from support.protocol.dump import snapshot, violations
from taskmaster.maintenance import sweeper
from taskmaster.maintenance.sweeper import Sweeper
from taskmaster.maintenance.upkeep import Upkeep
from taskmaster.store import calls, reads, upkeep
from taskmaster.store.status import Status
from taskmaster.store.upkeep import Repair

KEY = "k" * 22


def sweep(desk: Desk) -> list[Repair]:
    return Sweeper(desk.store, 0, 600_000, WINDOW_MS).whole()


def told(repairs: list[Repair]) -> set[tuple[str, str, bool]]:
    return {(repair.what, repair.id, repair.mended) for repair in repairs}


def key(name: str) -> str:
    return f"tm:{{0}}:{name}"


class Shop:
    """One job in every state, by its letter, and a queue of a second type."""

    def __init__(self, desk: Desk) -> None:
        self.wid = desk.register("w1")
        made = {}
        for state in "cfax":
            made[state] = desk.submit(key=f"{state * 22}")
        desk.claim(self.wid, 3)
        ends = [
            desk.end(self.wid, made["c"]),
            desk.end(self.wid, made["f"], "f", reason="fatal", fingerprint="print", body='["ValueError","no","print","",""]'),
        ]
        desk.cycle(self.wid, finishes=ends)
        desk.run(calls.cancel(0, made["x"], who="me", key_window_ms=WINDOW_MS))
        made["w"] = desk.submit(key=KEY)
        made["v"] = desk.submit(priority=0)
        made["d"] = desk.submit(delay_ms=60_000)
        desk.submit("beta", "two")
        self.ids = made


@pytest.fixture
def shop(desk: Desk) -> Shop:
    return Shop(desk)


def test_nothing_is_found_where_nothing_is_wrong(desk: Desk, shop: Shop) -> None:
    """A sound store is left as it is, key by key."""
    before = desk.dump()

    assert sweep(desk) == []

    after = desk.dump()
    for changing in ("sweep", "maint"):
        before.pop(changing, None)
        after.pop(changing, None)
    assert after == before


# Kind of damage -> how it is done to one job, what is reported (word, whose id or which key, whether it was mended).
Damage = Callable[[Desk, dict[str, str]], object]
DAMAGE: dict[str, tuple[Damage, set[tuple[str, str, bool]]]] = {
    "the hash of a waiting job is gone": (
        lambda desk, ids: desk.raw.delete(key(f"j:{ids['v']}")),
        {("record_lost", "v", True), ("counter", "alpha/one/purged", True), ("counter", "one/w", True)},
    ),
    "the hash of a delayed job is gone": (
        lambda desk, ids: desk.raw.delete(key(f"j:{ids['d']}")),
        {("record_lost", "d", True), ("counter", "alpha/one/purged", True), ("counter", "one/d", True)},
    ),
    "the hash of a completed job is gone": (
        lambda desk, ids: desk.raw.delete(key(f"j:{ids['c']}")),
        {
            ("record_lost", "c", True),
            ("counter", "alpha/one/purged", True),
            ("counter", "one/c", True),
            ("counter", "one/c/bytes", True),
        },
    ),
    "the lanes of a level are gone": (
        lambda desk, ids: desk.raw.delete(key("lane:one/2/alpha/-")),
        {("index_missing", "w", True)},
    ),
    "the delayed index is gone": (lambda desk, ids: desk.raw.delete(key("delayed")), {("index_missing", "d", True)}),
    "the index of leases is gone": (lambda desk, ids: desk.raw.delete(key("active")), {("lease_missing", "a", True)}),
    "a finished index is gone": (lambda desk, ids: desk.raw.delete(key("fin:one/f")), {("index_missing", "f", True)}),
    "a job stands in two indexes": (
        lambda desk, ids: desk.raw.zadd(key("delayed"), {ids["w"]: 1.0}),
        {("index_wrong", "w", True)},
    ),
    "a job stands in the lane of another priority alone": (
        lambda desk, ids: (desk.raw.zrem(key("lane:one/0/alpha/-"), ids["v"]), desk.raw.zadd(key("lane:one/2/alpha/-"), {ids["v"]: 1.0})),
        {("index_wrong", "v", True), ("index_missing", "v", True)},
    ),
    "a job that has ended waits in a band that is not listed": (
        lambda desk, ids: (desk.raw.srem(key("bands:one"), "2/alpha"), desk.raw.zadd(key("lane:one/2/alpha/-"), {ids["x"]: 1.0})),
        {("index_wrong", "x", True), ("band_unlisted", "w", True)},
    ),
    "an ended job is leased": (lambda desk, ids: desk.raw.zadd(key("active"), {ids["c"]: 9e15}), {("index_wrong", "c", True)}),
    "a type does not list its jobs": (
        lambda desk, ids: desk.raw.zrem(key("it:alpha"), ids["w"]),
        {("type_unlisted", "w", True)},
    ),
    "the bands of a queue are gone": (
        lambda desk, ids: desk.raw.delete(key("bands:one")),
        {("band_unlisted", "w", True), ("band_unlisted", "v", True)},
    ),
    "the set of queues is gone": (
        lambda desk, ids: desk.raw.srem(key("qs"), "one"),
        {("queue_unlisted", "c", True)},
    ),
    "a dead-letter record is gone": (
        lambda desk, ids: desk.raw.delete(key(f"d:{ids['f']}")),
        {("dead_letter_lost", "f", True)},
    ),
    "a dead-letter index is gone": (lambda desk, ids: desk.raw.delete(key("dlq:one")), {("dead_letter_unlisted", "f", True)}),
    "a dead-letter group is gone": (lambda desk, ids: desk.raw.delete(key("fp:print")), {("dead_letter_unlisted", "f", True)}),
    "the list of groups is gone": (lambda desk, ids: desk.raw.delete(key("fps")), {("group_unlisted", "print", True)}),
    "a group is listed with a wrong time": (lambda desk, ids: desk.raw.zadd(key("fps"), {"print": 1.0}), {("group_wrong", "print", True)}),
    "a group without records is listed": (lambda desk, ids: desk.raw.zadd(key("fps"), {"other": 1.0}), {("group_wrong", "other", True)}),
    "a record stands in the group of another": (
        lambda desk, ids: desk.raw.zadd(key("fp:print"), {ids["c"]: 1.0}),
        {("dead_letter_lost", "c", True)},
    ),
    "the bytes of ended jobs are off": (
        lambda desk, ids: desk.raw.hincrby(key("n"), "one/f/bytes", 1_000),
        {("counter", "one/f/bytes", True)},
    ),
    "the key of a waiting job is gone": (lambda desk, ids: desk.raw.delete(key(f"k:{KEY}")), {("key_lost", "w", True)}),
    "the key of a waiting job ends": (lambda desk, ids: desk.raw.pexpire(key(f"k:{KEY}"), 900_000), {("key_ends", "w", True)}),
    "the key of an ended job never ends": (
        lambda desk, ids: desk.raw.persist(key(f"k:{'c' * 22}")),
        {("key_endless", "c", True)},
    ),
    "a counter is off": (lambda desk, ids: desk.raw.hincrby(key("n"), "one/w", 3), {("counter", "one/w", True)}),
    "a shared counter is off": (lambda desk, ids: desk.raw.hincrby(key("n"), "one/d", -1), {("counter", "one/d", True)}),
    "shared counters are off, and their sum is not": (
        lambda desk, ids: (desk.raw.hincrby(key("n"), "one/a", -1), desk.raw.hincrby(key("n"), "two/a", 1)),
        {("counter", "one/a", True), ("counter", "two/a", True)},
    ),
    "counters of a type are off, and their sum is not": (
        lambda desk, ids: (desk.raw.hincrby(key("n"), "alpha/one/created", 1), desk.raw.hincrby(key("n"), "alpha/two/purged", 1)),
        {("counter", "alpha/one/purged", True), ("counter", "alpha/two/created", True)},
    ),
    "a counter of all times is off": (
        lambda desk, ids: desk.raw.hincrby(key("n"), "alpha/one/created", -2),
        {("counter", "alpha/one/created", True)},
    ),
}
#: Damage that is only reported: what was lost cannot be made again.
HOPELESS: dict[str, tuple[Damage, set[tuple[str, str, bool]]]] = {
    "a payload is gone": (lambda desk, ids: desk.raw.delete(key(f"b:{ids['w']}")), {("payload_lost", "w", False)}),
    "a hash is not whole": (lambda desk, ids: desk.raw.hdel(key(f"j:{ids['d']}"), "q"), {("record_broken", "d", False)}),
    "a state that does not exist": (lambda desk, ids: desk.raw.hset(key(f"j:{ids['d']}"), "st", "z"), {("record_broken", "d", False)}),
    "a key names another job": (
        lambda desk, ids: desk.raw.set(key(f"k:{KEY}"), f"{ids['d']} {'r' * 22}"),
        {("key_conflict", "w", False)},
    ),
}


def expected(shop: Shop, rows: set[tuple[str, str, bool]]) -> set[tuple[str, str, bool]]:
    return {(what, shop.ids.get(whose, whose), mended) for what, whose, mended in rows}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_mended_and_reported(desk: Desk, shop: Shop, kind: str) -> None:
    """All invariants hold after one sweep, the report says what was done, and a second sweep finds nothing."""
    do, rows = DAMAGE[kind]
    do(desk, shop.ids)
    epochs = {name: desk.field(job_id, "ep") for name, job_id in shop.ids.items()}
    states = {name: desk.field(job_id, "st") for name, job_id in shop.ids.items()}

    repairs = sweep(desk)

    assert told(repairs) == expected(shop, rows)
    assert {name: desk.field(job_id, "st") for name, job_id in shop.ids.items()} == states, "no job was moved on"
    assert {name: desk.field(job_id, "ep") for name, job_id in shop.ids.items()} == epochs
    desk.dump()
    assert sweep(desk) == []
    kept = desk.run(reads.integrity(0, repairs=50))
    assert Counter(told(list(kept.repairs))) == Counter(told(repairs))


@pytest.mark.parametrize("kind", HOPELESS)
def test_what_cannot_be_mended_is_reported_each_time(desk: Desk, shop: Shop, kind: str) -> None:
    do, rows = HOPELESS[kind]
    do(desk, shop.ids)

    assert expected(shop, rows) <= told(sweep(desk))
    assert expected(shop, rows) <= told(sweep(desk))
    assert desk.run(reads.integrity(0)).last.found >= 1


FOREIGN = ("j:d", "d:f", "b:w", "active", "delayed", "fin:one/c", "dlq:one", "bands:one", "n", "cat", "sweep", "meta")


@pytest.mark.parametrize("name", FOREIGN)
def test_a_foreign_key_is_reported_and_stops_nothing(desk: Desk, shop: Shop, name: str) -> None:
    """A key of a wrong type in the place of ours: the sweep comes to its end, says which it is, and leaves it alone."""
    place = key(name[:2] + shop.ids[name[-1]]) if name[1:2] == ":" else key(name)
    desk.raw.delete(place)
    desk.raw.lpush(place, "foreign")

    repairs = sweep(desk)

    if name != "b:w":  # never read, only seen to be there
        assert (place.removeprefix("tm:{0}:"), False) in {(repair.id, repair.mended) for repair in repairs if repair.what == "foreign_key"}
    assert desk.raw.lrange(place, 0, -1) == ["foreign"]

    desk.raw.delete(place)
    sweep(desk)
    assert not [repair for repair in sweep(desk) if repair.what == "foreign_key"]


def test_a_lost_key_still_names_its_job(desk: Desk, shop: Shop) -> None:
    """The record that the sweep makes anew does not know the request any more: whoever shows the key is told of the job."""
    desk.raw.delete(key(f"k:{KEY}"))
    sweep(desk)

    row = desk.run(calls.submit(0, [desk.item(key=KEY)]))[0]

    assert (row.status, row.id) == (Status.DUPLICATE, shop.ids["w"])


def test_a_job_without_a_lease_is_left_to_the_reaper(desk: Desk, shop: Shop) -> None:
    """Its worker may extend within the grace; after it the job is lost and runs again, as any other."""
    desk.raw.delete(key("active"))
    sweep(desk)
    assert desk.reap() == (False, ())

    desk.now += 5_000

    assert desk.reap() == (False, (shop.ids["a"],))


def test_somebody_is_woken_for_what_was_put_back(desk: Desk, shop: Shop) -> None:
    """A job that no lane held is work that nobody was told of."""
    desk.raw.delete(key("lane:one/2/alpha/-"))
    desk.claim(shop.wid, 5)
    desk.cycle(shop.wid, (5, "one"))
    desk.inbox(shop.wid)
    desk.woken(shop.wid)

    sweep(desk)

    assert desk.woken(shop.wid) == [shop.wid]
    assert desk.claim(shop.wid, 5) == [shop.ids["w"]]


def test_a_reservation_that_is_gone_is_told(desk: Desk, shop: Shop) -> None:
    """An effect that nobody can settle any more is said once, and no longer listed as open."""
    effect = f"{shop.ids['w']}/smtp"
    desk.raw.hset(key(f"e:{shop.ids['w']}"), "smtp", "[]")
    desk.raw.zadd(key("eu"), {effect: 1.0})
    assert sweep(desk) == []

    desk.raw.delete(key(f"e:{shop.ids['w']}"))

    assert told(sweep(desk)) == {("effect_lost", effect, False)}
    assert sweep(desk) == []


def test_a_long_sweep_goes_on_page_by_page(desk: Desk) -> None:
    """More rows than a page holds, of equal scores too; damage at both ends and between is found; whoever calls next goes on."""
    items = [desk.item() for _ in range(950)]
    desk.run(calls.submit(0, items))
    hurt = [items[i].id for i in (0, 199, 200, 201, 500, 949)]
    for job_id in hurt:
        desk.raw.delete(key(f"j:{job_id}"))
        desk.raw.zrem(key("lane:one/2/alpha/-"), job_id)

    pages = []
    while not pages or not pages[-1].is_done:
        pages.append(desk.run(upkeep.sweep(0, every_ms=600_000, key_window_ms=WINDOW_MS)))

    assert len(pages) >= 2 * 950 / 40
    assert {repair.id for page in pages for repair in page.repairs if repair.what == "record_lost"} == set(hurt)
    desk.dump()
    assert not desk.run(upkeep.sweep(0, every_ms=600_000, key_window_ms=WINDOW_MS)).is_due


def test_a_page_is_short_and_a_step_is_a_few_of_them(desk: Desk) -> None:
    """Other calls wait for one page at most, so a page is 40 rows, and a sweep goes by steps: none before a tick says that it is due."""
    desk.run(calls.submit(0, [desk.item() for _ in range(400)]))
    mine, other = (Upkeep(desk.store, 0, keeping(1_000), lambda _: pytest.fail("no operation is there")) for _ in range(2))

    def looked() -> int:
        return int(desk.raw.hget(key("sweep"), "looked") or 0)

    mine.sweep()
    mine.tick()
    assert looked() == 0
    other.tick()
    other.sweep()
    assert looked() == 0, "another process has this second"
    mine.sweep()
    assert 40 < looked() <= sweeper.PAGES * 40
    for _ in range(60):
        mine.sweep()
    assert desk.raw.hget(key("sweep"), "ended")
    before = desk.raw.hgetall(key("sweep"))
    mine.sweep()
    assert desk.raw.hgetall(key("sweep")) == before, "it has ended, and no tick has said that the next one is due"


def test_a_loss_makes_a_sweep_due_at_once(desk: Desk, shop: Shop) -> None:
    sweep(desk)
    desk.now += 1_000
    assert desk.run(upkeep.tick(0, grace_ms=5_000)).to_sweep == 0

    loss = desk.run(upkeep.store_rewound(0, known="g", fresh="h", sign="rewound"))
    desk.now += 1_000

    assert loss == ("h", "rewound")
    assert desk.run(upkeep.tick(0, grace_ms=5_000)).to_sweep == 2
    seen = desk.run(reads.integrity(0))
    assert (seen.gen, seen.how, seen.sign, seen.is_checked) == ("h", "rewound", "rewound", False)
    sweep(desk)
    assert desk.run(reads.integrity(0)).is_checked


def test_each_loss_is_told_once(desk: Desk) -> None:
    """Many notice; the first makes the generation, for the others it is known. An emptied store and another one are told apart."""
    desk.register("w1")
    say = lambda known, fresh: desk.run(upkeep.store_rewound(0, known=known, fresh=fresh, sign="x")).how  # noqa: E731
    assert [say("g", "h"), say("g", "i"), say("", "i")] == ["rewound", "", ""]
    desk.raw.flushall()
    assert [say("h", "j"), say("h", "k")] == ["emptied", ""]
    desk.raw.flushall()
    desk.register("w2")
    assert [say("j", "l"), say("j", "m")] == ["replaced", ""]
    assert desk.raw.hget(key("meta"), "gen") == "g"


def test_a_round_that_was_answered_and_is_forgotten_is_noticed(desk: Desk) -> None:
    """A call's number tells how many rounds the store has answered; one that remembers fewer does nothing."""
    wid, job_id = desk.register("w1"), desk.submit()
    desk.claim(wid)
    earlier = {name: desk.raw.dump(name) for name in desk.raw.keys("*")}
    desk.cycle(wid, finishes=[desk.end(wid, job_id)])
    desk.raw.flushall()
    for name, value in earlier.items():
        desk.raw.restore(name, 0, value)
    before = snapshot(desk.raw)[0]

    answer = desk.cycle(wid, (5, "one"))

    assert answer.status is Status.REWOUND
    assert snapshot(desk.raw)[0] == before
    assert not violations(before)
