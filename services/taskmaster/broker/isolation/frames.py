"""What a worker process and a runner say to each other: JSON, each message behind its length."""

from __future__ import annotations

import select
import socket
import struct
import threading
import time
from typing import Any

import msgspec

from taskmaster.model.job import Failure
from taskmaster.model.retry import Backoff

__all__ = [
    "Bye",
    "Channel",
    "Closed",
    "Ended",
    "FromRunner",
    "Log",
    "Permit",
    "Progress",
    "Reply",
    "Reserve",
    "Said",
    "Settle",
    "SpanRecord",
    "Start",
    "ToRunner",
]

_LENGTH = struct.Struct("!I")
#: The longest message that a runner may send: results and failures are far smaller. Its worker's may hold any payload.
FROM_RUNNER_MAX, TO_RUNNER_MAX = 4_194_304, 268_435_456


class Start(msgspec.Struct, array_like=True, tag="start", frozen=True):
    """An attempt. Times are seconds of the monotonic clock, which all processes of a machine share."""

    job_type: str
    payload: msgspec.Raw
    job_id: str
    queue: str
    attempt: int
    max_attempts: int
    root_id: str
    deadline: float
    timeout_ms: int
    failures: int
    spared: int
    backoff: Backoff
    plugin: str
    is_cancelled: bool
    is_fallback: bool
    keep_from: int | None
    traceparent: str = ""


class Reply(msgspec.Struct, array_like=True, tag="reply", frozen=True):
    """The answer to `Reserve`, `Settle` or `Permit`; *error* is the class of what the host raised, or empty."""

    status: str = ""
    licence: str = ""
    result: bytes = b""
    error: str = ""
    message: str = ""


class Bye(msgspec.Struct, array_like=True, tag="bye", frozen=True):
    """No more attempts: shut the plugin down and end."""


class Progress(msgspec.Struct, array_like=True, tag="progress", frozen=True):
    """As `JobContext.progress`."""

    fraction: float
    note: str


class Log(msgspec.Struct, array_like=True, tag="log", frozen=True):
    """A log record."""

    level: int
    logger: str
    message: str
    facts: dict[str, Any]


class Said(msgspec.Struct, array_like=True, tag="said", frozen=True):
    """A line to be kept with the job; of which attempt, since a thread of its may outlive it."""

    job_id: str
    attempt: int
    level: int
    text: str


class Reserve(msgspec.Struct, array_like=True, tag="reserve", frozen=True):
    """As `Guards.reserve`."""

    effect: str
    name: str
    key: str
    again: bool


class Settle(msgspec.Struct, array_like=True, tag="settle", frozen=True):
    """As `Guards.settle`."""

    effect: str
    licence: str
    happened: bool
    result: bytes


class Permit(msgspec.Struct, array_like=True, tag="permit", frozen=True):
    """As `Guards.permit`."""


class SpanRecord(msgspec.Struct, array_like=True, frozen=True):
    """A span that a handler made and ended. Ids are hex digits; attributes JSON values; `links` hold (traceparent, attributes)."""

    name: str
    traceparent: str
    parent_id: str
    kind: int
    start_ns: int
    end_ns: int
    status: int
    attributes: dict[str, Any]
    events: tuple[tuple[str, int, dict[str, Any]], ...]
    links: tuple[tuple[str, dict[str, Any]], ...]
    scope: tuple[str, str]


class Ended(msgspec.Struct, array_like=True, tag="ended", frozen=True):
    """How the attempt ended, decided where the exception is at hand.

    Attributes:
        outcome, delay_ms, reason: a `model.outcome.Decision`.
        result: JSON, or empty when there is none.
        failure: unless it ended well.
        resident_mb: of the runner now.
        spans: what the handler traced.
    """

    outcome: str
    delay_ms: int
    reason: str
    result: bytes
    failure: Failure | None
    resident_mb: float
    spans: tuple[SpanRecord, ...] = ()


ToRunner = Start | Reply | Bye
FromRunner = Progress | Log | Said | Reserve | Settle | Permit | Ended


class Closed(Exception):
    """The other side is gone, or does not keep the protocol."""


class Channel:
    """Messages over a socket. Sending is thread-safe; one thread at a time receives.

    Args:
        sock: connected, blocking; owned from here on.
        incoming: the union of messages that the other side may send.
        longest: bytes of one of them.
    """

    def __init__(self, sock: socket.socket, incoming: Any, longest: int) -> None:
        self._sock = sock
        self._decode = msgspec.json.Decoder(incoming).decode
        self._encode = msgspec.json.Encoder().encode
        self._longest = longest
        self._buffer = bytearray()
        self._sending = threading.Lock()
        self._poll = select.poll()
        self._poll.register(sock, select.POLLIN)

    def send(self, message: msgspec.Struct) -> None:
        """Say it.

        Raises:
            Closed: the other side is gone.
        """
        body = self._encode(message)
        try:
            with self._sending:
                self._sock.sendall(_LENGTH.pack(len(body)) + body)
        except OSError as error:
            raise Closed(str(error)) from error

    def receive(self, within_s: float | None = None) -> Any:
        """The next message.

        Raises:
            TimeoutError: none came in *within_s* seconds.
            Closed: the other side is gone, or said what it must not.
        """
        until = None if within_s is None else time.monotonic() + within_s
        while True:
            if len(self._buffer) >= 4:
                size = _LENGTH.unpack_from(self._buffer)[0]
                if size > self._longest:
                    raise Closed(f"a message of {size} bytes, at most {self._longest} are allowed")
                if len(self._buffer) >= 4 + size:
                    body = bytes(memoryview(self._buffer)[4 : 4 + size])
                    del self._buffer[: 4 + size]
                    return self._decoded(body)
            self._fill(until)

    def _fill(self, until: float | None) -> None:
        wait_ms = None if until is None else max(0.0, until - time.monotonic()) * 1_000
        try:
            if not self._poll.poll(wait_ms):
                raise TimeoutError
            chunk = self._sock.recv(262_144)
        except TimeoutError:
            raise
        except OSError as error:
            raise Closed(str(error)) from error
        if not chunk:
            raise Closed("end of the connection")
        self._buffer += chunk

    def _decoded(self, body: bytes) -> Any:
        try:
            return self._decode(body)
        except msgspec.MsgspecError as error:
            raise Closed(f"a message that is none: {error}") from error

    def close(self) -> None:
        """Hang up. Works twice."""
        self._sock.close()
