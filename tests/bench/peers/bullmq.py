"""BullMQ on Node, with its default job retention: every finished job is kept."""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from bench.peers.base import QUEUE, Load, Peer, Sent, Workers
from bench.processes import BenchError, Running, running
from bench.store import Store

__all__ = ["BullMQ", "environment", "installed", "script"]

NODE = Path(__file__).resolve().parents[1] / "node"


class BullMQ(Peer):
    """Concurrency 100 unless a measurement asks for more."""

    name = "bullmq"
    has_bulk = True
    has_record = True
    drain_count = 30_000

    def prepare(self, store: Store, folder: Path) -> None:
        """Installed, or a reason."""
        installed()

    def submit(self, store: Store, load: Load) -> Sent:
        """`add` or `addBulk` from a process of its own."""
        spec = json.dumps(asdict(load) | {"payload": dict(load.payload)})
        limit_s = 120 + max(load.offsets_ms, default=0) / 1_000
        command = [*script("load.mjs"), spec]
        done = subprocess.run(command, env=os.environ | environment(store), capture_output=True, text=True, check=False, timeout=limit_s)
        if done.returncode:
            raise BenchError(f"load.mjs: {done.stderr[:300]}")
        return Sent(**json.loads(done.stdout))

    @contextmanager
    def workers(self, store: Store, workers: Workers) -> Iterator[Running]:
        """The first process forks the others and works too."""
        env = environment(store) | {"BENCH_SLOTS": str(workers.slots or 100), "BENCH_PROCESSES": str(workers.processes)} | dict(workers.env)
        with running(script("worker.mjs"), env=env, folder=workers.folder, name="bullmq") as started:
            yield started

    def done(self, store: Store, submitted: int) -> int:
        """Completed jobs are kept in a sorted set."""
        return int(store.client.zcard(f"bull:{QUEUE}:completed"))

    def prune(self, store: Store) -> bool:
        """No."""
        return False

    def version(self) -> str:
        """BullMQ's pinned version and Node's."""
        node = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True, timeout=10).stdout.strip()
        return f"bullmq {_pinned()['bullmq']}, express {_pinned()['express']}, node {node}"


def script(name: str) -> list[str]:
    """Command line of one of our scripts."""
    return ["node", str(NODE / name)]


def environment(store: Store) -> dict[str, str]:
    """What our scripts read to find the store."""
    return {"BENCH_REDIS_SOCKET": store.socket_path, "NODE_ENV": "production"}


@functools.cache
def installed() -> None:
    """Install the pinned packages into the bench's own folder unless they are there. Raises BenchError when Node is missing."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        raise BenchError("not measured: no node")
    if all(_version_there(name) == version for name, version in _pinned().items()):
        return
    command = ["npm", "install", "--no-audit", "--no-fund", "--no-package-lock", "--silent"]
    done = subprocess.run(command, cwd=NODE, capture_output=True, text=True, check=False, timeout=300)
    if done.returncode:
        raise BenchError(f"not measured: npm install failed: {done.stderr[-300:]}")


def _pinned() -> dict[str, str]:
    return dict(json.loads((NODE / "package.json").read_text())["dependencies"])


def _version_there(name: str) -> str | None:
    manifest = NODE / "node_modules" / name / "package.json"
    return str(json.loads(manifest.read_text())["version"]) if manifest.exists() else None
