"""Handlers in child processes: what they do, and how they end, touches nothing but their own attempt."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import faulthandler
import gc
import logging
import os
import re
import socket
import sys
import threading
import time
from typing import Any

import psutil
import pytest

from support.eventually import eventually
from support.processes import is_alive
from support.worker import Worker
from taskmaster.broker.isolation.frames import Channel
from taskmaster_sdk import Fatal, Retry, job

pytestmark = pytest.mark.server("valkey")
SHORT = {"timeout_grace_ms": 300, "cancel_grace_ms": 200}


def isolated(fn: Any = None, **options: Any) -> Any:
    """The function as an isolated job type of its own name."""
    return job(fn.__name__.replace("_", "-"), isolation="process", **options)(fn) if fn else lambda f: isolated(f, **options)


def never(how):
    if how == "spin":
        while True:
            pass
    if how == "chew":
        re.match(r"(a+)+$", "a" * 64 + "b")
    if how == "socket":
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.recv(1)
    while True:
        with contextlib.suppress(BaseException):
            time.sleep(0.01)


@isolated
def stuck(payload, ctx):
    never(payload["how"])


@isolated
async def stuck_async(payload, ctx):
    if payload["how"] == "await":
        await asyncio.sleep(600)
    never(payload["how"])


@isolated
def whoami(payload, ctx):
    return {"pid": os.getpid(), "main": threading.current_thread() is threading.main_thread(), "threads": threading.active_count()}


@isolated
def echo(payload, ctx):
    return payload


release = threading.Event()


@pytest.fixture(autouse=True)
def _hold_again():
    release.clear()
    yield
    release.set()


@job("neighbour")
def neighbour(payload, ctx):
    """Runs in the worker process itself, until it is released."""
    release.wait(20)
    return os.getpid()


def crash_now(how: str = "abort") -> None:
    """The end of the process that calls it. pytest's own report of crashes, which a fork inherits, is silenced: this one is meant."""
    faulthandler.disable()
    if how == "segfault":
        ctypes.string_at(0)
    if how == "exit":
        os._exit(3)
    if how == "abort":
        os.abort()
    os.kill(os.getpid(), 9)


def runners() -> list[psutil.Process]:
    return list(filter(is_alive, psutil.Process().children(recursive=True)))


def test_an_isolated_job_runs_elsewhere_and_the_process_is_used_again(clean_server):
    """In the main thread of a process without another thread, whatever runs in ours; the second job finds the same process."""
    with Worker(clean_server.url, [whoami, echo]) as worker:
        first, second = (worker.ended(worker.submit("whoami")).result for _ in range(2))
        assert first == second
        assert first["pid"] != os.getpid()
        assert (first["main"], first["threads"]) == (True, 1)
        assert worker.ended(worker.submit("echo", {"a": [1, None, "ü" * 100_000]})).result == {"a": [1, None, "ü" * 100_000]}


@pytest.mark.parametrize(
    ("type_", "how"),
    [("stuck", "spin"), ("stuck", "chew"), ("stuck", "socket"), ("stuck", "deaf"), ("stuck-async", "await"), ("stuck-async", "chew")],
)
def test_whatever_a_handler_does_it_ends_at_its_time(clean_server, type_, how):
    """A Python loop, C code that holds the interpreter, a blocked socket, one that swallows everything: only its attempt ends."""
    with Worker(clean_server.url, [stuck, stuck_async, neighbour], **SHORT) as worker:
        beside = worker.submit("neighbour")
        worker.until(beside, "active")
        began = time.monotonic()
        seen = worker.ended(worker.submit(type_, {"how": how}, attempts=1, timeout_s=0.3))
        assert (seen.state, seen.failure.error, seen.deliveries) == ("failed", "TimeoutError", 1)
        assert time.monotonic() - began < 5
        release.set()
        beside_seen = worker.ended(beside)
        assert (beside_seen.result, beside_seen.deliveries, beside_seen.losses) == (os.getpid(), 1, 0)
        assert not worker.process.worker.retiring


@pytest.mark.parametrize("how", ["flag", "await", "spin", "chew"])
def test_a_cancel_ends_an_isolated_job(clean_server, how):
    """By its flag, at its await, by an exception, and by force in the end."""

    @isolated
    def heeds(payload, ctx):
        while True:
            ctx.check()
            time.sleep(0.01)

    with Worker(clean_server.url, [stuck, stuck_async, heeds], **SHORT) as worker:
        type_ = {"flag": "heeds", "await": "stuck-async"}.get(how, "stuck")
        job_id = worker.submit(type_, {"how": how})
        eventually(lambda: any(message.signal_cancel for message in worker.held))
        worker.cancel(job_id)
        seen = worker.ended(job_id)
        assert (seen.state, seen.reason, seen.deliveries) == ("cancelled", "cancelled", 1)


