"""Tracing with OpenTelemetry: off, and not even imported, unless the settings name a collector.

A process that traces calls `start` once, after its last fork, and `stop` at its end. From `start` on `opentelemetry.trace.get_tracer` gives
handlers tracers whose spans go the same way.
"""

from __future__ import annotations

import logging
import os
import socket
from typing import TYPE_CHECKING, Any

import taskmaster
from taskmaster.errors import ConfigurationError
from taskmaster.settings import Settings
from taskmaster.telemetry import events
from taskmaster.telemetry.logs import get

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import Tracer

    from taskmaster.telemetry.outbox import Outbox

__all__ = ["Tracing", "is_on", "provider_of", "require", "start"]

#: How long one batch may take.
EXPORT_S = 5


def is_on(settings: Settings) -> bool:
    """Whether spans are to be made."""
    return bool(settings.otlp_endpoint) and os.environ.get("OTEL_SDK_DISABLED", "").lower() != "true"


def require(settings: Settings) -> None:
    """Load the SDK and what sends, if they are needed: before processes are forked, which then share them. Starts nothing.

    Raises:
        ConfigurationError: it is needed, and not installed.
    """
    if not is_on(settings):
        return
    # A handler may fork: gRPC's own threads must not come to life in its child, nor its remarks on that in the log.
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "false")
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    try:
        if settings.otlp_protocol == "grpc":
            import opentelemetry.exporter.otlp.proto.grpc.trace_exporter
        else:
            import opentelemetry.exporter.otlp.proto.http.trace_exporter  # noqa: F401
        from taskmaster.telemetry import outbox, sampling  # noqa: F401
    except ImportError as error:
        message = "otlp_endpoint is set, but OpenTelemetry is not installed: install taskmaster-engine[tracing], or take the setting out"
        raise ConfigurationError(message, name="otlp_endpoint") from error


class Tracing:
    """What is on. `stop` ends it."""

    def __init__(self, outbox: Outbox, provider: TracerProvider) -> None:
        self.outbox = outbox
        self.provider = provider

    def tracer(self) -> Tracer:
        """For spans of ours."""
        return self.provider.get_tracer("taskmaster", taskmaster.__version__)

    def stop(self, within_s: float = 2.0) -> None:
        """Send what waits, as far as that goes in *within_s* seconds. Works twice."""
        self.outbox.stop(within_s)


def start(settings: Settings, role: str) -> Tracing | None:
    """Trace this process from now on; None when the settings do not ask for it. Starts a thread: call it after the last fork.

    Args:
        settings: name the collector.
        role: api, worker or scheduler: the service is called `taskmaster-<role>`.
    """
    if not is_on(settings):
        return None
    require(settings)
    from opentelemetry import trace

    from taskmaster.telemetry.outbox import Outbox

    logging.getLogger("opentelemetry.exporter").setLevel(logging.CRITICAL)  # each try of each batch; the outbox tells of losses
    outbox = Outbox(_exporter(settings), _tell)
    provider = provider_of(_resource(role), outbox, settings.trace_ratio)
    trace.set_tracer_provider(provider)
    return Tracing(outbox, provider)


def _tell(lost: int) -> None:
    get().warning(events.TRACE_LOST, spans=lost)


def _resource(role: str) -> Resource:
    """Who speaks; `OTEL_RESOURCE_ATTRIBUTES` adds to it."""
    from opentelemetry.sdk.resources import Resource

    who = f"{socket.gethostname()}:{os.getpid()}"
    return Resource.create({"service.name": f"taskmaster-{role}", "service.version": taskmaster.__version__, "service.instance.id": who})


def provider_of(resource: Resource | None, processor: SpanProcessor, ratio: float) -> TracerProvider:
    """A provider whose spans go to *processor*.

    What has a parent follows its parent; an attempt that is linked to its producer follows the producer; of the rest *ratio* is sampled.
    """
    from opentelemetry.sdk.trace import SpanLimits, TracerProvider

    from taskmaster.telemetry.sampling import KeepDecision

    limits = SpanLimits(max_span_attributes=64, max_events=32, max_links=32, max_attribute_length=1_000)
    provider = TracerProvider(sampler=KeepDecision(ratio), resource=resource, shutdown_on_exit=False, span_limits=limits)
    provider.add_span_processor(processor)
    return provider


def _exporter(settings: Settings) -> SpanExporter:
    endpoint: Any = settings.otlp_endpoint
    if settings.otlp_protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as OverGrpc

        return OverGrpc(endpoint=endpoint, timeout=EXPORT_S)
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as OverHttp

    path = "" if endpoint.endswith("/v1/traces") else "/v1/traces"
    return OverHttp(endpoint=endpoint.rstrip("/") + path, timeout=EXPORT_S)
