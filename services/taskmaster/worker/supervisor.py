"""The supervisor: imports the plugins, freezes its heap, forks the worker processes and keeps their number.

It holds no connection and runs no job. A child that dies is replaced, with backoff, and the replacement is told which consumers died with
it, so that their leases end at once.
"""

from __future__ import annotations

import contextlib
import gc
import os
import select
import signal
import sys
import threading
import time
from dataclasses import dataclass, field
from types import FrameType

from setproctitle import setproctitle

from taskmaster.plugins.discovery import discover
from taskmaster.plugins.registry import Registry
from taskmaster.settings import Settings
from taskmaster.telemetry import events
from taskmaster.telemetry.logs import get
from taskmaster.worker.process import Part
from taskmaster.worker.process import run as run_process

__all__ = ["run"]

log = get()
BACKOFF_FIRST_S, BACKOFF_MAX_S = 0.1, 10.0
_STOPS = (signal.SIGTERM, signal.SIGINT)
#: A child that lived this long is taken for healthy: the next death of its slot starts the backoff anew.
HEALTHY_S = 30.0
#: After a second signal: how long children may take to hand back what they run, before they are killed.
FORCE_S = 5.0


@dataclass
class Slot:
    """A place for one child, and what is known of the one in it."""

    name: str
    suspects: bool
    pid: int = 0
    started: float = 0.0
    deaths: int = 0
    start_at: float = 0.0
    pipe: int = -1
    heard: bytes = b""
    dead: list[tuple[str, int]] = field(default_factory=list)
    ready: bool = False

    def listen(self) -> None:
        """Read what the child has written: `<wid> <partition>` lines, and `ready`."""
        if self.pipe < 0:
            return
        with contextlib.suppress(BlockingIOError):
            while chunk := os.read(self.pipe, 4096):
                self.heard += chunk
            os.close(self.pipe)  # its other end is closed: it would count as readable for ever
            self.pipe = -1
        *lines, self.heard = self.heard.split(b"\n")
        for line in lines:
            if line == b"ready":
                self.ready = True
            else:
                wid, _, partition = line.decode().partition(" ")
                self.dead.append((wid, int(partition)))  # not yet, but should it die


def run(settings: Settings, url: str) -> int:
    """Supervise until told to stop.

    Args:
        settings: built once by the caller.
        url: of the store.

    Returns:
        0 when every child drained; 1 when one had to be forced or left something.
    """
    setproctitle("taskmaster: worker supervisor")
    registry = discover(settings.plugins or None)
    for report in registry.reports:
        if report.state == "failed":
            log.error(events.PLUGIN_FAILED, plugin=report.name, distribution=report.distribution, error=report.error)
        else:
            log.info(events.PLUGIN_LOADED, plugin=report.name, version=report.version, types=list(report.types), notes=list(report.notes))
    return Supervisor(settings, url, registry).run()


