"""What isolated handlers trace, on its way from the runner to the worker process, which sends it. Imported only where tracing is on."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan, Span, SpanProcessor
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags
from opentelemetry.trace import format_span_id as span_id_text

from taskmaster.broker.isolation.frames import SpanRecord
from taskmaster.broker.middleware.span import context_of, enter
from taskmaster.telemetry.outbox import plain
from taskmaster.telemetry.tracing import provider_of

__all__ = ["collect", "enter", "restored"]

#: Spans of one attempt that are kept: they go with its end, in one message. The first ones, since parents tell where the rest belongs.
SPANS_MAX = 256


def collect() -> Callable[[], tuple[SpanRecord, ...]]:
    """Have handlers' spans kept from now on; the answer takes out those of the attempt that has just ended."""
    kept = _Kept()
    trace.set_tracer_provider(provider_of(None, kept, 0.0))  # under an attempt that is not recorded nothing is
    return kept.take


class _Kept(SpanProcessor):
    def __init__(self) -> None:
        self._spans: deque[SpanRecord] = deque()

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Nothing is kept of a span that has not ended."""

    def on_end(self, span: ReadableSpan) -> None:
        if span.context is not None and span.context.trace_flags.sampled and len(self._spans) < SPANS_MAX:
            self._spans.append(_record(plain(span), span.context))

    def take(self) -> tuple[SpanRecord, ...]:
        spans, self._spans = tuple(self._spans), deque()
        return spans

    def force_flush(self, timeout_millis: int = 0) -> bool:  # noqa: ARG002
        """The worker process sends."""
        return True


def _record(span: ReadableSpan, context: SpanContext) -> SpanRecord:
    scope = span.instrumentation_scope
    return SpanRecord(
        name=span.name,
        traceparent=_text(context),
        parent_id=span_id_text(span.parent.span_id) if span.parent is not None else "",
        kind=span.kind.value,
        start_ns=span.start_time or 0,
        end_ns=span.end_time or 0,
        status=span.status.status_code.value,
        attributes=_values(span.attributes),
        events=tuple((one.name, one.timestamp, _values(one.attributes)) for one in span.events),
        links=tuple((_text(one.context), _values(one.attributes)) for one in span.links),
        scope=(scope.name, scope.version or "") if scope is not None else ("", ""),
    )


def restored(record: SpanRecord, resource: Resource) -> ReadableSpan:
    """The span as it was, but for attributes that JSON cannot hold, in the name of *resource*."""
    context = context_of(record.traceparent)
    parent = None
    if record.parent_id:
        parent = SpanContext(context.trace_id, int(record.parent_id, 16), is_remote=False, trace_flags=TraceFlags(1))
    name, version = record.scope
    return ReadableSpan(
        name=record.name,
        context=context,
        parent=parent,
        resource=resource,
        attributes=record.attributes,
        events=[Event(name, attributes, timestamp) for name, timestamp, attributes in record.events],
        links=[Link(context_of(one), attributes) for one, attributes in record.links],
        kind=SpanKind(record.kind),
        status=Status(StatusCode(record.status)),
        start_time=record.start_ns,
        end_time=record.end_ns,
        instrumentation_scope=InstrumentationScope(name, version) if name else None,
    )


def _text(context: SpanContext) -> str:
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags & 1:02x}"


def _values(attributes: Mapping[str, Any] | None) -> dict[str, Any]:
    """Attributes, without bytes: JSON has none."""
    return {
        name: list(value) if isinstance(value, tuple) else value for name, value in (attributes or {}).items() if type(value) is not bytes
    }
