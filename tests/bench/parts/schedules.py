"""A thousand of ten thousand schedules fire in one second: how late they are, and one beside them that fires every second."""

from __future__ import annotations

from contextlib import closing

from bench.parts.base import Bench, Figures, Part, quantile
from bench.peers.taskmaster import command, common_environment, publish
from bench.processes import running, wait_until
from bench.store import Store
from support.schedules import many
from taskmaster.store import schedules
from taskmaster.store.client import SyncStore

__all__ = ["SCHEDULES"]

_TYPE, _PAYLOAD = "bench-noop", {"day": "{{localDate}}"}
_AHEAD_S = 15


def run(bench: Bench, subject: str) -> Figures:
    """Lags in ms, MB of the scheduler process and bytes of the store for each schedule."""
    total = bench.count(10_000)
    with bench.stage() as stage, closing(SyncStore(stage.store.url)) as store:
        publish(stage.store)
        before = stage.store.used_bytes()
        at_ms = (store.now_ms() // 1_000 + _AHEAD_S) * 1_000
        names = many(store, total, total // 10, at_ms, _TYPE, _PAYLOAD)
        size = (stage.store.used_bytes() - before) / total
        env = common_environment(stage.folder, stage.store)
        with running(command("scheduler"), env=env, folder=stage.folder, name="scheduler") as process:
            wait_until(lambda: _fired(stage.store) >= len(names), what="all are fired", within_s=60, process=process)
            grown = process.resident_mb()
            beside = [fire.lag for fire in store.run(schedules.fires(0, "beside", limit=200)) or () if fire.outcome == "fired"]
        lags = [fire.lag for name in names for fire in store.run(schedules.fires(0, name, limit=1)) or ()]
    return {
        "lag p50 ms": quantile(lags, 0.5),
        "lag p99 ms": quantile(lags, 0.99),
        "beside max ms": max(beside),
        "scheduler MB": grown,
        "store B/schedule": size,
    }


def _fired(store: Store) -> int:
    return len(store.client.keys("tm:{0}:scfire:wave-*"))


SCHEDULES = Part("schedules", ("taskmaster",), run, "1,000 of 10,000 schedules fire in one second, one beside them every second")
