"""A worker service as an operator starts it: `python -m taskmaster worker` in a process of its own, and the processes below it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil

from support.eventually import eventually
from support.processes import is_alive

__all__ = ["WorkerService", "install_plugin"]


class WorkerService:
    """Starts on entering; whatever is left of it is killed on leaving. Options are settings, by their names, *environ* is beside them.

    Attributes:
        log_path: what it said, one JSON object a line.
    """

    def __init__(
        self, url: str, folder: Path, *, plugins_folder: Path | None = None, environ: Mapping[str, str] | None = None, **options: Any
    ) -> None:
        usual: dict[str, Any] = {
            "lease_ms": 2_000,
            "worker_processes": 2,
            "log_format": "json",
            "data_dir": folder / "data",
            "plugins": "demo",
        }
        self._environ = os.environ | {"TASKMASTER_REDIS_URL": url, "PYTHONFAULTHANDLER": ""}
        self._environ |= dict(environ or {})
        self._environ |= {f"TASKMASTER_{name.upper()}": str(value) for name, value in (usual | options).items()}
        if plugins_folder is not None:
            paths = [str(plugins_folder), os.environ.get("PYTHONPATH", "")]
            self._environ["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
        self._folder = folder
        self._size = int((usual | options)["worker_processes"]) + 1
        self._family: set[psutil.Process] = set()
        self.log_path = folder / "log"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self._folder.mkdir(parents=True, exist_ok=True)
        with self.log_path.open("ab") as log:
            command = [sys.executable, "-m", "taskmaster", "worker"]
            self._process = subprocess.Popen(command, env=self._environ, cwd=self._folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            eventually(
                lambda: len(self.said("worker.ready")) >= self._size, 30, lambda: f"workers are ready; they said {self.log()[-3_000:]}"
            )
            self.children()
        except BaseException as error:  # nobody else would end it
            self.__exit__(type(error), error, None)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.children()
        self.process.kill()
        self.process.wait(20)
        for child in self._family:
            if child.is_running():
                child.kill()
        psutil.wait_procs(self._family, 10)

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The supervisor."""
        assert self._process is not None, "the service was not started"
        return self._process

    def children(self) -> dict[str, int]:
        """Process ids by title, without those that are just ending."""
        family, found = set[psutil.Process](), {}
        with contextlib.suppress(psutil.NoSuchProcess):
            family = set(psutil.Process(self.process.pid).children(recursive=True))
        self._family |= family
        for child in filter(is_alive, family):
            with contextlib.suppress(psutil.NoSuchProcess):  # now
                found[" ".join(child.cmdline()).strip()] = child.pid
        return found

    def private_mb(self) -> float:
        """Memory that its processes alone hold, MB."""
        return sum(psutil.Process(pid).memory_full_info().uss for pid in [self.process.pid, *self.children().values()]) / 1e6

    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def said(self, event: str) -> list[dict[str, Any]]:
        """The log lines of this event."""
        lines = [json.loads(line) for line in self.log().splitlines() if line.startswith("{") and line.endswith("}")]
        return [line for line in lines if line.get("event") == event]

    def runs(self, *job_ids: str) -> None:
        """Until the handler of each of these has begun; `active` is a job from its claim on, and an unstarted claim is handed back."""

        def begun() -> bool:
            return set(job_ids) <= {line["jobId"] for line in self.said("job.started")}

        eventually(begun, 20, lambda: f"{job_ids} run; the log ends {self.log()[-3_000:]}")

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def wait(self, within_s: float = 20) -> int:
        """The supervisor's exit code."""
        return self.process.wait(within_s)


def install_plugin(folder: Path, name: str, code: str) -> None:
    """Lay a distribution of one module, with its entry point, into *folder*, as an installer would."""
    module = f"tm_test_{name}"
    (folder / f"{module}.py").write_text(code)
    info = folder / f"{module}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[taskmaster.plugins]\n{name} = {module}\n")
