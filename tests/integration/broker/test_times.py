"""Deadlines, cancellation, leases: what reaches a handler while it runs, and what becomes of one that does not listen."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from typing import Any

import pytest
from structlog.testing import capture_logs

from support.eventually import eventually
from support.worker import Worker
from taskmaster.model.outcome import Interrupted
from taskmaster.store.upkeep import reap
from taskmaster_sdk import job

pytestmark = pytest.mark.server("valkey")
#: Of a worker whose lease is a second: its grace is half of it.
GRACE_MS = 500


def expiry(worker: Worker, job_id: str) -> int:
    """When the lease of a job that runs ends, ms by the store's clock."""
    score: Any = worker.store.raw().zscore("tm:{0}:active", job_id)
    return int(score)


@job("quick")
def quick(payload, ctx):
    return "quick"


def test_a_thread_that_outlives_its_time_is_interrupted_and_lives_on(clean_server):
    """The attempt fails with TimeoutError although its handler catches every Exception; the same thread runs the next job."""
    seen_idents, caught = [], []

    @job("slow")
    def slow(payload, ctx):
        seen_idents.append(threading.get_ident())
        while True:
            try:
                time.sleep(0.01)
            except Exception as error:
                caught.append(error)

    @job("who")
    def who(payload, ctx):
        seen_idents.append(threading.get_ident())

    with Worker(clean_server.url, [slow, who], concurrency=1) as worker:
        seen = worker.ended(worker.submit("slow", attempts=1, timeout_s=0.2))
        assert (seen.state, seen.failure.error) == ("failed", "TimeoutError")
        assert "longer than 0.2 s" in seen.failure.message
        assert worker.ended(worker.submit("who")).state == "completed"
        assert seen_idents[0] == seen_idents[1]
        assert not caught


def test_a_handler_that_swallows_its_interrupt_is_not_struck_twice(clean_server):
    """One interrupt an attempt, however often its deadline is looked at: what a handler returns after it is its result."""
    struck, enough = threading.Event(), threading.Event()

    @job("stubborn")
    def stubborn(payload, ctx):
        strikes = 0
        while not enough.is_set():
            try:
                time.sleep(0.001)
            except Interrupted:
                strikes += 1
                struck.set()
        return strikes

    with Worker(clean_server.url, [stubborn]) as worker:
        job_id = worker.submit("stubborn", timeout_s=0.1)
        assert struck.wait(10)
        for _ in range(100):
            worker.process.deadlines.enforce()
        enough.set()
        assert worker.ended(job_id).result == 1


def test_interrupts_that_come_at_any_moment_lose_neither_job_nor_thread(clean_server):
    """Deadlines that fall on the very end of their handlers: every job ends, every slot and thread is free again."""

    @job("brink")
    def brink(payload, ctx):
        until = ctx.deadline + random.uniform(-0.0005, 0.0005)
        while time.monotonic() < until:
            pass

    with Worker(clean_server.url, [brink, quick], concurrency=3) as worker:
        is_over = threading.Event()

        def strike():
            while not is_over.is_set():
                worker.process.deadlines.enforce()

        striker = threading.Thread(target=strike)
        striker.start()
        try:
            ids = worker.submit_many("brink", [None] * 300, attempts=1, timeout_s=0.003)
            states = [seen.state for seen in worker.all_ended(ids, 30)]
        finally:
            is_over.set()
            striker.join()
        assert set(states) <= {"completed", "failed"}
        assert {seen.state for seen in worker.all_ended(worker.submit_many("quick", [None] * 20))} == {"completed"}
        assert all(thread.is_alive() for pool in worker.process.worker.pools.values() for thread in pool.threads)
        assert worker.drain()


def test_a_coroutine_that_outlives_its_time_is_cancelled(clean_server):
    """Its attempt fails with TimeoutError at its time, not when it would have ended."""

    @job("slow")
    async def slow(payload, ctx):
        await asyncio.sleep(60)

    with Worker(clean_server.url, [slow]) as worker:
        seen = worker.ended(worker.submit("slow", attempts=1, timeout_s=0.1))
        assert (seen.failure.error, seen.failure.message) == ("TimeoutError", "the attempt took longer than 0.1 s")


@pytest.mark.parametrize("is_async", [False, True])
def test_a_cancel_reaches_a_running_handler_through_the_inbox(clean_server, is_async):
    """Long before the next heartbeat, which is ten seconds away: the flag is up, and a coroutine is interrupted in its sleep."""

    def work(payload, ctx):
        while True:
            ctx.check()
            time.sleep(0.01)

    async def work_async(payload, ctx):
        await asyncio.sleep(60)

    with Worker(clean_server.url, [job("work")(work_async if is_async else work)]) as worker:
        job_id = worker.submit("work")
        eventually(lambda: any(message.context for message in worker.held))
        began = time.monotonic()
        assert worker.cancel(job_id).status.name == "CANCELLING"
        seen = worker.ended(job_id)

        assert (seen.state, seen.reason) == ("cancelled", "cancelled")
        assert time.monotonic() - began < 3


