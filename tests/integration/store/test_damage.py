"""Any key may be deleted, or replaced by a foreign one, while jobs go through the scripts; the sweeper mends.

A rule table drawn by a seeded dice, as the lifecycle machine, but without an oracle: what is held against the keys are their invariants.
"""

from __future__ import annotations

import contextlib
import os
from random import Random
from typing import Any

import pytest

from support.desk import WINDOW_MS, Desk, keeping
from support.protocol.dump import snapshot, violations
from taskmaster.errors import StoreDefect
from taskmaster.maintenance.sweeper import Sweeper
from taskmaster.store import calls, flow, upkeep
from taskmaster.store.status import Status

SEEDS = range(int(os.environ.get("DAMAGE_SEEDS", "8")))
ROUNDS, STEPS = 6, 14
TYPES, QUEUES = ("alpha", "beta"), ("one", "two")
LANES = ("k1", "k2~few", "k1~fast", "~few")
#: What no index names, so that the walk over all keys alone finds it: remains of a job, slots of a limiter by key for which nothing waits.
UNNAMED = ("has no job", "B6 slots of each@")
#: What nothing in the store can tell any more.
BEYOND = (
    "has no blob",
    "does not own its key: None",
    "bytes, its hash says",
    "lines says",
    "has it not or is gone",
    "is gone or does other work",
)
#: Keys that the sweep need not read, so that it tells at times only that they are foreign; as those of one instance of a limiter by key.
UNREAD = ("b:", "r:", "h:", "g:", "fp:", "vt:", "flow:", "d:", "k:", "u:", "L:fast:t")
#: Keys that are gone by themselves soon, or that the workers renew: no record of a job; nor is the audit's chain (`test_audit.py`).
FLEETING = ("chain", "w:", "o:", "set:", "cap:", "tc:", "idle:", "in:", "gone:")


class Yard:
    """Jobs and two consumers under a clock of their own. *is_foreign*: a foreign key stands in the place of ours."""

    def __init__(self, desk: Desk, seed: int) -> None:
        self.desk, self.dice = desk, Random(seed)
        self.ids: list[str] = []
        self.held: list[tuple[str, str]] = []
        self.lives = 0
        self.foreign = ""
        self.refused = 0
        self.wid = ""
        order = flow.Order("op", None, "ann", "why")
        desk.run(flow.put_limit(0, "few", {"kind": "slots", "max": 2}, order))
        desk.run(flow.put_limit(0, "each", {"kind": "slots", "max": 1, "by": "key"}, order))
        desk.run(flow.put_limit(0, "fast", {"kind": "rate", "max": 1, "per": 2_000}, order))
        desk.run(flow.put_queue(0, "two", {"lm": "each"}, order))
        self.enter()

    def enter(self) -> None:
        self.lives += 1
        self.wid = self.desk.register(f"w{self.lives}", *TYPES, *(f"{name}!" for name in TYPES))

    # ------------------------------------------------------------ what goes on
    def submit(self) -> None:
        dice = self.dice
        more: dict[str, Any] = {"key": f"{len(self.ids):022d}"} if dice.random() < 0.5 else {}
        if dice.random() < 0.5:
            more |= {"lane": dice.choice(LANES), "expires_ms": self.desk.now + 60_000, "tags": ("red",)}
        if dice.random() < 0.3:
            more |= {"unique": calls.Unique(f"work-{dice.randrange(4)}", "f", 0, "replace", WINDOW_MS)}
        item = self.desk.item(
            dice.choice(TYPES), dice.choice(QUEUES), priority=dice.choice((0, 2)), delay_ms=dice.choice((0, 0, 5_000)), **more
        )
        self.desk.run(calls.submit(0, [item]))
        self.ids.append(item.id)

    def cycle(self) -> None:
        ends = [pair for pair in self.held if self.dice.random() < 0.6]
        facts: dict[str, Any] = {"row": "[]", "reason": "x", "fingerprint": "f", "delay_ms": 2_000, "body": '["E","m","f","",""]'}
        finishes = [calls.Finish(id=job_id, token=token, outcome=self.dice.choice("cccrfxhs"), **facts) for job_id, token in ends]
        answer = self.desk.cycle(self.wid, *[(2, queue) for queue in QUEUES], finishes=finishes)
        if answer.status is not Status.OK:
            if answer.status is not Status.UNREGISTERED:
                self.desk.run(upkeep.store_rewound(0, known="g", fresh="g", sign="test"))
            self.enter()
            return
        self.held = [pair for pair in self.held if pair not in ends]
        self.held += [(claim.id, self.desk.token(self.wid)) for claim in answer.claims]

    def duties(self) -> None:
        self.desk.now += self.dice.choice((500, 3_000, 40_000))
        for call in (upkeep.tick(0, grace_ms=5_000), upkeep.promote(0), upkeep.prune(0, keeping(3))):
            with self.unless_foreign():
                self.desk.run(call)
        self.desk.reap()

    def small(self) -> None:
        self.desk.run(calls.extend(0, self.wid, self.held, lease_ms=30_000, alive_ms=30_000))
        self.desk.run(calls.progress(0, [calls.Word(job_id, token, "0.5", 1, ["[]"]) for job_id, token in self.held]))
        if self.ids:
            self.desk.run(calls.cancel(0, self.dice.choice(self.ids), who="me", key_window_ms=WINDOW_MS))
            self.desk.run(calls.purge(0, [self.dice.choice(self.ids)]))

    @contextlib.contextmanager
    def unless_foreign(self):
        """A script may be refused by a foreign key; deleted keys stop none."""
        try:
            yield
        except StoreDefect as error:
            if not self.foreign or "WRONGTYPE" not in str(error):
                raise
            self.refused += 1

    def step(self) -> None:
        verb = self.dice.choice((self.submit, self.submit, self.cycle, self.cycle, self.cycle, self.duties, self.small))
        with self.unless_foreign():
            verb()

    # ------------------------------------------------------------ damage and repair
    def damage(self, *, is_foreign: bool) -> str:
        names = sorted(name for name in map(str, self.desk.raw.keys("tm:*")) if not name.split("}:")[1].startswith(FLEETING))
        name = str(self.dice.choice(names))
        self.desk.raw.delete(name)
        if is_foreign:
            self.foreign = name
            self.desk.raw.lpush(name, "x") if self.kind(name) == "list" else self.desk.raw.set(name, "x")
        return name

    @staticmethod
    def kind(name: str) -> str:
        """The type of the foreign key in the place of *name*."""
        return "list" if name.split("}:")[1][:2] in ("b:", "r:", "k:", "u:") else "string"

    def is_there(self) -> bool:
        """The foreign key was not written over, and did not go with its job."""
        return bool(self.desk.raw.type(self.foreign) == self.kind(self.foreign))

    def sweep(self) -> list[upkeep.Repair]:
        return Sweeper(self.desk.store, 0, 600_000, WINDOW_MS).whole()

    def search(self) -> list[upkeep.Repair]:
        return Sweeper(self.desk.store, 0, 600_000, WINDOW_MS).search()

    def wrong(self, *more: str) -> list[str]:
        """Broken invariants, but for those that nothing can tell, or of which one of *more* is said."""
        snap, wrong = snapshot(self.desk.raw)
        return [line for line in wrong + violations(snap) if not any(words in line for words in (*BEYOND, *more))]


