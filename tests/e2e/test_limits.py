"""Worker services whose handlers do not stop, hold the interpreter, leak or crash: what the supervisor does about it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import psutil
import pytest

from support.eventually import eventually
from support.processes import is_alive
from support.servers import StoreServer
from support.service import WorkerService
from support.worker import Hands

pytestmark = pytest.mark.server("valkey")
SHORT = {"timeout_grace_ms": 300, "cancel_grace_ms": 200}


@pytest.fixture
def hands(clean_server: StoreServer) -> Iterator[Hands]:
    made = Hands(clean_server.url)
    yield made
    made.close()


def one_worker(service: WorkerService) -> int:
    return service.children()["taskmaster: worker 1"]


@pytest.mark.parametrize("mode", ["hang", "socket", "deaf"])
def test_a_process_with_a_stuck_handler_is_replaced_while_its_other_jobs_end(clean_server, hands, tmp_path, mode):
    """The stuck attempt fails at its time, a neighbour ends undisturbed, the successor works before the old one is gone, nobody is lost."""
    with WorkerService(clean_server.url, tmp_path, worker_processes=1, **SHORT) as service:
        first = one_worker(service)
        beside = hands.submit("dummy", {"sleepMs": 4_000, "result": "undisturbed"})
        service.runs(beside)
        stuck = hands.ended(hands.submit("dummy", {"mode": mode}, attempts=1, timeout_s=0.3))
        assert (stuck.state, stuck.failure.error, stuck.losses) == ("failed", "TimeoutError", 0)

        assert hands.ended(hands.submit("dummy", {"result": "by the successor"})).result == "by the successor"
        assert hands.state(beside) == "active"
        seen = hands.ended(beside)
        assert (seen.result, seen.deliveries, seen.losses) == ("undisturbed", 1, 0)
        eventually(lambda: not psutil.pid_exists(first), 15, "the retired process has gone")
        assert [line["why"] for line in service.said("worker.retiring")] == ["a handler did not stop"]
        assert not service.said("worker.child_died")
        service.send(signal.SIGTERM)
        assert service.wait() == 0


def test_a_process_whose_interpreter_stands_still_is_killed(clean_server, hands, tmp_path):
    """C code that never lets go of the lock: the supervisor notices, its jobs go elsewhere, the sibling is not touched."""
    with WorkerService(clean_server.url, tmp_path, worker_processes=1, silent_ms=1_500, lease_ms=30_000) as service:
        first = one_worker(service)
        chew = hands.submit("dummy", {"mode": "chew"})
        eventually(lambda: service.said("worker.child_silent"), 20)
        assert service.said("worker.child_silent")[0]["pid"] == first
        seen = hands.ended(chew, 60)
        assert (seen.state, seen.reason, seen.losses) == ("failed", "worker_lost", 3)
        assert hands.ended(hands.submit("dummy", {"result": 1})).result == 1


def test_a_pause_of_the_whole_service_is_nobodys_silence(clean_server, hands, tmp_path):
    """Stopped longer than the limit and gone on: all processes are the same."""
    with WorkerService(clean_server.url, tmp_path, worker_processes=1, silent_ms=1_000) as service:
        before = service.children()
        everybody = [psutil.Process(service.process.pid), *(psutil.Process(pid) for pid in before.values())]
        for process in everybody:
            process.suspend()
        eventually(lambda: all(process.status() == psutil.STATUS_STOPPED for process in everybody))
        subprocess.run([sys.executable, "-c", "import select; select.select([], [], [], 3)"], check=True)
        for process in reversed(everybody):
            process.resume()
        assert hands.ended(hands.submit("dummy", {"result": 1})).result == 1
        assert hands.ended(hands.submit("dummy", {"sleepMs": 2_000, "result": 2})).result == 2
        assert not service.said("worker.child_silent")
        assert one_worker(service) == before["taskmaster: worker 1"]


def test_processes_are_recycled_without_a_pause(clean_server, hands, tmp_path):
    """After so many jobs each: every job completes once, on several processes."""
    with WorkerService(clean_server.url, tmp_path, worker_processes=1, recycle_jobs=50) as service:
        for n in range(1, 4):
            ended = hands.all_ended(hands.submit_many("dummy", [{}] * 60), 30)
            assert {(seen.state, seen.losses) for seen in ended} == {("completed", 0)}
            eventually(lambda n=n: len(service.said("worker.retiring")) >= n)
            eventually(lambda n=n: len(service.said("worker.ready")) >= 2 + n)
        assert not service.said("worker.child_died")


def test_isolated_crashes_cost_no_worker(clean_server, hands, tmp_path):
    """Segfaults, exits, aborts and leaks in child processes: the attempts fail by their policy, a hundred good jobs run beside them."""
    with WorkerService(clean_server.url, tmp_path, **SHORT) as service:
        children = {pid for title, pid in service.children().items() if "worker" in title}
        good = hands.submit_many("dummy", [{"sleepMs": 10}] * 100)
        bad = {mode: hands.submit("dummy-isolated", {"mode": mode}, attempts=2) for mode in ("segfault", "exit", "abort", "leak")}
        assert {(seen.state, seen.deliveries) for seen in hands.all_ended(good, 40)} == {("completed", 1)}
        for mode, job_id in bad.items():
            seen = hands.ended(job_id, 40)
            error = "MemoryLimit" if mode == "leak" else "HandlerCrashed"
            assert (seen.state, seen.reason, seen.deliveries, seen.losses) == ("failed", "attempts_exhausted", 2, 0)
            assert seen.failure.error == error
        assert not service.said("worker.child_died")
        assert children <= set(service.children().values())


@pytest.mark.parametrize("how", ["worker", "supervisor"])
def test_no_runner_outlives_its_worker(clean_server, hands, tmp_path, how):
    """SIGKILL to the worker process, or to the supervisor: nursery and runners go with it, even one that holds its interpreter."""
    with WorkerService(clean_server.url, tmp_path, worker_processes=1) as service:
        jobs = [hands.submit("dummy-isolated", {"mode": mode}) for mode in ("chew", "deaf")]
        service.runs(*jobs)
        worker = psutil.Process(one_worker(service))
        eventually(lambda: sum("runner" in " ".join(child.cmdline()) for child in worker.children(recursive=True)) == 2)
        family = worker.children(recursive=True)
        os.kill(worker.pid if how == "worker" else service.process.pid, signal.SIGKILL)
        assert not psutil.wait_procs(family, 10)[1]


def test_a_second_signal_hands_back_after_the_end(clean_server, hands, tmp_path):
    """Neither handler goes on when its job is free again: both run in processes that are gone by then."""
    with WorkerService(clean_server.url, tmp_path, drain_ms=60_000, worker_processes=1) as service:
        ids = [hands.submit("dummy", {"mode": "spin"}), hands.submit("dummy-isolated", {"mode": "chew"})]
        service.runs(*ids)
        worker = psutil.Process(one_worker(service))
        family = [worker, *worker.children(recursive=True)]
        service.send(signal.SIGTERM)
        eventually(lambda: service.said("worker.draining"))
        service.send(signal.SIGTERM)
        for job_id in ids:
            seen = hands.until(job_id, lambda seen: seen.state != "active", 20)
            assert not any(map(is_alive, family))
            assert (seen.losses, seen.failures) == (0, 0)
        assert service.wait() == 1


def test_a_storm_of_signals_at_the_start_leaves_nobody(clean_server, tmp_path):
    """SIGTERM, SIGINT and SIGHUP every few milliseconds from the first line on: everything ends, nothing hangs."""
    with WorkerService(clean_server.url, tmp_path, worker_processes=3, drain_ms=1_000) as service:
        pids = list(service.children().values())
        assert len(pids) >= 4
        for pid in pids[:2]:
            os.kill(pid, signal.SIGKILL)  # replacements are being forked in the midst of it

        def storm() -> bool:
            for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
                service.send(number)
            return service.process.poll() is not None

        eventually(storm, 20)
        assert not service.children()
        assert not [one for one in psutil.process_iter() if one.pid in pids and is_alive(one)]
