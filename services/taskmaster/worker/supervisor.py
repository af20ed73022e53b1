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
from functools import partial
from types import FrameType
from typing import NoReturn

import msgspec
from setproctitle import setproctitle

from taskmaster.broker.message import Left
from taskmaster.plugins.discovery import discover
from taskmaster.plugins.registry import Registry
from taskmaster.settings import Settings, to_environ
from taskmaster.store import scripts
from taskmaster.telemetry import events, logs, tracing
from taskmaster.telemetry.logs import get
from taskmaster.telemetry.stream import THREAD
from taskmaster.worker.exporter import Exporter
from taskmaster.worker.heart import Hearts
from taskmaster.worker.process import Part, undertake
from taskmaster.worker.process import run as run_process

__all__ = ["run"]

log = get()
BACKOFF_FIRST_S, BACKOFF_MAX_S = 0.1, 10.0
_STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
#: A child that lived this long is taken for healthy: the next death of its slot starts the backoff anew.
HEALTHY_S = 30.0
#: After a second signal: how long children may take to hand back what they run, before they are killed.
FORCE_S = 5.0
#: Retired children of one place that may live beside the one in it: more of them wait for one to end.
RETIRING_MAX = 8
#: A child that retires so soon after its start is not replaced before that: whatever makes it retire would make a storm of forks.
RETIRED_AGAIN_S = 1.0
#: What every child calls, read while there are no children: later a script is 5 to 20 ms in which no handler has the interpreter.
READY = ("cycle", "extend", "progress", "promote", "prune", "reap", "register", "rules", "sweep", "tick")


@dataclass
class Child:
    """A worker process, and what it has said.

    Attributes:
        slot: the place that it was made for.
        pipe: what it writes to; -1 once that is closed.
        place: of its heartbeat.
        watched_since: monotonic seconds; its heartbeat is expected from then on.
        dead: consumers that die with it: (wid, partition).
        left: what it could not end, said at its end.
        is_retiring: it claims no more, and its place is given to another.
    """

    slot: Slot
    pid: int
    pipe: int
    place: int
    started: float
    watched_since: float = 0.0
    heard: bytes = b""
    dead: list[tuple[str, int]] = field(default_factory=list)
    left: list[Left] = field(default_factory=list)
    ready: bool = False
    is_retiring: bool = False

    def listen(self) -> None:
        """Read what the child has written: `<wid> <partition>` lines, `ready`, `retiring`, and `left <JSON>`."""
        if self.pipe < 0:
            return
        with contextlib.suppress(BlockingIOError):
            while chunk := os.read(self.pipe, 65_536):
                self.heard += chunk
            self.hang_up()  # its other end is closed: it would count as readable for ever
        *lines, self.heard = self.heard.split(b"\n")
        for line in lines:
            if line == b"ready":
                self.ready = True
            elif line == b"retiring":
                self.is_retiring = True
            elif line.startswith(b"left "):
                self.left.append(msgspec.json.decode(line[5:], type=Left))
            else:
                wid, _, partition = line.decode().partition(" ")
                self.dead.append((wid, int(partition)))  # not yet, but should it die

    def hang_up(self) -> None:
        """Close the pipe. Works twice."""
        if self.pipe >= 0:
            os.close(self.pipe)
            self.pipe = -1


@dataclass
class Slot:
    """A place for one child, and what the next one in it needs to know."""

    name: str
    suspects: bool
    child: Child | None = None
    deaths: int = 0
    start_at: float = 0.0
    dead: list[tuple[str, int]] = field(default_factory=list)


