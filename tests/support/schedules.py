"""Schedulers and their schedules on a real store, whose clock the test drives."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from support.desk import ALIVE_MS, Desk, desk_at
from support.servers import StoreServer
from taskmaster.engine import schedules as engine
from taskmaster.engine.scheduled_jobs import Jobs, Who
from taskmaster.engine.scheduled_types import Types
from taskmaster.model.job import Envelope
from taskmaster.model.retry import DEFAULT
from taskmaster.model.schedule import Schedule
from taskmaster.plugins.catalogue import CatalogueEntry, encode
from taskmaster.scheduler.rounds import Rounds
from taskmaster.settings import Settings
from taskmaster.store import calls, schedules
from taskmaster.store.call import Talk
from taskmaster.store.schedules import Fire, ScheduleRow
from taskmaster.telemetry.meters import SchedulerMeter

__all__ = ["Town", "many", "publish", "town_at"]

_envelope = msgspec.json.Decoder(Envelope).decode


def publish(store: Any, *types: str) -> None:
    """Let the catalogue know these types, as a worker does at its start; their queue is `one`."""
    entries = [CatalogueEntry(name, "one", 5, DEFAULT, 60_000, None, {"type": "object"}, None, "", "test", "1") for name in types]
    catalogue = [(entry.type, encode(entry).decode()) for entry in entries]
    facts: dict[str, Any] = {"cap": "cap-" + "-".join(types), "info": "{}", "plugin_set": "{}", "types": types, "gen": "g"}
    store.run(calls.register(0, wid="w1", **facts, catalogue=catalogue, alive_ms=ALIVE_MS))


def many(store: Any, total: int, at_once: int, at_ms: int, job_type: str, payload: Any) -> list[str]:
    """Make *total* daily schedules, of which *at_once* are due at that moment and the others a day later; the ids of the first.

    One more, `beside`, runs every second, from five seconds before that moment on. Written as the engine does it, a hundred in a call.
    """
    daily = Schedule(type=job_type, payload=payload, cron="0 9 * * 1-5", timezone="America/New_York")
    wave, calm = ([f"{kind}-{n}" for n in range(count)] for kind, count in (("wave", at_once), ("calm", total - at_once)))
    plan = [(name, daily, at_ms) for name in wave] + [(name, daily, at_ms + 86_400_000) for name in calm]
    each_second = Schedule(type=job_type, payload=payload, every_ms=1_000, catch_up="all", catch_up_max=1_000)
    plan.append(("beside", each_second, at_ms - 5_000))
    facts: dict[str, Any] = {"known": 0, "last": "", "enabled": None, "who": "ann"}
    puts = [
        schedules.put(0, name, op=f"{n:016x}", spec=msgspec.json.encode(one).decode(), next_ms=due_ms, due_ms=due_ms, **facts)
        for n, (name, one, due_ms) in enumerate(plan)
    ]
    channel = store.channel()
    for first in range(0, len(puts), 100):
        channel.run_together(puts[first : first + 100])
    channel.close()
    return wave


@dataclass
class Town:
    """One store with its clock, and as many schedulers as are asked for."""

    desk: Desk
    settings: Settings
    schedulers: dict[str, Rounds] = field(default_factory=dict)

    def at(self, text: str) -> None:
        """Set the clock of the store."""
        self.desk.now = round(dt.datetime.fromisoformat(text).timestamp() * 1_000)

    def run(self, talk: Talk[Any]) -> Any:
        return self.desk.store.converse(talk)

    def jobs(self, job_type: str = "alpha") -> Jobs:
        return Types(self.desk.store, self.settings).of(job_type)

    def put(self, name: str, **fields: Any) -> ScheduleRow:
        row: ScheduleRow = self.run(engine.put(name, Schedule(**{"type": "alpha"} | fields), self.jobs(), Who("ann")))[0]
        return row

    def row(self, name: str) -> ScheduleRow:
        found: ScheduleRow = self.run(engine.show(name, 1))
        return found

    def scheduler(self, name: str = "s1") -> Rounds:
        if name not in self.schedulers:
            self.schedulers[name] = Rounds(self.desk.store, 0, name, self.settings, Types(self.desk.store, self.settings), SchedulerMeter())
        return self.schedulers[name]

    def turn(self, *names: str) -> None:
        """Let the schedulers go round, one after the other, until none has more to do."""
        names = names or ("s1",)
        while min(self.scheduler(name).turn() for name in names) == 0:
            pass

    def made(self) -> list[str]:
        """The idempotency keys of all jobs, in order: `<schedule>@<instant>`."""
        names = self.desk.raw.keys("tm:{0}:b:*")
        return sorted(_envelope(str(blob).encode()).key for blob in (self.desk.raw.mget(names) if names else ()))

    def fires(self, name: str) -> list[Fire]:
        found: list[Fire] = self.run(engine.fires(name, 1, limit=200))
        return found

    def outcomes(self, name: str) -> list[str]:
        """The oldest first."""
        return [fire.outcome for fire in reversed(self.fires(name))]


@contextmanager
def town_at(server: StoreServer) -> Iterator[Town]:
    """A town at an empty server, where type `alpha` is known."""
    with desk_at(server) as desk:
        publish(desk.store, "alpha")
        yield Town(desk, Settings(redis_url=server.url, data_dir=Path("/nonexistent")))
