"""The worker process's runners: gives an attempt to one, waits for its end with the limits in view, and keeps it for the next."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import msgspec

from taskmaster.broker.deadlines import Deadlines, ended_early
from taskmaster.broker.isolation.frames import (
    FROM_RUNNER_MAX,
    Bye,
    Channel,
    Closed,
    Ended,
    FromRunner,
    Log,
    Permit,
    Progress,
    Reply,
    Reserve,
    Said,
    Settle,
    SpanRecord,
    Start,
)
from taskmaster.broker.isolation.nursery import Nursery, NurseryLost
from taskmaster.broker.isolation.runner import CANCEL, STOP, resident_mb
from taskmaster.broker.journal import Journal
from taskmaster.broker.message import JobMessage
from taskmaster.model.outcome import Decision, HandlerCrashed, MemoryLimit, Reported
from taskmaster.telemetry import events
from taskmaster.telemetry.logs import OWN, get
from taskmaster_sdk import Cancelled

__all__ = ["ATTEMPTS_MAX", "RESIDENT_MAX_MB", "RunnerPool"]

log = get()
#: A runner is replaced after so many attempts, or when so much is resident in it.
ATTEMPTS_MAX, RESIDENT_MAX_MB = 1_000, 512.0
#: One that had nothing to do for so long is dismissed.
IDLE_S = 60.0
#: How often the wait for a runner's word looks at cancellations; and at memory, where that is limited.
LOOK_S, MEASURE_S = 0.25, 0.05
#: A runner whose socket has closed is about to end: how long until it is made to.
ENDING_S = 2.0


@dataclass
class Runner:
    """One child process, of one plugin."""

    pid: int
    channel: Channel
    plugin: str
    attempts: int = 0
    free_since: float = 0.0
    first_mb: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock)  # held while a signal is sent, and while the process id is given up
    is_ours: bool = True

    def signal(self, number: int, attempt: int | None = None) -> None:
        """Send it, if the process id is still the runner's; with *attempt*, only if that is the one it is at."""
        with self.lock:
            if self.is_ours and attempt in (None, self.attempts):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self.pid, number)


