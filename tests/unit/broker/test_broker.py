"""The broker under Dramatiq's interfaces: hooks are heard, actors send, messages equal Dramatiq's own."""

from __future__ import annotations

import inspect
import json
import math
import os
import threading
import time
from types import SimpleNamespace
from typing import Any

import dramatiq
import msgspec
import pytest
import structlog
from dramatiq.broker import MessageProxy
from dramatiq.errors import QueueNotFound
from dramatiq.middleware import Middleware
from dramatiq.worker import ConsumerThread, Worker, WorkerThread

from support.worker import registry_of
from taskmaster.broker import pools, threads
from taskmaster.broker.broker import HandlerActor, NotRun, TaskMasterBroker, partition_queue
from taskmaster.broker.consumer import PartitionConsumer
from taskmaster.broker.identity import Identity
from taskmaster.broker.journal import Journal
from taskmaster.broker.loop import EventLoop
from taskmaster.broker.message import JobMessage, open_envelope
from taskmaster.broker.middleware import AttemptContext, Idempotency
from taskmaster.broker.slots import Slots
from taskmaster.model.ids import created_ms, new_job_id
from taskmaster.model.job import Envelope
from taskmaster.store import calls
from taskmaster.store.status import Status
from taskmaster.telemetry.meters import WorkerMeter
from taskmaster_sdk import job
from taskmaster_sdk.testing import Shelf

NOW_MS = 1_790_000_000_000


@job("echo")
def echo(payload, ctx):
    return payload


@job("echo-async")
async def echo_async(payload, ctx):
    return payload


def broker_of(*middleware: Middleware, enqueue=None, make_consumer=lambda *_: None) -> TaskMasterBroker:
    return TaskMasterBroker(
        registry_of([echo, echo_async]), partitions=2, halves=2, make_consumer=make_consumer, middleware=middleware, enqueue=enqueue
    )


def claim_of(type_: str = "echo", payload: Any = None, **facts: Any) -> calls.Claim:
    blob = msgspec.json.encode(Envelope(type_, msgspec.Raw(json.dumps(payload or {}).encode())))
    fields: dict[str, Any] = {
        "id": new_job_id(NOW_MS),
        "queue": "default",
        "epoch": 1,
        "attempt": 1,
        "failures": 0,
        "due_ms": 0,
        "blob": blob,
    }
    return calls.Claim(**fields | facts)


def no_guards(_):
    """For attempts that ask for no effect."""
    raise AssertionError


def message_of(broker: TaskMasterBroker, claim: calls.Claim | None = None, token: str = "w.1") -> JobMessage:
    claim = claim or claim_of()
    envelope = open_envelope(claim.blob)
    actor: Any = broker.actors[envelope.type]
    consumer: Any = SimpleNamespace(queue_name=partition_queue(0, 0), slots=Slots([(1, ["default"])]), ack=lambda message: None)
    return JobMessage(claim, envelope, actor, consumer, token, NOW_MS, time.monotonic())


# ---------------------------------------------------------------- hooks
class Noted(Middleware):
    def __init__(self, name: str, notes: list[str], error: BaseException | None = None) -> None:
        self.name, self.notes, self.error = name, notes, error

    def before_process_message(self, broker, message):
        self.notes.append(f"before {self.name}")
        if self.error:
            raise self.error

    def after_process_message(self, broker, message, *, result=None, exception=None):
        self.notes.append(f"after {self.name} {result}")
        if self.error:
            raise self.error


def test_hooks_run_in_order_and_after_an_attempt_in_reverse():
    """Whoever comes first before an attempt comes last after it."""
    notes: list[str] = []
    broker = broker_of(Noted("a", notes), Middleware(), Noted("b", notes))

    broker.emit_before("process_message", None)
    broker.emit_after("process_message", None, result=7)

    assert notes == ["before a", "before b", "after b 7", "after a 7"]


@pytest.mark.parametrize("error", [ValueError("x"), NotRun("y"), KeyboardInterrupt()])
def test_what_a_hook_raises_goes_to_the_caller(error):
    """It is not swallowed, and hooks behind it are not called."""
    notes: list[str] = []
    broker = broker_of(Noted("a", notes, error), Noted("b", notes))

    with pytest.raises(type(error)):
        broker.emit_before("process_message", None)
    with pytest.raises(type(error)):
        broker.emit_after("process_message", None)

    assert notes == ["before a", "after b None", "after a None"]


