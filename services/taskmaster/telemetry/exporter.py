"""A small HTTP server for processes that have none: `/metrics` and `/livez`, on a port of their own.

Loaded by those who serve.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from taskmaster.telemetry import events
from taskmaster.telemetry.logs import get

__all__ = ["Page", "Trouble", "serve", "serve_in_background"]

#: Seconds that a client may take to say what it wants, or to take the answer.
PATIENCE_S = 5.0
#: Clients at once; more are turned away, so that nobody can have this process make threads without end.
CLIENTS_MAX = 16

#: `Accept` header -> body, media type. What raises is answered 500.
Page = Callable[[str], tuple[bytes, str]]
#: Why this process, or one it answers for, does not get on; empty: it does.
Trouble = Callable[[], str]


def serve(listening: socket.socket, page: Page, trouble: Trouble) -> None:
    """Answer until the process ends."""
    _server(listening, page, trouble).serve_forever()


def serve_in_background(listening: socket.socket, page: Page, trouble: Trouble) -> Callable[[], None]:
    """Answer on a thread of its own. What comes back ends that."""
    server = _server(listening, page, trouble)
    thread = threading.Thread(target=server.serve_forever, name="taskmaster-metrics", daemon=True)
    thread.start()

    def stop() -> None:
        server.shutdown()
        server.server_close()
        thread.join(1.0)

    return stop


def _server(listening: socket.socket, page: Page, trouble: Trouble) -> ThreadingHTTPServer:
    class Handler(_Handler):
        pass

    Handler.page, Handler.trouble = staticmethod(page), staticmethod(trouble)
    return _Server(listening, Handler)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, listening: socket.socket, handler: type[_Handler]) -> None:
        super().__init__(listening.getsockname()[:2], handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listening
        self._room = threading.BoundedSemaphore(CLIENTS_MAX)

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._room.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._room.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is nobody's trouble."""


class _Handler(BaseHTTPRequestHandler):
    page: Page
    trouble: Trouble
    timeout = PATIENCE_S
    server_version, sys_version = "taskmaster", ""

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/metrics":
            try:
                body, media_type = self.page(self.headers.get("Accept", ""))
            except Exception as error:
                get().error(events.METRICS_FAILED, exc_info=error)
                self._say(HTTPStatus.INTERNAL_SERVER_ERROR, b"the metrics could not be read; the log says why\n")
            else:
                self._say(HTTPStatus.OK, body, media_type)
        elif path == "/livez":
            why = self.trouble()
            self._say(HTTPStatus.SERVICE_UNAVAILABLE if why else HTTPStatus.OK, f"{why or 'alive'}\n".encode())
        else:
            self._say(HTTPStatus.NOT_FOUND, b"there is /metrics and /livez\n")

    do_HEAD = do_GET  # noqa: N815 - the library looks for that name

    def _say(self, status: HTTPStatus, body: bytes, media_type: str = "text/plain; charset=utf-8") -> None:
        self.send_response(status)
        self.send_header("Content-Type", media_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the library's name
        """Scrapes are not worth a line."""
