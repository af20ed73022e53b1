"""Dramatiq's worker, with threads per queue instead of one shared heap, and coroutines off the threads.

Private hooks of Dramatiq 2.2 that this leans on: `Worker._add_consumer` and `Worker._add_worker` (its minor version is pinned; a test
checks that they are there).
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from dramatiq.broker import MessageProxy
from dramatiq.middleware import SkipMessage
from dramatiq.worker import ConsumerThread, Worker

from taskmaster.broker.broker import NotRun, TaskMasterBroker
from taskmaster.broker.consumer import PartitionConsumer
from taskmaster.broker.deadlines import ended_early
from taskmaster.broker.isolation.nursery import NurseryLost
from taskmaster.broker.isolation.pool import RunnerPool
from taskmaster.broker.loop import EventLoop
from taskmaster.broker.message import JobMessage, Left
from taskmaster.broker.pools import Pool
from taskmaster.broker.slots import half_of
from taskmaster.errors import StoreError
from taskmaster.model.outcome import Interrupted
from taskmaster.store.calls import Finish
from taskmaster.telemetry import events
from taskmaster.telemetry.logs import get

__all__ = ["JobWorker"]

log = get()
#: Work that lies so long before a thread begins it gets one thread more: the awake ones do not get it done.
LYING_S = 0.05
#: Work that a process holds but cannot start for this long is handed back: another may have a free thread.
UNSTARTED_S = 0.5
NOT_RUN_DELAY_MS = 1_000


class Intake(ConsumerThread):
    """The consumer's thread: passes claims on to pools and the loop."""

    worker: JobWorker

    def handle_message(self, message: MessageProxy) -> None:
        """This one and all that came with it: to the loop, or to their queues' threads."""
        assert isinstance(message, JobMessage)
        consumer = message.consumer
        by_queue: dict[str, list[JobMessage]] = {}
        consumer.ready.appendleft(message)
        while consumer.ready:
            one = consumer.ready.popleft()
            if one.actor.is_async:
                self.worker.loop.put(one)
            else:
                by_queue.setdefault(one.claim.queue, []).append(one)
        for queue, messages in by_queue.items():
            self.worker.pools[queue].put(messages, are_short=consumer.slots.is_short(queue))

    def handle_delayed_messages(self) -> None:
        """Nothing is delayed in a worker's memory."""


