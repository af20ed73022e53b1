"""Reading request bodies: plain JSON within a size, or a clear 4xx. What is in them: `engine.strict`."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from litestar import Request

from taskmaster.api.problems import BodyTooSlow, UnsupportedMediaType
from taskmaster.errors import BodyTooLarge, MalformedBody

__all__ = ["is_left", "read"]

_IS_READ = "taskmaster.body_is_read"
#: So long the whole of a body may take to come: who sends it by single bytes holds a place that others want.
BODY_S = 30.0


async def read(request: Request[Any, Any, Any], limit: int) -> bytes:
    """The whole body; reading stops when it is too long.

    Raises:
        UnsupportedMediaType: it is not sent as plain JSON.
        BodyTooLarge: more than *limit* bytes.
        BodyTooSlow: it had not come after 30 seconds.
        MalformedBody: the client went away in the middle.
    """
    for name, value in request.scope["headers"]:
        if name == b"content-type":
            if value != b"application/json":
                _check_media_type(value)
        elif name == b"content-encoding":
            if value.strip().lower() not in (b"", b"identity"):
                raise UnsupportedMediaType("compressed bodies are not taken; send it without Content-Encoding")
        elif name == b"content-length" and (len(value) > 15 or (value.isdigit() and int(value) > limit)):
            raise _too_large(limit)
    try:
        async with asyncio.timeout(BODY_S):
            return await _received(request, limit)
    except TimeoutError as error:
        raise BodyTooSlow(f"the body has not come within {BODY_S:g} s") from error


async def _received(request: Request[Any, Any, Any], limit: int) -> bytes:
    message: Any = await request.receive()
    if message["type"] == "http.request" and not message.get("more_body"):  # nearly always
        body: bytes = message["body"]
        if len(body) > limit:
            raise _too_large(limit)
        _note_end(request)
        return body
    parts, total = [], 0
    while message["type"] == "http.request":
        parts.append(message["body"])
        total += len(parts[-1])
        if total > limit:
            raise _too_large(limit)
        if not message.get("more_body"):
            _note_end(request)
            return b"".join(parts)
        message = await request.receive()
    raise MalformedBody("the body ended early")


def _note_end(request: Request[Any, Any, Any]) -> None:
    cast("dict[str, Any]", request.scope)[_IS_READ] = True


def is_left(request: Request[Any, Any, Any]) -> bool:
    """Whether the client sends a body that was not read to its end. The server closes the connection after such a request."""
    if _IS_READ in request.scope:
        return False
    return any(name == b"transfer-encoding" or (name == b"content-length" and value != b"0") for name, value in request.scope["headers"])


def _check_media_type(value: bytes) -> None:
    essence = value.decode("latin-1").partition(";")[0].strip().lower()
    if essence != "application/json" and not (essence.startswith("application/") and essence.endswith("+json")):
        raise UnsupportedMediaType(f"the body is sent as {essence[:100]!r}; send Content-Type: application/json")


def _too_large(limit: int) -> BodyTooLarge:
    return BodyTooLarge(f"the body has more than {limit} bytes", limitBytes=limit)
