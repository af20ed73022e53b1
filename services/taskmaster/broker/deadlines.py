"""What becomes of a handler that does not end when it must: an exception first, then its attempt is ended without it."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

from dramatiq.threading import raise_thread_exception

from taskmaster.broker.message import JobMessage
from taskmaster.model.outcome import Interrupted
from taskmaster.telemetry import events
from taskmaster.telemetry.logs import get
from taskmaster_sdk.outcomes import Cancelled

if TYPE_CHECKING:
    from taskmaster.broker.threads import JobWorker

__all__ = ["Deadlines", "ended_early"]

log = get()
#: An event loop that has not answered for so long is held up by one of its coroutines.
BLOCKED_S = 0.5


def ended_early(message: JobMessage) -> Exception:
    """What an attempt that was made to stop has ended with: its job was cancelled, or its time was over."""
    if message.is_cancelled and time.monotonic() < message.deadline:
        return Cancelled("cancelled while running")
    return TimeoutError(f"the attempt took longer than {message.envelope.timeout_ms / 1_000:g} s")


class Deadlines:
    """Enforces the times of everything that runs on threads and on the event loop. Runs on the heartbeat's thread.

    At its deadline, or some time after a cancellation, a handler gets an exception. One that has not ended in the grace after that is given
    up: the attempt ends as timed out, or cancelled, and the process, which has a thread less for as long as it lives, is retired.

    Args:
        worker: whose attempts.
        grace_s: seconds from the exception to giving up.
        cancel_grace_s: seconds from the cancellation to the exception.
    """

    def __init__(self, worker: JobWorker, grace_s: float, cancel_grace_s: float) -> None:
        self.grace_s = grace_s
        self.cancel_grace_s = cancel_grace_s
        self._worker = worker

    def due_at(self, message: JobMessage) -> float:
        """When the handler must have ended, monotonic seconds."""
        return min(message.deadline, message.cancelled_at + self.cancel_grace_s) if message.cancelled_at else message.deadline

    def enforce(self) -> None:
        """Look at everything that runs."""
        now = time.monotonic()
        for consumer in self._worker.partition_consumers():
            for message in list(consumer.held.values()):
                if message.deadline and message.is_running and now > self.due_at(message):
                    if now > message.deadline + consumer.identity.overdue_s:
                        self._forget(message)
                    elif not message.actor.is_isolated:
                        self._act(message, now)

    def _act(self, message: JobMessage, now: float) -> None:
        if not message.struck_at:
            if message.task is not None:
                self._strike_task(message, now)
            else:
                self._strike_thread(message, now)
        elif now > message.struck_at + self.grace_s:
            self._end_without_it(message)

    def _strike_thread(self, message: JobMessage, now: float) -> None:
        with self._worker.interrupting:
            if message.thread_id is None:
                return
            message.struck_at = now
            self._tell(message)
            raise_thread_exception(message.thread_id, Interrupted)  # type: ignore[no-untyped-call]

    def _strike_task(self, message: JobMessage, now: float) -> None:
        """A loop that answers has ended the coroutine by its own clock already; one that does not is held up by somebody."""
        loop, task = self._worker.loop, message.task
        silent_s = loop.silent_s(now)
        if silent_s is None or silent_s > BLOCKED_S:
            message.struck_at = now
            self._tell(message)
        if silent_s is None and task is not None and message.is_cancelled:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                task.get_loop().call_soon_threadsafe(task.cancel)
        elif silent_s is not None and silent_s > BLOCKED_S:
            loop.interrupt()

    def _end_without_it(self, message: JobMessage) -> None:
        worker = self._worker
        with worker.interrupting:
            if not message.is_running or (message.thread_id is None and message.task is None):
                return  # it has just let go
            message.is_over = True
            message.thread_id = None
        log.error(events.JOB_ABANDONED, **message.facts, grace_s=self.grace_s)
        worker.settle(message, None, ended_early(message))
        worker.retire("a handler did not stop")

    def _forget(self, message: JobMessage) -> None:
        """Its lease is not kept any more, and nobody here will tell its end: its place is free."""
        with self._worker.interrupting:
            message.is_over = True
        log.error(events.JOB_ABANDONED, **message.facts, grace_s=self.grace_s)
        message.consumer.ack(message)
        self._worker.retire("an attempt did not end")

    @staticmethod
    def _tell(message: JobMessage) -> None:
        event = events.JOB_TIMED_OUT if time.monotonic() >= message.deadline else events.JOB_CANCELLING
        log.warning(event, **message.facts)
