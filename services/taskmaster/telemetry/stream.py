"""Where log lines go: standard error, in a way that can neither hold up nor fail the work that is logged.

A pipe whose reader has stopped would block whoever logs: a hook, the heartbeat, the loop. A reader that died, or a full disk, would raise
there.
"""

from __future__ import annotations

import os
import select
import stat
import threading
from collections.abc import Callable
from typing import TextIO

__all__ = ["LogStream"]

#: How long a reader that is behind is waited for, once: then lines are dropped until it reads again.
PATIENCE_MS = 20


class LogStream:
    """A text stream over *usual*. Thread-safe; may be made before a fork.

    Args:
        usual: the stream that a plain program would write to.
        notice: makes the line that says how many lines are missing; written before the next one that gets through.
    """

    def __init__(self, usual: TextIO, notice: Callable[[int], str]) -> None:
        self._usual = usual
        self._notice = notice
        self._fd = _reopened(usual)
        self._lock = threading.Lock()
        self._dropped = 0
        self._is_torn = False

    def write(self, text: str) -> int:
        """Write one or more whole lines, or count them as dropped. Never blocks for long on a pipe, never raises."""
        with self._lock:
            if self._dropped:
                count, self._dropped = self._dropped, 0
                if not self._put(f"{self._notice(count)}\n", 0):
                    self._dropped = count + 1
                    return len(text)
            if not self._put(text, PATIENCE_MS):
                self._dropped += 1
        return len(text)

    def flush(self) -> None:
        """Nothing is held back."""

    def isatty(self) -> bool:
        """As the usual stream."""
        return self._usual.isatty()

    def _put(self, text: str, patience_ms: int) -> bool:
        if self._fd is None:
            try:
                self._usual.write(text)
                self._usual.flush()
            except (OSError, ValueError):  # a full disk; a stream that somebody closed
                return False
            return True
        data = ("\n" if self._is_torn else "").encode() + text.encode(errors="backslashreplace")
        while data:
            try:
                data = data[os.write(self._fd, data) :]
                self._is_torn = bool(data)
            except BlockingIOError:
                if not self._has_room(patience_ms):
                    return False
            except OSError:  # nobody is at the other end any more
                return False
        return True

    def _has_room(self, within_ms: int) -> bool:
        poll = select.poll()
        poll.register(self._fd or 0, select.POLLOUT)
        return bool(within_ms and poll.poll(within_ms))


def _reopened(stream: TextIO) -> int | None:
    """A descriptor of our own for the pipe behind *stream*, which does not block; None where it is no pipe, or the system has no such way.

    Of our own, since the flag belongs to what is open, and that is shared with whoever gave it to us.
    """
    try:
        number = stream.fileno()
        if stat.S_ISFIFO(os.fstat(number).st_mode):
            return os.open(f"/proc/self/fd/{number}", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError, AttributeError):
        pass
    return None
