"""F35-F37, F39: schedulers are killed, stopped, cut off and have their clocks set: each instant has its job, once, or is told as missed."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.clock import MachineClock
from support.eventually import eventually
from support.processes import Processes
from support.protocol.dump import snapshot, violations
from support.schedulers import Schedulers, real_town
from support.schedules import many
from support.servers import StoreServer

SECOND = 1_000


@pytest.fixture
def service(clean_server: StoreServer, tmp_path: Path) -> Iterator[Schedulers]:
    with real_town(clean_server) as town, Processes(tmp_path / "processes") as processes:
        yield Schedulers(town, processes, clean_server.url)


def _complete(instants: list[int], step_ms: int = SECOND) -> bool:
    """Each instant from the first to the last, once."""
    return instants == list(range(instants[0], instants[-1] + 1, step_ms))


@pytest.mark.server("valkey")
def test_a_leader_that_is_stopped_beyond_its_lease_doubles_nothing(service: Schedulers) -> None:
    """Three schedulers; the leader stands still until another leads, and goes on: the instants are complete, each has one job."""
    children = [service.start(name) for name in ("s1", "s2", "s3")]
    service.town.put("h", every_ms=SECOND, catch_up="all", catch_up_max=1_000)
    service.wait_for(2)
    leader = service.leader(*children)
    others = [child for child in children if child is not leader]
    began = time.monotonic()

    with leader.stopped():
        service.leader(*others)
        took_s = time.monotonic() - began
        service.wait_for(len(service.instants()) + 2)
    service.wait_for(len(service.instants()) + 2)

    instants, missed = service.settle()
    assert took_s < 10
    assert _complete(instants)
    assert missed == 0


@pytest.mark.server("valkey")
@pytest.mark.parametrize("point", ["schedule.before_fire", "schedule.fired"])
def test_a_kill_between_any_two_steps_costs_nothing(service: Schedulers, tmp_path: Path, point: str) -> None:
    """The leader is killed when it has decided, or when the store has done it and it does not know yet; another takes over."""
    fired = tmp_path / "fired"
    fired.mkdir()
    environ = {"TM_FAILPOINTS": f"{point}:kill9@3", "TM_FAILPOINTS_DIR": str(fired)}
    children = [service.start("s1", **environ), service.start("s2")]
    service.leader(children[0])
    service.town.put("h", every_ms=SECOND, catch_up="all", catch_up_max=1_000)

    assert children[0].popen.wait(20) == -signal.SIGKILL
    service.wait_for(10)

    instants, missed = service.settle()
    assert _complete(instants)
    assert missed == 0


def test_a_store_that_is_killed_and_restarted_loses_no_instant(tmp_path: Path) -> None:
    """With its file on disk: the schedulers wait, and catch up."""
    store = StoreServer("valkey", aof=True, options=["--appendfsync", "always"])
    with store as server, real_town(server) as town, Processes(tmp_path / "processes") as processes:
        service = Schedulers(town, processes, server.url)
        children = [service.start(name) for name in ("s1", "s2")]
        town.put("h", every_ms=SECOND, catch_up="all", catch_up_max=1_000)
        service.wait_for(2)
        server.kill()
        eventually(lambda: all(service.said(child, "store.lost") for child in children), 20, "both notice")
        server.start()
        service.wait_for(len(service.instants()) + 3)

        instants, missed = service.settle()
        assert _complete(instants)
        assert missed == 0
        snap, wrong = snapshot(town.desk.raw)
        assert not wrong + violations(snap)


@pytest.mark.server("valkey")
def test_sigterm_hands_the_lease_over_at_once(service: Schedulers) -> None:
    """Exit code 0, and the other leads without waiting for the end of the lease."""
    first, second = service.start("s1"), service.start("s2")
    leader = service.leader(first, second)
    other = second if leader is first else first
    began = time.monotonic()

    leader.send(signal.SIGTERM)

    assert leader.popen.wait(10) == 0
    service.leader(other)
    assert time.monotonic() - began < 5


@pytest.mark.server("valkey")
def test_the_clock_of_a_scheduler_does_not_matter(service: Schedulers, tmp_path: Path) -> None:
    """An hour ahead, an hour behind, a day ahead: it fires by the clock of the store, at the same pace."""
    clock = MachineClock(tmp_path)
    child = service.start("s1", **clock.environ)
    service.town.put("h", every_ms=SECOND)
    for seconds in (3_600, -7_200, 90_000, -86_400):
        service.wait_for(len(service.instants()) + 2)
        clock.move(seconds)
    service.wait_for(len(service.instants()) + 2)

    instants, missed = service.settle()
    assert child.is_running
    assert _complete(instants)
    assert missed == 0


@pytest.mark.server("valkey")
def test_a_thousand_of_ten_thousand_schedules_in_one_second(service: Schedulers) -> None:
    """Each of the thousand is fired once, the others are left alone, and one that is due beside them every second loses no instant.

    How late they are is measured by `ops/dev bench --only schedules`.
    """
    store = service.town.desk.store
    at_ms = (store.now_ms() // 1_000 + 15) * 1_000
    wave = many(store, 10_000, 1_000, at_ms, "alpha", {"day": "{{localDate}}"})
    for name in ("s1", "s2"):
        service.start(name)
    eventually(lambda: len(service.town.desk.raw.keys("tm:{0}:scfire:wave-*")) == 1_000, 60, "all are fired")
    service.wait_for(len(service.instants("beside")) + 2, "beside")

    beside, missed = service.settle("beside")
    made = service.all_instants()
    assert {name: instants for name, instants in made.items() if name != "beside"} == {name: [at_ms] for name in wave}
    assert missed == 0
    assert _complete(beside)
