"""F35-F37, F39: schedulers are killed, stopped, cut off and have their clocks set: each instant has its job, once, or is told as missed."""

from __future__ import annotations

import datetime as dt
import json
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from support.eventually import eventually
from support.processes import Child, Processes, environ_of
from support.protocol.dump import snapshot, violations
from support.schedules import Town, town_at
from support.servers import StoreServer
from taskmaster.engine import schedules as engine
from taskmaster.engine.scheduled_jobs import Who
from taskmaster.scheduler.rounds import LEASE_MS
from taskmaster.store.client import SyncStore

SECOND, MINUTE, HOUR, DAY = 1_000, 60_000, 3_600_000, 86_400_000
FAKETIME = next((str(path) for path in sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))), "")


class Service:
    """Scheduler processes on a store with the real clock."""

    def __init__(self, town: Town, processes: Processes, url: str) -> None:
        self.town = town
        self._processes = processes
        self._url = url

    def start(self, name: str, **environ: str) -> Child:
        settings = environ_of(redis_url=self._url, log_format="json", data_dir=self._processes.folder / "data")
        child = self._processes.start(name, ["-m", "taskmaster", "scheduler"], settings | environ)
        eventually(lambda: self.said(child, "scheduler.started"), 30, lambda: f"{name} starts; it said {child.log()[-2_000:]}")
        return child

    def said(self, child: Child, event: str) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in child.log().splitlines() if line.startswith("{") and line.endswith("}")]
        return [line for line in lines if line.get("event") == event]

    def leader(self, *children: Child) -> Child:
        """Who holds the lease, once one of these does."""

        def find() -> list[Child]:
            wid = self.town.desk.raw.hget("tm:{0}:scheduler", "wid")
            return [child for child in children if any(line["id"] == wid for line in self.said(child, "scheduler.started"))]

        return eventually(find, 20, "one of them leads")[0]

    def instants(self, name: str = "h") -> list[int]:
        """Those that have a job, in order; each is there as often as it has one."""
        found = [key.partition("@") for key in self.town.made()]
        return [round(dt.datetime.fromisoformat(at).timestamp() * 1_000) for schedule, _, at in found if schedule == name]

    def settle(self, name: str = "h") -> tuple[list[int], int]:
        """Pause it; the instants that have a job, and how many were missed."""
        self.town.run(engine.switch(name, 1, Who("ann"), enabled=False))
        return self.instants(name), int(self.town.row(name).fields.get("missed", 0))


@pytest.fixture
def service(clean_server: StoreServer, tmp_path: Path) -> Iterator[Service]:
    with _real_time(clean_server) as town, Processes(tmp_path / "processes") as processes:
        yield Service(town, processes, clean_server.url)


@contextmanager
def _real_time(server: StoreServer) -> Iterator[Town]:
    """A town on the store's own clock."""
    with town_at(server) as town:
        town.desk.store = SyncStore(server.url)
        yield town
        town.desk.store.close()


def _lease_ms(town: Town) -> int:
    """How long the leader's lease is still good, by the store's clock."""
    seconds, micros = town.desk.raw.time()
    return int(float(town.desk.raw.hget("tm:{0}:scheduler", "till") or 0)) - seconds * 1_000 - micros // 1_000


def _complete(instants: list[int], step_ms: int = SECOND) -> bool:
    """Each instant from the first to the last, once."""
    return instants == list(range(instants[0], instants[-1] + 1, step_ms))


def _wait_for(service: Service, n: int, within_s: float = 20) -> None:
    eventually(lambda: len(service.instants()) >= n, within_s, lambda: f"{n} instants are fired, there are {service.instants()}")


@pytest.mark.server("valkey")
def test_a_leader_that_is_stopped_beyond_its_lease_doubles_nothing(service: Service) -> None:
    """Three schedulers; the leader stands still until another leads, and goes on: the instants are complete, each has one job."""
    children = [service.start(name) for name in ("s1", "s2", "s3")]
    service.town.put("h", every_ms=SECOND, catch_up="all", catch_up_max=1_000)
    _wait_for(service, 2)
    leader = service.leader(*children)
    others = [child for child in children if child is not leader]
    began = time.monotonic()

    with leader.stopped():
        service.leader(*others)
        took_s = time.monotonic() - began
        _wait_for(service, len(service.instants()) + 2)
    _wait_for(service, len(service.instants()) + 2)

    instants, missed = service.settle()
    assert took_s < 10
    assert _complete(instants)
    assert missed == 0


@pytest.mark.server("valkey")
@pytest.mark.parametrize("point", ["schedule.before_fire", "schedule.fired"])
def test_a_kill_between_any_two_steps_costs_nothing(service: Service, tmp_path: Path, point: str) -> None:
    """The leader is killed when it has decided, or when the store has done it and it does not know yet; another takes over."""
    fired = tmp_path / "fired"
    fired.mkdir()
    environ = {"TM_FAILPOINTS": f"{point}:kill9@3", "TM_FAILPOINTS_DIR": str(fired)}
    children = [service.start("s1", **environ), service.start("s2")]
    service.leader(children[0])
    service.town.put("h", every_ms=SECOND, catch_up="all", catch_up_max=1_000)

    assert children[0].popen.wait(20) == -signal.SIGKILL
    _wait_for(service, 10)

    instants, missed = service.settle()
    assert _complete(instants)
    assert missed == 0


