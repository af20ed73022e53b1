"""Processes that a test starts, signals by their ids, and leaves none of.

with Processes(folder) as processes:
api = processes.start("api", ["-m", "taskmaster", "api"], environ)
api.kill()
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil

from support.eventually import eventually
from support.servers import die_with_thread

__all__ = ["Child", "Processes", "environ_of", "is_alive", "serve_api"]


def is_alive(process: psutil.Process) -> bool:
    """Whether it is there and no zombie; of one that may end at any moment, also between two questions."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def environ_of(**settings: Any) -> dict[str, str]:
    """The environment of this process with these settings of ours on top."""
    return os.environ | {f"TASKMASTER_{name.upper()}": str(value) for name, value in settings.items()}


class Child:
    """One process, in a session of its own, and whatever it starts."""

    def __init__(self, name: str, command: Sequence[str], environ: Mapping[str, str], folder: Path) -> None:
        self.name = name
        self.log_path = folder / f"{name}.log"
        self._family: set[psutil.Process] = set()
        with self.log_path.open("ab") as log:
            self.popen = subprocess.Popen(
                [sys.executable, *command],
                env=dict(environ),
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=die_with_thread(),
            )

    @property
    def is_running(self) -> bool:
        return self.popen.poll() is None

    def send(self, number: signal.Signals) -> None:
        self.popen.send_signal(number)

    def kill(self) -> None:
        """SIGKILL; returns when it is gone."""
        self.note_family()
        self.popen.kill()
        self.popen.wait(20)

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """SIGSTOP while inside."""
        self.send(signal.SIGSTOP)
        try:
            yield
        finally:
            self.send(signal.SIGCONT)

    def note_family(self) -> set[psutil.Process]:
        """All that it has started and that still runs; remembered, so that `end` finds them when their parent is gone."""
        with contextlib.suppress(psutil.NoSuchProcess):
            self._family |= set(psutil.Process(self.popen.pid).children(recursive=True))
        return set(filter(is_alive, self._family))

    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def end(self) -> list[str]:
        """Kill it and its family; what of them was left over by the system after that, as text."""
        self.note_family()
        if self.is_running:
            self.send(signal.SIGCONT)
            self.popen.kill()
        self.popen.wait(20)
        for one in self._family:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
        _, alive = psutil.wait_procs(self._family, 10)
        return [f"{self.name}: {one}" for one in alive]


class Processes:
    """Starts and counts them; kills what is left on leaving."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.children: list[Child] = []

    def start(self, name: str, command: Sequence[str], environ: Mapping[str, str]) -> Child:
        """`python <command>`, with its output in `<name>.log`."""
        child = Child(name, command, environ, self.folder)
        self.children.append(child)
        return child

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        left = [line for child in self.children for line in child.end()]
        assert not left or error, f"processes that would not die: {left}"


def serve_api(processes: Processes, name: str, url: str, environ: Mapping[str, str] | None = None, **settings: Any) -> tuple[Child, str]:
    """An API process over the store at *url*, and its address, once it listens."""
    usual = {"redis_url": url, "port": 0, "log_format": "json", "data_dir": processes.folder / "data"}
    child = processes.start(name, ["-m", "taskmaster", "api"], environ_of(**usual | settings) | dict(environ or {}))

    def address() -> str:
        assert child.is_running, child.log()[-2_000:]
        found = re.findall(r"^TaskMaster API: (\S+)$", child.log(), re.MULTILINE)
        return found[-1] if found else ""

    return child, eventually(address, 30, lambda: f"{name} says where it listens; it said {child.log()[-2_000:]}")
