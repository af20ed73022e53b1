"""A runner: a child process that runs attempts of one plugin's jobs, one at a time, in its main thread."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import resource
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

import msgspec
from setproctitle import setproctitle

from taskmaster.broker.isolation.frames import (
    TO_RUNNER_MAX,
    Bye,
    Channel,
    Closed,
    Ended,
    Log,
    Permit,
    Progress,
    Reply,
    Reserve,
    Said,
    Settle,
    SpanRecord,
    Start,
    ToRunner,
)
from taskmaster.broker.results import kept_result
from taskmaster.engine.artifacts import ArtifactStore
from taskmaster.model import trace
from taskmaster.model.outcome import Decision, Interrupted, MemoryLimit, Rejected, decide, describe, policy_of
from taskmaster.plugins import lifecycle
from taskmaster.plugins.registry import Registry
from taskmaster.telemetry.logs import extras
from taskmaster_sdk import Cancelled, JobContext, LeaseLost
from taskmaster_sdk.effects import Guards, Reservation

__all__ = ["CANCEL", "STOP", "GuardFailed", "resident_mb", "run"]

#: What a worker process sends to raise the cancel flag, and to end the handler by an exception.
CANCEL, STOP = signal.SIGUSR1, signal.SIGUSR2
_LOG_MAX = 8_000
_MB = 1_048_576


class GuardFailed(Exception):
    """The host could not ask the store about an effect: it does not happen."""


class PluginNotStarted(Exception):
    """`on_init` of the job's plugin failed in this process."""


def run(
    registry: Registry, data_dir: Path, artifacts: ArtifactStore, environ: Mapping[str, str], is_traced: bool, sock: socket.socket
) -> None:
    """Serve until told to end, or until the worker process is gone. *is_traced*: what handlers trace goes to the worker process."""
    setproctitle("taskmaster: runner")
    channel = Channel(sock, ToRunner, TO_RUNNER_MAX)
    with contextlib.suppress(Closed):
        _Runner(channel, registry, data_dir, artifacts, environ, is_traced=is_traced).serve()


