"""TaskMaster's API with every check and answer in place, but nothing stored: what the rest of it costs.

Start: `python -m bench.peers.storeless`, by the framework's routes as any handler; with `bare` by the short way that the API takes.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from taskmaster import asgi, settings
from taskmaster.api import app
from taskmaster.store.calls import NewJob, Submitted
from taskmaster.store.status import Status
from taskmaster.telemetry import logs

__all__ = ["Answered", "main"]


class Answered:
    """In place of `taskmaster.engine.gather.Gather`: every job is accepted at once."""

    def __init__(self, channel: Callable[[], Any], partitions: int, timeout_s: float) -> None:
        """Nothing of it is needed."""

    def submit(self, partition: int, job: NewJob) -> asyncio.Future[Submitted]:
        """A future that is done."""
        future: asyncio.Future[Submitted] = asyncio.get_running_loop().create_future()
        future.set_result(Submitted(Status.OK, "waiting", job.id, time.time_ns() // 1_000_000))
        return future

    async def close(self) -> None:
        """Nothing is open."""


def main() -> int:
    """Serve until a signal, with the settings in the environment."""
    found = settings.load({}, os.environ, Path.cwd())
    logs.configure(found.log_level, found.log_format)
    app.Gather = Answered  # type: ignore[misc, assignment]
    if "bare" not in sys.argv:
        app._is_plain = lambda scope: False
    return asgi.serve(found)


if __name__ == "__main__":
    sys.exit(main())
