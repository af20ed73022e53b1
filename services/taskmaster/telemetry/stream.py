"""Where log lines go: standard error, in a way that can neither hold up nor fail the work that is logged.

A pipe whose reader has stopped would block whoever logs: a hook, the heartbeat, the loop. A reader that died, or a full disk, would raise
there. And each write lets go of the interpreter, which a busy worker then waits for: lines that follow one another closely are written
together.
"""

from __future__ import annotations

import os
import select
import stat
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from typing import TextIO

__all__ = ["THREAD", "LogStream"]

#: How long a reader that is behind is waited for, once: then lines are dropped until it reads again.
PATIENCE_MS = 20
#: One that goes on reading, but slowly, is waited for so long in all, however much is to be written: others wait behind it.
LONGEST_S = 0.5
#: Lines that come so soon after the last write wait for others, so long at most; a process that is killed loses those.
GATHER_S = 0.02
GATHERED_MAX = 1_000
#: Name of the thread that writes what waits. A fork is safe beside it.
THREAD = "taskmaster-log"

_streams: weakref.WeakSet[LogStream] = weakref.WeakSet()


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
        self._waiting: list[str] = []
        self._written_at = -GATHER_S
        self._bell: threading.Event | None = None
        _streams.add(self)

    def write(self, text: str) -> int:
        """Write one or more whole lines, behind those that wait, or count them as dropped. Never blocks for long, never raises."""
        with self._lock:
            self._write_waiting(text)
        return len(text)

    def write_soon(self, text: str) -> int:
        """As `write`, but lines that follow one another closely may wait for `GATHER_S`."""
        with self._lock:
            waiting = self._waiting
            if (not waiting and time.monotonic() - self._written_at >= GATHER_S) or len(waiting) >= GATHERED_MAX:
                self._write_waiting(text)
            else:
                waiting.append(text)
                if len(waiting) == 1:
                    self._ring()
        return len(text)

    def flush(self) -> None:
        """Write what waits."""
        with self._lock:
            self._write_waiting("")

    def hold(self) -> None:
        """Nobody writes until `let_go`: a child would begin with a line half written, and the locks of whoever wrote it."""
        self._lock.acquire()

    def let_go(self) -> None:
        """See `hold`."""
        self._lock.release()

    def forked(self) -> None:
        """In a child: what waits is the parent's to write, and so is its thread."""
        self._lock = threading.Lock()
        self._waiting = []
        self._bell = None

    def _ring(self) -> None:
        if self._bell is None:
            bell = threading.Event()
            try:
                threading.Thread(target=self._gather, args=(bell,), name=THREAD, daemon=True).start()
            except RuntimeError:  # at a limit, or when the interpreter ends
                self._write_waiting("")
                return
            self._bell = bell
        self._bell.set()

    def _gather(self, bell: threading.Event) -> None:
        while True:
            bell.wait()
            bell.clear()
            time.sleep(GATHER_S)
            self.flush()

    def _write_waiting(self, text: str) -> None:
        if self._waiting:
            text = "".join((*self._waiting, text))
            self._waiting.clear()
        if not text:
            return
        self._written_at = time.monotonic()
        if self._dropped:
            count, self._dropped = self._dropped, 0
            if self._put(f"{self._notice(count)}\n", 0):
                self._dropped = count + text.count("\n")
                return
        self._dropped += self._put(text, PATIENCE_MS)

    def isatty(self) -> bool:
        """As the usual stream."""
        return self._usual.isatty()

    def _put(self, text: str, patience_ms: int) -> int:
        """Lines that did not get through whole."""
        if self._fd is None:
            try:
                self._usual.write(text)
                self._usual.flush()
            except (OSError, ValueError):  # a full disk; a stream that somebody closed
                return text.count("\n")
            return 0
        lines, until = text.count("\n"), time.monotonic() + LONGEST_S
        for chunk in _chunks(text.encode(errors="backslashreplace")):
            if not self._put_chunk(self._fd, chunk, patience_ms, until):
                return lines
            lines -= chunk.count(b"\n")
        return 0

    def _put_chunk(self, fd: int, chunk: bytes, patience_ms: int, until: float) -> bool:
        data = b"\n" + chunk if self._is_torn else chunk
        while data:
            try:
                data = data[os.write(fd, data) :]
                self._is_torn = bool(data)
            except BlockingIOError:
                if time.monotonic() >= until or not self._has_room(patience_ms):
                    return False
            except OSError:  # nobody is at the other end any more
                return False
        return True

    def _has_room(self, within_ms: int) -> bool:
        poll = select.poll()
        poll.register(self._fd or 0, select.POLLOUT)
        return bool(within_ms and poll.poll(within_ms))


def _chunks(text: bytes) -> Iterator[bytes]:
    """Whole lines of *text*, as many together as a pipe takes or leaves; a longer one by itself."""
    begin = 0
    while len(text) - begin > select.PIPE_BUF:
        end = text.rfind(b"\n", begin, begin + select.PIPE_BUF) + 1 or text.find(b"\n", begin) + 1 or len(text)
        yield text[begin:end]
        begin = end
    if begin < len(text):
        yield text[begin:]


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


def _before_fork() -> None:
    for stream in _streams:
        stream.hold()


def _after_fork() -> None:
    for stream in _streams:
        stream.let_go()


def _forked() -> None:
    for stream in _streams:
        stream.forked()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_forked)
