"""TaskMaster."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.peers.base import Load, Peer, Sent, Workers
from bench.processes import BenchError, Running
from bench.store import Store

__all__ = ["TaskMaster", "plugin_environment", "taskmaster"]


def taskmaster(*arguments: str) -> list[str]:
    """Command line of the program under test."""
    return [sys.executable, "-m", "taskmaster", *arguments]


def plugin_environment(folder: Path) -> dict[str, str]:
    """Where the bench's plugin is."""
    return {}


class TaskMaster(Peer):
    """To come."""

    name = "taskmaster"
    has_bulk = True
    has_record = True
    drain_count = 40_000

    def prepare(self, store: Store, folder: Path) -> None:
        """To come."""
        raise BenchError("not there yet")

    def submit(self, store: Store, load: Load) -> Sent:
        """To come."""
        raise NotImplementedError

    @contextmanager
    def workers(self, store: Store, workers: Workers) -> Iterator[Running]:
        """To come."""
        raise NotImplementedError

    def done(self, store: Store, submitted: int) -> int:
        """To come."""
        raise NotImplementedError

    def prune(self, store: Store) -> bool:
        """To come."""
        raise NotImplementedError

    def version(self) -> str:
        """To come."""
        return "taskmaster"
