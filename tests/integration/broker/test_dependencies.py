"""Dependencies that fail, end to end: a worker, its breaker in the store, and a provider that counts its calls."""

from __future__ import annotations

import os
import threading
import time
from types import SimpleNamespace

import pytest

from support.eventually import eventually
from support.worker import Worker
from taskmaster.model.breaker import BreakerRule
from taskmaster.model.retry import Backoff
from taskmaster.store import breakers
from taskmaster.store.breakers import BreakerRow
from taskmaster.store.flow import Order
from taskmaster.store.status import Status
from taskmaster_sdk import DependencyDown, RateLimited, job

pytestmark = pytest.mark.server("valkey")
RULE = BreakerRule(minimum_calls=8, window_ms=5_000, cooldown_ms=200, cooldown_growth=1, probes=1, probes_max=8, retry_ratio=1)
SOON = Backoff("fixed", delay_ms=20)
#: How long the provider stays down at least, seconds; the long form is 60.
DOWN_S = float(os.environ.get("DOWN_S", "1"))


class Provider:
    """Counts its calls, and refuses them while it is down."""

    def __init__(self) -> None:
        self.is_up = True
        self.calls: list[bool] = []
        self.at_once = 0
        self.most_at_once = 0
        self._lock = threading.Lock()

    def call(self) -> None:
        with self._lock:
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
            is_up = self.is_up
            self.calls.append(is_up)
        try:
            threading.Event().wait(0.005)
            if not is_up:
                raise ConnectionError("the provider is down")
        finally:
            with self._lock:
                self.at_once -= 1


def breaker(worker: Worker) -> BreakerRow:
    (row,) = worker.store.run(breakers.breakers(0, "provider"))
    return row


@pytest.mark.timeout(120 + 3 * DOWN_S)
def test_a_dependency_down_under_load(clean_server):
    """Calls fall to the probes, no attempt is spent, recovery goes by steps, and in the end every job has completed at its first."""
    provider = Provider()

    @job("call", dependency="provider")
    def call(payload, ctx):
        provider.call()

    with Worker(clean_server.url, [call], concurrency=16) as worker:
        worker.store.run(breakers.put_breaker(0, "provider", RULE, Order("put", None, "test", "")))
        ids = worker.submit_many("call", [None] * 100, backoff=SOON)
        worker.all_ended(ids)
        provider.is_up = False
        ids = worker.submit_many("call", [None] * 400, backoff=SOON)
        eventually(lambda: breaker(worker).fields.get("state") == "open")
        eventually(lambda: not worker.held)
        before, provider.most_at_once = len(provider.calls), 0
        opened = int(breaker(worker).fields["opened"])
        down = time.monotonic()
        while time.monotonic() < down + DOWN_S or int(breaker(worker).fields["opened"]) < opened + 5:
            assert time.monotonic() < down + DOWN_S + 20, "nobody probes"
            ids += worker.submit_many("call", [None] * 5, backoff=SOON)
            threading.Event().wait(0.1)
        probes, rounds = len(provider.calls) - before, int(breaker(worker).fields["opened"]) - opened
        assert probes <= rounds + 1, "one call a cooldown"
        assert provider.most_at_once == 1
        seen = [worker.look(job_id) for job_id in ids]
        assert {one.failures for one in seen} == {0}
        assert {one.state for one in seen} <= {"waiting", "delayed", "active"}
        at = len(provider.calls)
        provider.is_up = True
        seen = worker.all_ended(ids, within_s=30)
        assert {(one.state, one.failures) for one in seen} == {("completed", 0)}
        assert {one.deliveries - one.handed_back for one in seen} == {1}
        assert provider.most_at_once > 8, "and then it is all there again"
        assert sum(provider.calls[at:]) == len(ids)
        print(f"down for {DOWN_S:g} s: {len(ids)} jobs, {probes} calls in {rounds} rounds of {RULE.cooldown_ms} ms, no attempt spent")
        assert breaker(worker).fields["state"] == "closed"


def test_recovery_goes_by_steps(clean_server):
    """1, 2, 4, 8 at a time while it is probed: the number at once never exceeds the step."""
    provider, gate = Provider(), threading.Semaphore(0)
    at_once: list[int] = []

    @job("call", dependency="provider")
    def call(payload, ctx):
        if not provider.is_up:
            raise DependencyDown("503")
        with provider._lock:
            provider.at_once += 1
            at_once.append(provider.at_once)
        gate.acquire()
        with provider._lock:
            provider.at_once -= 1

    with Worker(clean_server.url, [call], concurrency=32) as worker:
        worker.store.run(breakers.put_breaker(0, "provider", RULE, Order("put", None, "test", "")))
        provider.is_up = False
        ids = worker.submit_many("call", [None] * 60, backoff=SOON)
        eventually(lambda: breaker(worker).fields.get("state") == "open" and not worker.held)  # what was claimed before it has ended
        provider.is_up = True
        for step in (1, 2, 4, 8):
            eventually(lambda step=step: provider.at_once == step, what=f"{step} probes")
            assert breaker(worker).fields["probes"] == str(step)
            for _ in range(step):
                gate.release()
        eventually(lambda: provider.at_once > 8)
        for _ in ids:
            gate.release()
        assert {one.state for one in worker.all_ended(ids)} == {"completed"}


