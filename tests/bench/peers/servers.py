"""HTTP servers that take POST /jobs, one process each: TaskMaster's API, the same handler without a store (by the framework's routes, or
bare), and Express with BullMQ.
"""

from __future__ import annotations

import http.client
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from bench.parts.base import Stage
from bench.peers.bullmq import environment, installed, script
from bench.peers.taskmaster import command, common_environment, publish
from bench.processes import Running, free_port, running, wait_until

__all__ = ["Server", "post_job", "serving"]


@dataclass(frozen=True, slots=True)
class Server:
    """A server that answers."""

    port: int
    process: Running


@contextmanager
def serving(subject: str, stage: Stage) -> Iterator[Server]:
    """Start the server called *subject*; it has answered a POST with 202."""
    port = free_port()
    if subject == "express":
        installed()
        line, env = script("http.mjs"), environment(stage.store) | {"BENCH_PORT": str(port)}
    else:
        publish(stage.store)
        line = command("api") if subject == "taskmaster" else [sys.executable, "-m", "bench.peers.storeless", subject]
        env = common_environment(stage.folder, stage.store) | {"TASKMASTER_PORT": str(port)}
    with running(line, env=env, folder=stage.folder, name=subject) as process:
        wait_until(lambda: post_job(port) == 202, what="POST /jobs", within_s=30, process=process)
        yield Server(port, process)


def post_job(port: int) -> int | None:
    """Status of one POST of a job; None when nobody answers."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        body = json.dumps({"type": "bench-noop", "idempotencyKey": f"first-{port}", "payload": {}})
        connection.request("POST", "/jobs", body, {"Content-Type": "application/json"})
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()
