"""Handlers that do not stop when they must: on threads and on the event loop. Their attempt ends, their process is retired."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Iterator

import pytest

from support.eventually import eventually
from support.worker import Worker
from taskmaster_sdk import job

pytestmark = pytest.mark.server("valkey")
SHORT = {"timeout_grace_ms": 300, "cancel_grace_ms": 200}


@pytest.fixture
def release() -> Iterator[threading.Event]:
    """Lets handlers go at the test's end, which nobody else can."""
    event = threading.Event()
    yield event
    event.set()


@job("quick")
def quick(payload, ctx):
    return "quick"


def deaf(release):
    while not release.is_set():
        with contextlib.suppress(BaseException):
            release.wait(0.01)


def in_a_socket(release):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        threading.Thread(target=lambda: release.wait(60) and theirs.send(b"x"), daemon=True).start()
        ours.recv(1)


def in_c(release):
    release.wait(60)  # one call, in which an exception is not seen


@pytest.mark.parametrize("how", [deaf, in_a_socket, in_c])
def test_a_thread_that_does_not_stop_is_given_up_and_its_process_retires(clean_server, release, how):
    """Its attempt fails as timed out while it goes on; its neighbour ends in peace; no other job is claimed; the late end is not heard."""

    @job("stuck")
    def stuck(payload, ctx):
        how(release)
        return "too late"

    given_up = threading.Event()

    @job("neighbour")
    def neighbour(payload, ctx):
        given_up.wait(20)
        return "undisturbed"

    with Worker(clean_server.url, [stuck, neighbour, quick], **SHORT) as worker:
        beside = worker.submit("neighbour")
        worker.until(beside, "active")
        seen = worker.ended(worker.submit("stuck", attempts=1, timeout_s=0.2))
        assert (seen.state, seen.failure.error, seen.deliveries) == ("failed", "TimeoutError", 1)
        assert worker.process.worker.retiring
        later = worker.submit("quick")
        given_up.set()
        seen = worker.ended(beside)
        assert (seen.result, seen.deliveries) == ("undisturbed", 1)
        assert worker.process.finish(lambda: False)
        assert worker.state(later) == "waiting"
        with Worker(clean_server.url, [quick]) as successor:
            assert successor.ended(later).result == "quick"
        release.set()
        assert worker.drain()


def test_a_coroutine_that_holds_up_the_loop_is_interrupted(clean_server):
    """A loop of Python without an await: its attempt fails at its time, the loop and a job beside it live on, nobody is retired."""

    @job("spin")
    async def spin(payload, ctx):
        while True:
            pass

    interrupted = threading.Event()

    @job("patient")
    async def patient(payload, ctx):
        while not interrupted.is_set():  # noqa: ASYNC110 - set by another thread
            await asyncio.sleep(0.01)
        return "undisturbed"

    with Worker(clean_server.url, [spin, patient], timeout_grace_ms=5_000) as worker:
        beside = worker.submit("patient")
        worker.until(beside, "active")
        seen = worker.ended(worker.submit("spin", attempts=1, timeout_s=0.2))
        assert (seen.state, seen.failure.error) == ("failed", "TimeoutError")
        interrupted.set()
        assert worker.ended(beside).result == "undisturbed"
        assert worker.ended(worker.submit("patient")).result == "undisturbed"
        assert not worker.process.worker.retiring


def test_a_coroutine_that_no_exception_reaches_retires_the_process(clean_server, release):
    """It blocks the loop in one call of C: its attempt ends in the grace after its time."""

    @job("blocked")
    async def blocked(payload, ctx):
        release.wait(60)

    with Worker(clean_server.url, [blocked], **SHORT) as worker:
        seen = worker.ended(worker.submit("blocked", attempts=1, timeout_s=0.2))
        assert (seen.state, seen.failure.error) == ("failed", "TimeoutError")
        assert worker.process.worker.retiring
        release.set()


@pytest.mark.parametrize("is_deaf", [False, True])
def test_a_cancelled_thread_is_made_to_stop(clean_server, release, is_deaf):
    """A handler that never looks at the flag gets an exception after the grace; one that swallows it is given up. Both end cancelled."""

    @job("busy")
    def busy(payload, ctx):
        while not release.is_set():
            with contextlib.suppress(BaseException if is_deaf else ValueError):
                release.wait(0.01)

    with Worker(clean_server.url, [busy], **SHORT) as worker:
        job_id = worker.submit("busy")
        eventually(lambda: any(message.thread_id for message in worker.held))
        worker.cancel(job_id)
        seen = worker.ended(job_id)
        assert (seen.state, seen.reason, seen.deliveries) == ("cancelled", "cancelled", 1)
        assert bool(worker.process.worker.retiring) == is_deaf


def test_a_coroutine_that_swallows_its_cancellation_is_given_up(clean_server, release):
    """Its job ends as cancelled, although the coroutine goes on."""

    @job("deaf")
    async def deaf_one(payload, ctx):
        while not release.is_set():
            with contextlib.suppress(BaseException):
                await asyncio.sleep(0.02)

    with Worker(clean_server.url, [deaf_one], **SHORT) as worker:
        job_id = worker.submit("deaf")
        eventually(lambda: any(message.context for message in worker.held))
        worker.cancel(job_id)
        seen = worker.ended(job_id)
        assert (seen.state, seen.reason) == ("cancelled", "cancelled")
        assert worker.process.worker.retiring
        release.set()


def test_a_process_retires_after_its_jobs(clean_server):
    """Everything that it holds ends; what comes later waits for another."""
    with Worker(clean_server.url, [quick], recycle_jobs=10) as worker:
        assert {seen.state for seen in worker.all_ended(worker.submit_many("quick", [None] * 10))} == {"completed"}
        eventually(lambda: worker.process.worker.retiring == "10 jobs")
        assert worker.process.finish(lambda: False)
        assert not worker.held


def test_a_process_retires_at_its_size(clean_server):
    """A handler's leak is seen within seconds."""
    leak = []

    @job("leak")
    def leaky(payload, ctx):
        leak.append(b"x" * 150_000_000)

    with Worker(clean_server.url, [leaky], recycle_mb=1) as worker:
        eventually(lambda: worker.process.worker.retiring == "1 MB")


def test_slots_survive_whatever_handlers_and_hooks_raise(clean_server):
    """After BaseExceptions of all kinds the pool runs as many jobs at once as it is configured to."""
    together = threading.Barrier(3)

    @job("raise")
    def raising(payload, ctx):
        raise {0: SystemExit, 1: KeyboardInterrupt, 2: GeneratorExit, 3: BaseException}[payload["n"] % 4]("as asked")

    @job("meet")
    def meet(payload, ctx):
        return together.wait(10) >= 0

    with Worker(clean_server.url, [raising, meet], concurrency=3) as worker:
        ended = worker.all_ended(worker.submit_many("raise", [{"n": n} for n in range(24)], attempts=1))
        assert {seen.state for seen in ended} == {"failed"}
        assert [seen.result for seen in worker.all_ended(worker.submit_many("meet", [None] * 3))] == [True] * 3
        assert not worker.process.worker.retiring
