"""Child processes: started in a session of their own, measured as a tree, ended as a group."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from support.processes import is_alive

__all__ = ["BenchError", "Running", "free_port", "running", "wait_until"]

#: Seconds a process has to end by itself after SIGTERM; the stores are thrown away, so nothing is lost by SIGKILL.
_TERM_S = 3.0


class BenchError(Exception):
    """A measurement that could not be made; the text goes into its row."""


class Running:
    """One started process and all its descendants."""

    def __init__(self, popen: subprocess.Popen[bytes], log_path: Path) -> None:
        self._popen = popen
        self._log_path = log_path

    def tree(self) -> list[psutil.Process]:
        """The process and its descendants that live now."""
        with suppress(psutil.NoSuchProcess):
            parent = psutil.Process(self._popen.pid)
            return [parent, *parent.children(recursive=True)]
        return []

    def cpu_s(self) -> float:
        """User and system seconds of the tree."""
        return sum(_sum(p.cpu_times()[:2]) for p in _each(self.tree()))

    def private_mb(self) -> float:
        """Memory that the tree alone holds (USS), MB."""
        return sum(p.memory_full_info().uss for p in _each(self.tree())) / 1e6

    def resident_mb(self) -> float:
        """Memory that the tree has in RAM (RSS), MB."""
        return sum(p.memory_info().rss for p in _each(self.tree())) / 1e6

    def threads(self) -> int:
        """Threads of the process that has most."""
        return max((p.num_threads() for p in _each(self.tree())), default=0)

    def check(self) -> None:
        """Raise when the process has ended by itself, with the end of what it said."""
        if self._popen.poll() is not None:
            raise BenchError(f"a process ended with {self._popen.returncode}: {self.log_tail()}")

    def log_tail(self) -> str:
        return self._log_path.read_text(errors="replace")[-800:]

    def end(self) -> None:
        """SIGTERM the process, then SIGKILL what is left of its group and its tree."""
        left = self.tree()
        if self._popen.poll() is None:
            self._popen.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._popen.wait(_TERM_S)
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._popen.pid, signal.SIGKILL)
        for process in left:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self._popen.wait(_TERM_S)


@contextmanager
def running(command: Sequence[str], *, env: Mapping[str, str], folder: Path, name: str, output: int | None = None) -> Iterator[Running]:
    """Start a command with this environment added to ours; it ends with the block.

    Its output goes to `<folder>/<name>.log`, or to the descriptor *output*.
    """
    log_path = folder / f"{name}.log"
    with log_path.open("ab") as log:
        popen = subprocess.Popen(
            command,
            env=_environment() | dict(env),
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=log if output is None else output,
            stderr=log if output is None else output,
            start_new_session=True,
        )
    started = Running(popen, log_path)
    try:
        yield started
    finally:
        started.end()


def wait_until(is_so: Callable[[], bool], *, what: str, within_s: float, every_s: float = 0.02, process: Running | None = None) -> None:
    """Poll until it is so; raise when the time is over or the process that should do it has ended."""
    deadline = time.monotonic() + within_s
    while not is_so():
        if process is not None:
            process.check()
        if time.monotonic() > deadline:
            said = f"; it said: {process.log_tail()}" if process is not None else ""
            raise BenchError(f"{what}: not within {within_s:g} s{said}")
        time.sleep(every_s)


def free_port() -> int:
    """A loopback port that nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _environment() -> dict[str, str]:
    """Ours, without the settings of TaskMaster that whoever runs this may have."""
    return {name: value for name, value in os.environ.items() if not name.startswith("TASKMASTER_") and name != "REDIS_URL"}


def _sum(values: Sequence[float]) -> float:
    return float(sum(values))


def _each(processes: list[psutil.Process]) -> list[psutil.Process]:
    return list(filter(is_alive, processes))
