"""A receiver of webhooks on loopback: a real HTTP server that keeps what it is sent and answers as the test says.

with Receiver() as receiver:
    receiver.answers += [Reply(500), Reply(429, {"Retry-After": "1"})]    # then 204
    ...
    assert receiver.seen[0].headers["webhook-id"] == "evt_1"
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import ssl
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

__all__ = ["Receiver", "Reply", "Request", "is_signed"]


class Request(NamedTuple):
    """One POST. Names of headers in lower case; *answered*: with which status."""

    path: str
    headers: dict[str, str]
    body: bytes
    answered: int

    @property
    def event(self) -> dict[str, Any]:
        return dict(json.loads(self.body))


class Reply(NamedTuple):
    """An answer. *waits*: before its first byte, for this event."""

    status: int = 204
    headers: Mapping[str, str] = {}
    body: bytes = b""
    waits: threading.Event | None = None


class Receiver:
    """Listens on entering. What is not in *answers* is answered with 204. With a certificate and its key it speaks TLS."""

    def __init__(self, cert: Path | None = None, key: Path | None = None) -> None:
        self.seen: list[Request] = []
        self.answers: list[Reply] = []
        self._lock = threading.Lock()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                receiver._take(self)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
                pass

        class Server(ThreadingHTTPServer):
            def handle_error(self, request: Any, client_address: Any) -> None:
                """A caller that went away is what some tests are about."""

        self._server = Server(("127.0.0.1", 0), Handler)
        if cert is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(cert, key)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    @property
    def ids(self) -> list[str]:
        """The `webhook-id` of every request that was answered with 2xx, in order."""
        return [request.headers["webhook-id"] for request in self.seen if 200 <= request.answered < 300]

    def _take(self, handler: BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers.get("content-length", 0)))
        with self._lock:
            reply = self.answers.pop(0) if self.answers else Reply()
            self.seen.append(Request(handler.path, {name.lower(): value for name, value in handler.headers.items()}, body, reply.status))
        if reply.waits is not None:
            reply.waits.wait(30)
        try:
            handler.send_response(reply.status)
            for name, value in {"Content-Length": str(len(reply.body)), **reply.headers}.items():
                handler.send_header(name, value)
            handler.end_headers()
            handler.wfile.write(reply.body)
        except OSError:
            handler.close_connection = True  # the caller has given up

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)


def is_signed(request: Request, secret: str) -> bool:
    """Whether one of the signatures is that of *secret*, by the specification and none of our code."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signed = b".".join((request.headers["webhook-id"].encode(), request.headers["webhook-timestamp"].encode(), request.body))
    own = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    return f"v1,{own}" in request.headers.get("webhook-signature", "").split(" ")
