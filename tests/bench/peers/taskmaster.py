"""TaskMaster as it is in this checkout: its own command for workers, its Python-side submission, and the bench's plugin."""

from __future__ import annotations

import functools
import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path

from bench.peers.base import QUEUE, Load, Peer, Sent, Workers
from bench.peers.pacing import timed, turns
from bench.processes import BenchError, Running, running
from bench.store import Store
from taskmaster import __version__
from taskmaster.client import Client, Submission
from taskmaster.errors import TaskMasterError
from taskmaster.model.retention import Kept
from taskmaster.plugins.catalogue import CatalogueEntry, encode, entries
from taskmaster.plugins.discovery import discover
from taskmaster.store import calls, upkeep
from taskmaster.store.client import SyncStore

__all__ = ["TaskMaster", "command", "common_environment", "publish"]

PLUGIN = Path(__file__).resolve().parents[1] / "plugin"
TESTS = Path(__file__).resolve().parents[2]
SERVICES = TESTS.parent / "services"
_TYPES = ("noop", "isolated", "sleep", "async", "stamp", "report")
_COMPLETED = [f"bench-{name}/{QUEUE}/completed" for name in _TYPES]
#: A worker that only publishes its catalogue is gone at once.
_ALIVE_MS = 1_000


class TaskMaster(Peer):
    """One partition, a key for every job, everything recorded."""

    name = "taskmaster"
    has_bulk = True
    has_record = True
    drain_count = 40_000

    def prepare(self, store: Store, folder: Path) -> None:
        """A fresh store will do."""

    def submit(self, store: Store, load: Load) -> Sent:
        """As an application does, a key of its own for each job: `submit_many`, or where jobs come one by one `submit`."""
        run, numbers = secrets.token_hex(4), iter(range(load.count))
        job_type, delay_ms = f"bench-{load.job}", load.delay_ms or None

        def payload() -> dict[str, object]:
            return {**load.payload, "sent": str(time.monotonic_ns())} if load.job == "stamp" else dict(load.payload)

        def one(number: int) -> Submission:
            turn = f"customer-{number % load.fairness_keys}" if load.fairness_keys else None
            return Submission(job_type, f"{run}-{number}", payload(), delay_ms=delay_ms, fairness_key=turn, limits=load.limits or None)

        def many(count: int) -> None:
            for told in client.submit_many(one(next(numbers)) for _ in range(count)):
                if isinstance(told, TaskMasterError):
                    raise told

        def send() -> None:
            if load.chunk > 1 and not load.offsets_ms:
                many(load.count)
                return
            for _ in turns(load):
                client.submit(job_type, payload(), key=f"{run}-{next(numbers)}", delay_ms=delay_ms)

        publish(store)
        with Client(store.url) as client:
            deque(client.check_many([Submission(job_type, "first", payload())]), 0)  # connects, and reads clock and types
            return timed(send)

    @contextmanager
    def workers(self, store: Store, workers: Workers) -> Iterator[Running]:
        """`taskmaster worker` with its defaults, or as many jobs at once as asked for. Every finished job is kept, as the others do."""
        kept = {"TASKMASTER_KEEP_COMPLETED": "10000000", "TASKMASTER_WORKER_PROCESSES": str(workers.processes)}
        env = common_environment(workers.folder, store) | kept | workers.env
        if workers.slots:
            env |= {"TASKMASTER_QUEUE_CONCURRENCY": f"{QUEUE}={workers.slots}"}
        with running(command("worker"), env=env, folder=workers.folder, name="worker", output=workers.output) as started:
            yield started

    def done(self, store: Store, submitted: int) -> int:
        """Completions are counted by type and queue."""
        return sum(int(n or 0) for n in store.client.hmget("tm:{0}:n", _COMPLETED))

    def prune(self, store: Store) -> bool:
        """Retention that keeps nothing."""
        with closing(SyncStore(store.url)) as client:
            while client.run(upkeep.prune(0, calls.Limits(0, *[Kept(0, 0)] * 3))):
                pass
        return True

    def version(self) -> str:
        """The checkout's."""
        return f"taskmaster {__version__}"


def command(*arguments: str) -> list[str]:
    """Command line of the program under test."""
    return [sys.executable, "-m", "taskmaster", *arguments]


def common_environment(folder: Path, store: Store | None = None) -> dict[str, str]:
    """What every process of TaskMaster is started with: this checkout, the bench's plugin alone, no settings of whoever runs this."""
    env = {"PYTHONPATH": os.pathsep.join([_plugin_path(), str(SERVICES), str(TESTS)]), "PYTHONDONTWRITEBYTECODE": ""}
    env |= {"TASKMASTER_PLUGINS": "bench", "TASKMASTER_LOG_LEVEL": "warning", "TASKMASTER_DATA_DIR": str(folder / "data")}
    return env | ({"TASKMASTER_REDIS_URL": store.url} if store else {})


def publish(store: Store) -> None:
    """Put the plugin's job types into the store's catalogue, as a worker does at its start."""
    catalogue = [calls.Published(entry.type, encode(entry).decode(), entry.plugin) for entry in _catalogue().values()]
    names = [one.type for one in catalogue]
    with closing(SyncStore(store.url)) as client:
        client.run(
            calls.register(
                0, wid="bench", cap="bench", info="{}", plugin_set="{}", types=names, catalogue=catalogue, alive_ms=_ALIVE_MS, gen="bench"
            )
        )
        client.run(calls.unregister(0, "bench"))


@functools.cache
def _plugin_folder() -> tempfile.TemporaryDirectory[str]:
    """The plugin, installed into a folder of its own for as long as this process lives."""
    folder = tempfile.TemporaryDirectory(prefix="tm-bench-plugin-")
    install = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--python", sys.executable, "--target", folder.name]
    install += ["--no-deps", "--no-build-isolation", "--no-index", "--offline", "--compile-bytecode", str(PLUGIN)]
    done = subprocess.run(install, capture_output=True, text=True, check=False, timeout=120)
    if done.returncode:
        raise BenchError(f"the bench's plugin cannot be installed: {done.stderr}")
    return folder


def _plugin_path() -> str:
    return _plugin_folder().name


@functools.cache
def _catalogue() -> Mapping[str, CatalogueEntry]:
    sys.path.append(_plugin_path())
    registry = discover(["bench"])
    if not registry.handlers:
        raise BenchError(f"the bench's plugin was not loaded: {[report.error for report in registry.reports]}")
    return {entry.type: entry for entry in entries(registry)}