def test_empty_hooks_are_not_called(monkeypatch):
    """A middleware pays only for the hooks that it overrides."""
    called = []
    broker = broker_of(Middleware())
    monkeypatch.setattr(Middleware, "before_process_message", lambda *_: called.append(True))
    broker._hooks.clear()
    broker.emit_before("process_message", None)

    assert not called


def test_a_middleware_that_comes_later_is_called():
    """What is known of overridden hooks is forgotten when one is added."""
    notes: list[str] = []
    broker = broker_of()
    broker.emit_before("process_message", None)
    broker.add_middleware(Noted("late", notes))
    broker.emit_before("process_message", None)

    assert notes == ["before late"]


# ---------------------------------------------------------------- queues, actors, messages
def test_each_consumer_of_a_partition_is_a_queue_of_dramatiqs():
    """Consuming asks for that partition and that half; anything else is no queue."""
    asked = []
    broker = broker_of(make_consumer=lambda broker, *which: asked.append(which))

    assert broker.get_declared_queues() == {partition_queue(p, h) for p in (0, 1) for h in (0, 1)}
    broker.consume(partition_queue(1, 0))
    assert asked == [(1, 0)]
    with pytest.raises(QueueNotFound):
        broker.consume("default")


def test_sending_through_an_actor_submits():
    """`actor.send` hands a Dramatiq message with the payload and the delay to whoever submits."""
    sent = []
    broker = broker_of(enqueue=lambda message, delay: sent.append((message, delay)))

    message = broker.actors["echo-async"].send({"n": 1})
    broker.actors["echo"].send_with_options(args=({"n": 2},), delay=250)

    assert message.actor_name == "echo-async"
    assert [(m.actor_name, m.args, delay) for m, delay in sent] == [("echo-async", ({"n": 1},), 0), ("echo", ({"n": 2},), 250)]


def test_sending_without_a_way_to_submit_says_so():
    """A worker that was built without one does not lose the message silently."""
    with pytest.raises(RuntimeError, match="without a way to submit"):
        broker_of().actors["echo"].send({})


def test_an_actor_calls_the_handler_as_declared():
    """Dramatiq's own wrapper would put a coroutine on a thread."""
    actors: Any = broker_of().actors

    assert isinstance(actors["echo"], HandlerActor)
    assert actors["echo"].call is echo.fn
    assert inspect.iscoroutinefunction(actors["echo-async"].call)
    assert (actors["echo"].is_async, actors["echo-async"].is_async) == (False, True)


def test_a_lazy_message_equals_a_real_one():
    """Field by field, and as a whole, it is the message that Dramatiq would have made."""
    claim = claim_of(payload={"n": [1, None]})
    message = message_of(broker_of(), claim)
    args = ({"n": [1, None]},)
    real: dramatiq.Message[Any] = dramatiq.Message(partition_queue(0, 0), "echo", args, {}, {}, claim.id, created_ms(claim.id))

    assert message.message == real
    assert message.message.encode() == real.encode()
    for name in ("queue_name", "actor_name", "args", "kwargs", "options", "message_id", "message_timestamp"):
        assert getattr(message, name) == getattr(real, name)
    message.fail()
    message.stuff_exception(ValueError())
    message.clear_exception()
    assert message.failed
    assert set(dir(MessageProxy)) <= set(dir(message)) | {"__getattr__"}


def test_the_attributes_of_a_message_are_plain():
    """A class that looks up unknown ones, as Dramatiq's proxy does, has no short ways to any: a tenth of an attempt's time."""
    assert not hasattr(JobMessage, "__getattr__")


def test_the_private_hooks_of_dramatiq_are_there():
    """What broker/threads.py overrides without a promise exists in the pinned version, with the signatures that it relies on."""
    assert dramatiq.__version__.startswith("2.2.")
    assert list(inspect.signature(Worker._add_consumer).parameters) == ["self", "queue_name", "delay"]
    assert list(inspect.signature(Worker._add_worker).parameters) == ["self"]
    assert {"broker", "queue_name", "prefetch", "work_queue", "worker_timeout"} <= set(inspect.signature(ConsumerThread).parameters)
    assert {"broker", "consumers", "work_queue", "worker_timeout"} <= set(inspect.signature(WorkerThread).parameters)
    for method in ("handle_message", "handle_delayed_messages", "stop", "close"):
        assert callable(getattr(ConsumerThread, method))