def test_a_store_that_is_killed_and_restarted_loses_no_instant(tmp_path: Path) -> None:
    """With its file on disk: the schedulers wait, and catch up."""
    store = StoreServer("valkey", aof=True, options=["--appendfsync", "always"])
    with store as server, _real_time(server) as town, Processes(tmp_path / "processes") as processes:
        service = Service(town, processes, server.url)
        children = [service.start(name) for name in ("s1", "s2")]
        town.put("h", every_ms=SECOND, catch_up="all", catch_up_max=1_000)
        _wait_for(service, 2)
        server.kill()
        eventually(lambda: all(service.said(child, "store.lost") for child in children), 20, "both notice")
        server.start()
        _wait_for(service, len(service.instants()) + 3)

        instants, missed = service.settle()
        assert _complete(instants)
        assert missed == 0
        snap, wrong = snapshot(town.desk.raw)
        assert not wrong + violations(snap)


@pytest.mark.server("valkey")
def test_sigterm_hands_the_lease_over_at_once(service: Service) -> None:
    """Exit code 0, and the other leads without waiting for the end of the lease."""
    first, second = service.start("s1"), service.start("s2")
    leader = service.leader(first, second)
    other = second if leader is first else first
    began = time.monotonic()

    leader.send(signal.SIGTERM)

    assert leader.popen.wait(10) == 0
    service.leader(other)
    assert time.monotonic() - began < 5


@pytest.fixture
def clock(tmp_path: Path) -> Callable[[str], dict[str, str]]:
    """Sets the clock of processes that run with the answer as their environment: `+1h`; the monotonic one goes on as it does."""
    if not FAKETIME:
        pytest.skip("libfaketime is not here: apt-get install faketime")
    path = tmp_path / "clock"

    def set_to(text: str) -> dict[str, str]:
        fresh = path.with_suffix(".new")
        fresh.write_text(f"{text}\n")
        fresh.replace(path)
        return {
            "LD_PRELOAD": FAKETIME,
            "FAKETIME_TIMESTAMP_FILE": str(path),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_DONT_RESET": "1",
        }

    return set_to


@pytest.mark.server("valkey")
def test_the_clock_of_a_scheduler_does_not_matter(service: Service, clock: Callable[[str], dict[str, str]]) -> None:
    """An hour ahead, an hour behind, a day ahead: it fires by the clock of the store, at the same pace."""
    child = service.start("s1", **clock("+0"))
    service.town.put("h", every_ms=SECOND)
    for setting in ("+3600", "-3600", "+86400", "+0"):
        _wait_for(service, len(service.instants()) + 2)
        clock(setting)
    _wait_for(service, len(service.instants()) + 2)

    instants, missed = service.settle()
    assert child.is_running
    assert _complete(instants)
    assert missed == 0


def test_the_clock_of_the_store_jumps(tmp_path: Path, clock: Callable[[str], dict[str, str]], monkeypatch: pytest.MonkeyPatch) -> None:
    """An hour ahead: the instants of that hour by policy; back: none of them again; a day ahead: a bounded few, the others are counted."""
    with monkeypatch.context() as patched:
        for name, value in clock("+0").items():
            patched.setenv(name, value)
        server = StoreServer("valkey")
        server.start()
    with server, _real_time(server) as town, Processes(tmp_path / "processes") as processes:
        service = Service(town, processes, server.url)
        for name in ("s1", "s2"):
            service.start(name)
        town.put("h", every_ms=5 * MINUTE, catch_up="all", catch_up_max=20)
        beginning = int(town.row("h").fields["next"])

        clock("+3600")
        _wait_for(service, 12)
        after_an_hour = service.instants()
        clock("+0")
        eventually(lambda: _lease_ms(town) <= LEASE_MS, 10, "the leader has gone round with the clock set back")
        time_back = service.instants()
        clock("+86400")
        _wait_for(service, 32)

        instants, missed = service.settle()
        assert after_an_hour == list(range(beginning, beginning + 12 * 5 * MINUTE, 5 * MINUTE))
        assert time_back == after_an_hour
        assert len(instants) == len(set(instants)) in (32, 33)  # 33: one of them was due just now
        assert instants[:12] == after_an_hour
        assert missed + len(instants) == (instants[-1] - beginning) // (5 * MINUTE) + 1


@pytest.mark.server("valkey")
def test_a_thousand_schedules_in_one_second(service: Service) -> None:
    """All are fired once; one that is due beside them every second keeps its pace."""
    service.town.put("h", every_ms=SECOND)
    seconds, _ = service.town.desk.raw.time()
    at = dt.datetime.fromtimestamp(seconds + 12, dt.UTC)
    jobs = service.town.jobs()
    for n in range(1_000):
        service.town.run(engine.put(f"one-{n}", engine.Body(type="alpha", run_at=at).definition, jobs, Who("ann")))
    service.start("s1")
    eventually(lambda: len(service.town.desk.raw.keys("tm:{0}:scfire:one-*")) == 1_000, 60, "all are fired")

    lags = sorted(fire.lag for n in range(1_000) for fire in service.town.fires(f"one-{n}"))
    instants, missed = service.settle()
    assert len(lags) == 1_000
    assert lags[989] < 5_000, f"p50 {lags[499]} ms, p99 {lags[989]} ms"
    assert missed == 0
    assert _complete(instants)
