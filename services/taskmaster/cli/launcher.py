"""What `taskmaster up` does: an embedded store, the API, workers and a scheduler as processes of its own, until a signal."""

from __future__ import annotations

import contextlib
import http.client
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import FrameType
from typing import Final

import msgspec
import rich_click as click

from taskmaster.cli.exits import EX_CONFIG, EX_FAILED, EX_OK, EX_UNAVAILABLE
from taskmaster.errors import ConfigurationError, TaskMasterError
from taskmaster.model.addresses import masked_url
from taskmaster.settings import Settings
from taskmaster.store.embedded import EmbeddedStore, die_with_parent

__all__ = ["Launcher", "free_port", "loopback"]

BACKOFF_FIRST_S: Final = 0.5
BACKOFF_MAX_S: Final = 10.0
#: A child that lived this long is taken for healthy: its next death starts the backoff anew.
HEALTHY_S: Final = 30.0
#: Beyond the drain time: the workers' supervisor has its own deadline 8 s after it, and tells more than we can when it has to force.
DRAIN_GRACE_S: Final = 12.0
#: After a second signal.
FORCE_S: Final = 5.0
_LOOK_EVERY_S: Final = 0.2
_SLOW_S: Final = 20.0
#: How long the first worker is waited for before the API is announced without.
WORKERS_S: Final = 10.0
#: So long the scheduler leaves the cores to the API and the workers, which are wanted first: until they are there, or for this time.
SCHEDULER_S: Final = 5.0
#: A child that ends so soon after its first start could not work at all.
NEW_S: Final = 5.0


class _Health(msgspec.Struct):
    """What matters here of the answer of GET /health."""

    workers: int


def say(text: str) -> None:
    """Tell the operator, on standard error: what is not an answer to the command."""
    click.echo(f"taskmaster: {text}", err=True)


def loopback(host: str) -> str:
    """Where an address that listens on all interfaces can be reached from here."""
    return {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared, not listened on


def free_port(host: str, port: int) -> int:
    """*port* if nothing listens on it, or any free one for 0.

    Raises:
        ConfigurationError: it is taken, or the host is none of ours.
    """
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            return int(probe.getsockname()[1])
    except OSError as error:
        message = f"cannot listen on {host}, port {port}: {error.strerror or error}; --port 0 takes any free port"
        raise ConfigurationError(message, name="port") from error


@dataclass
class Child:
    """One process that is kept running: `python -m taskmaster <command>`."""

    command: str
    environ: Mapping[str, str]
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    deaths: int = 0
    start_at: float = 0.0

    def start(self) -> None:
        """In a process group of its own, so that Ctrl-C reaches us alone, and told by the kernel when we die."""
        self.process = subprocess.Popen(
            # -P: a file of the current folder must not be taken for a library.
            [sys.executable, "-P", "-m", "taskmaster", self.command],
            env=dict(self.environ),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL if self.command == "api" else None,  # it prints its address, which we do ourselves
            process_group=0,
            preexec_fn=die_with_parent(),  # noqa: PLW1509 - main thread, and it makes two system calls
        )
        self.started = time.monotonic()

    @property
    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def signal(self, number: signal.Signals) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)

    def note_death(self) -> float:
        """Take note of its end. Seconds until it may be started again."""
        self.process = None
        self.deaths = 1 if time.monotonic() - self.started > HEALTHY_S else self.deaths + 1
        wait_s = min(BACKOFF_MAX_S, BACKOFF_FIRST_S * 2.0 ** (self.deaths - 1))
        self.start_at = time.monotonic() + wait_s
        return wait_s