def resident_mb(pid: int | str = "self") -> float:
    """Resident memory of a process, megabytes; 0 where the system does not tell, or when it is gone."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize() / _MB
    except (OSError, ValueError, IndexError):
        return 0.0


class _Runner:
    def __init__(
        self, channel: Channel, registry: Registry, data_dir: Path, artifacts: ArtifactStore, environ: Mapping[str, str], *, is_traced: bool
    ) -> None:
        self._channel = channel
        self._registry = registry
        self._data_dir = data_dir
        self._artifacts = artifacts
        self._environ = environ
        self._running: dict[str, lifecycle.Running] = {}
        self._aio = asyncio.Runner()
        self._context: JobContext | None = None
        self._task: asyncio.Task[Any] | None = None
        self._is_open = False  # whether a handler runs that an exception may be raised in
        self._guards = _ProxyGuards(channel)
        logging.getLogger().handlers[:] = [_Forward(channel)]
        self._enter: Callable[[str], None] | None = None
        self._take_spans: Callable[[], tuple[SpanRecord, ...]] | None = None
        if is_traced:
            from taskmaster.broker.isolation import spans  # with it comes OpenTelemetry

            self._enter, self._take_spans = spans.enter, spans.collect()

    def serve(self) -> None:
        """One attempt after the other.

        Raises:
            Closed: the worker process is gone.
        """
        self._listen()
        while True:
            message = self._channel.receive()
            if isinstance(message, Start):
                self._channel.send(self._attempt(message))
            elif isinstance(message, Bye):
                for running in self._running.values():
                    lifecycle.stop(running, self._run_async, within_s=5.0)
                return

    def _listen(self) -> None:
        signal.signal(CANCEL, self._on_cancel)
        signal.signal(STOP, self._on_stop)

    # ------------------------------------------------------------ signals: they come only while an attempt is not answered
    def _on_cancel(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        if self._context is not None and not self._context.cancelled:  # it is said repeatedly
            self._context.request_cancel()
            self._cancel_task()

    def _on_stop(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        if not self._is_open:
            return
        if self._task is None or asyncio.current_task(self._aio.get_loop()) is not None:
            raise Interrupted
        self._cancel_task()  # it waits for something: nothing of it is on the stack

    def _cancel_task(self) -> None:
        if self._task is not None:
            self._aio.get_loop().call_soon_threadsafe(self._task.cancel)

    # ------------------------------------------------------------ an attempt
    def _attempt(self, start: Start) -> Ended:
        result: Any = None
        error: BaseException | None = None
        job = self._registry.handlers[start.job_type].job
        self._context = context = JobContext(
            job_id=start.job_id,
            type=start.job_type,
            queue=start.queue,
            attempt=start.attempt,
            max_attempts=start.max_attempts,
            root_id=start.root_id,
            deadline=start.deadline,
            report=lambda _, fraction, note: self._channel.send(Progress(fraction, note)),
            guards=lambda _: self._guards,
            artifacts=self._artifacts,
            keep=None if start.keep_from is None else self._keep,
            keep_from=start.keep_from or 0,
            plugin=start.plugin,
            trace_id=trace.trace_id_of(start.traceparent),
        )
        if start.is_cancelled:
            context.request_cancel()
        trace.ours.set(start.traceparent)
        if self._enter is not None and start.traceparent:
            self._enter(start.traceparent)
        try:
            self._start_plugin(start.job_type)
            with _memory(job.memory_mb):
                result = self._call(start, context)
        except (Interrupted, asyncio.CancelledError) as raised:
            error = self._why(start, context, raised)
        except MemoryError as raised:
            error = raised
            if job.memory_mb:
                error = MemoryLimit(f"it took more than {job.memory_mb} MB").with_traceback(raised.__traceback__)
        except BaseException as raised:
            error = raised
        self._is_open = False
        self._context = self._task = None
        try:
            return self._ended(start, result, error)
        except BaseException as hostile:
            text = f"{type(error).__name__!a} could not be described: {type(hostile).__name__!a}"
            return self._ended(start, None, RuntimeError(text))

    def _keep(self, context: JobContext, level: int, text: str) -> None:
        if self._context is context:
            self._channel.send(Said(context.job_id, context.attempt, level, _sendable(text)))

    @staticmethod
    def _why(start: Start, context: JobContext, raised: BaseException) -> BaseException:
        """What an attempt that was stopped from outside has ended with."""
        if time.monotonic() < start.deadline:
            return Cancelled("cancelled while running") if context.cancelled else raised
        return TimeoutError(f"the attempt took longer than {start.timeout_ms / 1_000:g} s").with_traceback(raised.__traceback__)

    def _call(self, start: Start, context: JobContext) -> Any:
        handler = self._registry.handlers[start.job_type]
        try:
            payload = handler.decoder(bytes(start.payload))
        except msgspec.DecodeError as error:
            plugin = f"{handler.plugin}=={handler.version}"
            raise Rejected("payload_rejected", f"the payload does not fit {plugin}: {error}") from error
        fn = handler.job.fallback if start.is_fallback and handler.job.fallback is not None else handler.job.fn
        if handler.is_async:
            return self._aio.run(self._as_task(fn(payload, context)))
        self._is_open = True
        result = fn(payload, context)
        self._is_open = False
        return result

    async def _as_task(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        self._task = asyncio.current_task()
        self._is_open = True
        if self._context is not None and self._context.cancelled:  # asked before there was a task
            coroutine.close()
            raise Cancelled("cancelled while running")
        result = await coroutine
        self._is_open = False
        return result

    def _ended(self, start: Start, result: Any, error: BaseException | None) -> Ended:
        body = b""
        if error is None and result is not None:
            try:
                body = kept_result(result, start.job_id, self._artifacts).encode()
            except Rejected as rejected:
                error = rejected
        handler = self._registry.handlers[start.job_type]
        policy = policy_of(handler.job)
        decision = decide(error, failures=start.failures, backoff=start.backoff, policy=policy, spared=start.spared)
        failure = None
        if error is not None:
            failure = describe(error, job_type=start.job_type, plugin=start.plugin, hide=handler.hide(bytes(start.payload)))
        return Ended(*Decision(*decision), body, failure, resident_mb(), self._take_spans() if self._take_spans is not None else ())

    # ------------------------------------------------------------ the plugin
    def _start_plugin(self, job_type: str) -> None:
        """`on_init` of the job's plugin, once in this process; its signal handlers are put aside.

        Raises:
            PluginNotStarted: it failed.
        """
        name = self._registry.handlers[job_type].plugin
        if name in self._running:
            return
        mine = Registry(
            {job: handler for job, handler in self._registry.handlers.items() if handler.plugin == name},
            tuple(report for report in self._registry.reports if report.name == name),
            tuple(plugin for plugin in self._registry.plugins if plugin.name == name),
        )
        running = lifecycle.start(mine, self._data_dir, self._environ, self._run_async)
        self._listen()
        problem = next((report.error for report in running.registry.reports if report.state == "failed"), "")
        if problem:
            raise PluginNotStarted(problem)
        self._running[name] = running

    def _run_async(self, coroutine: Coroutine[Any, Any, Any], timeout_s: float, /) -> Any:
        return self._aio.run(asyncio.wait_for(coroutine, timeout_s))


class _ProxyGuards(Guards):
    """The host's guards over the channel. From any thread of the handler, one question at a time."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._asking = threading.Lock()

    def reserve(self, effect: str, name: str, key: str, again: bool) -> Reservation:
        reply = self._ask(Reserve(effect, name, key, again))
        return Reservation(reply.status, reply.licence, reply.result)  # type: ignore[arg-type]

    def permit(self) -> None:
        self._ask(Permit())

    def settle(self, effect: str, licence: str, happened: bool, result: bytes) -> None:
        self._ask(Settle(effect, licence, happened, result))

    def _ask(self, question: Reserve | Settle | Permit) -> Reply:
        with self._asking:
            self._channel.send(question)
            reply = self._channel.receive()
        if not isinstance(reply, Reply):
            raise Closed("an answer was expected")
        if reply.error == "LeaseLost":
            raise LeaseLost(reply.message)
        if reply.error:
            raise GuardFailed(f"{reply.error}: {reply.message}")
        return reply


