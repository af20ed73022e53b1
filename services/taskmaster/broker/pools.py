"""Threads of one queue, and what one of them does with an attempt."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Iterable
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from dramatiq.broker import MessageProxy
from dramatiq.worker import WorkerThread

from taskmaster.broker.deadlines import ended_early
from taskmaster.broker.message import JobMessage
from taskmaster.model.outcome import Interrupted
from taskmaster.telemetry import events
from taskmaster.telemetry.logs import get

if TYPE_CHECKING:
    from taskmaster.broker.threads import JobWorker

__all__ = ["JobThread", "Pool"]

log = get()
#: An awake thread that has been in one job for so long does not work off what comes meanwhile: its jobs are not as short as was thought.
HELD_UP_S = 0.002


def _flush_interrupt() -> None:
    """A call: the interpreter delivers an exception that was thrown at this thread at the latest here."""


class JobThread(WorkerThread):
    """Runs attempts of one queue."""

    pool: Pool
    worker: JobWorker
    began_at = math.inf  # the attempt that it is in, monotonic seconds

    def run(self) -> None:
        """Until stopped. An interrupt that comes too late for its handler is swallowed here, so that the thread lives on."""
        self.running = True
        self.broker.emit_after("worker_thread_boot", self)
        pool, take, process = self.pool, self.pool.take, self.process_message
        bell: SimpleQueue[None] = SimpleQueue()
        while self.running:
            try:
                if pool.is_crowded and pool.lets_go(self):
                    break
                message = take(bell)
                if message is not None:
                    process(message)
            except Interrupted:
                continue
        self.broker.emit_before("worker_thread_shutdown", self)

    def process_message(self, message: MessageProxy) -> None:
        """One attempt, from its first hook to its acknowledgement. Nothing that a handler or hook raises ends the thread."""
        assert isinstance(message, JobMessage)
        worker = self.worker
        if not worker.admit(message):
            return
        self.began_at = started = time.monotonic()
        if message.actor.is_isolated:
            try:
                worker.run_isolated(message)
            finally:
                self.began_at = math.inf
            return
        result: Any = None
        error: BaseException | None = None
        try:
            try:
                message.thread_id = self.ident
                result = message.handler(message.payload, message.context)
            finally:
                with worker.interrupting:
                    message.thread_id = None
                _flush_interrupt()
        except Interrupted:
            error = ended_early(message)
        except BaseException as raised:
            error = raised
        self.began_at = math.inf
        if message.is_over:
            return  # too late: it was ended without us
        message.consumer.slots.ran(message.claim.queue, time.monotonic() - started)
        worker.settle(message, result, error)


class Pool:
    """Threads of one queue, started as they are needed, at most as many as its concurrency.

    A sleeping thread costs a system call to wake. Where jobs are so short that look-ahead is on, one awake thread works off what comes;
    otherwise every message gets a thread of its own at once. What an awake thread leaves lying is noticed with what comes next, at the
    latest by the heartbeat (`nudge`).
    """

    def __init__(self, worker: JobWorker, queue: str, size: int) -> None:
        self._worker = worker
        self._queue = queue
        self._size = size
        self._waiting: deque[JobMessage] = deque()
        self._sleepers: deque[SimpleQueue[None]] = deque()
        self._is_stopped = False
        self._lock = threading.Lock()  # of `threads`: consumers and the heartbeat may find the same place free
        self.threads: list[JobThread] = []

    def __len__(self) -> int:
        """Messages that no thread has begun."""
        return len(self._waiting)

    def put(self, messages: Iterable[JobMessage], *, are_short: bool) -> None:
        """Give them to the threads. From the consumers' threads or the heartbeat's."""
        for message in messages:
            self._waiting.append(message)
            if not are_short or len(self._sleepers) == len(self.threads):
                self.nudge()
        if are_short and self._waiting and self._is_held_up():
            self.nudge()

    def _is_held_up(self) -> bool:
        """Whether every awake thread is in a job that is no short one."""
        late = time.monotonic() - HELD_UP_S
        return sum(thread.began_at < late for thread in self.threads) >= len(self.threads) - len(self._sleepers)

    def nudge(self) -> None:
        """Get one more thread to work, if there may be one."""
        try:
            self._sleepers.pop().put(None)
        except IndexError:
            if len(self.threads) < self._size:
                self._start()

    def resize(self, size: int) -> None:
        """Have so many threads from now on. Those there are too many of end when they are free."""
        before, self._size = self._size, size
        for _ in range(before - size):
            try:
                self._sleepers.pop().put(None)  # it looks, and finds the pool crowded
            except IndexError:
                break
        if self._waiting:
            self.nudge()

    @property
    def is_crowded(self) -> bool:
        """Whether there are more threads than wanted."""
        return len(self.threads) > self._size

    def lets_go(self, thread: JobThread) -> bool:
        """Whether *thread* is to end now, as one too many. What it was woken for is somebody else's."""
        with self._lock:
            if not self.is_crowded or thread not in self.threads:
                return False
            self.threads.remove(thread)
        if self._waiting:
            self.nudge()
        return True

    def _start(self) -> None:
        with self._lock:
            if len(self.threads) >= self._size:
                return
            thread = JobThread(broker=self._worker.broker, consumers={}, work_queue=self._worker.work_queue, worker_timeout=1_000)
            thread.pool = self
            thread.worker = self._worker
            thread.name = f"taskmaster-{self._queue}-{len(self.threads)}"
            try:
                thread.start()
            except RuntimeError as error:  # the system has no more threads for us: what waits is handed back in a while
                log.error(events.UPKEEP_FAILED, duty="threads", error=str(error))
            else:
                self.threads.append(thread)

    def take(self, bell: SimpleQueue[None]) -> JobMessage | None:
        """The next message; sleeps on *bell* while there is none. None: look again."""
        try:
            return self._waiting.popleft()
        except IndexError:
            self._sleepers.append(bell)
        if self._waiting or self._is_stopped:  # it came between the look and the lying down
            try:
                self._sleepers.remove(bell)
            except ValueError:
                bell.get()  # somebody is waking us already
            return None
        bell.get()
        return None

    @property
    def has_room(self) -> bool:
        """Whether a message could begin at once."""
        return not self._waiting and (len(self._sleepers) > 0 or len(self.threads) < self._size)

    def heal(self) -> None:
        """Forget threads that ended by themselves, since a hook of their boot raised: others may start in their place."""
        with self._lock:
            self.threads = [thread for thread in self.threads if thread.is_alive()]

    def oldest_since(self) -> float:
        """When the message that waits longest was claimed, monotonic seconds; infinity when none waits."""
        try:
            return self._waiting[0].claimed_at
        except IndexError:
            return math.inf

    def unstarted(self) -> list[JobMessage]:
        """Take everything that no thread has begun."""
        taken = []
        while True:
            try:
                taken.append(self._waiting.popleft())
            except IndexError:
                return taken

    def stop(self) -> None:
        """End the threads once they are free."""
        self._is_stopped = True
        for thread in self.threads:
            thread.running = False
        while self._sleepers:
            self._sleepers.pop().put(None)