def test_a_429_holds_back_everybody_who_calls(clean_server):
    """One job is told to wait; a job of another type with the same dependency waits as well; no attempt is spent."""
    told, ran = [], []

    class TooManyError(Exception):
        response = SimpleNamespace(status_code=429, headers={"Retry-After": "2"})

    @job("first", dependency="provider")
    def first(payload, ctx):
        told.append(ctx.attempt)
        if len(told) == 1:
            raise TooManyError

    @job("second", dependency="provider")
    def second(payload, ctx):
        ran.append(ctx.attempt)

    with Worker(clean_server.url, [first, second]) as worker:
        one = worker.submit("first")
        held = worker.until(one, "delayed")
        assert (held.reason, held.failures, held.handed_back) == ("rate_limited", 0, 1)
        two = worker.submit("second")
        assert worker.look(two).state == "waiting"
        assert ran == []
        assert [worker.ended(job_id).state for job_id in (one, two)] == ["completed"] * 2
        assert told == [1, 1], "the second delivery is the first attempt still"


@pytest.mark.parametrize("isolation", ["thread", "process"])
def test_what_a_handler_says_reaches_the_breaker(clean_server, isolation):
    """Also from a child process: words, mapped errors, and those that say nothing."""

    @job("word", dependency="provider", isolation=isolation, errors={KeyError: "retry", "builtins.LookupError": "fatal"})
    def word(payload, ctx):
        raise {"down": DependencyDown("no"), "limited": RateLimited(60), "retry": KeyError("x"), "fatal": IndexError(), "other": OSError()}[
            payload["what"]
        ]

    with Worker(clean_server.url, [word]) as worker:
        ids = {
            what: worker.submit("word", {"what": what}, attempts=2, backoff=Backoff("fixed", delay_ms=60_000)) for what in ("down", "retry")
        }
        assert (worker.until(ids["down"], "delayed").reason, worker.look(ids["down"]).failures) == ("dependency_down", 0)
        assert (worker.until(ids["retry"], "delayed").reason, worker.look(ids["retry"]).failures) == ("retrying", 1)
        assert worker.ended(worker.submit("word", {"what": "fatal"})).state == "failed"
        assert worker.look(ids["down"]).failure.message == "no"
        assert worker.look(ids["down"]).rows[0]["outcome"] == "dependency_down"
        assert (breaker(worker).calls, breaker(worker).failures) == (1, 1)
        other = worker.submit("word", {"what": "other"}, backoff=Backoff("fixed", delay_ms=60_000))
        assert worker.until(other, "delayed").failures == 1
        assert (breaker(worker).calls, breaker(worker).failures) == (2, 2)
        limited = worker.submit("word", {"what": "limited"})
        assert worker.until(limited, "delayed").reason == "rate_limited"
        assert breaker(worker).fields["how"] == "rate_limited"


@pytest.mark.parametrize("how", ["thread", "process", "coroutine"])
def test_a_fallback_runs_while_the_breaker_is_open(clean_server, how):
    """In place of the handler, with the same payload; its result is marked. Afterwards the handler runs again, and nothing is marked."""

    def handler(payload, ctx):
        return {"by": "handler", "n": payload["n"]}

    def instead(payload, ctx):
        return {"by": "fallback", "n": payload["n"], "attempt": ctx.attempt}

    async def handler_async(payload, ctx):
        return handler(payload, ctx)

    async def instead_async(payload, ctx):
        return instead(payload, ctx)

    is_async = how == "coroutine"
    declare = job(
        "quote",
        dependency="provider",
        fallback=instead_async if is_async else instead,
        isolation="process" if how == "process" else "thread",
    )
    with Worker(clean_server.url, [declare(handler_async if is_async else handler)]) as worker:
        order = Order("open", None, "test", "")
        opened = lambda: worker.store.run(breakers.force(0, "provider", "open", order)).status in (Status.OK, Status.ALREADY)  # noqa: E731
        eventually(opened, what="the worker has told the store of its dependency, which is open")
        seen = worker.ended(worker.submit("quote", {"n": 1}))
        assert (seen.state, seen.result, seen.fields.get("fb")) == ("completed", {"by": "fallback", "n": 1, "attempt": 1}, "1")
        worker.store.run(breakers.force(0, "provider", "close", order._replace(op="close")))
        seen = worker.ended(worker.submit("quote", {"n": 2}))
        assert (seen.result, seen.fields.get("fb")) == ({"by": "handler", "n": 2}, None)