def run(settings: Settings, url: str) -> int:
    """Supervise until told to stop.

    Args:
        settings: built once by the caller.
        url: of the store.

    Returns:
        0 when every child drained; 1 when one had to be forced or left something.
    """
    setproctitle("taskmaster: worker supervisor")
    tracing.require(settings)
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
        self._children: list[Child] = []  # those that retire too
        self._undertakers: set[int] = set()
        self._hearts = Hearts(len(self._slots) * (1 + RETIRING_MAX))
        self._exporter = Exporter(settings, registry, self._hearts)
        self._looked_at = time.monotonic()
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
        if any(thread is not threading.main_thread() and thread.name != THREAD for thread in threading.enumerate()):
            log.warning(events.PLUGIN_LOADED, notes=["a plugin started threads at import; they do not exist in forked workers"])
        for name in READY:
            scripts.load(name)
        gc.collect(1)
        gc.freeze()  # the heap of imported plugins is shared by all children, and no collection touches it
        log.info(events.WORKER_STARTED, pid=os.getpid(), processes=len(self._slots) - 1, types=list(self._registry.types))
        while not self._signals:
            self._start_due()
            self._exporter.keep(self._forget_parent)
            self._sleep()
            self._reap()
            self._replace_retiring()
            self._watch()
        return self._stop_all()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        self._signals += 1

    def _sleep(self) -> None:
        waits = [slot.start_at - time.monotonic() for slot in self._slots if slot.child is None]
        pipes = [child.pipe for child in self._children if child.pipe >= 0]
        with contextlib.suppress(InterruptedError):
            select.select([self._bell_read, *pipes], [], [], max(0.0, min([*waits, self._pause_s()])))
        with contextlib.suppress(BlockingIOError):
            os.read(self._bell_read, 4096)
        for child in self._children:
            child.listen()

    def _pause_s(self) -> float:
        silent_ms = self._settings.silent_ms
        return min(1.0, silent_ms / 4_000) if silent_ms else 1.0

    # ------------------------------------------------------------ beginnings
    def _start_due(self) -> None:
        for slot in self._slots:
            if slot.child is None and time.monotonic() >= slot.start_at and len(self._children) < self._hearts.places:
                self._fork(slot)

    def _fork(self, slot: Slot) -> None:
        read, write = os.pipe()
        place = self._hearts.free_place(child.place for child in self._children)
        dead, slot.dead = slot.dead, []
        sys.stdout.flush()
        sys.stderr.flush()
        parent = os.getpid()
        signal.pthread_sigmask(signal.SIG_BLOCK, _STOPS)  # one that came before the child has its own handler would be lost on it
        pid = os.fork()
        if pid == 0:
            self._be_child(_part(slot, dead, parent, write, self._hearts, self._exporter, place), read)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPS)
        os.close(write)
        os.set_blocking(read, False)
        slot.child = Child(slot, pid, read, place, time.monotonic())
        self._children.append(slot.child)

    def _be_child(self, part: Part, read: int) -> NoReturn:
        code = 70
        try:
            os.close(read)
            self._forget_parent(part.supervisor)
            self._exporter.forget()
            # Plugins of ours find the settings as they are, whatever the service got them from.
            environ = os.environ | to_environ(self._settings) | {"TASKMASTER_REDIS_URL": self._url}
            code = run_process(self._settings, self._registry, self._url, part, environ)
        except BaseException as error:
            log.error(events.WORKER_CHILD_DIED, worker=part.name, exc_info=error)
        finally:
            logs.flush()
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)  # handlers' threads may hang: nothing is waited for

    def _forget_parent(self, parent: int) -> None:
        """In a child: nothing of the supervisor's is left but its heap; die with it."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for other in (self._bell_read, self._bell_write, *(c.pipe for c in self._children if c.pipe >= 0)):
            os.close(other)
        _die_with(parent)

    # ------------------------------------------------------------ ends
    def _reap(self) -> bool:
        """Take note of children that ended; True when one ended otherwise than well."""
        bad = False
        self._exporter.reap()
        for undertaker in list(self._undertakers):
            if os.waitpid(undertaker, os.WNOHANG)[0]:
                self._undertakers.discard(undertaker)
        for child in list(self._children):
            pid, status = os.waitpid(child.pid, os.WNOHANG)
            if pid:
                child.listen()
                child.hang_up()
                self._children.remove(child)
                self._hearts.clear(child.place)
                bad = self._ended(child, os.waitstatus_to_exitcode(status)) or bad
        return bad

    def _ended(self, child: Child, code: int) -> bool:
        """Free its place, unless another has it, and see to what it held. True when it ended otherwise than well."""
        slot, now = child.slot, time.monotonic()
        if code != 0:
            self._exporter.meter.died()
        is_current, is_fine = slot.child is child, code == 0
        lived = now - child.started
        wait = 0.0
        if is_current:
            slot.child = None
            if not (is_fine and child.is_retiring):
                slot.deaths = 1 if lived > HEALTHY_S else slot.deaths + 1
                wait = min(BACKOFF_MAX_S, BACKOFF_FIRST_S * 2 ** (slot.deaths - 1))
            slot.start_at = now + wait
        if not self._signals and not (is_fine and child.is_retiring):
            log.error(events.WORKER_CHILD_DIED, worker=slot.name, pid=child.pid, how=_how(code), lived_s=round(lived, 1), restart_in_s=wait)
        if is_current and not self._signals and not child.left:
            slot.dead += child.dead  # its successor sees to them first
        elif child.left or not is_fine:
            self._undertake(child.dead, child.left)
        return not is_fine

    def _undertake(self, dead: list[tuple[str, int]], left: list[Left]) -> None:
        """Have what dead children held given to others at once. In a process of its own, since this one opens no connection."""
        sys.stderr.flush()
        parent = os.getpid()
        signal.pthread_sigmask(signal.SIG_BLOCK, _STOPS)
        pid = os.fork()
        if pid == 0:
            try:
                self._forget_parent(parent)
                self._exporter.forget()
                undertake(self._settings, self._url, dead, left)
            finally:
                logs.flush()
                os._exit(0)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPS)
        self._undertakers.add(pid)

    def _replace_retiring(self) -> None:
        """The place of a child that claims no more is free, although it lives on."""
        for slot in self._slots:
            child = slot.child
            if child is not None and child.is_retiring:
                now = time.monotonic()
                slot.child, slot.start_at = None, max(now, child.started + RETIRED_AGAIN_S)

    def _watch(self) -> None:
        """Kill children whose heartbeat has stopped: something in them holds the interpreter and will not let go.

        What is compared is the progress of our own clock: after a pause of the whole machine, or of this process, everybody has his time.
        """
        now, limit_s = time.monotonic(), self._settings.silent_ms / 1_000
        was_away = now - self._looked_at > max(2.0, self._pause_s() * 3)
        self._looked_at = now
        for child in self._children:
            last = self._hearts.last(child.place, child.pid)
            if not last or not limit_s:
                continue
            if was_away:
                child.watched_since = now
            if now - max(last, child.watched_since) > limit_s:
                log.error(events.WORKER_CHILD_SILENT, worker=child.slot.name, pid=child.pid, silent_s=round(now - last, 1))
                child.watched_since = now
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child.pid, signal.SIGKILL)

    def _stop_all(self) -> int:
        """SIGTERM to all; at the deadline, or at a second signal, force."""
        bad = self._signal_all(signal.SIGTERM)
        deadline = time.monotonic() + self._settings.drain_ms / 1_000 + 8.0
        asked, is_forced = self._signals, False
        while self._children:
            self._sleep()
            bad = self._reap() or bad
            self._watch()
            if self._signals > asked:
                asked = self._signals
                is_forced = bad = True
                deadline = min(deadline, time.monotonic() + FORCE_S)
            if is_forced:  # a child leaves what it runs at its second signal; two that come together count as one, so it is said again
                self._signal_all(signal.SIGTERM)
            if time.monotonic() > deadline:
                bad = True
                self._signal_all(signal.SIGKILL)
        deadline = time.monotonic() + FORCE_S
        while self._undertakers and time.monotonic() < deadline:
            self._sleep()
            self._reap()
        self._exporter.stop()
        log.info(events.WORKER_STOPPED, pid=os.getpid(), drained=not bad)
        return int(bad)

    def _signal_all(self, number: signal.Signals) -> bool:
        for child in self._children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child.pid, number)
        return False


def _how(code: int) -> str:
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def _part(slot: Slot, dead: list[tuple[str, int]], supervisor: int, pipe: int, hearts: Hearts, exporter: Exporter, place: int) -> Part:
    return Part(
        name=slot.name,
        suspects=slot.suspects,
        dead=dead,
        supervisor=supervisor,
        announce=lambda wid, partition: _say(pipe, f"{wid} {partition}\n"),
        ready=lambda: _say(pipe, "ready\n"),
        retiring=lambda: _say(pipe, "retiring\n"),
        hand_back=lambda left: _say(pipe, f"left {msgspec.json.encode(left).decode()}\n"),
        meter=exporter.meter_of(place),
        beat=partial(hearts.beat, place),
        pipe=pipe,
    )


def _say(pipe: int, line: str) -> None:
    rest = line.encode()
    with contextlib.suppress(OSError):
        while rest:
            rest = rest[os.write(pipe, rest) :]


def _die_with(parent: int) -> None:
    """Linux: SIGKILL this process when the supervisor goes, however it goes. Its leases run out; others take over."""
    if sys.platform == "linux":
        import ctypes

        pr_set_pdeathsig = 1
        ctypes.CDLL(None, use_errno=True).prctl(pr_set_pdeathsig, signal.SIGKILL)
    if os.getppid() != parent:  # it went before that
        os._exit(70)
