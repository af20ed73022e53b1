"""What tracing asks for before it begins, and what it decides."""

from __future__ import annotations

import sys

import pytest
from opentelemetry.context import Context
from opentelemetry.sdk.trace import SpanProcessor
from opentelemetry.trace import Link, SpanContext, SpanKind, TraceFlags

from taskmaster.errors import ConfigurationError
from taskmaster.settings import Settings
from taskmaster.telemetry import tracing

ON = Settings(otlp_endpoint="http://127.0.0.1:1")


def test_without_the_packages_the_setting_is_refused(monkeypatch) -> None:
    """The message says what to install, before anything runs; without the setting nothing is asked for."""
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.grpc", None)

    tracing.require(Settings())
    with pytest.raises(ConfigurationError, match=r"taskmaster-engine\[tracing\]"):
        tracing.require(ON)


def test_the_sdk_can_be_switched_off_by_its_own_variable(monkeypatch) -> None:
    monkeypatch.setenv("OTEL_SDK_DISABLED", "TRUE")

    assert not tracing.is_on(ON)
    assert tracing.start(ON, "worker") is None


@pytest.mark.parametrize("is_sampled", [True, False])
@pytest.mark.parametrize("ratio", [0.0, 1.0])
def test_a_linked_attempt_follows_its_producer_whatever_the_ratio(is_sampled, ratio) -> None:
    """Chance decides only where nobody has decided."""
    tracer = tracing.provider_of(None, SpanProcessor(), ratio).get_tracer("t")
    producer = SpanContext(1, 2, is_remote=True, trace_flags=TraceFlags(int(is_sampled)))

    linked = tracer.start_span("process t", Context(), SpanKind.CONSUMER, links=[Link(producer)])
    alone = tracer.start_span("process t", Context(), SpanKind.CONSUMER)

    assert linked.is_recording() == is_sampled
    assert alone.is_recording() == bool(ratio)
