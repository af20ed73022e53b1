"""Worker services as real processes: killed, crashed, drained, forced, orphaned; and what becomes of their jobs."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator

import psutil
import pytest

from support.eventually import eventually
from support.servers import StoreServer
from support.service import WorkerService, install_plugin
from support.worker import Hands
from taskmaster.model.retry import Backoff

pytestmark = pytest.mark.server("valkey")


@pytest.fixture
def hands(clean_server: StoreServer) -> Iterator[Hands]:
    made = Hands(clean_server.url)
    yield made
    made.close()


def runner(server: StoreServer, hands: Hands, job_id: str) -> int:
    """The process that runs the job now."""
    seen = hands.look(job_id)
    return json.loads(server.call("GET", f"tm:{{0}}:o:{seen.fields['tk'].partition('.')[0]}"))["pid"]


def test_processes_say_what_they_are(clean_server, tmp_path):
    """The supervisor and each of its children carry a telling title."""
    with WorkerService(clean_server.url, tmp_path) as service:
        titles = set(service.children())

        assert {"taskmaster: worker 1", "taskmaster: worker 2", "taskmaster: worker suspects"} <= titles
        assert " ".join(psutil.Process(service.process.pid).cmdline()).strip() == "taskmaster: worker supervisor"


def test_the_job_of_a_killed_worker_completes_elsewhere(clean_server, hands, tmp_path):
    """Kill -9 in mid-job: its jobs complete on other processes soon, those of the sibling are not disturbed, and the place is filled."""
    with WorkerService(clean_server.url, tmp_path, concurrency=4) as service:
        ids = hands.submit_many("dummy", [{"sleepMs": 700}] * 8)
        service.runs(*ids)
        by = {job_id: runner(clean_server, hands, job_id) for job_id in ids}
        victim = by[ids[0]]
        os.kill(victim, signal.SIGKILL)

        for job_id, seen in zip(ids, hands.all_ended(ids, 45), strict=True):
            was_hit = by[job_id] == victim
            assert (seen.state, seen.losses, seen.deliveries) == ("completed", int(was_hit), 1 + was_hit)
            assert [row["outcome"] for row in seen.rows] == (["lost", "completed"] if was_hit else [])
        eventually(lambda: len(set(service.children().values()) - {victim}) >= 3, what="the place is filled")
        assert service.process.poll() is None


def test_poison_takes_nobody_along(clean_server, hands, tmp_path):
    """Jobs that crash their process are dead after exactly three deliveries; a hundred good ones among them all complete."""
    with WorkerService(clean_server.url, tmp_path) as service:
        good = hands.submit_many("dummy", [{"sleepMs": 10}] * 50)
        poison = [hands.submit("dummy", {"mode": mode}) for mode in ("segfault", "exit")]
        good += hands.submit_many("dummy", [{"sleepMs": 10}] * 50)

        for seen in hands.all_ended(poison, 60):
            assert (seen.state, seen.reason, seen.deliveries, seen.losses) == ("failed", "worker_lost", 3, 3)
        assert {seen.state for seen in hands.all_ended(good, 60)} == {"completed"}
        assert all(hands.dead(job_id)["rs"] == b"worker_lost" for job_id in poison)
        ways = {line["how"] for line in service.said("worker.child_died")}
        assert {"signal SIGSEGV", "exit code 139"} <= ways
        assert service.process.poll() is None


def test_sigterm_lets_fifty_running_jobs_end(clean_server, hands, tmp_path):
    """Nothing is lost, nothing runs twice, what had not begun waits untouched, and the exit code is 0."""
    with WorkerService(clean_server.url, tmp_path, concurrency=25) as service:
        running = hands.submit_many("dummy", [{"sleepMs": 2_000}] * 50)
        service.runs(*running)
        waiting = hands.submit_many("dummy", [{}] * 20)
        service.send(signal.SIGTERM)

        assert service.wait() == 0
        for job_id in running:
            seen = hands.look(job_id)
            assert (seen.state, seen.deliveries) == ("completed", 1)
        assert {(seen.state, seen.deliveries - seen.handed_back) for seen in map(hands.look, waiting)} == {("waiting", 0)}
        assert not clean_server.call("ZCARD", "tm:{0}:active")
        assert not service.children()


def test_a_second_sigterm_forces(clean_server, hands, tmp_path):
    """A handler that never ends does not hold the service for ever, and its job is not lost."""
    with WorkerService(clean_server.url, tmp_path, drain_ms=60_000) as service:
        job_id = hands.submit("dummy", {"mode": "hang"})
        service.runs(job_id)
        service.send(signal.SIGTERM)
        eventually(lambda: service.said("worker.draining"))
        assert service.process.poll() is None
        service.send(signal.SIGTERM)

        assert service.wait() == 1
        assert hands.state(job_id) == "waiting"
        assert not service.children()


def test_signals_at_any_moment_of_the_start_end_it(clean_server, tmp_path):
    """A SIGTERM between fork and first line of a child is not lost: the whole family is gone long before the drain's deadline."""
    with WorkerService(clean_server.url, tmp_path, worker_processes=6, drain_ms=60_000) as service:
        for pid in list(service.children().values())[:4]:
            os.kill(pid, signal.SIGKILL)
        eventually(lambda: len(service.said("worker.child_died")) >= 3)
        service.send(signal.SIGTERM)  # while replacements are being forked

        service.wait(15)
        assert not service.children()


