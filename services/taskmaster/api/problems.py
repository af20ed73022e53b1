"""Errors on the wire: the one place that says which error has which status. Each 4xx and 5xx is a problem document (RFC 9457)."""

from __future__ import annotations

import math
import secrets
from typing import Any, NamedTuple

import msgspec
from litestar import Request
from litestar.exceptions import HTTPException
from litestar.response.base import ASGIResponse

from taskmaster.errors import InvalidRequest, StoreError, TaskMasterError
from taskmaster.model.trace import accepted, trace_id_of
from taskmaster.telemetry import events, logs

__all__ = [
    "BadParameter",
    "BodyTooSlow",
    "CrossSite",
    "KeyConflict",
    "PreconditionFailed",
    "Problem",
    "TooManyStreams",
    "UnsupportedMediaType",
    "answer",
    "describe",
    "trace_id",
]

MEDIA_TYPE = "application/problem+json"
#: What a client is told to wait before it repeats a request that the store or a queue could not take.
RETRY_AFTER_S = 1
#: Where a request's scope holds the context of what it submits.
TRACE = "taskmaster.traceparent"


class UnsupportedMediaType(InvalidRequest):
    """The body is not sent as JSON."""

    code = "unsupported-media-type"


class BadParameter(InvalidRequest):
    """A query parameter or header cannot be understood. Facts: parameter."""

    code = "bad-parameter"


class PreconditionFailed(TaskMasterError):
    """The thing has another ETag than If-Match names."""

    code = "precondition-failed"


class BodyTooSlow(InvalidRequest):
    """The body did not come in time."""

    code = "body-too-slow"


class CrossSite(TaskMasterError):
    """A browser sends it for a page of another site. Facts: origin."""

    code = "cross-site"


class TooManyStreams(TaskMasterError):
    """As many jobs are followed through this process as may. Facts: limit, retryAfterS."""

    code = "too-many-streams"


class KeyConflict(InvalidRequest):
    """The header and the body give different idempotency keys."""

    code = "idempotency-key-conflict"


class _Kind(NamedTuple):
    status: int
    title: str


_KINDS: dict[str, _Kind] = {
    "invalid-request": _Kind(422, "The request cannot be carried out as it stands"),
    "unknown-job-type": _Kind(422, "There is no such job type"),
    "invalid-payload": _Kind(422, "The payload does not fit the job type"),
    "idempotency-key-missing": _Kind(400, "An idempotency key is required"),
    "idempotency-key-reused": _Kind(422, "The idempotency key belongs to another request"),
    "idempotency-key-conflict": _Kind(400, "Two different idempotency keys were given"),
    "malformed-body": _Kind(400, "The body is not acceptable JSON"),
    "body-too-large": _Kind(413, "The body is too large"),
    "body-too-slow": _Kind(408, "The body did not come in time"),
    "unsupported-media-type": _Kind(415, "The body must be JSON"),
    "bad-parameter": _Kind(400, "A parameter cannot be understood"),
    "forbidden": _Kind(403, "A permission is missing"),
    "cross-site": _Kind(403, "The request comes from a page of another site"),
    "not-found": _Kind(404, "There is no such thing"),
    "method-not-allowed": _Kind(405, "This method does nothing here"),
    "conflict": _Kind(409, "The present state does not allow this"),
    "not-completed": _Kind(409, "The job has no result"),
    "queue-draining": _Kind(409, "The queue takes no new jobs"),
    "unique-conflict": _Kind(409, "Another job has this work"),
    "revision-mismatch": _Kind(409, "It was changed since"),
    "precondition-failed": _Kind(412, "It is not as the request assumes"),
    "queue-full": _Kind(429, "As many jobs wait in the queue as may"),
    "effect-unknown": _Kind(409, "Nobody knows whether an effect of this job happened"),
    "store-unavailable": _Kind(503, "The store does not answer"),
    "too-many-streams": _Kind(503, "As many jobs are followed as may"),
    "overloaded": _Kind(429, "The queue is too far behind"),
    "store-filling": _Kind(503, "The store's memory is kept for higher priorities"),
    "store-refused": _Kind(503, "The store takes no writes now"),
    "store-unsafe": _Kind(503, "The store is not safe to use"),
    "store-defect": _Kind(500, "The store's answer makes no sense"),
    "store": _Kind(503, "The store could not do it"),
    "internal": _Kind(500, "Something is wrong on our side"),
}
#: Statuses of the framework's own errors.
_OF_STATUS = {400: "bad-parameter", 404: "not-found", 405: "method-not-allowed", 413: "body-too-large", 415: "unsupported-media-type"}


