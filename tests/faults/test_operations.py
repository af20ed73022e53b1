"""Many dead jobs of two causes, and what is done about one of them, with real worker processes that are killed in the middle of it."""

from __future__ import annotations

import datetime as dt
import json
import os
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis

from faults.conftest import Serve
from support.eventually import eventually
from support.protocol.dump import Snapshot, snapshot, violations
from support.servers import StoreServer
from support.sink import Sink
from support.worker import Hands
from taskmaster.engine import backfills, groups, operations, schedules
from taskmaster.engine.orders import Order, OrderFilter, plan
from taskmaster.engine.scheduled_jobs import Who
from taskmaster.engine.scheduled_types import Types
from taskmaster.errors import StoreUnavailable
from taskmaster.model.schedule import Schedule
from taskmaster.settings import Settings
from taskmaster.store import letters

DEAD = 1_000
RATE, LIMIT = 100, 10


def start(hands: Hands, action: str = "replay", **fields: Any) -> str:
    order = Order(action, reason="mended", by="ann", rate_per_s=RATE, **fields)
    return hands.store.converse(operations.open_order(plan(order, 1), "", 1, now_ms=hands.store.now_ms()))[0]


def view(hands: Hands, operation_id: str) -> operations.OperationView:
    return hands.store.converse(operations.of_id(operation_id, 1))


def ended(hands: Hands, operation_id: str, within_s: float = 30) -> operations.OperationView:
    """Once it does not run any more and none of its jobs is open."""

    def look() -> operations.OperationView | None:
        now = view(hands, operation_id)
        return now if now.state != "running" and not now.pending else None

    return eventually(look, within_s, lambda: f"{view(hands, operation_id)}")  # type: ignore[return-value]


