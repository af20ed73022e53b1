"""POST /jobs over 16 connections: requests a second and their latency, by wrk."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

from bench.parts.base import Bench, Figures, Part
from bench.peers.servers import serving
from bench.processes import BenchError

__all__ = ["HTTP"]

_SCRIPT = Path(__file__).resolve().parents[1] / "post.lua"


def run(bench: Bench, subject: str) -> Figures:
    """One server process, a unique idempotency key a request. Anything but 2xx ends the measurement."""
    wrk = shutil.which("wrk")
    if wrk is None:
        raise BenchError("not measured: no wrk")
    with bench.stage() as stage, serving(subject, stage) as server:
        _load(wrk, server.port, 2)
        store, process = stage.store.cpu_s(), server.process.cpu_s()
        said = _load(wrk, server.port, 2 if bench.is_quick else 6)
        requests = said["requests"]
        return {
            "req/s": requests / said["seconds"],
            "p50 ms": said["p50_ms"],
            "p99 ms": said["p99_ms"],
            "process us/req": (server.process.cpu_s() - process) / requests * 1e6,
            "server us/req": (stage.store.cpu_s() - store) / requests * 1e6,
        }


def _load(wrk: str, port: int, seconds: int) -> dict[str, float]:
    command = [wrk, "-t1", "-c16", f"-d{seconds}s", "-s", str(_SCRIPT), f"http://127.0.0.1:{port}/jobs"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=seconds + 30)
    said: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    if said["failed"] or not said["requests"]:
        raise BenchError(f"wrk: {said['failed']:g} of {said['requests']:g} requests failed")
    return said


HTTP = Part("http", ("taskmaster", "storeless", "bare", "express"), run, "POST /jobs, one process, 16 connections")
