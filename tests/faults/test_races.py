"""F51-F53: cancel against completion, claim and retry, and an end against the reaper: one of the two wins, and the answer was true."""

from __future__ import annotations

import threading
import time
from collections import Counter
from random import Random
from typing import Any

import pytest

from support.eventually import eventually
from support.worker import Hands, Worker
from taskmaster.model.retry import Backoff
from taskmaster.store import upkeep
from taskmaster.store.status import Status
from taskmaster_sdk import JobContext, job

pytestmark = pytest.mark.server("valkey")
ROUNDS = 300


class Runs:
    """When attempts began, by job."""

    def __init__(self) -> None:
        self.began: dict[str, list[float]] = {}
        self._lock = threading.Lock()

    def note(self, job_id: str) -> None:
        with self._lock:
            self.began.setdefault(job_id, []).append(time.monotonic())


def judge(hands: Hands, runs: Runs, answers: dict[str, tuple[Any, float]], ends: set[str]) -> Counter[str]:
    """Each answer fits the end of its job; how often which pair came up."""
    pairs: Counter[str] = Counter()
    for job_id, (said, at) in answers.items():
        seen = hands.ended(job_id, 20)
        pairs[f"{said.status.name} {seen.state}"] += 1
        if said.status is Status.OK:
            assert seen.state == "cancelled"
            assert all(began < at for began in runs.began.get(job_id, [])), "began after it was said to be cancelled"
        elif said.status is Status.CONFLICT:
            assert seen.state in ends
        else:
            assert said.status is Status.CANCELLING
            assert seen.state in ends | {"cancelled"}
    assert not {name: n for name, n in hands.counters().items() if name.startswith("default/") and name[-1] in "wda" and n}
    return pairs


def cancel_each(hands: Hands, ids: list[str], dice: Random, most_s: float) -> dict[str, tuple[Any, float]]:
    """Cancel them in any order, at moments of chance."""
    answers = {}
    for job_id in dice.sample(ids, len(ids)):
        threading.Event().wait(dice.uniform(0, most_s))
        answers[job_id] = hands.cancel(job_id), time.monotonic()
    return answers


def test_cancel_against_claim_and_completion(clean_server) -> None:
    """Three hundred jobs of 3 ms each, cancelled in any order while they run in theirs."""
    runs = Runs()

    @job("quick")
    def quick(payload: dict[str, Any], ctx: JobContext) -> None:
        runs.note(ctx.job_id)
        time.sleep(0.003)

    with Worker(clean_server.url, [quick], concurrency=2) as worker, Worker(clean_server.url, [quick], concurrency=1):
        other = Hands(clean_server.url)
        answers: dict[str, tuple[Any, float]] = {}
        ids = worker.submit_many("quick", [{}] * ROUNDS)
        canceller = threading.Thread(target=lambda: answers.update(cancel_each(other, ids, Random(51), 0.003)))
        canceller.start()
        canceller.join(60)

        pairs = judge(worker, runs, answers, {"completed"})
        assert sum(pairs.values()) == ROUNDS
        assert pairs["OK cancelled"] > 10
        assert pairs["CONFLICT completed"] + pairs["CANCELLING completed"] + pairs["CANCELLING cancelled"] > 10
        other.close()


def test_cancel_against_retry_and_promotion(clean_server) -> None:
    """Jobs that fail and come back every few milliseconds are cancelled between two attempts, or within one."""
    runs = Runs()

    @job("again")
    def again(payload: dict[str, Any], ctx: JobContext) -> None:
        runs.note(ctx.job_id)
        raise ValueError("again")

    with Worker(clean_server.url, [again], concurrency=4) as worker:
        ids = worker.submit_many("again", [{}] * 100, attempts=50, backoff=Backoff(kind="fixed", delay_ms=15))
        eventually(lambda: len(runs.began) == 100)

        answers = cancel_each(worker, ids, Random(52), 0.004)

        pairs = judge(worker, runs, answers, {"failed"})
        assert pairs["OK cancelled"] > 10


def test_a_failure_against_the_reaper(clean_server) -> None:
    """Nobody extends, and handlers fail just when their leases run out: each attempt counts once, as failed or as lost."""

    @job("late")
    def late(payload: dict[str, Any], ctx: JobContext) -> str:
        if ctx.attempt > 1:
            return "done"
        time.sleep(payload["s"])
        raise ValueError("late")

    with (
        Worker(clean_server.url, [late], lease_ms=1_000, concurrency=24) as worker,
        Worker(clean_server.url, [late], lease_ms=1_000, suspects=True),
    ):
        worker.process._heart.stop()
        payloads = [{"s": 1.2 + 0.03 * n} for n in range(24)]  # lease 1 s, grace 0.5 s, a tick each second
        ids = worker.submit_many("late", payloads, backoff=Backoff(kind="fixed", delay_ms=10))

        ends = worker.all_ended(ids, 30)

        outcomes = Counter(str([row["outcome"] for row in seen.rows]) for seen in ends)
        assert set(outcomes) <= {"['failed', 'completed']", "['lost', 'completed']"}
        assert all((seen.deliveries, seen.failures + seen.losses) == (2, 1) for seen in ends)
        counters = worker.counters()
        assert counters.get("late/default/lost", 0) + counters.get("late/default/attempts_failed", 0) == 24


def test_a_handler_hears_that_its_lease_was_lost(clean_server) -> None:
    """The next heartbeat of an attempt that is not the job's any more asks it to stop: nothing that it does will count."""
    began, heard = threading.Event(), threading.Event()

    @job("held")
    def held(payload: dict[str, Any], ctx: JobContext) -> str:
        if ctx.attempt > 1:
            return "second"
        began.set()
        deadline = time.monotonic() + 15
        while not ctx.cancelled and time.monotonic() < deadline:
            time.sleep(0.01)
        if ctx.cancelled:
            heard.set()
        return "first"

    with Worker(clean_server.url, [held], lease_ms=1_500) as worker:
        job_id = worker.submit("held")
        assert began.wait(10)
        (wid,) = {message.token.partition(".")[0] for message in eventually(lambda: worker.held)}
        worker.store.raw().zadd("tm:{0}:active", {job_id: 0})
        worker.store.run(upkeep.reap(0, grace_ms=0, losses=3, key_window_ms=1_000))
        assert heard.wait(10), f"{wid} goes on"
        with Worker(clean_server.url, [held], lease_ms=1_500, suspects=True):
            seen = worker.ended(job_id)
        assert (seen.result, seen.losses) == ("second", 1)
