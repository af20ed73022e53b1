"""The store goes, comes back, forgets and loses answers: every job still runs once for each claim, and none is stranded."""

from __future__ import annotations

import threading
import time
from collections import Counter

import pytest

from support.eventually import eventually
from support.proxy import StoreProxy
from support.servers import StoreServer
from support.worker import Worker
from taskmaster_sdk import job

runs: Counter[str] = Counter()


@pytest.fixture(autouse=True)
def _forget_runs():
    runs.clear()


@job("count")
def count(payload, ctx):
    runs[ctx.job_id] += 1
    time.sleep(payload.get("s", 0))
    return payload.get("n")


def each_once(worker: Worker, ids: list[str], within_s: float = 30.0) -> None:
    """All completed, after one delivery and one run; nothing is held, active or waiting any more."""
    for job_id, seen in zip(ids, worker.all_ended(ids, within_s), strict=True):
        assert (seen.state, seen.deliveries, seen.losses, runs[job_id]) == ("completed", 1, 0, 1)
    counters = worker.counters()
    assert counters["count/default/completed"] == len(ids)
    assert counters.get("default/a", 0) == counters.get("default/w", 0) == 0
    eventually(lambda: not worker.held)


@pytest.mark.parametrize("how", ["drop_reply", "halve_request"])
@pytest.mark.parametrize("script", ["register", "cycle", "extend", "tick", "unregister"])
def test_a_lost_answer_changes_nothing(clean_server, script, how):
    """Whichever script it is, and whether it ran or not: the same call is sent again and finds what the first did."""
    with StoreProxy(clean_server) as proxy:
        getattr(proxy, how)(script, 2)
        with Worker(proxy.url, [count], direct=clean_server.url, lease_ms=1_500) as worker:
            each_once(worker, worker.submit_many("count", [{"n": n, "s": 0.01} for n in range(30)]))
            if script != "unregister":
                eventually(lambda: proxy.seen[script] > 2, what="the calls went on")
            assert worker.drain()


def test_every_other_answer_is_lost(clean_server):
    """Half of all cycles lose their answers under load, those that bring claims and those that end jobs: nothing runs twice."""
    with StoreProxy(clean_server) as proxy, Worker(proxy.url, [count], direct=clean_server.url) as worker:
        is_over = threading.Event()

        def sabotage():
            asked = 0
            while not is_over.wait(0.002):
                if proxy.lost["cycle"] == asked and proxy.seen["cycle"] > 2 * asked:
                    asked += 1
                    proxy.drop_reply("cycle")

        saboteur = threading.Thread(target=sabotage)
        saboteur.start()
        try:
            each_once(worker, worker.submit_many("count", [{"n": n, "s": 0.002} for n in range(300)]))
        finally:
            is_over.set()
            saboteur.join()
        assert proxy.lost["cycle"] > 5


@pytest.mark.server("valkey")
def test_connections_are_cut_again_and_again(clean_server):
    """Cut in the middle of anything, twenty times: every job completes once."""
    with StoreProxy(clean_server) as proxy, Worker(proxy.url, [count], direct=clean_server.url) as worker:
        ids = worker.submit_many("count", [{"n": n, "s": 0.005} for n in range(400)])
        for _ in range(20):
            more = sum(runs.values()) + 1
            eventually(lambda: sum(runs.values()) >= min(more, 400))  # noqa: B023 - called before the next round
            proxy.cut()
        each_once(worker, ids)


@pytest.mark.server("valkey")
def test_results_are_held_while_nothing_answers(clean_server):
    """A black hole longer than the time-out of a call: handlers end meanwhile, and their results arrive when it clears."""
    with StoreProxy(clean_server) as proxy, Worker(proxy.url, [count], direct=clean_server.url, store_timeout_ms=300) as worker:
        ids = worker.submit_many("count", [{"n": n, "s": 0.3} for n in range(8)])
        eventually(lambda: len(runs) == 8)
        proxy.blackhole()
        since_ms = worker.store.now_ms()
        eventually(lambda: all(message.finish for message in worker.held))
        eventually(
            lambda: sum(len(one._done) + len(one._unsent) for one in worker.process.worker.partition_consumers()) == 8,
            what="all results wait to be told",
        )
        eventually(lambda: worker.store.now_ms() > since_ms + 1_000, what="several calls have timed out")
        assert {worker.state(job_id) for job_id in ids} == {"active"}
        proxy.restore()
        each_once(worker, ids)


