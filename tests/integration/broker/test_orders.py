"""Orders of operators, as a running worker follows them: pauses, limiters and concurrency that change under load."""

from __future__ import annotations

import threading
import time

import pytest

from support.eventually import eventually
from support.worker import Hands, Worker
from taskmaster.engine.limits import LimitRule, put_limit
from taskmaster.engine.queue_rules import QueueChange, TypeChange, change_queue, change_type
from taskmaster.engine.rules import Word, set_pause
from taskmaster_sdk import job

pytestmark = pytest.mark.server("valkey")
ANN = Word("ann", "a test")


class Gauge:
    """How many handlers are inside now, and were at most."""

    def __init__(self) -> None:
        self.now = self.most = 0
        self.lock = threading.Lock()
        self.release = threading.Event()

    def __enter__(self) -> None:
        with self.lock:
            self.now += 1
            self.most = max(self.most, self.now)

    def __exit__(self, *_: object) -> None:
        with self.lock:
            self.now -= 1


def nap(gauge: Gauge, name: str = "nap", **options):
    @job(name, **options)
    def handler(payload, ctx):
        with gauge:
            gauge.release.wait(20)

    return handler


def short(gauge: Gauge, name: str = "short", **options):
    @job(name, **options)
    def handler(payload, ctx):
        with gauge:
            time.sleep(0.002)

    return handler


def test_a_paused_queue_stops_under_load_and_goes_on(clean_server):
    """What runs ends, nothing begins until it is resumed, and then all of it is done."""
    gauge = Gauge()
    with Worker(clean_server.url, [short(gauge)]) as worker:
        ids = worker.submit_many("short", [None] * 400)
        eventually(lambda: worker.counters().get("default/c"))
        worker.order(set_pause("q/default", "pause", 1, ANN))
        eventually(lambda: worker.counters().get("default/a", 0) == 0)
        stood = worker.counters().get("default/c", 0)
        more = worker.submit_many("short", [None] * 10)
        worker.consumers[0].wake()
        assert all(seen.deliveries == 0 for seen in map(worker.look, more))
        assert worker.counters().get("default/c", 0) == stood < 400
        worker.order(set_pause("q/default", "resume", 1, ANN))

        assert {seen.state for seen in worker.all_ended([*ids, *more])} == {"completed"}


def test_a_resumed_type_wakes_who_sleeps(clean_server):
    """Nobody polls: the job begins when the pause ends, not when a sleeper's own clock rings."""
    gauge = Gauge()
    with Worker(clean_server.url, [short(gauge)]) as worker:
        worker.order(set_pause("t/short", "pause", 1, ANN))
        job_id = worker.submit("short")
        eventually(lambda: all(not consumer.ready for consumer in worker.consumers))
        assert worker.state(job_id) == "waiting"
        began = time.monotonic()
        worker.order(set_pause("t/short", "resume", 1, ANN))
        worker.ended(job_id)

        assert time.monotonic() - began < 2.5, "a consumer's own clock rings after 4 to 6 s"


@pytest.mark.parametrize("through", ["queue", "declared", "ordered", "job"])
def test_one_slot_is_one_attempt_over_all_workers(clean_server, through):
    """However the limiter comes to the job, two processes never run two at once, and all of it gets done."""
    gauge = Gauge()
    declared = {"limits": ["one"]} if through == "declared" else {}
    with Worker(clean_server.url, [short(gauge, **declared)]) as one, Worker(clean_server.url, [short(gauge, **declared)]):
        one.order(put_limit("one", LimitRule(kind="concurrency", max=1), ANN, partitions=1))
        if through == "queue":
            one.order(change_queue("default", QueueChange(limits=("one",)), ANN, partitions=1))
        elif through == "ordered":
            one.order(change_type("short", TypeChange(limits=("one",)), ANN, partitions=1))
        ids = one.submit_many("short", [None] * 60, lane="~one" if through == "job" else "")

        assert {seen.state for seen in one.all_ended(ids)} == {"completed"}
        assert gauge.most == 1


