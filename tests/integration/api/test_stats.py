"""`GET /stats`: all in numbers."""

from __future__ import annotations

import pytest

from integration.api.conftest import WELCOME, HandWorker, Serve
from support.servers import StoreServer
from taskmaster.store import calls, upkeep

pytestmark = pytest.mark.anyio


async def test_all_in_numbers(serve: Serve, worker: HandWorker) -> None:
    """What there is by state, and what has ever come of each type in each queue; an empty engine is all zeros."""
    async with serve() as client:
        empty = (await client.get("/stats")).json()
        for n in range(5):
            await client.post("/jobs", json=WELCOME | {"idempotencyKey": f"k{n}"})
        await client.post("/jobs", json=WELCOME | {"idempotencyKey": "later", "delayMs": 60_000})
        first, second, third = worker.claim(slots=3)
        worker.end(first)
        worker.end(second, "r", delay_ms=60_000)
        worker.end(third, "f", reason="fatal", fingerprint="f")
        (active,) = worker.claim()
        before = (await client.get("/stats")).json()
        worker.store.run(upkeep.prune(0, calls.Limits(0, calls.Kept(0, 0), calls.Kept(0, 0), calls.Kept(0, 0))))
        after = (await client.get("/stats")).json()
        refused = await client.get("/stats?type=welcome-email")

    assert active[0].attempt == 1
    assert (empty["total"]["created"], empty["types"], empty["oldestWaitingMs"], empty["workers"]) == (0, [], 0, 1)
    assert before["jobs"] == {"waiting": 1, "delayed": 2, "active": 1, "completed": 1, "failed": 1, "cancelled": 0, "blocked": 0}
    assert (before["deadLetters"], before["queues"], before["schedules"]) == (1, 1, 0)
    assert before["oldestWaitingMs"] > 0
    counted = {"created": 6, "completed": 1, "failed": 1, "cancelled": 0, "attemptsFailed": 2, "attemptsRetried": 1, "attemptsLost": 0}
    assert before["total"] == counted
    assert before["types"] == [{"type": "welcome-email", "queue": "email-queue"} | counted]
    assert (after["total"], after["jobs"]["completed"], after["jobs"]["failed"]) == (counted, 0, 0)
    assert refused.status_code == 400


@pytest.mark.parametrize("partitions", [4])
async def test_over_partitions(serve: Serve, clean_server: StoreServer, partitions: int) -> None:
    """One sum over all of them."""
    async with serve(partitions=partitions) as client:
        for n in range(20):
            assert (await client.post("/jobs", json={"type": "free", "idempotencyKey": f"k{n}", "payload": {}})).status_code == 202
        found = (await client.get("/stats")).json()
    homes = {p for p in range(partitions) if clean_server.call("EXISTS", f"tm:{{{p}}}:n")}

    assert len(homes) > 1
    assert (found["total"]["created"], found["jobs"]["waiting"], found["queues"]) == (20, 20, 1)