class Problem(msgspec.Struct, rename="camel", kw_only=True):
    """The members that every problem document has; the error's facts stand beside them."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    trace_id: str


def trace_id(request: Request[Any, Any, Any]) -> str:
    """The trace of this request, 32 hex digits: the one that is recorded, else the one that the caller named, else a new one."""
    known = str(request.scope.get(TRACE, "")) or accepted(request.headers.get("traceparent"))
    return trace_id_of(known) or secrets.token_hex(16)


def describe(error: TaskMasterError, *, instance: str, trace: str) -> dict[str, Any]:
    """The problem document of one of our errors."""
    code = error.code if error.code in _KINDS else "internal"
    kind = _KINDS[code]
    return (
        {
            "type": f"/problems/{code}",
            "title": kind.title,
            "status": kind.status,
            "detail": error.message,
            "instance": instance,
            "traceId": trace,
        }
        | {name: value for name, value in error.facts.items() if name not in ("type", "status")}
        | _job_type(error)
    )


def _job_type(error: TaskMasterError) -> dict[str, Any]:
    """`type` is taken by the problem's own; a job type is called jobType there."""
    return {"jobType": error.facts["type"]} if "type" in error.facts else {}


def answer(request: Request[Any, Any, Any], error: Exception) -> ASGIResponse:
    """The answer to a request that ended with *error*. Unexpected ones are logged, with their trace id, and not told."""
    trace, path = trace_id(request), request.scope.get("path", "")
    headers: dict[str, str] = {"cache-control": "no-store", "x-content-type-options": "nosniff"}
    if isinstance(error, TaskMasterError) and error.code in _KINDS:
        document = describe(error, instance=path, trace=trace)
        if "retryAfterS" in error.facts:
            headers["retry-after"] = str(error.facts["retryAfterS"])
        elif document["status"] == 429 or (isinstance(error, StoreError) and document["status"] == 503):
            headers["retry-after"] = str(RETRY_AFTER_S)
    elif isinstance(error, HTTPException) and error.status_code < 500:
        code = _OF_STATUS.get(error.status_code, "invalid-request")
        detail = error.detail if error.detail and code not in ("not-found", "method-not-allowed") else f"{request.method} {path[:200]}"
        document = {
            "type": f"/problems/{code}",
            "title": _KINDS[code].title,
            "status": error.status_code,
            "detail": detail,
            "instance": path,
            "traceId": trace,
        }
        headers |= {name.lower(): value for name, value in (error.headers or {}).items() if name.lower() == "allow"}
    else:
        document = {"type": "/problems/internal", "title": _KINDS["internal"].title, "status": 500, "detail": "See the server's log."}
        document |= {"instance": path, "traceId": trace}
    if document["status"] == 500:
        logs.get().error(events.API_FAILED, traceId=trace, method=request.method, path=path[:200], exc_info=error)
    return ASGIResponse(body=_encode(document), status_code=document["status"], media_type=MEDIA_TYPE, headers=headers)


def _encode(document: dict[str, Any]) -> bytes:
    try:
        return msgspec.json.encode(document)
    except (UnicodeError, TypeError, ValueError):  # a caller's lone surrogate in a name that is told back
        plain = {name: value for name, value in document.items() if isinstance(value, int | float) and math.isfinite(value)}
        texts = {name: str(value).encode("ascii", "backslashreplace").decode() for name, value in document.items() if name not in plain}
        return msgspec.json.encode(plain | texts)
