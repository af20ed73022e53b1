"""How attempts end, on real servers: results, retries, words of the SDK, and everything that a handler can do wrong."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections import Counter
from dataclasses import dataclass

import pytest

from support.eventually import eventually
from support.worker import Worker
from taskmaster.broker.message import JobMessage
from taskmaster.model.retry import Backoff
from taskmaster_sdk import Cancelled, Discard, Fatal, JobContext, Retry, job

SOON = Backoff(kind="fixed", delay_ms=20)
runs: Counter[str] = Counter()


@pytest.fixture(autouse=True)
def _forget_runs():
    runs.clear()


@dataclass
class Number:
    n: int


@job("double")
def double(payload: Number, ctx: JobContext) -> dict:
    runs["double"] += 1
    return {"n": 2 * payload.n, "attempt": ctx.attempt, "of": ctx.max_attempts, "queue": ctx.queue, "root": ctx.root_id}


@job("double-async")
async def double_async(payload: Number, ctx: JobContext) -> dict:
    await asyncio.sleep(0)
    return {"n": 2 * payload.n, "attempt": ctx.attempt, "of": ctx.max_attempts, "queue": ctx.queue, "root": ctx.root_id}


@pytest.mark.parametrize("type_", ["double", "double-async"])
def test_a_result_is_stored(clean_server, type_):
    """What a handler returns is the job's result, and the handler knew its own facts."""
    with Worker(clean_server.url, [double, double_async]) as worker:
        job_id = worker.submit(type_, {"n": 21})
        seen = worker.ended(job_id)

        assert seen.state == "completed"
        assert seen.result == {"n": 42, "attempt": 1, "of": 5, "queue": "default", "root": job_id}
        assert (seen.deliveries, seen.failures, seen.rows) == (1, 0, [])
        assert worker.drain()


@pytest.mark.parametrize("type_", ["double", "double-async"])
def test_an_attempt_leaves_nothing_to_the_collector(clean_server, type_):
    """Its record goes with its last user: thousands of them a second would keep the collector busy."""

    def records() -> int:
        return sum(isinstance(one, JobMessage | JobContext) for one in gc.get_objects())

    with Worker(clean_server.url, [double, double_async]) as worker:
        worker.ended(worker.submit(type_, {"n": 0}))
        gc.collect()
        gc.disable()
        try:
            before = records()
            for job_id in [worker.submit(type_, {"n": n}) for n in range(50)]:
                worker.ended(job_id)
            eventually(lambda: not worker.held)
            more = records() - before
        finally:
            gc.enable()
        assert more <= 2 * 8, "a thread knows its last one"


@pytest.mark.parametrize("is_async", [False, True])
def test_retries_wait_as_the_backoff_says(clean_server, is_async):
    """Each wait lies between what the policy says and that plus the time to notice; after the last failure the job is dead."""

    def fail(payload, ctx):
        raise ValueError(f"attempt {ctx.attempt}")

    async def fail_async(payload, ctx):
        raise ValueError(f"attempt {ctx.attempt}")

    with Worker(clean_server.url, [job("fail")(fail_async if is_async else fail)]) as worker:
        job_id = worker.submit("fail", attempts=4, backoff=Backoff(delay_ms=100))
        seen = worker.ended(job_id)

        waits = [b["started"] - a["ended"] for a, b in zip(seen.rows, seen.rows[1:], strict=False)]
        assert (seen.state, seen.reason, seen.failures, seen.deliveries) == ("failed", "attempts_exhausted", 4, 4)
        assert [row["outcome"] for row in seen.rows] == ["failed"] * 4
        assert all(delay - 20 <= wait < delay + 1_500 for wait, delay in zip(waits, (100, 200, 400), strict=True))
        assert seen.failure.message == "attempt 4"
        assert worker.dead(job_id)["rs"] == b"attempts_exhausted"


class Hopeless(Exception):
    pass


@pytest.mark.parametrize(
    ("error", "state", "reason", "deliveries"),
    [
        (Fatal("no"), "failed", "fatal", 1),
        (Hopeless("no"), "failed", "fatal", 1),
        (Discard("old"), "cancelled", "discarded", 1),
        (Cancelled("self"), "cancelled", "discarded", 1),
        (Retry("later", after_s=0.03), "failed", "attempts_exhausted", 2),
        (Retry("later"), "failed", "attempts_exhausted", 2),
        (Retry("never", after_s=float("nan")), "failed", "attempts_exhausted", 2),
        (TimeoutError("of its own"), "failed", "attempts_exhausted", 2),
        (asyncio.CancelledError("of its own"), "failed", "attempts_exhausted", 2),
    ],
)
@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.server("valkey")
def test_what_a_handler_says_is_heard(clean_server, error, state, reason, deliveries, is_async):
    """The words of the SDK and the declared fatal classes decide; everything else is a failure that is retried."""

    def say(payload, ctx):
        raise error

    async def say_async(payload, ctx):
        raise error

    with Worker(clean_server.url, [job("say", fatal=(Hopeless,))(say_async if is_async else say)]) as worker:
        seen = worker.ended(worker.submit("say", attempts=2, backoff=SOON))

        assert (seen.state, seen.reason, seen.deliveries) == (state, reason, deliveries)
        assert str(error.args[0]) in seen.failure.message or "described" in seen.failure.message


@pytest.mark.server("valkey")
def test_a_payload_that_does_not_fit_is_dead_at_once(clean_server):
    """The handler is not called, and no retry is wasted on what no retry can mend."""
    with Worker(clean_server.url, [double]) as worker:
        seen = worker.ended(worker.submit("double", {"n": "many"}))

        assert (seen.state, seen.reason, seen.deliveries) == ("failed", "payload_rejected", 1)
        assert "does not fit tests==1" in seen.failure.message
        assert not runs