def test_a_cancel_that_is_not_heeded_changes_nothing(clean_server):
    """A handler that ends well after all has completed: the finish that arrives first wins."""

    @job("deaf")
    def deaf(payload, ctx):
        while not ctx.cancelled:
            time.sleep(0.01)
        return "done anyway"

    with Worker(clean_server.url, [deaf]) as worker:
        job_id = worker.submit("deaf")
        eventually(lambda: any(message.context for message in worker.held))
        worker.cancel(job_id)
        assert worker.ended(job_id).result == "done anyway"


def test_a_coroutine_is_cancelled_once(clean_server):
    """A coroutine that cleans up after its cancellation is not cancelled again by the next heartbeats."""
    cleans, cleaned, enough = threading.Event(), [], threading.Event()

    @job("tidy")
    async def tidy(payload, ctx):
        try:
            await asyncio.sleep(60)
        finally:
            cleans.set()
            while not enough.is_set():  # noqa: ASYNC110 - set by another thread
                await asyncio.sleep(0.01)
            cleaned.append(True)

    with Worker(clean_server.url, [tidy], lease_ms=1_000) as worker:
        job_id = worker.submit("tidy")
        eventually(lambda: any(message.context for message in worker.held))
        worker.cancel(job_id)
        assert cleans.wait(10)
        for _ in range(3):
            last = expiry(worker, job_id)
            eventually(lambda: expiry(worker, job_id) > last, what="another heartbeat")  # noqa: B023 - called before the next round
        enough.set()
        assert worker.ended(job_id).state == "cancelled"
        assert cleaned == [True]


def test_a_cancelled_job_that_no_thread_has_begun_never_runs(clean_server):
    """It is claimed, waits behind a long one, and is cancelled there: handed back, and ended by the store."""
    runs, release = [], threading.Event()

    @job("note")
    def note(payload, ctx):
        runs.append(payload["n"])
        if payload["n"] == "long":
            release.wait(20)

    with Worker(clean_server.url, [note], concurrency=1) as worker:
        worker.all_ended(worker.submit_many("note", [{"n": n} for n in range(100)]))  # short ones: look-ahead is on
        worker.submit("note", {"n": "long"})
        eventually(lambda: "long" in runs)
        last = worker.submit("note", {"n": "last"})
        worker.cancel(last)
        eventually(lambda: worker.state(last) == "cancelled" or any(message.is_cancelled for message in worker.held))
        release.set()
        assert worker.ended(last).state == "cancelled"
        assert "last" not in runs


def test_leases_are_extended_while_a_handler_runs(clean_server):
    """When its first lease and the grace are over, nobody finds it lost: it is delivered once."""
    release = threading.Event()

    @job("long")
    def long(payload, ctx):
        release.wait(20)

    with Worker(clean_server.url, [long], lease_ms=1_000) as worker, Worker(clean_server.url, [long], lease_ms=1_000, suspects=True):
        job_id = worker.submit("long")
        worker.until(job_id, "active")
        over_ms = expiry(worker, job_id) + GRACE_MS
        eventually(lambda: worker.store.now_ms() > over_ms, what="the first lease and the grace are over")

        assert worker.store.run(reap(0, grace_ms=GRACE_MS, losses=3, key_window_ms=1_000)) == (False, ())

        release.set()
        seen = worker.ended(job_id)
        assert (seen.state, seen.deliveries, seen.losses) == ("completed", 1, 0)


def test_the_end_of_a_zombie_is_refused(clean_server):
    """Whose lease ran out while it went on: the other attempt's result stays, and the refusal is told."""
    release = threading.Event()
    began = []

    @job("race")
    def race(payload, ctx):
        began.append(ctx.attempt)
        if ctx.attempt == 1:
            release.wait(20)
            return "zombie"
        return "second"

    with Worker(clean_server.url, [race], lease_ms=1_000) as worker:
        job_id = worker.submit("race")
        eventually(lambda: began)
        worker.process._heart.stop()
        with Worker(clean_server.url, [race], lease_ms=1_000, suspects=True), capture_logs() as logs:
            assert worker.ended(job_id, 20).result == "second"
            release.set()
            eventually(lambda: not worker.held)
            eventually(lambda: any(line["event"] == "job.outcome_refused" and line["jobId"] == job_id for line in logs))
        seen = worker.look(job_id)
        assert (seen.result, seen.losses, seen.deliveries) == ("second", 1, 2)