class Supervisor:
    """Forks, waits, restarts. Lives on the main thread, which forks; it starts no other."""

    def __init__(self, settings: Settings, url: str, registry: Registry) -> None:
        self._settings = settings
        self._url = url
        self._registry = registry
        names = [str(n + 1) for n in range(settings.worker_processes)]
        self._slots = [Slot(name, suspects=False) for name in names] + [Slot("suspects", suspects=True)]
        self._signals = 0
        self._bell_read, self._bell_write = os.pipe()
        os.set_blocking(self._bell_read, False)
        os.set_blocking(self._bell_write, False)

    def run(self) -> int:
        """Until a signal; then drain all children together."""
        signal.set_wakeup_fd(self._bell_write)
        for number in _STOPS:
            signal.signal(number, self._on_signal)
        signal.signal(signal.SIGCHLD, lambda *_: None)  # only to end the sleep
        if threading.active_count() > 1:
            log.warning(events.PLUGIN_LOADED, notes=["a plugin started threads at import; they do not exist in forked workers"])
        gc.collect()
        gc.freeze()  # the heap of imported plugins is shared by all children, and no collection touches it
        log.info(events.WORKER_STARTED, pid=os.getpid(), processes=len(self._slots) - 1, types=list(self._registry.types))
        while not self._signals:
            self._start_due()
            self._sleep()
            self._reap()
        return self._stop_all()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        self._signals += 1

    def _sleep(self) -> None:
        waits = [slot.start_at - time.monotonic() for slot in self._slots if not slot.pid]
        pipes = [slot.pipe for slot in self._slots if slot.pipe >= 0]
        with contextlib.suppress(InterruptedError):
            select.select([self._bell_read, *pipes], [], [], max(0.0, min([*waits, 1.0])))
        with contextlib.suppress(BlockingIOError):
            os.read(self._bell_read, 4096)
        for slot in self._slots:
            slot.listen()
            if slot.pipe >= 0 and not slot.pid:
                os.close(slot.pipe)
                slot.pipe = -1

    def _start_due(self) -> None:
        for slot in self._slots:
            if not slot.pid and time.monotonic() >= slot.start_at:
                self._fork(slot)

    def _fork(self, slot: Slot) -> None:
        read, write = os.pipe()
        dead, slot.dead = slot.dead, []
        sys.stdout.flush()
        sys.stderr.flush()
        parent = os.getpid()
        signal.pthread_sigmask(signal.SIG_BLOCK, _STOPS)  # one that came before the child has its own handler would be lost on it
        pid = os.fork()
        if pid == 0:
            code = 70
            try:
                os.close(read)
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                for other in (self._bell_read, self._bell_write, *(s.pipe for s in self._slots if s.pipe >= 0)):
                    os.close(other)
                _die_with(parent)
                part = _part(slot, dead, parent, write)
                code = run_process(self._settings, self._registry, self._url, part, os.environ | self._settings.plugin_environ)
            except BaseException as error:
                log.error(events.WORKER_CHILD_DIED, worker=slot.name, exc_info=error)
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)  # handlers' threads may hang: nothing is waited for
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPS)
        os.close(write)
        os.set_blocking(read, False)
        if slot.pipe >= 0:
            os.close(slot.pipe)
        slot.pid, slot.pipe, slot.heard, slot.started, slot.ready = pid, read, b"", time.monotonic(), False

    def _reap(self) -> bool:
        """Take note of children that ended; True when one ended otherwise than well."""
        bad = False
        for slot in self._slots:
            if not slot.pid:
                continue
            pid, status = os.waitpid(slot.pid, os.WNOHANG)
            if not pid:
                continue
            slot.listen()
            code = os.waitstatus_to_exitcode(status)
            bad = bad or code != 0
            lived = time.monotonic() - slot.started
            slot.deaths = 1 if lived > HEALTHY_S else slot.deaths + 1
            wait = min(BACKOFF_MAX_S, BACKOFF_FIRST_S * 2 ** (slot.deaths - 1))
            slot.pid, slot.start_at = 0, time.monotonic() + wait
            if not self._signals:
                how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
                log.error(events.WORKER_CHILD_DIED, worker=slot.name, pid=pid, how=how, lived_s=round(lived, 1), restart_in_s=wait)
        return bad

    def _stop_all(self) -> int:
        """SIGTERM to all; at the deadline, or at a second signal, force."""
        bad = self._signal_all(signal.SIGTERM)
        deadline = time.monotonic() + self._settings.drain_ms / 1_000 + 8.0
        asked, is_forced = self._signals, False
        while any(slot.pid for slot in self._slots):
            self._sleep()
            bad = self._reap() or bad
            if self._signals > asked:
                asked = self._signals
                is_forced = bad = True
                deadline = min(deadline, time.monotonic() + FORCE_S)
            if is_forced:  # a child leaves what it runs at its second signal; two that come together count as one, so it is said again
                self._signal_all(signal.SIGTERM)
            if time.monotonic() > deadline:
                bad = True
                self._signal_all(signal.SIGKILL)
        log.info(events.WORKER_STOPPED, pid=os.getpid(), drained=not bad)
        return int(bad)

    def _signal_all(self, number: signal.Signals) -> bool:
        for slot in self._slots:
            if slot.pid:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(slot.pid, number)
        return False


def _part(slot: Slot, dead: list[tuple[str, int]], supervisor: int, pipe: int) -> Part:
    return Part(
        name=slot.name,
        suspects=slot.suspects,
        dead=dead,
        supervisor=supervisor,
        announce=lambda wid, partition: _say(pipe, f"{wid} {partition}\n"),
        ready=lambda: _say(pipe, "ready\n"),
    )


def _say(pipe: int, line: str) -> None:
    with contextlib.suppress(OSError):
        os.write(pipe, line.encode())


def _die_with(parent: int) -> None:
    """Linux: SIGKILL this process when the supervisor goes, however it goes. Its leases run out; others take over."""
    if sys.platform == "linux":
        import ctypes

        pr_set_pdeathsig = 1
        ctypes.CDLL(None, use_errno=True).prctl(pr_set_pdeathsig, signal.SIGKILL)
    if os.getppid() != parent:  # it went before that
        os._exit(70)