# ---------------------------------------------------------------- guards
def test_an_attempt_under_an_uncertain_lease_does_not_begin():
    """Two thirds of a lease without word from the store is too long."""
    guard, broker = Idempotency(lease_ms=3_000), broker_of()
    message = message_of(broker)
    message.confirmed_at = time.monotonic() - 2.1

    with pytest.raises(NotRun, match="lease_uncertain"):
        guard.before_process_message(broker, message)
    message.confirmed_at = time.monotonic() - 1.5
    guard.before_process_message(broker, message)


def test_an_attempt_begins_once():
    """The same claim does not run twice at a time; another claim of the same job may."""
    guard, broker, claim = Idempotency(3_000), broker_of(), claim_of()
    first, again, other = (message_of(broker, claim, token) for token in ("w.1", "w.1", "w.2"))
    guard.before_process_message(broker, first)

    with pytest.raises(NotRun, match="already_running"):
        guard.before_process_message(broker, again)
    guard.before_process_message(broker, other)
    guard.after_process_message(broker, first)
    guard.before_process_message(broker, again)


def test_a_cancelled_attempt_does_not_begin():
    """A cancel that came before there was a context stops the attempt at its door."""
    broker = broker_of()
    message = message_of(broker)
    message.cancelled_at = time.monotonic()

    with pytest.raises(NotRun, match="cancelled"):
        AttemptContext(lambda *_: None, no_guards, Shelf(), lambda *_: None, None).before_process_message(broker, message)


# ---------------------------------------------------------------- threads and loop
def test_a_pool_never_starts_more_threads_than_its_size(monkeypatch):
    """Several consumers and the heartbeat may look for a free place at the same instant."""

    class SlowToMake(pools.JobThread):
        def __init__(self, **named):
            time.sleep(0.005)
            super().__init__(**named)

    monkeypatch.setattr(pools, "JobThread", SlowToMake)
    worker: Any = SimpleNamespace(broker=broker_of(), work_queue=None)
    pool = pools.Pool(worker, "default", 3)
    racers = [threading.Thread(target=pool.nudge) for _ in range(12)]
    try:
        for racer in racers:
            racer.start()
        for racer in racers:
            racer.join()
        assert len(pool.threads) == 3
    finally:
        pool.stop()
        for thread in pool.threads:
            thread.join(5)
    assert not any(thread.is_alive() for thread in pool.threads)


def test_a_system_without_threads_leaves_the_work_waiting(monkeypatch):
    """A thread that cannot be started is no place taken: what waits can be handed back, or begun later."""
    monkeypatch.setattr(pools.JobThread, "start", lambda self: (_ for _ in ()).throw(RuntimeError("can't start new thread")))
    broker = broker_of()
    worker: Any = SimpleNamespace(broker=broker, work_queue=None)
    pool = pools.Pool(worker, "default", 1)

    pool.put([message_of(broker)], are_short=False)

    assert (len(pool), pool.threads) == (1, [])


def test_only_what_lies_gets_one_thread_more(monkeypatch):
    """Threads that are awake work off what has just come: one more would only take the interpreter from them."""
    broker, woken = broker_of(), list[bool]()
    worker: Any = SimpleNamespace(broker=broker, work_queue=None)
    pool = pools.Pool(worker, "default", 2)
    worker.pools = {"default": pool}
    monkeypatch.setattr(pool, "nudge", lambda: woken.append(True))
    message = message_of(broker)
    pool.put([message], are_short=True)
    woken.clear()

    threads.JobWorker.hand_back_unstarted(worker)
    assert not woken

    message.claimed_at -= 2 * threads.LYING_S
    threads.JobWorker.hand_back_unstarted(worker)
    assert woken == [True]


