"""A hook that raises is heard: before an attempt nothing runs, after one nothing is acknowledged, and no thread is lost."""

from __future__ import annotations

import threading
from collections import Counter

import pytest
from dramatiq.middleware import Middleware, SkipMessage

from support.eventually import eventually
from support.worker import Worker
from taskmaster.broker import threads
from taskmaster.broker.middleware import AttemptContext, DeadLetter, Idempotency, Outcome
from taskmaster_sdk import job

pytestmark = pytest.mark.server("valkey")


class Extra(Middleware):
    """One of the operator's own."""

    def before_process_message(self, broker, message):
        pass

    def after_process_message(self, broker, message, *, result=None, exception=None):
        pass


class Worst(BaseException):
    pass


def saboteur(monkeypatch, owner: type, hook: str, error: BaseException) -> threading.Event:
    """Make *hook* of *owner* raise until the event is set."""
    mended = threading.Event()
    usual = getattr(owner, hook)

    def raise_(self, *args, **named):
        if not mended.is_set():
            raise error
        return usual(self, *args, **named)

    monkeypatch.setattr(owner, hook, raise_)
    return mended


def handlers(runs: Counter[str]):
    @job("sync")
    def sync(payload, ctx):
        runs["sync"] += 1

    @job("async")
    async def async_(payload, ctx):
        runs["async"] += 1

    return [sync, async_]


def noted(worker: Worker) -> set[tuple[str, str]]:
    """Attempts that count as running: only the guard's own hook can leave one behind."""
    (guard,) = (middleware for middleware in worker.process.broker.middleware if isinstance(middleware, Idempotency))
    return guard._running


@pytest.mark.parametrize("owner", [AttemptContext, Idempotency, Extra])
@pytest.mark.parametrize("error", [ValueError("broken"), SkipMessage("skipped"), Worst("worst"), SystemExit(1)])
@pytest.mark.parametrize("type_", ["sync", "async"])
def test_a_guard_that_raises_lets_nothing_run(clean_server, monkeypatch, owner, error, type_):
    """The attempt is handed back, burning nothing; once the guard is mended the job runs, on threads that are still there."""
    monkeypatch.setattr(threads, "NOT_RUN_DELAY_MS", 100)
    runs: Counter[str] = Counter()
    mended = saboteur(monkeypatch, owner, "before_process_message", error)

    with Worker(clean_server.url, handlers(runs), middleware=[Extra()], concurrency=1) as worker:
        job_id = worker.submit(type_)
        seen = worker.until(job_id, lambda seen: seen.handed_back >= 2)
        assert not runs
        assert seen.failures == 0
        mended.set()
        assert worker.ended(job_id).state == "completed"
        assert runs[type_] == 1
        assert worker.process.is_whole
        assert not noted(worker)
        assert worker.drain()


@pytest.mark.parametrize("owner", [AttemptContext, Idempotency, DeadLetter, Outcome, Extra])
@pytest.mark.parametrize("error", [ValueError("broken"), Worst("worst")])
@pytest.mark.parametrize("type_", ["sync", "async"])
def test_an_end_that_cannot_be_judged_is_not_acknowledged(clean_server, monkeypatch, owner, error, type_):
    """The job stays active until its lease runs out; the process lets go of it, and its slot and thread take the next job."""
    runs: Counter[str] = Counter()
    mended = saboteur(monkeypatch, owner, "after_process_message", error)

    with Worker(clean_server.url, handlers(runs), middleware=[Extra()], concurrency=1) as worker:
        job_id = worker.submit(type_)
        eventually(lambda: runs[type_] == 1)
        eventually(lambda: not worker.held, what="the process lets go")
        mended.set()
        assert worker.ended(worker.submit(type_)).state == "completed"
        seen = worker.look(job_id)
        assert (seen.state, seen.body) == ("active", b"")
        assert len(noted(worker)) == (owner is Idempotency)
        assert worker.drain()


def test_an_unacknowledged_attempt_comes_back_when_its_lease_is_out(clean_server, monkeypatch):
    """Nobody extends the lease of what was let go of: it counts as lost, and another process runs it."""
    runs: Counter[str] = Counter()
    mended = saboteur(monkeypatch, Outcome, "after_process_message", ValueError("broken"))

    with (
        Worker(clean_server.url, handlers(runs), lease_ms=1_000) as worker,
        Worker(clean_server.url, handlers(runs), lease_ms=1_000, suspects=True),
    ):
        job_id = worker.submit("sync")
        eventually(lambda: runs["sync"] == 1)
        mended.set()
        seen = worker.ended(job_id, 15)

        assert (seen.state, seen.losses, seen.deliveries) == ("completed", 1, 2)
        assert runs["sync"] == 2


def test_threads_that_die_at_their_boot_are_replaced(clean_server, monkeypatch):
    """A hook of the thread's own boot that raises costs that thread, not the pool: what waited is run by the next."""
    monkeypatch.setattr(threading, "excepthook", lambda args: None)
    left = [2]
    runs: Counter[str] = Counter()

    class Moody(Middleware):
        def after_worker_thread_boot(self, broker, thread):
            if left[0]:
                left[0] -= 1
                raise Worst("not today")

    with Worker(clean_server.url, handlers(runs), middleware=[Moody()], concurrency=1) as worker:
        assert worker.ended(worker.submit("sync")).state == "completed"
        assert left == [0]


def test_a_consumer_that_dies_at_its_boot_is_noticed(clean_server, monkeypatch):
    """A process that can fetch nothing any more says so, and is replaced by its supervisor."""
    monkeypatch.setattr(threading, "excepthook", lambda args: None)

    class Moody(Middleware):
        def after_consumer_thread_boot(self, broker, thread):
            raise Worst("not today")

    worker = Worker(clean_server.url, handlers(Counter()), middleware=[Moody()])
    try:
        worker.process.start({})
        eventually(lambda: not worker.process.is_whole)
    finally:
        worker.process.stop()
        worker.close()
