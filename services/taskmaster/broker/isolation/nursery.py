"""The nursery: a small process that forks runners, and the worker process's hand on it."""

from __future__ import annotations

import contextlib
import gc
import os
import select
import signal
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterable
from typing import NoReturn

from setproctitle import setproctitle

from taskmaster.telemetry import logs

__all__ = ["Nursery", "NurseryLost", "die_with"]

_ASK = struct.Struct("=cq")  # what, process id
_ANSWER = struct.Struct("=qq")  # process id, wait status or -1
_FORK, _STATUS, _DISMISS = b"f", b"s", b"d"
#: A dismissed runner shuts its plugin down and ends; one that has not in this time is killed.
DISMISSED_S = 10.0
_LOOK_EVERY_S = 0.25


class NurseryLost(Exception):
    """The nursery is gone: no runner can be started. The worker process needs to be replaced."""


def die_with(parent: int) -> None:
    """Linux: SIGKILL this process when its parent's thread that forked it goes, however it goes."""
    if sys.platform == "linux":
        import ctypes

        pr_set_pdeathsig = 1
        ctypes.CDLL(None, use_errno=True).prctl(pr_set_pdeathsig, signal.SIGKILL)
    if os.getppid() != parent:  # it went before that
        os._exit(70)


class Nursery:
    """Made in a process without threads and without connections: the heap of that moment is what runners begin with.

    Args:
        run: what a runner does with its socket; it never returns to anything.
        close: file descriptors that are none of a runner's business.
        keep_environ: which variables runners see.
    """

    def __init__(self, run: Callable[[socket.socket], None], close: Iterable[int], keep_environ: Callable[[str], bool]) -> None:
        self._lock = threading.Lock()
        self._control, theirs = socket.socketpair()
        parent = os.getpid()
        signals = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
        before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
        self.pid = os.fork()
        if self.pid == 0:
            try:
                self._control.close()
                for number in close:
                    os.close(number)
                _prepare(parent, keep_environ)
                signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)
                _serve(theirs, run)
            finally:
                os._exit(70)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()

    def spawn(self) -> tuple[int, socket.socket]:
        """A new runner: its process id, and our end of its socket.

        Raises:
            NurseryLost: there is no nursery, or the system has no room for another process.
        """
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                pid, _ = self._ask(_FORK, 0, theirs.fileno())
        except NurseryLost:
            ours.close()
            raise
        if pid <= 0:
            ours.close()
            raise NurseryLost("the system does not fork")
        return pid, ours

    def status(self, pid: int, within_s: float) -> int | None:
        """The exit code of a runner that is about to end, negative for a signal; None when it has not ended in time.

        Until this has told, or `dismiss` was called, the process id stays the runner's own.
        """
        until = time.monotonic() + within_s
        pause_s = 0.001
        while True:
            _, status = self._ask(_STATUS, pid)
            if status >= 0:
                return os.waitstatus_to_exitcode(status)
            if time.monotonic() >= until:
                return None
            time.sleep(pause_s)
            pause_s = min(0.02, pause_s * 2)

    def dismiss(self, pid: int) -> None:
        """Nobody will ask for this runner's status: see to it that it ends."""
        with contextlib.suppress(NurseryLost):
            self._ask(_DISMISS, pid)

    def close(self) -> None:
        """End it and every runner, and return when they have ended. Works twice."""
        with self._lock:
            if self._control.fileno() < 0:
                return
            self._control.close()
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, 0)

    def _ask(self, what: bytes, pid: int, fd: int | None = None) -> tuple[int, int]:
        with self._lock:
            try:
                socket.send_fds(self._control, [_ASK.pack(what, pid)], [] if fd is None else [fd])
                answer = self._control.recv(_ANSWER.size, socket.MSG_WAITALL)
            except OSError as error:
                raise NurseryLost(str(error)) from error
        if len(answer) < _ANSWER.size:
            raise NurseryLost("it has ended")
        told, status = _ANSWER.unpack(answer)
        return told, status


def _prepare(parent: int, keep_environ: Callable[[str], bool]) -> None:
    die_with(parent)
    setproctitle("taskmaster: nursery")
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        # They are meant for the service, which ends us. Not ignored: what a handler starts would inherit that.
        signal.signal(number, lambda *_: None)
    for name in [name for name in os.environ if not keep_environ(name)]:
        del os.environ[name]
    gc.freeze()


def _serve(control: socket.socket, run: Callable[[socket.socket], None]) -> None:
    children: set[int] = set()
    dismissed: dict[int, float] = {}
    while True:
        if not select.select([control], [], [], _LOOK_EVERY_S if dismissed else None)[0]:
            _see_off(dismissed, children)
            continue
        data, fds, _, _ = socket.recv_fds(control, _ASK.size, 1)
        if len(data) < _ASK.size:
            break
        what, pid = _ASK.unpack(data)
        status = -1
        if what == _FORK:
            pid = _fork(control, socket.socket(fileno=fds[0]), run)
            if pid > 0:  # -1 would be everybody, when all are ended
                children.add(pid)
        elif what == _STATUS:
            status = _status(pid)
            if status >= 0:
                children.discard(pid)
        else:
            dismissed[pid] = time.monotonic() + DISMISSED_S
        control.sendall(_ANSWER.pack(pid, status))
    for pid in children:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    for pid in children:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0)
    os._exit(0)


def _fork(control: socket.socket, theirs: socket.socket, run: Callable[[socket.socket], None]) -> int:
    parent = os.getpid()
    try:
        pid = os.fork()
    except OSError:
        theirs.close()
        return -1
    if pid == 0:
        _be_runner(parent, control, theirs, run)
    theirs.close()
    return pid


def _be_runner(parent: int, control: socket.socket, theirs: socket.socket, run: Callable[[socket.socket], None]) -> NoReturn:
    code = 70
    try:
        control.close()
        die_with(parent)
        run(theirs)
        code = 0
    finally:
        logs.flush()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _status(pid: int) -> int:
    try:
        ended, status = os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return 0
    return status if ended else -1


def _see_off(dismissed: dict[int, float], children: set[int]) -> None:
    """Reap dismissed runners that have ended; kill those that take too long."""
    for pid, until in list(dismissed.items()):
        if _status(pid) >= 0:
            del dismissed[pid]
            children.discard(pid)
        elif time.monotonic() > until:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