class RunnerPool:
    """Runners of one worker process: at most one for each thread that waits for one, reused last in, first out. Thread-safe.

    Args:
        nursery: forks them.
        deadlines: the limits on time, shared with handlers that run here.
        journal: takes handlers' progress and lines.
        keep_from: least level of lines that are kept; None: none are.
        attempts_max: attempts after which a runner is replaced.
        resident_max_mb: resident memory at which it is.
        spans: takes what handlers traced there; None where nothing is.
    """

    def __init__(
        self,
        nursery: Nursery,
        deadlines: Deadlines,
        journal: Journal,
        keep_from: int | None,
        *,
        attempts_max: int = ATTEMPTS_MAX,
        resident_max_mb: float = RESIDENT_MAX_MB,
        spans: Callable[[Sequence[SpanRecord]], None] | None = None,
    ) -> None:
        self._nursery = nursery
        self._deadlines = deadlines
        self._journal = journal
        self._keep_from = keep_from
        self._attempts_max = attempts_max
        self._resident_max_mb = resident_max_mb
        self._spans = spans
        self._lock = threading.Lock()
        self._free: dict[str, list[Runner]] = {}
        self._is_closed = False

    # ------------------------------------------------------------ an attempt
    def run(self, message: JobMessage) -> tuple[msgspec.Raw | None, Exception | None]:
        """Run it in a child process and wait for its end: the result as JSON, or what it failed with.

        Raises:
            NurseryLost: it has not begun.
        """
        runner = self._take(message.actor.handler.plugin)
        is_fit = False
        try:
            with _cancellable(message, runner):
                ended = self._wait(runner, message)
            is_fit = not message.struck_at and ended.resident_mb < self._resident_max_mb
        except Closed as error:
            return None, self._crashed(runner, message, error)
        except (TimeoutError, Cancelled, MemoryLimit) as error:
            return None, error
        finally:
            self._put_back(runner, is_fit=is_fit)
        if ended.spans and self._spans is not None:
            self._spans(ended.spans)
        if ended.failure is not None:
            return None, Reported(Decision(ended.outcome, ended.delay_ms, ended.reason), ended.failure)  # type: ignore[arg-type]
        return msgspec.Raw(ended.result) if ended.result else None, None

    def _wait(self, runner: Runner, message: JobMessage) -> Ended:
        """Serve the runner until it says how the attempt ended.

        Raises:
            Closed: it died.
            TimeoutError, MemoryLimit, Cancelled: it had to be killed.
        """
        runner.channel.send(_start(message, self._keep_from))
        while True:
            try:
                word = runner.channel.receive(self._patience_s(message))
            except TimeoutError:
                self._look(runner, message)
                continue
            if isinstance(word, Ended):
                return word
            self._serve(runner, message, word)
            self._look(runner, message)

    def _patience_s(self, message: JobMessage) -> float:
        until = message.struck_at + self._deadlines.grace_s if message.struck_at else self._deadlines.due_at(message)
        longest = MEASURE_S if message.actor.handler.job.memory_mb else LOOK_S
        return min(longest, max(0.001, until - time.monotonic()))

    def _look(self, runner: Runner, message: JobMessage) -> None:
        """Enforce the limits: an exception in the handler at its time, the end of its process after the grace.

        Raises:
            TimeoutError, MemoryLimit, Cancelled: it was killed.
        """
        now = time.monotonic()
        limit_mb = message.actor.handler.job.memory_mb
        if limit_mb and resident_mb(runner.pid) > runner.first_mb + limit_mb:
            runner.signal(signal.SIGKILL)
            raise MemoryLimit(f"it took more than {limit_mb} MB and was killed")
        if now <= self._deadlines.due_at(message):
            if message.is_cancelled:
                runner.signal(CANCEL)  # again: the first may have come before the handler began
            return
        if not message.struck_at:
            message.struck_at = now
            event = events.JOB_TIMED_OUT if now >= message.deadline else events.JOB_CANCELLING
            log.warning(event, **message.facts)
            runner.signal(STOP)
        elif now > message.struck_at + self._deadlines.grace_s:
            runner.signal(signal.SIGKILL)
            log.warning(events.RUNNER_KILLED, **message.facts, pid=runner.pid)
            raise ended_early(message)

    def _serve(self, runner: Runner, message: JobMessage, word: Any) -> None:
        if isinstance(word, Progress):
            self._journal.report(message, word.fraction, word.note)
        elif isinstance(word, Said):
            if (word.job_id, word.attempt) == (message.claim.id, message.claim.attempt):
                self._journal.keep(message, word.level, word.text)
        elif isinstance(word, Log):
            record = logging.makeLogRecord({"name": word.logger, "levelno": word.level, "msg": word.message} | _facts(word))
            record.levelname = logging.getLevelName(word.level)
            logger = logging.getLogger(word.logger)
            if logger.isEnabledFor(word.level):
                logger.handle(record)
        else:
            runner.channel.send(_guarded(message, word))

    def _crashed(self, runner: Runner, message: JobMessage, closed: Closed) -> Exception:
        """What to say of a runner whose socket is closed."""
        try:
            code = self._nursery.status(runner.pid, ENDING_S)
            if code is None:  # it has only hung up
                runner.signal(signal.SIGKILL)
                self._nursery.status(runner.pid, ENDING_S)
            with runner.lock:
                runner.is_ours = False
        except NurseryLost:
            code = None
        if message.struck_at:
            return ended_early(message)
        how = str(closed) if code is None else f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        return HandlerCrashed(f"the handler's process ended: {how}")

    # ------------------------------------------------------------ the pool
    def _take(self, plugin: str) -> Runner:
        with self._lock:
            free = self._free.get(plugin)
            if free:
                return free.pop()
        pid, sock = self._nursery.spawn()
        log.debug(events.RUNNER_STARTED, plugin=plugin, pid=pid)
        return Runner(pid, Channel(sock, FromRunner, FROM_RUNNER_MAX), plugin, first_mb=resident_mb(pid))

    def _put_back(self, runner: Runner, *, is_fit: bool) -> None:
        """Keep it for the next attempt, unless it was struck, crashed, has grown or served long enough."""
        with runner.lock:
            runner.attempts += 1
        runner.free_since = time.monotonic()
        if is_fit and runner.attempts < self._attempts_max:
            with self._lock:
                if not self._is_closed:
                    self._free.setdefault(runner.plugin, []).append(runner)
                    return
        self._end(runner, is_fit=is_fit)

    def _end(self, runner: Runner, *, is_fit: bool) -> None:
        """A fit one shuts its plugin down first; any other is killed."""
        if is_fit:
            with contextlib.suppress(Closed):
                runner.channel.send(Bye())
        else:
            runner.signal(signal.SIGKILL)
        with runner.lock:
            if runner.is_ours:
                runner.is_ours = False
                self._nursery.dismiss(runner.pid)
        runner.channel.close()

    def dismiss_idle(self) -> None:
        """End runners that had nothing to do for a while. From the chores' thread."""
        now = time.monotonic()
        with self._lock:
            tired = [runner for free in self._free.values() for runner in free if now - runner.free_since > IDLE_S]
            for runner in tired:
                self._free[runner.plugin].remove(runner)
        for runner in tired:
            self._end(runner, is_fit=True)

    def stop(self) -> None:
        """Keep none: those that are free shut down, those that run are killed with the nursery. Works twice."""
        with self._lock:
            self._is_closed = True
            free, self._free = [runner for some in self._free.values() for runner in some], {}
        for runner in free:
            with contextlib.suppress(Closed):
                runner.channel.send(Bye())
        for runner in free:
            with contextlib.suppress(Closed, TimeoutError, NurseryLost):
                runner.channel.receive(1.0)
            runner.channel.close()
        self._nursery.close()


