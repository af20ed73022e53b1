"""The processes of a run: a store, roads to it, APIs, workers and the sink; and what can be done to each."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil

from soak.plan import FAILPOINTS
from support import plugin
from support.eventually import eventually
from support.processes import Child, Processes, environ_of, serve_api
from support.proxy import StoreProxy
from support.servers import StoreServer
from support.sink import Sink

__all__ = ["GRACE_MS", "LEASE_MS", "World"]

LEASE_MS = 2_000
GRACE_MS = LEASE_MS // 2
_SETTINGS: dict[str, Any] = {
    "lease_ms": LEASE_MS,
    "worker_processes": 1,
    "concurrency": 4,
    "drain_ms": 20_000,
    "store_timeout_ms": 2_000,
    "keep_completed": 1_000_000,
    "keep_failed": 1_000_000,
    "keep_cancelled": 1_000_000,
    "log_format": "json",
}


class World:
    """Starts everything on entering, in order; leaves no process behind. The thread that enters must outlive it.

    Attributes:
        roads: a proxy for each API and each worker, in that order.
        apis: name -> (process, address), of those that are up.
        workers: name -> process of the supervisor.
    """

    def __init__(self, folder: Path, *, apis: int = 2, workers: int = 3) -> None:
        self.folder = folder
        self._numbers = (apis, workers)
        self._stack = contextlib.ExitStack()
        self._lock = threading.Lock()
        self._starts = 0
        self.apis: dict[str, tuple[Child, str]] = {}
        self.workers: dict[str, Child] = {}
        self.roads: dict[str, StoreProxy] = {}
        self.fired = folder / "failpoints"
        self.frozen: set[int] = set()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            # Every answer of the store is on its disk: what was accepted must be there after any crash.
            self.server = stack.enter_context(StoreServer("valkey", aof=True, options=["--appendfsync", "always"]))
            self.sink = stack.enter_context(Sink(self.folder / "sink"))
            self.processes = stack.enter_context(Processes(self.folder))
            plugin.install(self.folder / "plugins")
            self.fired.mkdir()
            for point in FAILPOINTS:
                (self.fired / point).touch()  # none is armed yet
            names = [f"api-{n}" for n in range(self._numbers[0])], [f"worker-{n}" for n in range(self._numbers[1])]
            for name in (*names[0], *names[1]):
                self.roads[name] = stack.enter_context(StoreProxy(self.server))
            for name in names[1]:
                self.start_worker(name)
            for name in names[0]:
                self.start_api(name)
            eventually(lambda: self.server.call("HLEN", "tm:{0}:cat") > 0, 30, "the workers have told their types")
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.thaw()
        self._stack.close()

    # ------------------------------------------------------------ processes
    def start_api(self, name: str) -> None:
        """A new process of this name, behind its road; returns when it listens."""
        self._starts += 1
        child, url = serve_api(self.processes, f"{name}.{self._starts}", self.roads[name].url, store_timeout_ms=2_000)
        with self._lock:
            self.apis[name] = child, url

    def kill_api(self, name: str) -> None:
        with self._lock:
            child, _ = self.apis.pop(name)
        child.kill()

    def start_worker(self, name: str) -> None:
        self._starts += 1
        settings = _SETTINGS | plugin.settings_of(self.sink.path) | {"redis_url": self.roads[name].url, "data_dir": self.folder / "data"}
        environ = environ_of(**settings) | {
            "TM_FAILPOINTS": ",".join(f"{point}:kill9" for point in FAILPOINTS),
            "TM_FAILPOINTS_DIR": str(self.fired),
        }
        paths = [str(self.folder / "plugins"), environ.get("PYTHONPATH", "")]
        environ["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
        self.workers[name] = self.processes.start(f"{name}.{self._starts}", ["-m", "taskmaster", "worker"], environ)

    def urls(self) -> list[str]:
        """Where APIs listen now."""
        with self._lock:
            return [url for _, url in self.apis.values()]

    def children(self) -> list[psutil.Process]:
        """The worker processes that run jobs, in a stable order."""
        found = []
        for name in sorted(self.workers):
            for child in sorted(self.workers[name].note_family(), key=lambda child: child.pid):
                with contextlib.suppress(psutil.NoSuchProcess):
                    if child.ppid() == self.workers[name].popen.pid:
                        found.append(child)
        return found

    # ------------------------------------------------------------ making it whole again
    def freeze(self, process: psutil.Process) -> None:
        self.frozen.add(process.pid)
        process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Continue what was frozen."""
        for pid in self.frozen:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        self.frozen.clear()

    def heal(self) -> None:
        """No fault is left: everything runs, every road is open."""
        for point in FAILPOINTS:
            (self.fired / point).touch()
        self.thaw()
        self.server.start()
        self.server.resume()
        self.server.call("CONFIG", "SET", "maxmemory", "0")
        for road in self.roads.values():
            road.latency(0)
            road.restore()
        for name, road in self.roads.items():
            if name.startswith("api") and name not in self.apis:
                self.start_api(name)
            elif name.startswith("worker") and not self.workers[name].is_running:
                self.start_worker(name)
            assert road.url

    def stop_all(self) -> dict[str, int]:
        """SIGTERM to workers, then APIs; their exit codes."""
        codes = {}
        for child in self.workers.values():
            child.send(signal.SIGTERM)
        for name, child in self.workers.items():
            codes[name] = child.popen.wait(60)
        for child, _ in self.apis.values():
            child.send(signal.SIGTERM)
        for name, (child, _) in self.apis.items():
            codes[name] = child.popen.wait(20)
        return codes