@pytest.mark.server("valkey")
def test_a_claim_whose_answer_came_too_late_does_not_begin(clean_server):
    """The lease began when the call first ran: an answer that comes after two thirds of it is no licence to start."""
    with StoreProxy(clean_server) as proxy, Worker(proxy.url, [count], direct=clean_server.url, lease_ms=1_500) as worker:
        worker.process._heart.stop()
        proxy.latency(1.2)
        job_id = worker.submit("count", {})
        seen = worker.until(job_id, lambda seen: seen.handed_back > 0, 15)
        proxy.latency(0)
        assert (seen.reason, runs[job_id]) == ("lease_uncertain", 0)
        assert worker.ended(job_id, 15).state == "completed"
        assert runs[job_id] == 1


@pytest.mark.parametrize("kind", ["valkey", "redis"])
def test_the_store_is_killed_and_restarted_while_jobs_run(kind):
    """With every write on disk before its answer, each job runs once and its result is delivered after the restart."""
    with StoreServer(kind, aof=True, options=["--appendfsync", "always"]) as server, Worker(server.url, [count]) as worker:
        ids = worker.submit_many("count", [{"n": n, "s": 0.05} for n in range(150)])
        eventually(lambda: sum(runs.values()) > 20)
        server.kill()
        eventually(lambda: all(message.finish for message in worker.held), what="all that ran has ended meanwhile")
        server.start()
        each_once(worker, ids)
        assert worker.drain()


def test_scripts_are_flushed_under_load(clean_server):
    """SCRIPT FLUSH and FUNCTION FLUSH cost a resend of the text, nothing else."""
    with Worker(clean_server.url, [count]) as worker:
        ids = worker.submit_many("count", [{"n": n, "s": 0.002} for n in range(300)])
        while len(runs) < 300:
            clean_server.call("SCRIPT", "FLUSH")
            clean_server.call("FUNCTION", "FLUSH")
        each_once(worker, ids)


@pytest.mark.server("valkey")
@pytest.mark.parametrize("forgotten", ["meta", "wid"])
def test_a_consumer_that_the_store_forgot_begins_a_new_life(clean_server, forgotten):
    """It registers again, and what it held is ended under its old tokens, once."""
    with Worker(clean_server.url, [count]) as worker:
        ids = worker.submit_many("count", [{"n": n, "s": 0.5} for n in range(4)])
        eventually(lambda: len(runs) == 4)
        lives = len(worker.wids)
        for name in ["meta"] if forgotten == "meta" else [f"w:{wid}" for wid in worker.wids]:
            clean_server.call("DEL", f"tm:{{0}}:{name}")
        each_once(worker, ids)
        assert len(worker.wids) > lives
        each_once(worker, ids + worker.submit_many("count", [{"n": 9}]))


@pytest.mark.server("valkey")
def test_an_emptied_store_is_served_again(clean_server):
    """FLUSHALL takes the running jobs along; the worker registers anew and takes what is submitted after it."""
    with Worker(clean_server.url, [count], lease_ms=1_500) as worker:
        worker.submit("count", {"s": 0.6})
        eventually(lambda: runs)
        clean_server.flush()
        job_id = worker.submit("count", {"n": 1})
        assert worker.ended(job_id, 15).state == "completed"
        eventually(lambda: not worker.held)
        assert worker.drain()


@pytest.mark.server("valkey")
def test_a_failover_to_a_read_only_store_is_sat_out(clean_server):
    """READONLY answers are no reason to give up: results are told once writes are taken again."""
    with Worker(clean_server.url, [count]) as worker:
        ids = worker.submit_many("count", [{"n": n, "s": 0.3} for n in range(4)])
        eventually(lambda: len(runs) == 4)
        clean_server.call("REPLICAOF", "127.0.0.1", "1")
        try:
            eventually(lambda: "errorstat_READONLY" in clean_server.call("INFO", "errorstats"), what="a call was refused")
        finally:
            clean_server.call("REPLICAOF", "NO", "ONE")
        each_once(worker, ids)
