"""A file as an answer: sent in pieces, as fast as the caller takes them."""

from __future__ import annotations

import asyncio
from typing import Any, BinaryIO
from urllib.parse import quote

from litestar.response.base import ASGIResponse
from litestar.types import Receive, Scope, Send

from taskmaster.engine.artifacts import Reference

__all__ = ["Download"]

_CHUNK = 262_144


class Download(ASGIResponse):
    """An artifact, to be saved and not shown, whatever its type says. Closes *file*."""

    __slots__ = ("_file", "_headers")

    def __init__(self, reference: Reference, file: BinaryIO) -> None:
        self.status_code = 200
        self.background = None
        self._file = file
        plain = reference.name.encode("ascii", "replace").decode().replace("?", "_")
        named = f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(reference.name, safe='')}"
        self._headers = [
            (b"content-type", reference.content_type.encode()),
            (b"content-length", b"%d" % reference.size),
            (b"content-disposition", named.encode()),
            (b"etag", f'"{reference.sha256}"'.encode()),
            (b"x-content-type-options", b"nosniff"),
            (b"content-security-policy", b"sandbox; default-src 'none'"),
            (b"cache-control", b"private, no-cache"),
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        """Send it."""
        try:
            start: Any = {"type": "http.response.start", "status": 200, "headers": self._headers}
            await send(start)
            while chunk := await asyncio.to_thread(self._file.read, _CHUNK):
                body: Any = {"type": "http.response.body", "body": chunk, "more_body": True}
                await send(body)
            end: Any = {"type": "http.response.body", "body": b"", "more_body": False}
            await send(end)
        finally:
            self._file.close()