def _sendable(text: str) -> str:
    """Cut to a length, and UTF-8."""
    return text[:_LOG_MAX].encode(errors="replace").decode()


def _portable(value: Any) -> Any:
    """As JSON would have it, and not too long; else a text."""
    try:
        packed = msgspec.json.encode(value, enc_hook=repr)
    except (msgspec.MsgspecError, TypeError, ValueError, OverflowError, RecursionError):
        return _sendable(repr(value))
    return msgspec.json.decode(packed) if len(packed) <= _LOG_MAX else _sendable(packed.decode())


class _Forward(logging.Handler):
    """Records go to the worker process, which writes all of the service's lines."""

    def __init__(self, channel: Channel) -> None:
        super().__init__()
        self._channel = channel
        self._formatter = logging.Formatter()

    def emit(self, record: logging.LogRecord) -> None:
        """Send it, cut to a length, with its traceback."""
        try:
            text = record.getMessage()
            if record.exc_info:
                text += "\n" + self._formatter.formatException(record.exc_info)
            facts = {name: _portable(value) for name, value in extras(record).items()}
            self._channel.send(Log(record.levelno, record.name, _sendable(text), facts))
        except Exception:
            self.handleError(record)


class _memory:  # noqa: N801 - used like a function
    """For the time of an attempt: no more data than now and *limit_mb* megabytes. An allocation beyond it is a `MemoryError`."""

    def __init__(self, limit_mb: int | None) -> None:
        self._limit_mb = limit_mb if sys.platform == "linux" else None

    def __enter__(self) -> None:
        if self._limit_mb is None:
            return
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmData:"):
                now = int(line.split()[1]) * 1_024
                hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
                resource.setrlimit(resource.RLIMIT_DATA, (now + self._limit_mb * _MB, hard))

    def __exit__(self, *_: object) -> None:
        if self._limit_mb is not None:
            hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
            resource.setrlimit(resource.RLIMIT_DATA, (hard, hard))
