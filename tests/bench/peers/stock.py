"""Stock Dramatiq: RedisBroker, its own command line, 8 threads a process."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

from bench.peers.base import QUEUE, Load, Peer, Sent, Workers
from bench.peers.pacing import timed, turns
from bench.peers.stock_actors import URL, declare
from bench.processes import Running, running
from bench.store import Store

__all__ = ["StockDramatiq"]

TESTS = Path(__file__).resolve().parents[2]


class StockDramatiq(Peer):
    """Keeps no record of a finished job and has no bulk submission."""

    name = "dramatiq"
    has_bulk = False
    has_record = False
    drain_count = 8_000

    def prepare(self, store: Store, folder: Path) -> None:
        """A fresh store will do."""

    def submit(self, store: Store, load: Load) -> Sent:
        """One `send_with_options` a job, whatever the chunk."""
        actors = declare(store.url)
        actor = actors[load.job]
        delay = load.delay_ms or None

        def send() -> None:
            for count in turns(load):
                for _ in range(count):
                    payload = {**load.payload, "sent": str(time.monotonic_ns())} if load.job == "stamp" else load.payload
                    actor.send_with_options(args=(payload,), delay=delay)

        try:
            return timed(send)
        finally:
            actor.broker.close()

    @contextmanager
    def workers(self, store: Store, workers: Workers) -> Iterator[Running]:
        """`dramatiq` with processes and threads."""
        command = [sys.executable, "-m", "dramatiq", "bench.peers.stock_actors:from_environment"]
        command += ["--processes", str(workers.processes), "--threads", str(workers.slots or 8)]
        env = {URL: store.url, "PYTHONPATH": str(TESTS)} | workers.env
        with running(command, env=env, folder=workers.folder, name="dramatiq") as started:
            yield started

    def done(self, store: Store, submitted: int) -> int:
        """A message leaves its hash when it is acknowledged."""
        return submitted - store.client.hlen(f"dramatiq:{QUEUE}.msgs") - store.client.hlen(f"dramatiq:{QUEUE}.DQ.msgs")

    def prune(self, store: Store) -> bool:
        """No."""
        return False

    def version(self) -> str:
        """Dramatiq's and the client's."""
        return f"dramatiq {version('dramatiq')}, redis-py {version('redis')}"