def test_what_lies_behind_a_job_that_is_not_short_gets_a_thread_with_what_comes_next(monkeypatch):
    """Jobs of a queue were short, and now one is not: the others need not wait for its end, nor for the heartbeat."""
    broker, woken = broker_of(), list[bool]()
    worker: Any = SimpleNamespace(broker=broker, work_queue=None)
    pool = pools.Pool(worker, "default", 2)
    monkeypatch.setattr(pool, "nudge", lambda: woken.append(True))
    thread: Any = SimpleNamespace(began_at=time.monotonic())
    pool.threads.append(thread)

    pool.put([message_of(broker)], are_short=True)
    assert not woken

    thread.began_at -= 2 * pools.HELD_UP_S
    pool.put([message_of(broker)], are_short=True)
    assert woken == [True]


@pytest.mark.parametrize("is_isolated", [False, True])
def test_a_thread_says_since_when_it_is_in_a_job(is_isolated):
    """In a handler, and waiting for one that runs in another process; afterwards it is in none."""
    seen: list[float] = []
    before = time.monotonic()

    def look(*_):
        seen.append(thread.began_at)

    message = message_of(broker_of())
    message.actor.is_isolated, message.actor.call = is_isolated, look
    worker: Any = SimpleNamespace(admit=lambda _: True, run_isolated=look, settle=lambda *_: None, interrupting=threading.Lock())
    thread = pools.JobThread(broker=broker_of(), consumers={}, work_queue=None, worker_timeout=1_000)
    thread.worker = worker

    thread.process_message(message)

    assert before <= seen[0] <= time.monotonic()
    assert thread.began_at == math.inf


def test_a_loop_stops_before_it_started_and_twice():
    """Stopping works at any time."""
    nothing: Any = None
    idle = EventLoop(nothing)
    idle.stop()
    idle.stop()
    ran = EventLoop(nothing)
    ran.start()
    ran.stop()
    ran.stop()
    assert not ran.is_alive


# ---------------------------------------------------------------- the consumer's own rules, over a store that says what it is told to
class FakeStore:
    """Runs calls by functions. The inbox has what is in `markers`."""

    def __init__(self) -> None:
        self.calls: list[tuple] = []
        self.during = lambda: None
        self.answer = calls.Cycle(Status.OK, NOW_MS)
        self.markers: list[str] = []
        self._readable, self._sends = os.pipe()
        self._is_closed = False

    def channel(self):
        return self

    def run(self, call, *, within_s=0.0, give_up=None):
        self.calls.append((call.script.name, call.args))
        if call.script.name == "register":
            return calls.Registration("g", NOW_MS)
        self.during()
        return self.answer

    def inbox(self, partition, wid):
        inbox = SimpleNamespace(answers_by=0.0, is_connected=True, fileno=lambda: self._readable, take=self._take, close=lambda: None)
        inbox.ask = lambda block_s: setattr(inbox, "answers_by", math.inf)
        inbox.is_overdue = lambda now: False
        return inbox

    def put(self, marker):
        self.markers.append(marker)
        os.write(self._sends, b"!")

    def _take(self):
        os.read(self._readable, 1)
        return self.markers.pop(0)

    def close(self):
        if not self._is_closed:
            self._is_closed = True
            os.close(self._readable)
            os.close(self._sends)


@pytest.fixture
def store():
    return FakeStore()


@pytest.fixture
def consumer(store):
    identity = Identity("cap", "{}", "{}", ("echo",), (), 30_000, 30_000)
    made = PartitionConsumer(
        broker_of(), store, 0, 0, identity, Slots([(4, ["default"])]), calls.Limits(), lambda wid, partition: None, WorkerMeter(), Journal()
    )
    yield made
    made.close()


def test_a_wake_up_during_a_call_is_not_forgotten(store, consumer):
    """The marker may overtake the answer of the round that went to sleep: there is another round at once."""
    store.during = consumer.wake
    assert next(consumer) is None
    store.during = lambda: None
    rounds = len(store.calls)
    assert next(consumer) is None

    assert len(store.calls) == rounds + 1


def test_cancelling_is_heard_between_rounds(store, consumer):
    """Also by a consumer that has always something to ask for, and never sleeps."""
    store.answer = calls.Cycle(Status.OK, NOW_MS, claims=(claim_of(),), more=True)
    message = next(consumer)
    store.answer = calls.Cycle(Status.OK, NOW_MS, more=True)
    store.put(f"c/{message.claim.id}")
    seen = []
    for _ in range(2):
        next(consumer)
        seen.append(message.is_cancelled)

    assert seen[-1]


