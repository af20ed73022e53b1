"""The span of an attempt. Only there where tracing is on; imported then, and with it OpenTelemetry."""

from __future__ import annotations

import random
from typing import Any

from dramatiq import Broker
from dramatiq.broker import MessageProxy
from dramatiq.middleware import Middleware
from opentelemetry.context import Context, attach, get_current
from opentelemetry.trace import (
    INVALID_SPAN_CONTEXT,
    Link,
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    StatusCode,
    TraceFlags,
    Tracer,
    set_span_in_context,
)

from taskmaster.broker.message import JobMessage
from taskmaster.model import trace
from taskmaster.telemetry.sampling import CHOSEN

__all__ = ["AttemptSpan", "context_of", "enter"]

_WORD = {"c": "completed", "r": "retried", "f": "dead", "x": "discarded", "d": "dependency_down", "l": "rate_limited"}


class AttemptSpan(Middleware):
    """`process <type>`, a consumer's span: linked to the submission's or, where the type says so, its child. A job whose submission is not
    sampled is not either.

    The first of the middleware, so its hook after an attempt is the last: the outcome is known. Its context stays with the thread until the
    next attempt there: an attempt may be ended from another thread, and only the handler's own can take it off.

    Most attempts are not recorded, so that is the short way: one context for all of them, which looks up what it says only when asked.

    Args:
        ratio: of the attempts whose job came without a trace.
    """

    def __init__(self, tracer: Tracer, ratio: float) -> None:
        self._tracer = tracer
        self._ratio = ratio
        self._unrecorded = set_span_in_context(Ours(), Context())

    def before_process_message(self, broker: Broker, message: MessageProxy) -> None:  # noqa: ARG002
        """Begin. An attempt that a later hook does not let begin has no end, and is not sent."""
        assert isinstance(message, JobMessage)
        producer = message.envelope.traceparent
        if not (trace.is_sampled(producer) if producer else random.random() < self._ratio):  # noqa: S311 - a sample
            if not producer:
                message.traceparent = trace.unsampled()
            if get_current() is not self._unrecorded:
                attach(self._unrecorded)
            return
        span = self._begin(message, producer)
        attach(set_span_in_context(span, Context()))
        own = span.get_span_context()
        message.traceparent = f"00-{own.trace_id:032x}-{own.span_id:016x}-{own.trace_flags & 1:02x}"
        if span.is_recording():
            message.span = span

    def _begin(self, message: JobMessage, producer: str) -> Span:
        name, attributes = f"process {message.envelope.type}", _attributes(message)
        if not producer:
            return self._tracer.start_span(name, CHOSEN, SpanKind.CONSUMER, attributes)
        parent = context_of(producer)
        if message.actor.handler.job.trace == "child":
            return self._tracer.start_span(name, _within(parent), SpanKind.CONSUMER, attributes)
        return self._tracer.start_span(name, Context(), SpanKind.CONSUMER, attributes, (Link(parent),))

    def after_process_message(
        self,
        broker: Broker,  # noqa: ARG002
        message: MessageProxy,
        *,
        result: Any = None,  # noqa: ARG002
        exception: BaseException | None = None,  # noqa: ARG002
    ) -> None:
        """End it: how it went, and the class of its error; nothing that the error says."""
        assert isinstance(message, JobMessage)
        span, finish = message.span, message.finish
        if span is None:
            return
        if finish is not None:
            outcome = "dead" if finish.outcome == "r" and message.failed else _WORD.get(finish.outcome, finish.outcome)
            span.set_attribute("taskmaster.job.outcome", outcome)
            if outcome == "retried":
                span.set_attribute("taskmaster.job.retry_delay_ms", finish.delay_ms)
            if message.is_recovered:
                span.set_attribute("taskmaster.job.recovered", True)
        if message.failure is not None:
            span.set_attribute("error.type", message.failure.error)
            span.set_status(StatusCode.ERROR)
        span.end()


class Ours(NonRecordingSpan):
    """The span of an attempt that is not recorded: whoever asks is told the context that the attempt has anyway."""

    def __init__(self) -> None:
        super().__init__(INVALID_SPAN_CONTEXT)

    def get_span_context(self) -> SpanContext:
        """Of the attempt that runs in this thread or task."""
        traceparent = trace.ours.get()
        return context_of(traceparent) if traceparent else INVALID_SPAN_CONTEXT


def _attributes(message: JobMessage) -> dict[str, Any]:
    """What a span says of its attempt, by the conventions for messaging."""
    claim, envelope = message.claim, message.envelope
    plugin, _, version = message.actor.plugin.partition("==")
    attributes: dict[str, Any] = {
        "messaging.system": "taskmaster",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": claim.queue,
        "messaging.message.id": claim.id,
        "taskmaster.job.type": envelope.type,
        "taskmaster.job.attempt": claim.attempt,
        "taskmaster.job.max_attempts": envelope.attempts,
        "taskmaster.plugin.name": plugin,
        "taskmaster.plugin.version": version,
    }
    if envelope.replayed_from:
        attributes["taskmaster.job.replayed_from"] = envelope.replayed_from
    return attributes


def _within(parent: SpanContext) -> Context:
    return set_span_in_context(NonRecordingSpan(parent), Context())


def enter(traceparent: str) -> None:
    """Make *traceparent* the parent of whatever begins in this thread or task from now on."""
    attach(_within(context_of(traceparent)))


def context_of(traceparent: str) -> SpanContext:
    """An accepted `traceparent`, as OpenTelemetry has it."""
    _, trace_id, span_id, flags = traceparent.split("-")
    return SpanContext(int(trace_id, 16), int(span_id, 16), is_remote=True, trace_flags=TraceFlags(int(flags, 16) & 1))