def test_a_changed_limit_wakes_waiting_jobs(clean_server):
    """Nothing ends and nobody polls: the wider rule itself lets the next ones begin."""
    gauge = Gauge()
    with Worker(clean_server.url, [nap(gauge)], concurrency=8) as worker:
        worker.order(put_limit("few", LimitRule(kind="concurrency", max=1), ANN, partitions=1))
        ids = worker.submit_many("nap", [None] * 6, lane="~few")
        eventually(lambda: gauge.now == 1)
        began = time.monotonic()
        worker.order(put_limit("few", LimitRule(kind="concurrency", max=4), ANN, partitions=1))
        eventually(lambda: gauge.now == 4)
        waited = time.monotonic() - began
        gauge.release.set()

        assert {seen.state for seen in worker.all_ended(ids)} == {"completed"}
        assert gauge.most == 4
        assert waited < 2.5, "a consumer's own clock rings after 4 to 6 s"


def test_concurrency_grows_and_shrinks_while_jobs_run(clean_server):
    """Workers follow within seconds; nothing that runs is lost, and nothing new begins until they are below the new number."""
    gauge = Gauge()
    with Worker(clean_server.url, [nap(gauge)], concurrency=2) as worker:
        ids = worker.submit_many("nap", [None] * 12)
        eventually(lambda: gauge.now == 2)
        worker.order(change_queue("default", QueueChange(concurrency=6), ANN, partitions=1))
        eventually(lambda: gauge.now == 6)
        worker.order(change_queue("default", QueueChange(concurrency=1), ANN, partitions=1))
        eventually(lambda: worker.process.worker.pools["default"].is_crowded)
        gauge.release.set()
        states = {seen.state for seen in worker.all_ended(ids)}
        pool = worker.process.worker.pools["default"]
        eventually(lambda: len(pool.threads) == 1)
        gauge.release.clear()
        again = worker.submit_many("nap", [None] * 3)
        eventually(lambda: gauge.now == 1)
        gauge.most = 1
        worker.order(change_queue("default", QueueChange(concurrency=None), ANN, partitions=1))
        eventually(lambda: gauge.now == 2)
        gauge.release.set()

        assert states == {seen.state for seen in worker.all_ended(again)} == {"completed"}
        assert gauge.most == 2
        assert {seen.deliveries - seen.handed_back for seen in map(worker.look, [*ids, *again])} == {1}


def test_concurrency_of_one_grows_too(clean_server):
    """A queue that one of the two consumers serves alone gets all its new slots there."""
    gauge = Gauge()
    with Worker(clean_server.url, [nap(gauge)], concurrency=1) as worker:
        ids = worker.submit_many("nap", [None] * 5)
        worker.order(change_queue("default", QueueChange(concurrency=5), ANN, partitions=1))
        eventually(lambda: gauge.now == 5)
        gauge.release.set()

        assert {seen.state for seen in worker.all_ended(ids)} == {"completed"}


def test_queues_share_slots_by_weight(clean_server):
    """Four at once in all: three of the one with weight 3, one of the other; what one has no jobs for is the other's."""
    first, second = Gauge(), Gauge()
    hands = Hands(clean_server.url)
    hands.order(change_queue("a", QueueChange(weight=3), ANN, partitions=1))
    ids = hands.submit_many("first", [None] * 6, queue="a") + hands.submit_many("second", [None] * 20, queue="b")

    with Worker(clean_server.url, [nap(first, "first", queue="a"), nap(second, "second", queue="b")], queue_groups={"a+b": 4}) as worker:
        eventually(lambda: first.now + second.now == 4)
        assert (first.now, second.now) == (3, 1)
        for gauge in (first, second):
            gauge.release.set()
        worker.all_ended(ids)
        second.release.clear()
        more = hands.submit_many("second", [None] * 4, queue="b")
        eventually(lambda: second.now == 4)
        second.release.set()
        assert {one.state for one in worker.all_ended(more)} == {"completed"}
    assert first.most <= 4
    hands.close()
