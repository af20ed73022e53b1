"""From `taskmaster up` to the first POST that is answered with 202."""

from __future__ import annotations

import time

from bench.parts.base import Bench, Figures, Part
from bench.peers.servers import post_job
from bench.peers.taskmaster import command, common_environment
from bench.processes import free_port, running, wait_until

__all__ = ["UP"]

_ROUNDS = 2


def run(bench: Bench, subject: str) -> Figures:
    """Seconds, with an embedded store in an empty folder; the first of two starts compiles the bytecode and is not counted."""
    return {"seconds": [_start(bench) for _ in range(_ROUNDS)][-1]}


def _start(bench: Bench) -> float:
    with bench.stage() as stage:
        port = free_port()
        env = common_environment(stage.folder) | {"TASKMASTER_PORT": str(port)}
        start = time.perf_counter()
        with running(command("up"), env=env, folder=stage.folder, name="up") as process:
            wait_until(lambda: post_job(port) == 202, what="POST /jobs", within_s=60, every_s=0.01, process=process)
            return time.perf_counter() - start


UP = Part("up", ("taskmaster",), run, "`taskmaster up` until a POST answers")
