"""What the routes share: one store, one gatherer, one catalogue, one reader of events for each API process."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any, cast
from urllib.parse import quote

from litestar import Request
from litestar.response.base import ASGIResponse
from litestar.types import Receive, Scope, Send

from taskmaster.api import shapes
from taskmaster.api.metrics import Scrape
from taskmaster.api.problems import TRACE, BadParameter
from taskmaster.api.watch import Watch
from taskmaster.engine.artifacts import ArtifactStore
from taskmaster.engine.catalogue import Catalogue
from taskmaster.engine.enqueue import AsyncEnqueuer
from taskmaster.engine.gather import Gather
from taskmaster.engine.lens import Lens
from taskmaster.engine.pressure import PressureGauge
from taskmaster.engine.producing import Sending, sending
from taskmaster.engine.waiting import Waiting
from taskmaster.errors import Forbidden
from taskmaster.model import scopes
from taskmaster.model.ids import partition_of
from taskmaster.model.trace import accepted
from taskmaster.settings import Settings
from taskmaster.store import calls
from taskmaster.store.aio import AsyncStore

__all__ = ["LIMIT_DEFAULT", "LIMIT_MAX", "Answer", "AnyRequest", "Service", "data", "header", "limit_of", "of", "only", "raw", "sending_of"]

AnyRequest = Request[Any, Any, Any]
LIMIT_DEFAULT, LIMIT_MAX = 50, 200
_HEADERS = ((b"content-type", b"application/json"), (b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff"))


@dataclass(slots=True)
class Service:
    """The parts behind the routes."""

    settings: Settings
    store: AsyncStore
    gather: Gather
    enqueuer: AsyncEnqueuer
    catalogue: Catalogue
    waiting: Waiting
    watch: Watch
    pressure: PressureGauge
    scrape: Scrape
    artifacts: ArtifactStore
    #: Whether spans are made; if not, nobody need ask the tracing library, which takes a twentieth of a submission's time.
    is_traced: bool = False
    #: Jobs that are followed at this moment.
    streams: int = 0
    started: float = field(default_factory=time.monotonic)

    def partition(self, job_id: str) -> int:
        """Where the job is."""
        return partition_of(job_id, self.settings.partitions)

    def may(self, scope: scopes.Scope) -> bool:
        """Whether callers hold *scope*."""
        return scope in self.settings.scopes

    def require(self, scope: scopes.Scope) -> None:
        """The one place that says who may do what.

        Raises:
            Forbidden: callers of this API do not hold *scope*.
        """
        if not self.may(scope):
            grant = ",".join((*self.settings.scopes, scope))
            raise Forbidden(
                f"this needs the scope {scope}, which callers of this API do not hold; grant it with TASKMASTER_SCOPES={grant}, "
                "or use the command line",
                scope=scope,
            )

    @property
    def lens(self) -> Lens:
        """What callers are shown of a job."""
        return Lens(self.catalogue.types, self.settings.trace_url)

    async def lens_for(self, reveal: str | None, target: str) -> Lens:
        """The same, for a caller that asks with `reveal=true` to see everything of *target*: kept in the audit before anything is shown.

        Raises:
            Forbidden: callers do not hold the scope `payload:reveal`.
            BadParameter: it is neither true nor false.
            StoreError: it could not be kept.
        """
        if reveal not in (None, "true", "false"):
            raise BadParameter("reveal is true or false", parameter="reveal")
        if reveal != "true":
            return self.lens
        self.require("payload:reveal")
        await self.store.run(calls.audit_note(self.partition(target), "api", "payload.revealed", target))
        return Lens(self.catalogue.types, self.settings.trace_url, reveals=True)

    @property
    def partitions(self) -> range:
        """All of them."""
        return range(self.settings.partitions)


def of(request: AnyRequest) -> Service:
    """The application's parts."""
    return cast("Service", request.app.state["service"])


class Answer(ASGIResponse):
    """A body and its headers, sent as they are: the framework's own header table takes a sixth of a submission's time."""

    __slots__ = ("_raw",)

    def __init__(self, body: bytes, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        self.body = body
        self.status_code = status
        self.background = None
        self._raw = headers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        """Send it."""
        headers = [*self._raw, (b"content-length", b"%d" % len(self.body))] if self.status_code != 304 else self._raw
        start: Any = {"type": "http.response.start", "status": self.status_code, "headers": headers}
        await send(start)
        body: Any = {"type": "http.response.body", "body": b"" if scope.get("method") == "HEAD" else self.body, "more_body": False}
        await send(body)


def data(answer: Any, status: int = 200, headers: dict[str, str] | None = None) -> Answer:
    """An answer of ours as JSON. *headers* in lower case."""
    return raw(shapes.encode(answer), status, headers)


def raw(body: bytes, status: int = 200, headers: dict[str, str] | None = None) -> Answer:
    """An answer that is bytes already, JSON unless *headers* say otherwise; `cache-control` among them replaces `no-store`."""
    if headers is None:
        return Answer(body, status, list(_HEADERS))
    more = [(name.encode(), value.encode("latin-1", "replace")) for name, value in headers.items()]
    return Answer(body, status, [*(pair for pair in _HEADERS if pair[0].decode() not in headers), *more])


def header(request: AnyRequest, name: bytes) -> str | None:
    """One header of the request, without building the framework's table of them; *name* in lower case."""
    for known, value in request.scope["headers"]:
        if known == name:
            return value.decode("latin-1")
    return None


def sending_of(request: AnyRequest) -> Sending:
    """What this request submits, for a `with` block, under the caller's trace context; its problems tell the same trace."""
    given = accepted(header(request, b"traceparent"))
    span = sending(given) if of(request).is_traced else Sending(given)
    cast("dict[str, Any]", request.scope)[TRACE] = span.traceparent
    return span


def only(request: AnyRequest, *known: str) -> None:
    """Refuse query parameters that would otherwise be ignored.

    Raises:
        BadParameter: one is not *known* here.
    """
    for name in request.query_params:
        if name not in known:
            shown = quote(name[:64])
            raise BadParameter(f"unknown parameter {shown!r}; known are: {', '.join(known) or 'none'}", parameter=shown)


def limit_of(text: str | None) -> int:
    """Rows a page, 1 to 200; 50 when not given.

    Raises:
        BadParameter: something else was given.
    """
    if text is None:
        return LIMIT_DEFAULT
    if not (text.isascii() and text.isdigit() and len(text) <= 4 and 1 <= int(text) <= LIMIT_MAX):
        raise BadParameter(f"limit is {quote(text[:32])!r}; 1 to {LIMIT_MAX} is meant", parameter="limit")
    return int(text)
