"""The span of a submission, in a process that has OpenTelemetry; in any other nothing but the context that was given.

Only what is loaded already is used: the API process when tracing is on, and applications that trace themselves, whose own provider then
gets the span.
"""

from __future__ import annotations

import sys
from functools import lru_cache
from types import TracebackType
from typing import Any, Literal, Self

from taskmaster.errors import TaskMasterError
from taskmaster.model import trace

__all__ = ["Sending", "sending"]

SYSTEM = "taskmaster"


class Sending:
    """What becomes of a submission, for a `with` block: nothing is recorded.

    Attributes:
        traceparent: what the jobs are to carry, or empty.
    """

    __slots__ = ("traceparent",)

    def __init__(self, traceparent: str) -> None:
        self.traceparent = traceparent

    def stored(self, queue: str, job_type: str, job_id: str) -> None:
        """Which job it was about."""

    def many(self, count: int) -> None:
        """So many were sent."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        """Nothing is left to do."""


class _Span(Sending):
    """The same, recorded as a producer's span."""

    __slots__ = ("_operation", "_span")

    def __init__(self, api: Any, given: str, operation: str) -> None:
        self._operation = operation
        attributes = {
            "messaging.system": SYSTEM,
            "messaging.operation.name": operation,
            "messaging.operation.type": operation,
        }
        around = _remote(api, given) if given else None
        self._span = _tracer(api, api.get_tracer_provider()).start_span(operation, around, api.SpanKind.PRODUCER, attributes)
        super().__init__(_said(self._span.get_span_context()) or given)

    def stored(self, queue: str, job_type: str, job_id: str) -> None:
        span = self._span
        if span.is_recording():
            span.update_name(f"{self._operation} {queue}")
            names = ("messaging.destination.name", "taskmaster.job.type", "messaging.message.id")
            span.set_attributes(dict(zip(names, (queue, job_type, job_id), strict=True)))

    def many(self, count: int) -> None:
        self._span.set_attribute("messaging.batch.message_count", count)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        span = self._span
        if isinstance(error, Exception) and span.is_recording():
            api = sys.modules["opentelemetry.trace"]
            span.set_attribute("error.type", error.code if isinstance(error, TaskMasterError) else type(error).__name__)
            span.set_status(api.StatusCode.ERROR)
        span.end()


def sending(given: str = "", operation: Literal["send", "create"] = "send") -> Sending:
    """A submission under the context *given*, else under what runs here: a span of the caller's, or the job of an attempt."""
    api: Any = sys.modules.get("opentelemetry.trace")
    if api is None:
        return Sending(given or trace.ours.get())
    current = ""
    if not given and (context := sys.modules["opentelemetry.context"].get_current()):  # empty where nobody has begun anything
        current = _said(api.get_current_span(context).get_span_context())
    given = given or ("" if current else trace.ours.get())
    if isinstance(api.get_tracer_provider(), api.ProxyTracerProvider):  # there is none: nobody would get the span
        return Sending(given or current)
    return _Span(api, given, operation)


def _said(context: Any) -> str:
    """A span's context as traceparent; empty if it is none."""
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags & 1:02x}" if context.is_valid else ""


def _remote(api: Any, traceparent: str) -> Any:
    """The context in which *traceparent* is the parent."""
    _, trace_id, span_id, flags = traceparent.split("-")
    parent = api.SpanContext(int(trace_id, 16), int(span_id, 16), is_remote=True, trace_flags=api.TraceFlags(int(flags, 16) & 1))
    return api.set_span_in_context(api.NonRecordingSpan(parent))


@lru_cache(maxsize=4)
def _tracer(api: Any, provider: Any) -> Any:
    """One of ours for each provider: making one takes a lock."""
    return api.get_tracer("taskmaster", tracer_provider=provider)