class Unprintable:
    def __str__(self) -> str:
        raise ValueError("no")

    __repr__ = __str__


def circle() -> list:
    found: list = []
    found.append(found)
    return found


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.server("valkey")
def test_a_result_that_cannot_be_kept_is_dead_and_its_effect_not_repeated(clean_server, is_async):
    """No JSON, half a surrogate pair, a circle, too large: the job fails as `result_rejected` after one run."""
    results = [object(), circle(), "\ud800", {"k": "\udfff"}, "x" * 300_000, Unprintable(), {1: {2: Unprintable()}}, lambda: None, 1 << 70]

    def give(payload, ctx):
        runs[ctx.job_id] += 1
        return results[payload["n"]]

    async def give_async(payload, ctx):
        return give(payload, ctx)

    with Worker(clean_server.url, [job("give")(give_async if is_async else give)]) as worker:
        ids = worker.submit_many("give", [{"n": n} for n in range(len(results))])
        for job_id, seen in zip(ids[:-1], worker.all_ended(ids[:-1]), strict=True):
            assert (seen.state, seen.reason) == ("failed", "result_rejected")
            assert runs[job_id] == 1
            assert len(seen.body) < 5_000
        big = worker.ended(ids[-1])
        assert big.state == "completed" or big.reason == "result_rejected"


class Bad(BaseException):
    pass


class ExitsInStrError(Exception):
    def __str__(self) -> str:
        raise SystemExit(3)


class MisnamedError(Exception):
    pass


MisnamedError.__qualname__ = "Mis\ud800named"


def raising(error: BaseException):
    def handler(payload, ctx):
        raise error

    return handler


HOSTILE = [
    SystemExit(0),
    KeyboardInterrupt(),
    GeneratorExit(),
    Bad("base"),
    StopIteration(),
    StopAsyncIteration(),
    ExitsInStrError(),
    MisnamedError("x"),
    ValueError("x" * 10_000_000 + "\x1b[2J"),
    RecursionError(),
    MemoryError(),
]


@pytest.mark.parametrize("is_async", [False, True])
def test_nothing_that_a_handler_raises_hurts_its_process(clean_server, is_async):
    """Each is a failure of its own job; threads and loop go on and run the next one."""

    def bad(payload, ctx):
        raise HOSTILE[payload["n"]]

    async def bad_async(payload, ctx):
        raise HOSTILE[payload["n"]]

    with Worker(clean_server.url, [job("bad")(bad_async if is_async else bad), double, double_async], concurrency=2) as worker:
        ids = worker.submit_many("bad", [{"n": n} for n in range(len(HOSTILE))], attempts=1)
        assert {seen.state for seen in worker.all_ended(ids)} == {"failed"}

        after = worker.submit_many("double", [{"n": 1}] * 10) + worker.submit_many("double-async", [{"n": 1}] * 10)
        assert {seen.state for seen in worker.all_ended(after)} == {"completed"}
        assert worker.process.is_whole
        assert all(thread.is_alive() for pool in worker.process.worker.pools.values() for thread in pool.threads)
        assert worker.drain()


@pytest.mark.server("valkey")
@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
def test_an_exit_in_a_handlers_own_task_does_not_end_the_loop(clean_server, error):
    """Asyncio lets SystemExit of any task out of its loop: the loop goes on, and so do the other coroutines on it."""
    release = threading.Event()

    async def leave():
        raise error

    @job("leaves")
    async def leaves(payload, ctx):
        await asyncio.gather(leave(), asyncio.sleep(5))

    @job("stays")
    async def stays(payload, ctx):
        while not release.is_set():  # noqa: ASYNC110 - set by another thread
            await asyncio.sleep(0.01)
        return "stayed"

    with Worker(clean_server.url, [leaves, stays]) as worker:
        other = worker.submit("stays")
        worker.until(other, "active")
        assert worker.ended(worker.submit("leaves", attempts=1)).state == "failed"
        release.set()
        assert worker.ended(other).result == "stayed"
        assert worker.process.is_whole


@pytest.mark.server("valkey")
def test_a_type_that_is_not_loaded_stays_waiting(clean_server):
    """Nothing is popped and put back: the job of an unknown type has not been delivered, others pass it by."""
    with Worker(clean_server.url, [double]) as worker:
        stranger = worker.submit("from-tomorrow", {})
        assert worker.ended(worker.submit("double", {"n": 1})).state == "completed"

        seen = worker.look(stranger)
        assert (seen.state, seen.deliveries) == ("waiting", 0)


@pytest.mark.server("valkey")
def test_progress_reaches_the_store(clean_server):
    """The last word of a running handler is seen while it runs, even if its text is not all UTF-8."""
    release = threading.Event()

    @job("tell")
    def tell(payload, ctx):
        ctx.progress(0.1, "first")
        ctx.progress(0.5, "half \ud800 way")
        release.wait(10)

    with Worker(clean_server.url, [tell]) as worker:
        job_id = worker.submit("tell")
        seen = worker.until(job_id, lambda seen: "half" in " ".join(seen.fields.values()))
        release.set()
        assert "0.5 half" in " ".join(seen.fields.values())
        assert worker.ended(job_id).state == "completed"


@pytest.mark.server("valkey")
def test_every_partition_is_served(clean_server):
    """Jobs of both partitions are picked up at once, though one has a backlog."""
    with Worker(clean_server.url, [double], partitions=2, concurrency=2) as worker:
        many = worker.submit_many("double", [{"n": 1}] * 200, partition=0)
        few = [worker.submit("double", {"n": 1}, partition=1) for _ in range(5)]
        assert {seen.state for seen in worker.all_ended(few)} == {"completed"}
        assert {seen.state for seen in worker.all_ended(many)} == {"completed"}
        assert worker.drain()