@pytest.mark.parametrize(("how", "said"), [("segfault", "SIGSEGV"), ("exit", "exit code 3"), ("abort", "SIGABRT"), ("kill", "SIGKILL")])
def test_a_crash_is_an_attempt_that_failed(clean_server, how, said):
    """It is retried by its policy and counts; the next attempt has a fresh process, and so has the next job."""

    @isolated
    def crash(payload, ctx):
        if ctx.attempt == 2:
            return os.getpid()
        crash_now(payload["how"])
        return None

    with Worker(clean_server.url, [crash, whoami]) as worker:
        job_id = worker.submit("crash", {"how": how}, attempts=2)
        failed = worker.until(job_id, "delayed")
        assert (failed.failure.error, failed.losses) == ("HandlerCrashed", 0)
        assert said in failed.failure.message
        seen = worker.ended(job_id)
        assert (seen.state, seen.deliveries, seen.failures) == ("completed", 2, 1)


@pytest.mark.skipif(sys.platform != "linux", reason="limits on data are Linux's")
@pytest.mark.parametrize("how", ["python", "mapped"])
def test_memory_beyond_the_limit_fails_the_attempt(clean_server, how):
    """Both what the allocator refuses and what only the resident size tells of; a job within the limit is well."""

    @isolated(memory_mb=64)
    def hungry(payload, ctx):
        if payload["how"] == "mapped":
            import mmap

            memory = mmap.mmap(-1, 512 * 1_048_576)  # shared: no data of the process by the system's count
            for at in range(0, len(memory), 4_096):
                memory[at] = 1
            time.sleep(60)
        taken = [bytearray(b"x" * 1_048_576) for _ in range(payload["mb"])]
        return len(taken)

    with Worker(clean_server.url, [hungry, neighbour]) as worker:
        beside = worker.submit("neighbour")
        worker.until(beside, "active")
        seen = worker.ended(worker.submit("hungry", {"how": how, "mb": 1_000}, attempts=1))
        assert (seen.state, seen.failure.error) == ("failed", "MemoryLimit")
        assert worker.ended(worker.submit("hungry", {"how": "python", "mb": 20})).result == 20
        release.set()
        assert worker.ended(beside).deliveries == 1


class Hostile(Exception):
    def __str__(self) -> str:
        raise SystemExit("no message")

    def __reduce__(self) -> Any:
        raise RuntimeError("not to be pickled")


@isolated
def says(payload, ctx):
    match payload["what"]:
        case "object":
            return object()
        case "nan":
            return float("nan")
        case "surrogate":
            return "\ud800"
        case "huge":
            return "x" * 1_000_000
        case "hostile":
            raise Hostile
        case "fatal":
            raise Fatal("for good")
        case "exit":
            raise SystemExit(1)
        case "long":
            raise ValueError("y" * 10_000_000)
        case "cycle":
            endless: list[Any] = []
            endless.append(endless)
            return endless
        case "retry":
            raise Retry("later", after_s=3_000)


@pytest.mark.parametrize(
    ("what", "reason", "error"),
    [
        ("object", "result_rejected", "Rejected"),
        ("surrogate", "result_rejected", "Rejected"),
        ("huge", "result_rejected", "Rejected"),
        ("cycle", "result_rejected", "Rejected"),
        ("fatal", "fatal", "Fatal"),
        ("hostile", "attempts_exhausted", "Hostile"),
        ("exit", "attempts_exhausted", "SystemExit"),
        ("long", "attempts_exhausted", "ValueError"),
    ],
)
def test_an_end_is_judged_as_it_is_elsewhere(clean_server, what, reason, error):
    """What no JSON can hold, what is too long, what cannot be shown: one failed attempt, and the next job is well."""
    with Worker(clean_server.url, [says, echo]) as worker:
        seen = worker.ended(worker.submit("says", {"what": what}, attempts=1))
        assert (seen.state, seen.reason) == ("failed", reason)
        assert seen.failure.error.endswith(error)
        assert len(seen.body) < 20_000
        assert worker.ended(worker.submit("echo", {"n": 1})).result == {"n": 1}


def test_a_handler_may_ask_for_a_later_attempt(clean_server):
    """`Retry(after_s=…)` counts in a child, too."""
    with Worker(clean_server.url, [says]) as worker:
        seen = worker.until(worker.submit("says", {"what": "retry"}), "delayed")
        assert int(seen.fields["ra"]) - worker.store.now_ms() > 2_900_000


def test_a_runner_that_speaks_out_of_turn_is_killed(clean_server):
    """Rubbish on its socket is a crash, not a result."""

    @isolated
    def rogue(payload, ctx):
        own = next(thing for thing in gc.get_objects() if isinstance(thing, Channel))
        own._sock.sendall(b"\xff" * 64)
        time.sleep(60)

    with Worker(clean_server.url, [rogue, echo]) as worker:
        seen = worker.ended(worker.submit("rogue", attempts=1))
        assert (seen.state, seen.failure.error) == ("failed", "HandlerCrashed")
        assert worker.ended(worker.submit("echo", {"n": 1})).result == {"n": 1}