def test_a_marker_ends_the_sleep_with_a_round(store, consumer):
    """Whoever waits for the next attempt gets it at once."""
    assert next(consumer) is None
    store.answer = calls.Cycle(Status.OK, NOW_MS, claims=(claim_of(),))
    store.put("w")

    assert next(consumer) is not None


def test_a_zombie_and_its_successor_are_told_apart(store, consumer):
    """The end of the one does not let go of the other."""
    claim = claim_of()
    for _ in range(2):
        store.answer = calls.Cycle(Status.OK, NOW_MS, claims=(claim,), more=True)
        assert next(consumer) is not None
    zombie, successor = list(consumer.held.values())
    zombie.finish = calls.Finish(claim.id, zombie.token, "c")
    store.answer = calls.Cycle(Status.OK, NOW_MS, codes=(int(Status.STALE),))
    consumer.ack(zombie)
    next(consumer)

    assert list(consumer.held.values()) == [successor]


def test_a_drain_is_not_over_while_a_call_is_on_its_way(store, consumer):
    """What the call brings would be stranded."""
    quiet = []
    store.during = lambda: quiet.append(consumer.is_quiet)
    next(consumer)

    assert quiet == [False]
    assert consumer.is_quiet


def test_a_lease_is_trusted_from_when_its_call_was_first_sent(store, consumer):
    """Not from when its answer came."""
    asked: list[float] = []
    store.during = lambda: asked.append(time.monotonic())
    store.answer = calls.Cycle(Status.OK, NOW_MS, claims=(claim_of(),))
    message = next(consumer)

    assert message.confirmed_at <= asked[0]


def test_an_answer_that_cannot_be_is_asked_for_again(store, consumer, monkeypatch):
    """Whatever a call raises, its claims may have been made: the same call is sent until it is answered."""
    monkeypatch.setattr(consumer.giving_up, "wait", lambda timeout: None)
    left = [ValueError("garbled"), KeyError("x"), RuntimeError("y")]

    def fail():
        if left:
            raise left.pop()

    store.during = fail
    store.answer = calls.Cycle(Status.OK, NOW_MS, claims=(claim_of(),))

    assert next(consumer) is not None
    sent = [args for name, args in store.calls if name == "cycle"]
    assert len(sent) == 4
    assert len(set(map(repr, sent))) == 1


def test_a_job_that_cannot_be_read_is_put_off(store, consumer):
    """A foreign blob or a type that went is handed back for half a minute, and takes no slot."""
    store.answer = calls.Cycle(Status.OK, NOW_MS, claims=(claim_of(blob=b"\xff"), claim_of("unknown")))
    assert next(consumer) is None
    store.answer = calls.Cycle(Status.OK, NOW_MS, codes=(0, 0))
    assert next(consumer) is None

    finishes = msgspec.msgpack.decode(store.calls[-1][1][4])
    assert [finishes[at + 2 : at + 7] for at in (0, 8)] == [["s", "", "", 30_000, "unreadable"]] * 2
    assert len(finishes) == 16
    assert not consumer.held


@pytest.mark.parametrize(
    ("outcome", "epoch", "recovered", "told"),
    [
        ("c", 1, False, ["job.completed"]),
        ("c", 2, False, ["job.completed"]),
        ("c", 2, True, ["job.completed_recovered"]),
        ("x", 1, False, ["job.discarded"]),
        ("r", 1, False, []),
        ("f", 1, False, []),
    ],
)
def test_the_end_of_an_attempt_is_told_by_its_outcome(outcome, epoch, recovered, told):
    """Completed jobs, those that found an effect done before, and discarded ones have lines; failures are told later."""
    broker = broker_of()
    message = message_of(broker, claim_of(epoch=epoch))
    message.finish = calls.Finish(message.claim.id, message.token, outcome)
    message.is_recovered = recovered

    with structlog.testing.capture_logs() as lines:
        AttemptContext(lambda *_: None, no_guards, Shelf(), lambda *_: None, None).after_process_message(broker, message)

    assert [line["event"] for line in lines] == told
