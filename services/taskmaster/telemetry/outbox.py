"""Where ended spans wait for the collector, in a way that can neither hold up the work nor take memory without bound.

The SDK's own batches wait half a minute for a dead collector when a process ends, and do not say how much was lost.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

from opentelemetry.context import _SUPPRESS_INSTRUMENTATION_KEY, Context, attach, set_value
from opentelemetry.sdk.trace import Event, ReadableSpan, Span, SpanProcessor
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.trace import Status

__all__ = ["Outbox", "plain"]

#: Spans that wait at most, those that go together, and how long the first waits for company.
QUEUE_MAX, BATCH_MAX, DELAY_S = 2_048, 512, 1.0
#: How long a failure is not told again.
TELL_EVERY_S = 60.0
#: What tells of a handler's data what its errors say.
_TEXTS = frozenset({"exception.message", "exception.stacktrace"})


class Outbox(SpanProcessor):
    """A queue and a thread that sends. What comes while the queue is full is dropped and counted.

    Args:
        exporter: that is given batches, from the thread alone.
        tell: called with the number of spans lost since the last time, at most once a minute.
    """

    def __init__(self, exporter: SpanExporter, tell: Callable[[int], None]) -> None:
        self._exporter = exporter
        self._tell = tell
        self._waiting: deque[ReadableSpan] = deque()
        self._lost = self._under_way = 0
        self._told_at = -TELL_EVERY_S
        self._bell = threading.Event()
        self._is_stopping = False
        self._thread = threading.Thread(target=self._run, name="taskmaster-traces", daemon=True)
        self._thread.start()

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Nothing is sent of a span that has not ended."""

    def on_end(self, span: ReadableSpan) -> None:
        """Take it, if it is sampled. Any thread; no lock, no wait."""
        if span.context is None or not span.context.trace_flags.sampled:
            return
        if self._is_stopping or len(self._waiting) >= QUEUE_MAX:
            self._lost += 1
            return
        self._waiting.append(plain(span))
        if len(self._waiting) >= BATCH_MAX:
            self._bell.set()

    def _run(self) -> None:
        attach(set_value(_SUPPRESS_INSTRUMENTATION_KEY, True))  # a plugin that traces every HTTP call would trace these, for ever
        while not self._is_stopping:
            self._bell.wait(DELAY_S)
            self._bell.clear()
            while self._waiting:
                self._send([self._waiting.popleft() for _ in range(min(BATCH_MAX, len(self._waiting)))])
            if time.monotonic() - self._told_at > TELL_EVERY_S:
                self._tell_lost(self._lost)

    def _send(self, batch: Sequence[ReadableSpan]) -> None:
        self._under_way = len(batch)
        try:
            is_taken = self._exporter.export(batch) is SpanExportResult.SUCCESS
        except Exception:
            is_taken = False
        self._under_way = 0
        if not is_taken:
            self._lost += len(batch)

    def _tell_lost(self, lost: int) -> None:
        if lost:
            self._lost, self._told_at = 0, time.monotonic()
            self._tell(lost)

    def stop(self, within_s: float) -> None:
        """Send what waits, as far as that goes in *within_s* seconds, and tell how much was lost. Works twice."""
        if self._is_stopping:
            return
        self._is_stopping = True
        self._bell.set()
        self._thread.join(within_s)
        self._tell_lost(self._lost + self._under_way + len(self._waiting))
        self._exporter.shutdown()

    def shutdown(self) -> None:
        """As `stop`, for a provider that is shut down."""
        self.stop(1.0)

    def force_flush(self, timeout_millis: int = 1_000) -> bool:
        """Wait until nothing waits; False when something still does after that time."""
        until = time.monotonic() + timeout_millis / 1_000
        self._bell.set()
        while self._waiting and time.monotonic() < until:
            self._thread.join(0.01)
        return not self._waiting


def plain(span: ReadableSpan) -> ReadableSpan:
    """The span without the texts of exceptions, which may hold anything; their classes stay."""
    if not span.events and not span.status.description:
        return span
    events = [Event(one.name, {k: v for k, v in (one.attributes or {}).items() if k not in _TEXTS}, one.timestamp) for one in span.events]
    return ReadableSpan(
        name=span.name,
        context=span.context,
        parent=span.parent,
        resource=span.resource,
        attributes=span.attributes,
        events=events,
        links=span.links,
        kind=span.kind,
        status=Status(span.status.status_code),
        start_time=span.start_time,
        end_time=span.end_time,
        instrumentation_scope=span.instrumentation_scope,
    )