class JobWorker(Worker):
    """Dramatiq's worker for this process. Its `loop` must be started first: plugins need it before any job runs.

    Args:
        broker: whose consumers and actors.
        concurrency: threads by queue, at most; its queues are the ones served.

    Attributes:
        retiring: why it claims no more, or empty.
        on_retire: called when that begins.
        runners: where isolated handlers run; None: they cannot.
        left: after `stop`: what still runs, to be handed back when this process is gone.
    """

    def __init__(self, broker: TaskMasterBroker, concurrency: Mapping[str, int]) -> None:
        super().__init__(broker, worker_threads=0)
        self.interrupting = threading.Lock()  # held while a thread is thrown at, and while one lets go of its attempt
        self.pools = {queue: Pool(self, queue, size) for queue, size in concurrency.items()}
        self.loop = EventLoop(self.run_async)
        self.retiring = ""
        self.left: list[Left] = []
        self.runners: RunnerPool | None = None
        self.on_retire: Callable[[], None] = lambda: None

    def _add_worker(self) -> None:
        """Threads belong to the pools."""

    def _add_consumer(self, queue_name: str, *, delay: bool = False) -> None:
        if delay or queue_name in self.consumers:
            return
        intake = Intake(
            broker=self.broker, queue_name=queue_name, prefetch=0, work_queue=self.work_queue, worker_timeout=self.worker_timeout
        )
        intake.worker = self
        intake.name = f"taskmaster-consumer-{queue_name}"
        self.consumers[queue_name] = intake
        intake.start()

    @property
    def held(self) -> int:
        """Attempts that the store still counts as ours."""
        return sum(len(consumer.held) for consumer in self.partition_consumers())

    def partition_consumers(self) -> list[PartitionConsumer]:
        """The consumers that are up."""
        return [intake.consumer for intake in self.consumers.values() if isinstance(intake.consumer, PartitionConsumer)]

    @property
    def answered_at(self) -> float:
        """When the round of the consumer that is worst off was last answered, monotonic seconds; 0 when none is to make rounds any more."""
        return min((consumer.answered_at for consumer in self.partition_consumers() if not consumer.draining.is_set()), default=0.0)

    @property
    def is_stalled(self) -> bool:
        """Whether a consumer does not get on, although the store answers its heartbeats."""
        return any(consumer.is_stalled and not consumer.draining.is_set() for consumer in self.partition_consumers())

    # ------------------------------------------------------------ an attempt
    def admit(self, message: JobMessage) -> bool:
        """Run the hooks before an attempt; False when one of them did not let it begin: then it is handed back, burning nothing."""
        try:
            self.broker.emit_before("process_message", message)
        except BaseException as error:
            reason = error.args[0] if isinstance(error, NotRun) and error.args else "guard_failed"
            log.warning(events.JOB_NOT_RUN, **message.facts, reason=reason, error=type(error).__name__)
            if not isinstance(error, NotRun | SkipMessage):
                log.error(events.JOB_NOT_RUN, **message.facts, exc_info=error)
            message.finish = Finish(message.claim.id, message.token, "s", delay_ms=NOT_RUN_DELAY_MS, reason=str(reason))
            message.consumer.ack(message)
            return False
        return True

    def settle(self, message: JobMessage, result: Any, error: BaseException | None) -> None:
        """Run the hooks after an attempt and tell the store. A hook that raises leaves the attempt unacknowledged: its lease runs out."""
        try:
            self.broker.emit_after("process_message", message, result=result, exception=error)
        except BaseException as failed:
            message.finish = None
            log.error(events.JOB_OUTCOME_REFUSED, **message.facts, reason="hook_failed", exc_info=failed)
        if message.finish is not None and not message.is_over:
            message.context = None  # each knows the other: they would stay until a collection
        message.consumer.ack(message)

    def run_isolated(self, message: JobMessage) -> None:
        """One attempt in a child process, on the thread that waits for its end."""
        started = time.monotonic()
        result: Any = None
        error: BaseException | None = None
        try:
            if self.runners is None:
                raise NurseryLost("this process was made without one")
            result, error = self.runners.run(message)
        except NurseryLost as lost:
            log.error(events.JOB_NOT_RUN, **message.facts, reason="no_runner", error=str(lost))
            message.finish = Finish(message.claim.id, message.token, "s", delay_ms=NOT_RUN_DELAY_MS, reason="no_runner")
            message.consumer.ack(message)
            self.retire("no child process can be started")
            return
        except BaseException as raised:
            error = raised
        with self.interrupting:
            if message.is_over:
                return
        message.consumer.slots.ran(message.claim.queue, time.monotonic() - started)
        self.settle(message, result, error)

    async def run_async(self, message: JobMessage) -> None:
        """One attempt of a coroutine handler. Hooks run on the loop: ours only touch memory."""
        if not self.admit(message):
            return
        result: Any = None
        error: BaseException | None = None
        started = time.monotonic()
        try:
            async with asyncio.timeout(max(0.0, message.deadline - started)):
                result = await message.handler(message.payload, message.context)
        except TimeoutError as raised:
            error = ended_early(message) if time.monotonic() >= message.deadline else raised
        except Interrupted:
            error = ended_early(message) if time.monotonic() >= message.deadline else TimeoutError("it held up the event loop")
        except BaseException as raised:
            error = raised
        with self.interrupting:
            message.task = None
            if message.is_over:
                return
        self.settle(message, result, error)

    # ------------------------------------------------------------ upkeep, from the heartbeat thread
    def beat(self) -> None:
        """Keep the leases of all consumers; what fails at one does not keep it from the others.

        Raises:
            StoreError: at least one was not kept.
        """
        failed: StoreError | None = None
        for consumer in self.partition_consumers():
            try:
                consumer.beat()
            except StoreError as error:
                failed = error
        if failed is not None:
            raise failed

    def hand_back_unstarted(self) -> None:
        """Claims that no thread of this process could begin for half a second go back: the work ahead of them turned out long.

        Their consumer asks for no more of them until a thread is free: it would get the same ones again, and others may have threads.
        """
        now = time.monotonic()
        for queue, pool in self.pools.items():
            pool.heal()
            if not pool:
                if pool.has_room:
                    self._resume(queue)
                continue
            lying_s = now - pool.oldest_since()
            if lying_s > LYING_S:
                pool.nudge()
            if lying_s > UNSTARTED_S:
                unstarted = pool.unstarted()
                for message in unstarted:
                    if message.claimed_at < now - UNSTARTED_S:
                        message.consumer.slots.ran(queue, now - message.claimed_at)
                        message.consumer.slots.rest(queue)
                        message.consumer.requeue([message])
                pool.put([message for message in unstarted if message.finish is None], are_short=False)

    def resize(self, queue: str, most: int) -> None:
        """Run *most* jobs of *queue* at once from now on. What runs beyond that runs on; the rest follows as it ends. Any thread."""
        pool = self.pools.get(queue)
        if pool is None:
            return
        consumers = [consumer for consumer in self.partition_consumers() if consumer.slots.has(queue)]
        for consumer in consumers:
            # A queue that began with one slot is served by one consumer of its partition, which then has them all.
            is_shared = sum(other.partition == consumer.partition for other in consumers) > 1
            if consumer.slots.resize(queue, half_of(most, consumer.half) if is_shared else most):
                consumer.wake()
        pool.resize(most)

    def _resume(self, queue: str) -> None:
        for consumer in self.partition_consumers():
            if consumer.slots.resume(queue):
                consumer.wake()

    # ------------------------------------------------------------ the end
    def retire(self, why: str) -> None:
        """Claim no more: this process is to end once its other attempts have, and another takes its place. Any thread; works twice."""
        if not self.retiring:
            self.retiring = why
            for consumer in self.partition_consumers():
                consumer.draining.set()
                consumer.ring()
            self.on_retire()

    def drain(self, within_s: float) -> bool:
        """Stop claiming, hand back what has not begun, let the rest finish. True when all of it was told to the store in time."""
        deadline = time.monotonic() + within_s
        consumers = self.partition_consumers()
        for consumer in consumers:
            consumer.draining.set()
        while True:
            for pool in self.pools.values():
                for message in pool.unstarted():
                    message.consumer.requeue([message])
            for consumer in consumers:
                consumer.ring()
            if all(consumer.is_quiet for consumer in consumers):
                return True
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.02)

    @property
    def is_whole(self) -> bool:
        """Whether the loop and every consumer still have their thread."""
        return self.loop.is_alive and all(intake.is_alive() for intake in self.consumers.values())

    def stop(self, timeout: int = 5_000) -> None:
        """End threads and consumers, after `drain`. What still runs is not handed back: see `left`.

        The loop goes on, since plugins need it to shut down: whoever started it stops it.
        """
        self.broker.emit_before("worker_shutdown", self)
        for consumer in self.partition_consumers():
            consumer.draining.set()
        for pool in self.pools.values():
            pool.stop()
        for intake in self.consumers.values():
            intake.stop()
        self._join_intakes(timeout / 1_000)
        for consumer in self.partition_consumers():
            consumer.giving_up.set()
        self._join_intakes(1.0)
        for intake in self.consumers.values():
            if isinstance(intake.consumer, PartitionConsumer) and not intake.is_alive():
                intake.consumer.requeue([m for m in intake.consumer.held.values() if m.finish is None and not m.is_running])
                intake.close()
                if left := intake.consumer.left():
                    self.left.append(left)
        self.loop.cancel_all()
        self.broker.emit_after("worker_shutdown", self)

    def _join_intakes(self, within_s: float) -> None:
        deadline = time.monotonic() + within_s
        for intake in self.consumers.values():
            if isinstance(intake.consumer, PartitionConsumer):
                intake.consumer.ring()
            intake.join(max(0.0, deadline - time.monotonic()))
