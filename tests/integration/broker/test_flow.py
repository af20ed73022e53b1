"""Waking, waiting without threads, handing back, draining."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from support.eventually import eventually
from support.proxy import StoreProxy
from support.worker import Worker
from taskmaster_sdk import job

pytestmark = pytest.mark.server("valkey")


def test_three_hundred_coroutines_sleep_without_threads(clean_server):
    """They all run at once, on one thread."""
    running = [0, 0]

    @job("nap")
    async def nap(payload, ctx):
        running[0] += 1
        running[1] = max(running)
        while running[1] < 300:  # noqa: ASYNC110 - the others count it up
            await asyncio.sleep(0.01)

    with Worker(clean_server.url, [nap], concurrency=300) as worker:
        ids = worker.submit_many("nap", [None] * 300)
        assert {seen.state for seen in worker.all_ended(ids)} == {"completed"}
        assert running[1] == 300
        assert not any(pool.threads for pool in worker.process.worker.pools.values())


def test_an_idle_consumer_is_woken_each_time(clean_server):
    """Two hundred jobs, each submitted in the instant in which the worker falls asleep after the last: none waits for a poll."""
    done = threading.Semaphore(0)
    slowest = 0.0

    @job("wake")
    def wake(payload, ctx):
        done.release()

    with Worker(clean_server.url, [wake]) as worker:
        for _ in range(200):
            began = time.monotonic()
            worker.submit("wake")
            assert done.acquire(timeout=10)
            slowest = max(slowest, time.monotonic() - began)
    assert slowest < 2.5, "a wake-up was lost: a consumer's own clock rings after 4 to 6 s"


def test_a_delayed_job_starts_at_its_time(clean_server):
    """The consumer's own clock is set for it: not early, and no poll late."""
    began = []

    @job("later")
    def later(payload, ctx):
        began.append(time.monotonic())

    with Worker(clean_server.url, [later]) as worker:
        at = time.monotonic()
        worker.submit("later", delay_ms=400)
        eventually(lambda: began)
        assert 0.38 < began[0] - at < 2.5


def test_claims_that_cannot_begin_are_handed_back(clean_server):
    """Short jobs made the worker look ahead; then long ones hold its threads: what it cannot start runs elsewhere."""
    release = threading.Event()
    ran: list[tuple[str, int]] = []

    def worker_of(name):
        @job("mixed")
        def mixed(payload, ctx):
            ran.append((name, payload["n"]))
            if payload["n"] < 0 and name == "one":
                release.wait(30)

        return Worker(clean_server.url, [mixed], concurrency=2)

    with worker_of("one") as one:
        one.all_ended(one.submit_many("mixed", [{"n": 0}] * 200))
        one.submit_many("mixed", [{"n": -1}, {"n": -2}])
        eventually(lambda: {("one", -1), ("one", -2)} <= set(ran))
        ids = one.submit_many("mixed", [{"n": n} for n in range(1, 11)])
        with worker_of("two"):
            seen = one.all_ended(ids)
            assert {s.state for s in seen} == {"completed"}
            assert {s.failures for s in seen} == {0}
        release.set()
        assert one.drain()


def test_a_drain_hands_back_what_has_not_begun_and_lets_the_rest_end(clean_server):
    """At once, while the running ones still run; they end well, and the drain says so."""
    release, began = threading.Event(), []

    @job("part")
    def part(payload, ctx):
        if payload["n"]:
            began.append(payload["n"])
            release.wait(20)

    with Worker(clean_server.url, [part], concurrency=2) as worker:
        worker.all_ended(worker.submit_many("part", [{"n": 0}] * 200))
        ids = worker.submit_many("part", [{"n": n} for n in range(1, 11)])
        eventually(lambda: len(began) == 2)
        drained: list[bool] = []
        drainer = threading.Thread(target=lambda: drained.append(worker.drain()))
        drainer.start()
        try:
            eventually(lambda: [worker.state(job_id) for job_id in ids].count("waiting") == 8)
            assert not drained
        finally:
            release.set()
            drainer.join()
        assert drained == [True]
        assert [worker.state(job_id) for job_id in ids].count("completed") == 2
        assert len(began) == 2


def test_a_drain_waits_for_the_answer_of_a_fetch(clean_server):
    """Claims that are on their way when the drain begins are not stranded: it takes and hands them back before it ends."""
    ran = []

    @job("late")
    def late(payload, ctx):
        ran.append(ctx.job_id)

    with StoreProxy(clean_server) as proxy, Worker(proxy.url, [late], direct=clean_server.url, drain_ms=10_000) as worker:
        eventually(lambda: proxy.seen["bzpopmin"] > 0)
        proxy.blackhole()
        ids = worker.submit_many("late", [None] * 4)
        for consumer in worker.consumers:
            consumer.wake()
        eventually(lambda: any(consumer._is_in_round for consumer in worker.consumers))
        drained: list[bool] = []
        drainer = threading.Thread(target=lambda: drained.append(worker.drain()))
        drainer.start()
        drainer.join(0.5)
        assert not drained
        proxy.restore()
        drainer.join()
        assert drained == [True]
        assert {worker.state(job_id) for job_id in ids} <= {"waiting", "completed"}
        assert not clean_server.call("ZCARD", "tm:{0}:active")


def test_a_stop_without_a_drain_strands_nothing(clean_server):
    """What runs is handed back, thousands of coroutines included; another worker completes it."""

    @job("hold")
    async def hold(payload, ctx):
        await asyncio.sleep(60)

    with Worker(clean_server.url, [hold], concurrency=600) as worker:
        ids = worker.submit_many("hold", [None] * 600)
        eventually(lambda: sum(message.context is not None for message in worker.held) == 600)
        worker.end()
        assert {worker.state(job_id) for job_id in ids} == {"waiting"}
        assert worker.look(ids[0]).handed_back == 1


def test_workers_end_before_they_began_and_twice(clean_server):
    """Stopping works at any time."""
    worker = Worker(clean_server.url, [])
    worker.process.stop()
    worker.process.stop()
    worker.close()
    with Worker(clean_server.url, []) as other:
        other.end()
        other.process.stop()


def test_a_worker_that_has_stopped_leaves_no_thread(clean_server):
    """Even when it is stopped while its inboxes are being opened."""
    for _ in range(8):
        before = set(threading.enumerate())
        with Worker(clean_server.url, []):
            pass
        assert set(threading.enumerate()) <= before