def test_progress_and_log_lines_come_through(clean_server, caplog):
    """As from a thread: the last word is kept, and a line has its job's facts."""

    @isolated
    def tells(payload, ctx):
        ctx.progress(0.5, "half")
        given = {"order": 7, "tags": ["a", {"b": None}], "vast": 2**80, "msecs_": 1, 7: "seven", "half": "\ud800", "long": "x" * 20_000}
        ctx.logger.warning("from a child: %s", "ü", extra=given)
        while not ctx.cancelled:
            time.sleep(0.01)

    with Worker(clean_server.url, [tells]) as worker, caplog.at_level(logging.WARNING):
        job_id = worker.submit("tells")
        worker.until(job_id, lambda seen: seen.fields.get("pg", "").startswith("0.5 half") or "0.5 half" in str(seen.fields))
        record = eventually(lambda: next(record for record in caplog.records if record.getMessage() == "from a child: ü"))
        assert (record.jobId, record.name) == (job_id, "taskmaster.job.tells")
        assert (record.order, record.tags, record.msecs_, vars(record)["7"]) == (7, ["a", {"b": None}], 1, "seven")
        assert (str(record.vast), record.half, len(record.long)) == (str(2**80), "'\\ud800'", 8_000)
        worker.cancel(job_id)
        worker.ended(job_id)


@pytest.mark.parametrize("is_async", [False, True])
def test_an_effect_happens_once_over_crashes_of_the_child(clean_server, tmp_path, is_async):
    """The guard is the host's: done by an attempt that then crashed, it is met as done; reserved by one that crashed, it is unknown."""
    done = tmp_path / "done"

    def once(payload, ctx):
        with ctx.once("write", key=payload["at"]) as effect:
            if effect.is_new:
                done.write_text(done.read_text() + "x" if done.exists() else "x")
                effect.result = {"n": 1}
                if payload["at"] == "inside" and ctx.attempt == 1:
                    crash_now()
        if ctx.attempt == 1:
            crash_now()
        return effect.result

    async def once_async(payload, ctx):
        async with ctx.once("write", key=payload["at"]) as effect:
            if effect.is_new:
                done.write_text(done.read_text() + "x" if done.exists() else "x")
                effect.result = {"n": 1}
                if payload["at"] == "inside" and ctx.attempt == 1:
                    crash_now()
        if ctx.attempt == 1:
            crash_now()
        return effect.result

    with Worker(clean_server.url, [job("once", isolation="process")(once_async if is_async else once)]) as worker:
        seen = worker.ended(worker.submit("once", {"at": "after"}))
        assert (seen.state, seen.result, seen.deliveries) == ("completed", {"n": 1}, 2)
        assert done.read_text() == "x"
        seen = worker.ended(worker.submit("once", {"at": "inside"}))
        assert (seen.state, seen.reason, seen.deliveries) == ("failed", "effect_unknown", 2)
        assert done.read_text() == "xx"


def test_runners_are_replaced_after_their_jobs(clean_server):
    """What a handler leaks in its process goes with it."""
    with Worker(clean_server.url, [whoami], concurrency=1) as worker:
        pool = worker.process.worker.runners
        assert pool is not None
        pool._attempts_max = 3
        pids = [worker.ended(worker.submit("whoami")).result["pid"] for _ in range(6)]
        assert len(set(pids)) == 2
        assert pids == sorted(pids, key=pids.index)


def test_nothing_is_left_when_the_worker_stops(clean_server):
    """Neither nursery nor runner, busy or idle; the job that ran is handed back."""
    before = {process.pid for process in runners()}
    with Worker(clean_server.url, [stuck, whoami], **SHORT) as worker:
        worker.ended(worker.submit("whoami"))
        job_id = worker.submit("stuck", {"how": "chew"})
        eventually(lambda: any(message.signal_cancel for message in worker.held))
        worker.end()
        assert not {process.pid for process in runners()} - before
        assert worker.state(job_id) in ("waiting", "delayed")


def test_the_stores_address_is_not_in_a_runners_environment(clean_server, monkeypatch):
    """Nor anything else of the service's own; what plugins are configured with is."""
    monkeypatch.setenv("TASKMASTER_REDIS_URL", "redis://:secret@host")
    monkeypatch.setenv("REDIS_URL", "redis://:secret@host")
    monkeypatch.setenv("TASKMASTER_PLUGIN_MAIL_TOKEN", "plugin's")

    @isolated
    def environment(payload, ctx):
        return dict(os.environ)

    with Worker(clean_server.url, [environment]) as worker:
        seen = worker.ended(worker.submit("environment")).result
        assert "secret" not in str(seen)
        assert seen["TASKMASTER_PLUGIN_MAIL_TOKEN"] == "plugin's"