@dataclass
class Launcher:
    """Keeps the processes; lives on the main thread and starts no other.

    Attributes:
        settings: with the store's address and a port that is not 0.
        store: the embedded one, ours or somebody else's; None when an address was given.
        environ: of the children.
        announce: called once, when the API takes submissions and a worker is there.
    """

    settings: Settings
    store: EmbeddedStore | None
    environ: Mapping[str, str]
    announce: Callable[[], None]
    _signals: int = 0
    _is_announced: bool = False
    _next_look: float = 0.0
    _began: float = 0.0
    _told: float = 0.0
    _children: list[Child] = field(default_factory=list)

    def run(self) -> int:
        """Until SIGINT or SIGTERM, which let running jobs end; a second one cuts them short, a third kills.

        Returns:
            0 when everything ended in order; 1 when something was forced or left; 69 or 78 when a part could not work at all.
        """
        bell, bell_end = socket.socketpair()
        bell.setblocking(False)
        bell_end.setblocking(False)
        before = signal.set_wakeup_fd(bell_end.fileno(), warn_on_full_buffer=False)
        handlers = {number: signal.signal(number, self._on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
        signal.signal(signal.SIGCHLD, lambda *_: None)  # only to end the sleep
        code = EX_OK
        try:
            self._begin()
            while not self._signals and code == EX_OK:
                code = self._keep()
                if code == EX_OK and not self._signals:
                    self._look()
                    self._sleep(bell, _LOOK_EVERY_S if not self._is_announced else 1.0)
            return self._end(bell, code)
        finally:
            for child in self._children:
                child.signal(signal.SIGKILL)  # an error of ours: they must not outlive the store
            signal.set_wakeup_fd(before)
            for number, handler in handlers.items():
                signal.signal(number, handler)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            bell.close()
            bell_end.close()

    def _begin(self) -> None:
        """Make the children; `_keep` starts them when they are due."""
        self._began = self._told = time.monotonic()
        scheduler = Child("scheduler", self.environ, start_at=self._began + SCHEDULER_S)
        self._children = [Child("worker", self.environ), Child("api", self.environ), scheduler]

    def _on_signal(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        self._signals += 1

    def _sleep(self, bell: socket.socket, seconds: float) -> None:
        select.select([bell], [], [], max(0.0, seconds))
        with contextlib.suppress(BlockingIOError):
            bell.recv(4_096)

    def _keep(self) -> int:
        """Start what is due and note what died; not 0: there is no use in going on."""
        code = self._keep_store()
        for child in self._children:
            if child.process is None:
                if time.monotonic() >= child.start_at:
                    child.start()
            elif (ended := child.process.poll()) is not None:
                is_new = not self._is_announced or time.monotonic() - child.started < NEW_S
                if ended in (EX_CONFIG, EX_UNAVAILABLE) and child.deaths == 0 and is_new:
                    return ended  # it has said why
                wait_s = child.note_death()
                say(f"{child.command} ended ({_how(ended)}); starting it again in {wait_s:g} s")
        return code

    def _keep_store(self) -> int:
        store = self.store
        if store is None or store.is_running:
            return EX_OK
        if store.is_attached:
            say("the store that another process had started is gone")
            return EX_UNAVAILABLE
        say("the embedded store ended; starting it again on the same data")
        try:
            store.restart()
        except TaskMasterError as error:
            say(error.message)
            return EX_UNAVAILABLE
        return EX_OK

    def _look(self) -> None:
        """Announce the API once it is ready; say so when that takes long."""
        now = time.monotonic()
        if self._is_announced or now < self._next_look:
            return
        self._next_look = now + _LOOK_EVERY_S
        workers = self._workers()
        # The first command of a newcomer must not come before the job types are known; but a plugin that hangs must not hide the API.
        if workers or (workers == 0 and now - self._began > WORKERS_S):
            self._is_announced = True
            self.announce()
            for child in self._children:
                child.start_at = child.start_at if child.deaths else now
        elif workers is None and now - self._told > _SLOW_S:
            where = masked_url(self.settings.redis_url or "")
            say(f"the API is not ready after {_SLOW_S:g} s: does the store at {where} answer? `taskmaster doctor` looks")
            self._told = now

    def _workers(self) -> int | None:
        """Live workers, as the API sees them; None while it cannot take submissions."""
        connection = http.client.HTTPConnection(loopback(self.settings.host), self.settings.port, timeout=1.0)
        try:
            connection.request("GET", "/health")
            answer = connection.getresponse()
            return msgspec.json.decode(answer.read(), type=_Health).workers if answer.status == http.client.OK else None
        except (OSError, http.client.HTTPException, msgspec.MsgspecError):
            return None
        finally:
            connection.close()

    def _end(self, bell: socket.socket, code: int) -> int:
        """SIGTERM to all, and wait: the store goes last, when nobody writes to it any more."""
        drain_s = self.settings.drain_ms / 1_000
        if self._signals:
            say(f"stopping; running jobs have {drain_s:g} s to end, another signal cuts them short")
        asked, forced = self._signals, False
        deadline = time.monotonic() + drain_s + DRAIN_GRACE_S
        for child in self._children:
            child.signal(signal.SIGTERM)
        while any(child.is_running for child in self._children):
            if self._signals > asked:
                kill = self._signals > asked + 1 or forced
                asked, forced = self._signals, True
                say("killing" if kill else "cutting running jobs short")
                deadline = time.monotonic() if kill else min(deadline, time.monotonic() + FORCE_S)
                for child in self._children:
                    child.signal(signal.SIGTERM)  # the second one makes them leave what they do
            if time.monotonic() >= deadline:
                forced = True
                for child in self._children:
                    child.signal(signal.SIGKILL)
            self._sleep(bell, 0.5)
        for child in self._children:
            # SIGTERM: it had not yet begun to listen to signals, so it held no job.
            if child.process is not None and child.process.returncode not in (0, -signal.SIGTERM) and code == EX_OK:
                say(f"{child.command} did not end in order ({_how(child.process.returncode)})")
                code = EX_FAILED
        if self.store is not None:
            self.store.stop()
        return EX_FAILED if forced and code == EX_OK else code


def _how(code: int) -> str:
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
