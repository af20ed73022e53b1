"""`taskmaster scheduler` processes on a store that goes by its own clock."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from support.eventually import eventually
from support.processes import Child, Processes, environ_of
from support.schedules import Town, town_at
from support.servers import StoreServer
from taskmaster.engine import schedules as engine
from taskmaster.engine.scheduled_jobs import Who
from taskmaster.store.client import SyncStore

__all__ = ["Schedulers", "real_town"]


class Schedulers:
    """Scheduler processes, and what has become of schedules.

    Args:
        town: of `real_town`.
        processes: end them.
        url: of the store.
        environ: of each of them, on top of ours.
    """

    def __init__(self, town: Town, processes: Processes, url: str, environ: Mapping[str, str] | None = None) -> None:
        self.town = town
        self.children: list[Child] = []
        self._processes = processes
        self._environ = environ_of(redis_url=url, log_format="json", data_dir=processes.folder / "data") | dict(environ or {})

    def start(self, name: str, **environ: str) -> Child:
        child = self._processes.start(name, ["-m", "taskmaster", "scheduler"], self._environ | environ)
        eventually(lambda: self.said(child, "scheduler.started"), 30, lambda: f"{name} starts; it said {child.log()[-2_000:]}")
        self.children.append(child)
        return child

    def said(self, child: Child, event: str) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in child.log().splitlines() if line.startswith("{") and line.endswith("}")]
        return [line for line in lines if line.get("event") == event]

    def leader(self, *children: Child) -> Child:
        """Who holds the lease, once one of these does."""

        def find() -> list[Child]:
            wid = self.town.desk.raw.hget("tm:{0}:scheduler", "wid")
            return [child for child in children if any(line["id"] == wid for line in self.said(child, "scheduler.started"))]

        return eventually(find, 20, "one of them leads")[0]

    def lease_ms(self) -> int:
        """How long the leader's lease is still good, by the store's clock."""
        return int(float(self.town.desk.raw.hget("tm:{0}:scheduler", "till") or 0)) - self.now_ms()

    def now_ms(self) -> int:
        """By the store's clock."""
        seconds, micros = self.town.desk.raw.time()
        return int(seconds) * 1_000 + int(micros) // 1_000

    def instants(self, name: str = "h") -> list[int]:
        """Those that have a job, in order; each is there as often as it has one."""
        return self.all_instants().get(name, [])

    def all_instants(self) -> dict[str, list[int]]:
        """The same of all schedules."""
        found: dict[str, list[int]] = {}
        for key in self.town.made():
            name, _, at = key.partition("@")
            found.setdefault(name, []).append(round(dt.datetime.fromisoformat(at).timestamp() * 1_000))
        return found

    def wait_for(self, n: int, name: str = "h", within_s: float = 20) -> None:
        """Return when so many of its instants have a job."""
        eventually(lambda: len(self.instants(name)) >= n, within_s, lambda: f"{n} instants are fired, there are {self.instants(name)}")

    def settle(self, name: str = "h") -> tuple[list[int], int]:
        """Pause it; the instants that have a job, and how many were missed."""
        self.town.run(engine.switch(name, 1, Who("ann"), enabled=False))
        return self.instants(name), int(self.town.row(name).fields.get("missed", 0))


@contextmanager
def real_town(server: StoreServer) -> Iterator[Town]:
    """A town on the store's own clock."""
    with town_at(server) as town:
        town.desk.store = SyncStore(server.url)
        yield town
        town.desk.store.close()
