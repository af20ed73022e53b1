"""F35-F39 together: three schedulers, a leader that is stopped, two that are killed, a store that restarts, a clock that is set.

What is fired is held against an independent reading of cron and of the policies, instant by instant.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from support.clock import MachineClock
from support.cron_oracle import Clock, Expression
from support.eventually import eventually
from support.processes import Child, Processes
from support.protocol.dump import snapshot, violations
from support.schedulers import Schedulers, real_town
from support.servers import StoreServer
from taskmaster.client import Client
from taskmaster.model.zones import zone
from taskmaster.scheduler.rounds import LEASE_MS

SECOND = 1_000
POINTS = ("schedule.before_fire", "schedule.fired")
#: What each policy runs of instants that were all missed.
CATCH_UP: dict[str, tuple[dict[str, Any], slice]] = {
    "none": ({"catch_up": "none"}, slice(0)),
    "latest": ({"catch_up": "latest"}, slice(-1, None)),
    "all": ({"catch_up": "all", "catch_up_max": 1_000}, slice(None)),
    "some": ({"catch_up": "all", "catch_up_max": 20}, slice(-20, None)),
}
OVERLAP = ("allow", "skip", "queue-one", "cancel-previous")


class Trouble:
    """What happens to the schedulers, in order."""

    def __init__(self, schedulers: Schedulers, server: StoreServer, fired: Path) -> None:
        self.schedulers = schedulers
        self.dead: list[Child] = []
        self.server = server
        self.fired = fired

    def stop_the_leader(self) -> None:
        """Beyond its lease: until another leads."""
        leader = self.schedulers.leader(*self.schedulers.children)
        with leader.stopped():
            self.schedulers.leader(*(child for child in self.schedulers.children if child is not leader))

    def kill_the_leader(self, point: str) -> None:
        """At that point of a step; another one is started in its place."""
        (self.fired / point).unlink()
        dead = eventually(lambda: [child for child in self.schedulers.children if not child.is_running], 20, f"one dies at {point}")
        self.schedulers.children.remove(dead[0])
        self.dead += dead
        self.schedulers.start(f"after-{point}")
        self.go_on()

    def restart_the_store(self) -> None:
        self.server.kill()
        eventually(lambda: any(self.schedulers.said(one, "store.lost") for one in self.schedulers.children), 20, "it is noticed")
        self.server.start()
        self.go_on()

    def said(self, event: str) -> list[dict[str, Any]]:
        """By all of them, the dead included."""
        return [line for child in self.dead + self.schedulers.children for line in self.schedulers.said(child, event)]

    def go_on(self) -> None:
        """Until two more seconds have their jobs."""
        self.schedulers.wait_for(len(self.schedulers.instants("beat")) + 2, "beat", 40)


@pytest.fixture
def clock(tmp_path: Path) -> MachineClock:
    """Of the machine: store and schedulers go by it."""
    made = MachineClock(tmp_path)
    made.set("2026-11-27T09:00:20Z")
    return made


@pytest.fixture
def trouble(tmp_path: Path, clock: MachineClock) -> Iterator[Trouble]:
    fired = tmp_path / "fired"
    fired.mkdir()
    for point in POINTS:
        (fired / point).touch()  # not armed yet
    environ = clock.environ | {"TM_FAILPOINTS": ",".join(f"{point}:kill9" for point in POINTS), "TM_FAILPOINTS_DIR": str(fired)}
    store = StoreServer("valkey", aof=True, options=["--appendfsync", "always"], environ=clock.environ)
    with store as server, real_town(server) as town, Processes(tmp_path / "processes") as processes:
        yield Trouble(Schedulers(town, processes, server.url, environ), server, fired)


def _oracle(first_ms: int, last_ms: int) -> list[int]:
    """Every five minutes, by going through all minutes."""
    day = dt.datetime(2026, 11, 26, tzinfo=dt.UTC)
    found = Clock(zone("UTC"), day, day + dt.timedelta(days=4)).instants(Expression("*/5 * * * *"), "shift", "once")
    return [at for at in (round(one.timestamp() * 1_000) for one in found) if first_ms <= at <= last_ms]


def _expected(batches: Sequence[list[int]], catch_up: str, overlap: str) -> list[int]:
    """The instants that have a job when all of a batch were missed at once, and no job ends."""
    runs = [at for batch in batches for at in batch[CATCH_UP[catch_up][1]]]
    return runs if overlap in ("allow", "cancel-previous") else runs[:1]


@pytest.mark.timeout(300)
def test_what_three_schedulers_fire_is_what_the_oracle_says(trouble: Trouble, clock: MachineClock) -> None:
    """Each catch-up policy with each overlap policy, through all of it: the sets are equal, each once, and the others are counted."""
    schedulers, town = trouble.schedulers, trouble.schedulers.town
    names = {f"{catch_up}.{overlap}": (catch_up, overlap) for catch_up, overlap in product(CATCH_UP, OVERLAP)}
    for name in ("s1", "s2", "s3"):
        schedulers.start(name)
    for name, (catch_up, overlap) in names.items():
        town.put(name, cron="*/5 * * * *", overlap=overlap, **CATCH_UP[catch_up][0])
    town.put("beat", cron="* * * * * *", catch_up="all", catch_up_max=20)
    begin = schedulers.now_ms()

    def missed_until_now(first_ms: int) -> list[int]:
        """All of these are dealt with when it returns."""
        instants = eventually(lambda: _oracle(first_ms, schedulers.now_ms()), 20, "the store's clock is where it was set to")

        def late() -> list[str]:
            return [name for name in names if int(town.row(name).fields.get("last", 0)) < instants[-1]]

        eventually(lambda: not late(), 60, lambda: f"all are dealt with; not yet {late()}")
        trouble.go_on()
        return instants

    trouble.go_on()
    trouble.stop_the_leader()
    trouble.go_on()
    for point in POINTS:
        trouble.kill_the_leader(point)
    trouble.restart_the_store()
    assert schedulers.all_instants().keys() == {"beat"}, "it took longer than five minutes"
    clock.move(3_600)
    an_hour = missed_until_now(begin)
    clock.move(-3_600)
    eventually(lambda: schedulers.lease_ms() <= LEASE_MS, 20, "the leader has gone round with the clock set back")
    fired = schedulers.all_instants()
    trouble.stop_the_leader()
    assert schedulers.all_instants() == fired
    clock.move(86_400)
    a_day = missed_until_now(an_hour[-1] + 1)

    beats, missed_beats = schedulers.settle("beat")
    made = schedulers.all_instants()
    assert (len(an_hour), len(a_day)) == (12, 276)
    for name, (catch_up, overlap) in names.items():
        runs = _expected([an_hour, a_day], catch_up, "allow")
        assert made.get(name, []) == _expected([an_hour, a_day], catch_up, overlap), name
        assert int(town.row(name).fields.get("missed", 0)) == 12 + 276 - len(runs), name
    logged = [(line["firstMs"], line["lastMs"]) for line in trouble.said("schedule.missed") if line["schedule"] == "beat"]
    untold = [at for first, last in logged for at in range(first, last + 1, SECOND)]
    assert sorted(beats + untold) == list(range(beats[0], beats[-1] + 1, SECOND))
    assert len(untold) == missed_beats > 80_000

    # The one that waits for the job before it has its turn when that has ended.
    with Client(trouble.server.url) as client:
        client.cancel(town.row("all.queue-one").fields["job"])
    schedulers.wait_for(2, "all.queue-one")
    assert schedulers.instants("all.queue-one") == an_hour[:2]
    snap, wrong = snapshot(town.desk.raw)
    assert not wrong + violations(snap)