def bury(hands: Hands, folder: Path, n: int) -> dict[str, list[str]]:
    """Dead jobs, half of each cause; keys of effects are `<cause>-<number>`."""
    ids = {
        cause: hands.submit_many(
            "broken",
            [{"key": f"{cause}-{number}", "gate": str(folder / "mended"), "then": cause, "n": number} for number in range(n // 2)],
            attempts=1,
        )
        for cause in ("full", "away")
    }
    eventually(lambda: hands.counters().get("default/f") == n, 60, lambda: f"all are dead: {hands.counters()}")
    return ids


def kept_of(server: StoreServer, ids: dict[str, list[str]]) -> Snapshot:
    """All that is kept of these jobs, byte by byte, and where they stand."""
    with redis.Redis.from_url(server.url, decode_responses=True, protocol=2) as client:
        snap, wrong = snapshot(client)
    assert not wrong + violations(snap)
    mine = {job_id for some in ids.values() for job_id in some}
    found: Snapshot = {key: value for key, value in snap.items() if key[:2] in ("j:", "b:", "r:", "h:", "d:") and key[2:] in mine}
    for key, value in snap.items():
        if key.startswith(("dlq:", "fp:", "fin:")):
            found |= {f"{key} {member}": score for member, score in value if member in mine}
    return found


def made_by(server: StoreServer, operation_id: str) -> dict[str, str]:
    """Jobs that an operation made, and of which dead letters."""
    blobs = {str(key)[len("tm:{0}:b:") :]: json.loads(server.call("GET", key)) for key in server.call("KEYS", "tm:{0}:b:*")}
    return {job_id: blob[8] for job_id, blob in blobs.items() if len(blob) > 9 and operation_id in blob[9]}


def replays(server: StoreServer, operation_id: str) -> Counter[str]:
    """How many jobs an operation made of each dead letter."""
    return Counter(made_by(server, operation_id).values())


@pytest.mark.server("valkey")
@pytest.mark.timeout(180)
def test_one_of_two_causes_is_mended_and_replayed(
    clean_server: StoreServer, hands: Hands, serve: Serve, sink: Sink, tmp_path: Path, fired: Callable[[], set[str]]
) -> None:
    """Groups show two causes. A replay before the mending stops at its limit; one after it, killed in the middle, makes each job once."""
    armed = tmp_path / "fired" / "operation.step"
    armed.parent.mkdir(exist_ok=True)
    armed.touch()
    with serve(worker_processes=2, lease_ms=5_000, failpoints="operation.step:kill9@3"):
        ids = bury(hands, tmp_path, DEAD)
        views, _ = hands.store.converse(groups.newest(1, after=("", ""), limit=10))
        before = kept_of(clean_server, ids)
        of_cause = {view.failure.error: view for view in views if view.failure}
        group = of_cause["ValueError"].fingerprint

        too_early = start(hands, filter=OrderFilter(fingerprint=group), stop_on_failures=LIMIT)
        stopped = ended(hands, too_early)
        (tmp_path / "mended").touch()
        armed.unlink()
        until = dt.datetime.fromtimestamp(stopped.made_ms / 1_000, dt.UTC)
        mended = start(hands, filter=OrderFilter(fingerprint=group, failed_before=until), stop_on_failures=LIMIT)
        done = ended(hands, mended)
        after = kept_of(clean_server, ids)

    assert [(view.size, view.plugins) for view in views] == [(DEAD // 2, {"faults==1.0": 12})] * 2
    assert set(of_cause) == {"ValueError", "ConnectionError"}
    assert (stopped.state, stopped.total, stopped.is_exact) == ("stopped", DEAD // 2, True)
    assert LIMIT <= stopped.counts["failed"] == stopped.counts["replayed"] < DEAD // 2
    assert fired() == {"operation.step"}, "a process was killed between the deed and the note"
    assert (done.state, done.counts["done"], done.counts["replayed"]) == ("completed", DEAD // 2, DEAD // 2)
    assert done.counts["duplicates"] > 0
    assert (done.counts["succeeded"], done.counts.get("failed", 0)) == (DEAD // 2, 0)
    assert done.ended_ms - done.made_ms > (DEAD // 2 / RATE - 1.5) * 1_000
    assert replays(clean_server, mended) == Counter(ids["full"]), "one new job each"
    assert set(sink.counts()) == {f"full-{number}" for number in range(DEAD // 2)}
    assert after == before, "records are byte for byte what they were"


@pytest.mark.server("valkey")
def test_a_store_that_goes_away_in_the_middle_holds_an_operation_up(
    clean_server: StoreServer, hands: Hands, serve: Serve, tmp_path: Path
) -> None:
    """It goes on where it was when the store answers again."""
    with serve(store_timeout_ms=1_000, lease_ms=10_000):
        ids = bury(hands, tmp_path, 300)
        (tmp_path / "mended").touch()
        operation_id = start(hands, filter=OrderFilter())
        eventually(lambda: view(hands, operation_id).counts.get("done"), 10)
        clean_server.pause()
        try:
            with pytest.raises(StoreUnavailable):  # in its own time, longer than that of the workers
                hands.store.ping()
        finally:
            clean_server.resume()
        done = ended(hands, operation_id, 40)

    assert (done.state, done.counts["replayed"], done.counts["succeeded"]) == ("completed", 300, 300)
    assert replays(clean_server, operation_id) == Counter(job_id for some in ids.values() for job_id in some)


@pytest.mark.server("valkey")
def test_a_bulk_discard_killed_in_the_middle_goes_on(clean_server: StoreServer, hands: Hands, serve: Serve, tmp_path: Path) -> None:
    """Each letter is discarded and audited once, whoever did it."""
    with serve(worker_processes=2) as service:
        ids = bury(hands, tmp_path, 300)
        operation_id = start(hands, "discard", filter=OrderFilter())
        eventually(lambda: view(hands, operation_id).counts.get("done"), 10)
        for name, pid in service.children().items():
            if "worker 1" in name:
                os.kill(pid, signal.SIGKILL)
        done = ended(hands, operation_id)
        left = hands.store.run(letters.groups(0)).places

    rows: Any = clean_server.call("XRANGE", "tm:{0}:audit", "-", "+")
    discarded = [fields["target"] for _, fields in rows if fields["action"] == "dead_letter.discarded"]
    assert (done.state, done.counts["discarded"], left) == ("completed", 300, ())
    assert sorted(discarded) == sorted([*ids["full"], *ids["away"]])


@pytest.mark.server("valkey")
def test_a_backfill_killed_in_the_middle_makes_each_job_once(
    clean_server: StoreServer, hands: Hands, serve: Serve, sink: Sink, fired: Callable[[], set[str]]
) -> None:
    """By whichever process goes on with it; what the dead one made and did not note is found there."""
    settings = Settings(redis_url=clean_server.url, data_dir=Path("/nonexistent"))
    with serve(worker_processes=2, lease_ms=5_000, failpoints="operation.step:kill9@3"):
        jobs = eventually(lambda: Types(hands.store, settings).of("plain"), what="the workers publish their types")
        wanted = Schedule(type="plain", payload={"key": "{{instant}}"}, every_ms=3_600_000)
        row, _ = hands.store.converse(schedules.put("hourly", wanted, jobs, Who("ann")))
        now = dt.datetime.fromtimestamp(hands.store.now_ms() / 1_000, dt.UTC)
        order = backfills.BackfillOrder(from_=now - dt.timedelta(hours=100), to=now, rate_per_s=40, by="ann")
        instants = backfills.instants_of(row, order, hands.store.now_ms())
        operation_id, _ = hands.store.converse(backfills.open_backfill(row, order, instants, "", 1))
        done = ended(hands, operation_id)

    assert fired() == {"operation.step"}, "a process was killed between the deed and the note"
    assert (done.state, done.counts["done"], len(instants)) == ("completed", 100, 100)
    assert done.counts["made"] + done.counts["duplicates"] == 100
    assert done.counts["duplicates"] > 0
    assert hands.counters()["plain/default/created"] == 100
    assert len(sink.counts()) == 100, "each job ran; one that the killed process was at, twice"