@contextmanager
def _cancellable(message: JobMessage, runner: Runner) -> Iterator[None]:
    """A cancellation that comes while the attempt runs is passed on; one that came before it, too."""
    attempt = runner.attempts
    message.signal_cancel = lambda: runner.signal(CANCEL, attempt)
    try:
        yield
    finally:
        message.signal_cancel = None


def _start(message: JobMessage, keep_from: int | None) -> Start:
    claim, envelope = message.claim, message.envelope
    return Start(
        job_type=envelope.type,
        payload=envelope.payload,
        job_id=claim.id,
        queue=claim.queue,
        attempt=claim.attempt,
        max_attempts=envelope.attempts,
        root_id=envelope.root_id or claim.id,
        deadline=message.deadline,
        timeout_ms=envelope.timeout_ms,
        failures=claim.failures,
        spared=claim.spared,
        backoff=envelope.backoff,
        plugin=message.actor.plugin,
        is_cancelled=message.is_cancelled,
        is_fallback=message.is_fallback,
        keep_from=keep_from,
        traceparent=message.traceparent,
    )


def _facts(word: Log) -> dict[str, Any]:
    return {name: value for name, value in word.facts.items() if name not in OWN}


def _guarded(message: JobMessage, word: Reserve | Settle | Permit) -> Reply:
    """Ask this process's own guards of the attempt."""
    try:
        assert message.context is not None
        guards = message.context.guards
        if isinstance(word, Reserve):
            found = guards.reserve(word.effect, word.name, word.key, word.again)
            return Reply(found.status, found.licence, found.result)
        if isinstance(word, Permit):
            guards.permit()
            return Reply("ok")
        guards.settle(word.effect, word.licence, word.happened, word.result)
        return Reply("ok")
    except Exception as error:
        return Reply(error=type(error).__name__, message=str(error)[:2_000])