def test_a_killed_supervisor_takes_its_children_along(clean_server, hands, tmp_path):
    """No orphan goes on; another service completes what they held."""
    with WorkerService(clean_server.url, tmp_path / "one") as one:
        ids = hands.submit_many("dummy", [{"sleepMs": 1_500}] * 2)
        one.runs(*ids)
        children = [psutil.Process(pid) for pid in one.children().values()]
        one.process.kill()
        _, alive = psutil.wait_procs(children, 10)
        assert not alive

        with WorkerService(clean_server.url, tmp_path / "two", worker_processes=1):
            assert {seen.state for seen in hands.all_ended(ids, 45)} == {"completed"}


def test_a_store_that_is_killed_under_load_loses_nothing(tmp_path):
    """Everything that was on its disk ends in exactly one terminal state after the restart, the workers untouched."""
    with StoreServer("valkey", aof=True) as server:
        hands = Hands(server.url)
        with WorkerService(server.url, tmp_path) as service:
            ids = hands.submit_many("dummy", [{"sleepMs": 30, "result": n} for n in range(200)])
            ids += hands.submit_many("dummy", [{"failTimes": 1}] * 20, backoff=Backoff(kind="fixed", delay_ms=300))
            delayed = hands.submit_many("dummy", [{}] * 20, delay_ms=1_500)
            server.call("WAITAOF", 1, 0, 5_000)
            children = service.children()
            server.kill()
            eventually(lambda: service.log().count("store.lost") or service.log().count("upkeep.failed"), what="they have noticed")
            server.start()

            everything = hands.all_ended(ids + delayed, 45)
            assert {seen.state for seen in everything} == {"completed"}
            assert [seen.result for seen in everything[:200]] == list(range(200))
            counters = hands.counters()
            assert counters["dummy/default/completed"] == counters["default/c"] == 240
            assert all(counters.get(f"default/{state}", 0) == 0 for state in "awdfx")
            assert service.children() == children
            service.send(signal.SIGTERM)
            assert service.wait() == 0
        hands.close()


GOOD = """
from taskmaster_sdk import hookimpl, job
@job("good")
async def good(payload, ctx):
    return "good"
@hookimpl
def register_jobs():
    return [good]
@hookimpl
async def on_shutdown(context):
    (context.data_dir / "shut-down").parent.mkdir(parents=True, exist_ok=True)
    (context.data_dir / "shut-down").write_text("yes")
"""
AT_IMPORT = "raise SystemExit('this plugin ends the process at import')"
AT_INIT = """
from taskmaster_sdk import hookimpl, job
@job("never-started")
def never(payload, ctx):
    return "never"
@hookimpl
def register_jobs():
    return [never]
@hookimpl
def on_init(context):
    raise RuntimeError("no database")
"""


def test_a_plugin_that_fails_stops_nobody(clean_server, hands, tmp_path):
    """At import or in on_init: the others run and are shut down, asynchronous hooks too; its own jobs wait for a worker that has them."""
    plugins = tmp_path / "plugins"
    plugins.mkdir()
    install_plugin(plugins, "fine", GOOD)
    install_plugin(plugins, "unimportable", AT_IMPORT)
    install_plugin(plugins, "uninitialised", AT_INIT)
    names = "fine,unimportable,uninitialised"

    with WorkerService(clean_server.url, tmp_path / "one", plugins_folder=plugins, plugins=names, worker_processes=1) as service:
        stuck = hands.submit("never-started")
        assert hands.ended(hands.submit("good")).result == "good"
        assert {line["plugin"] for line in service.said("plugin.failed")} == {"unimportable", "uninitialised"}
        seen = hands.look(stuck)
        assert (seen.state, seen.deliveries, seen.hold) == ("waiting", 0, "no_worker")
        service.send(signal.SIGTERM)
        assert service.wait() == 0
    assert (tmp_path / "one" / "data" / "shut-down").read_text() == "yes"
