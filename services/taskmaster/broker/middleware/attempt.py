"""The context of an attempt: what its handler is given, and the log lines that begin and end it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from dramatiq import Broker
from dramatiq.broker import MessageProxy
from dramatiq.middleware import Middleware

from taskmaster.broker.broker import NotRun
from taskmaster.broker.message import JobMessage
from taskmaster.model import trace
from taskmaster.model.trace import trace_id_of
from taskmaster.telemetry import events
from taskmaster.telemetry.logs import teller
from taskmaster_sdk import JobContext
from taskmaster_sdk.artifacts import Artifacts
from taskmaster_sdk.effects import Guards

__all__ = ["AttemptContext"]


class AttemptContext(Middleware):
    """Builds `JobContext` and decodes the payload. A payload that does not fit any more is the attempt's failure, not a reason not to run.

    Args:
        report: takes (message, fraction, note) of handlers' progress; must only touch memory.
        guards: of an attempt's effects, called when it asks for the first.
        artifacts: that handlers may write and read.
        keep: takes (message, level, text) of handlers' lines; must only touch memory.
        keep_from: least level of those; None: none are kept.
    """

    def __init__(
        self,
        report: Callable[[JobMessage, float, str], None],
        guards: Callable[[JobContext], Guards],
        artifacts: Artifacts,
        keep: Callable[[JobMessage, int, str], None],
        keep_from: int | None,
    ) -> None:
        self._report = report
        self._guards = guards
        self._artifacts = artifacts
        self._keep = keep
        self._keep_line = None if keep_from is None else self._keep_of
        self._keep_from = keep_from or 0
        self._teller = teller()

    def before_process_message(self, broker: Broker, message: MessageProxy) -> None:  # noqa: ARG002
        """Everything the handler needs.

        Raises:
            NotRun: `cancelled`; the store ends a cancelled job with whatever comes back of it.
        """
        assert isinstance(message, JobMessage)
        claim, envelope = message.claim, message.envelope
        message.began_at = began_at = time.monotonic()
        message.deadline = began_at + envelope.timeout_ms / 1_000
        message.context = JobContext(
            job_id=claim.id,
            type=envelope.type,
            queue=claim.queue,
            attempt=claim.attempt,
            max_attempts=envelope.attempts,
            root_id=envelope.root_id or claim.id,
            deadline=message.deadline,
            report=self._tell,
            guards=self._guards,
            artifacts=self._artifacts,
            keep=self._keep_line,
            keep_from=self._keep_from,
            host=message,
            plugin=message.actor.plugin,
            trace_id=trace_id_of(message.traceparent),
        )
        if trace.ours.get() != message.traceparent:
            trace.ours.set(message.traceparent)
        if message.is_cancelled:  # after the context is there: `PartitionConsumer.cancel` sets the one, then looks for the other
            raise NotRun("cancelled")
        if self._teller is not None:
            message.told = self._teller.prepare(*message.about)
            self._teller.tell(events.JOB_STARTED, message.told)

    def _tell(self, context: JobContext, fraction: float, note: str) -> None:
        self._report(context.host, fraction, note)

    def _keep_of(self, context: JobContext, level: int, text: str) -> None:
        self._keep(context.host, level, text)

    def after_process_message(
        self,
        broker: Broker,  # noqa: ARG002
        message: MessageProxy,
        *,
        result: Any = None,  # noqa: ARG002
        exception: BaseException | None = None,  # noqa: ARG002
    ) -> None:
        """The line that says how it went; failures are told when the store has taken them."""
        assert isinstance(message, JobMessage)
        if self._teller is None:
            return
        outcome = message.finish.outcome if message.finish is not None else ""
        if outcome == "c":
            event = events.JOB_COMPLETED_RECOVERED if message.is_recovered else events.JOB_COMPLETED
        elif outcome == "x":
            event = events.JOB_DISCARDED
        else:
            return
        self._teller.tell(event, message.told if message.told is not None else self._teller.prepare(*message.about))