def foreign_keys(found: list[upkeep.Repair]) -> set[str]:
    return {f"tm:{{0}}:{repair.id}" for repair in found if repair.what == "foreign_key"}


@pytest.mark.parametrize("seed", SEEDS)
def test_a_deleted_key_stops_no_script_and_is_mended(desk: Desk, seed: int) -> None:
    """One key after the other, whatever it is: scripts go on, and after a sweep the invariants hold, but for what is gone for good.

    The walk over all keys finds the rest.
    """
    yard = Yard(desk, seed)
    for _ in range(ROUNDS):
        for _ in range(STEPS):
            yard.step()
        name = yard.damage(is_foreign=False)
        for _ in range(STEPS // 2):
            yard.step()
        yard.sweep()
        yard.sweep()

        assert yard.wrong(*UNNAMED) == [], f"after {name} was deleted"

        yard.search()
        yard.sweep()

        assert yard.wrong() == [], f"after {name} was deleted, and all keys were looked at"
    assert not yard.refused


@pytest.mark.parametrize("seed", SEEDS)
def test_a_foreign_key_costs_no_more_than_what_it_covers(desk: Desk, seed: int) -> None:
    """Scripts that meet it are refused, sweep and walk come to their end and name it; once it is removed, everything is mended."""
    yard = Yard(desk, seed)
    for _ in range(ROUNDS):
        for _ in range(STEPS):
            yard.step()
        name = yard.damage(is_foreign=True)
        for _ in range(STEPS // 2):
            yard.step()
        found = yard.sweep()
        if not name.split("}:")[1].startswith(UNREAD) and "@" not in name:
            assert foreign_keys(found) >= {name}, "the sweep does not tell"
        assert foreign_keys(yard.search()) == ({name} if yard.is_there() else set()), "the walk over all keys does not tell"
        desk.raw.delete(name)
        yard.foreign = ""
        yard.held = []
        yard.enter()
        yard.search()
        for _ in range(2):
            yard.sweep()

        assert yard.wrong() == [], f"after {name} was foreign"


def test_a_key_that_ends_while_it_is_read_is_no_damage(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A snapshot takes a while; what had its time meanwhile is not held against it."""
    desk.register("a")
    listed = [str(key) for key in desk.raw.scan_iter()]
    monkeypatch.setattr(desk.raw, "scan_iter", lambda **_: listed)
    desk.raw.delete("tm:{0}:w:a")

    snap, wrong = snapshot(desk.raw)

    assert "w:a" not in snap
    assert not wrong
