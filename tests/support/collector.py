"""A collector inside the test's own process: what OTLP over gRPC brings is kept, and can be waited for."""

from __future__ import annotations

import os
import threading
from concurrent import futures
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "false")  # processes are started while it runs: they must not inherit its threads

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as wire
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as service

from support.eventually import eventually

__all__ = ["Collector", "Seen"]


@dataclass(frozen=True)
class Seen:
    """One span. Ids are hex digits; `links` are (trace id, span id)."""

    service: str
    name: str
    kind: str
    trace_id: str
    span_id: str
    parent_id: str
    links: tuple[tuple[str, str], ...]
    facts: dict[str, Any]
    events: tuple[tuple[str, dict[str, Any]], ...]
    is_error: bool
    text: str


class Collector(service.TraceServiceServicer):
    """Listens on entering, on a free port of this machine."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._spans: list[Seen] = []
        self._server = grpc.server(futures.ThreadPoolExecutor(2))
        service.add_TraceServiceServicer_to_server(self, self._server)
        self.endpoint = f"http://127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"

    def Export(self, request: Any, context: Any) -> Any:  # noqa: N802 - gRPC's name
        found = [
            _seen(span, dict(_facts(one.resource.attributes)))
            for one in request.resource_spans
            for scope in one.scope_spans
            for span in scope.spans
        ]
        with self._lock:
            self._spans += found
        return wire.ExportTraceServiceResponse()

    @property
    def spans(self) -> list[Seen]:
        with self._lock:
            return list(self._spans)

    def named(self, name: str) -> list[Seen]:
        return [span for span in self.spans if span.name == name]

    def wait_for(self, name: str, count: int = 1, within_s: float = 20) -> list[Seen]:
        """The spans of that name, as soon as there are so many."""
        eventually(lambda: len(self.named(name)) >= count, within_s, lambda: f"{count} of {name!r}; there are {self.tree()}")
        return self.named(name)

    def wait_for_tree(self, wanted: list[str], within_s: float = 20) -> None:
        """Processes send by themselves: wait until all is there that must be, and nothing else."""
        eventually(lambda: self.tree() == sorted(wanted), within_s, lambda: f"{wanted}; it is {self.tree()}")

    def tree(self) -> list[str]:
        """Every span behind its parents: `send q > process t > call`, sorted."""
        by_id = {span.span_id: span for span in self.spans}

        def path(span: Seen) -> str:
            parent = by_id.get(span.parent_id)
            return f"{path(parent)} > {span.name}" if parent is not None else span.name

        return sorted(path(span) for span in by_id.values())

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._server.stop(0).wait(5)


def _seen(span: Any, resource: dict[str, Any]) -> Seen:
    return Seen(
        resource["service.name"],
        span.name,
        span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_").lower(),
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex(),
        tuple((link.trace_id.hex(), link.span_id.hex()) for link in span.links),
        dict(_facts(span.attributes)),
        tuple((event.name, dict(_facts(event.attributes))) for event in span.events),
        span.status.code == span.status.STATUS_CODE_ERROR,
        str(span),
    )


def _facts(attributes: Any) -> Any:
    for one in attributes:
        yield one.key, getattr(one.value, one.value.WhichOneof("value") or "string_value")
