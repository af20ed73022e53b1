"""One POST to an address that was checked: no second look-up of its name, no redirect, no proxy, and an end in any case."""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
import threading
import time
from collections.abc import Mapping, Sequence
from email.utils import parsedate_to_datetime
from queue import Empty, SimpleQueue
from typing import NamedTuple

from taskmaster.model.egress import Allowed, Target

__all__ = ["TIMEOUT_S", "Answer", "Forbidden", "Unreachable", "post", "resolve"]

#: Of one delivery, from the look-up of the name to the answer.
TIMEOUT_S = 15.0
#: Of an answer's body so much is read, and none of it kept.
BODY_READ = 16_384
#: A receiver that asks for more patience than a day is not waited for longer.
RETRY_AFTER_MAX_S = 86_400.0
#: One that says 0, or a time that is over, means soon.
RETRY_AFTER_MIN_S = 1.0


class Forbidden(Exception):
    """The host is at an address that may not be called. Says which."""


class Unreachable(Exception):
    """No answer: the name is unknown, nothing listens, TLS fails, or it took too long."""


class Answer(NamedTuple):
    """What the receiver said. *retry_after_s*: how long it wants to be left alone, None: it does not say."""

    status: int
    retry_after_s: float | None


def resolve(target: Target, allowed: Allowed, *, timeout_s: float) -> list[str]:
    """The addresses of the target's host, all of which may be called.

    Raises:
        Forbidden: one of them may not.
        Unreachable: the name has none, or nobody knows in *timeout_s* seconds.
    """
    for address in (addresses := _looked_up(target, timeout_s)):
        if not allowed.permits(target.host, address):
            raise Forbidden(f"{target.host} is at {address}, which is no public address; TASKMASTER_WEBHOOK_ALLOW may name it")
    return addresses


def _looked_up(target: Target, timeout_s: float) -> list[str]:
    """On a thread of its own: the system's resolver takes the time that it wants, and no exception reaches a thread that is in it."""
    said: SimpleQueue[list[str] | Exception] = SimpleQueue()

    def look() -> None:
        try:
            found = socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
            said.put(list(dict.fromkeys(str(address[0]) for *_, address in found)))
        except (OSError, UnicodeError) as error:
            said.put(error)

    threading.Thread(target=look, name="webhook-resolver", daemon=True).start()
    try:
        answer = said.get(timeout=timeout_s)
    except Empty:
        raise Unreachable(f"{target.host}: its address could not be found within {timeout_s:g} s") from None
    if isinstance(answer, Exception):
        raise Unreachable(f"{target.host} has no address: {answer}") from answer
    return answer


def post(target: Target, addresses: Sequence[str], body: bytes, headers: Mapping[str, str], *, timeout_s: float) -> Answer:
    """Send *body* to the first of *addresses* that takes a connection. Nothing is followed, and no name is looked up.

    Raises:
        Unreachable: there was no answer in *timeout_s* seconds, all in all.
    """
    deadline = time.monotonic() + timeout_s
    connection = _Pinned(target, addresses, deadline)
    watchdog = threading.Timer(timeout_s, connection.cut)
    watchdog.daemon = True
    watchdog.start()
    try:
        connection.request("POST", target.path, body=body, headers=dict(headers))
        response = connection.getresponse()
        if connection.is_cut:  # an end in the midst of headers passes for the end of them
            raise TimeoutError
        answer = Answer(response.status, _retry_after(response.headers.get("Retry-After")))
        with contextlib.suppress(OSError, http.client.HTTPException):
            response.read(BODY_READ)  # a receiver that is cut off while it writes may take that for a failure
    except (OSError, http.client.HTTPException) as error:
        why = f"no answer within {timeout_s:g} s" if connection.is_cut or isinstance(error, TimeoutError) else _words(error)
        raise Unreachable(f"{target.host}: {why}") from error
    finally:
        watchdog.cancel()
        connection.close()
    return answer


class _Pinned(http.client.HTTPConnection):
    """A connection to given addresses that calls itself by the target's name."""

    def __init__(self, target: Target, addresses: Sequence[str], deadline: float) -> None:
        super().__init__(target.host, target.port)
        self._addresses = addresses
        self._deadline = deadline
        self._tls = ssl.create_default_context() if target.scheme == "https" else None
        self.default_port = 443 if self._tls else 80  # the header Host names the port unless it is this one
        self._raw: socket.socket | None = None
        self.is_cut = False

    def connect(self) -> None:
        """To the first address that answers."""
        last: OSError = OSError("no address")
        for address in self._addresses:
            try:
                self._raw = raw = socket.create_connection((address, self.port), self._left_s())
                break
            except OSError as error:
                last = error
        else:
            raise last
        raw.settimeout(self._left_s())
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock = raw
        if self._tls is not None:
            self._raw = self.sock = tls = self._tls.wrap_socket(raw, server_hostname=self.host, do_handshake_on_connect=False)
            tls.do_handshake()

    def cut(self) -> None:
        """End whatever it is waiting for. From another thread: bytes that come one by one end no wait of their own."""
        self.is_cut = True
        raw = self._raw
        if raw is not None:
            with contextlib.suppress(OSError):
                socket.socket.shutdown(raw, socket.SHUT_RDWR)

    def _left_s(self) -> float:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left


def _words(error: Exception) -> str:
    if isinstance(error, http.client.HTTPException) or not str(error):
        return f"no HTTP answer ({type(error).__name__})"
    return str(error)


def _retry_after(text: str | None) -> float | None:
    """Seconds, from a number or a date; None: nothing that can be read."""
    if text is None:
        return None
    text = text.strip()
    if text.isascii() and text.isdigit():
        return _within_bounds(float(text[:9]))
    try:
        wanted = parsedate_to_datetime(text).timestamp() - time.time()
    except (ValueError, OverflowError):
        return None
    return _within_bounds(wanted)


def _within_bounds(wanted_s: float) -> float:
    return min(max(wanted_s, RETRY_AFTER_MIN_S), RETRY_AFTER_MAX_S)
