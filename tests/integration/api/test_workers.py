"""Live worker processes as they are told."""

from __future__ import annotations

import pytest

from integration.api.conftest import WELCOME, HandWorker, Serve
from support.servers import StoreServer

pytestmark = [pytest.mark.anyio, pytest.mark.server("valkey")]


async def test_a_process_is_one_row_and_tells_its_jobs(serve: Serve, worker: HandWorker, clean_server: StoreServer) -> None:
    """Its consumers are put together; what it holds is listed, what another holds is not."""
    sibling, waiting = HandWorker(clean_server.url, "sibling"), "w"
    async with serve() as client:
        ids = [
            (await client.post("/jobs", json=WELCOME | {"idempotencyKey": key})).json()["jobId"] for key in ("a", "b", waiting)
        ]  # fmt: skip
        worker.claim()
        sibling.claim()
        rows = (await client.get("/workers")).json()
        (row,) = rows["items"]
        shown = (await client.get(f"/workers/{row['workerId']}")).json()
        stranger = await client.get("/workers/elsewhere-1")
        health = (await client.get("/health")).json()
    sibling.store.close()

    assert rows["nextCursor"] is None
    assert (row["workerId"], row["host"], row["pid"], row["name"], row["suspects"]) == (
        "testhost-4711",
        "testhost",
        4711,
        "worker 1",
        False,
    )
    assert row["consumers"] == ["handworker", "sibling"]
    assert row["plugins"] == {"test": "1.0"}
    assert row["startedAt"] < row["aliveUntil"]
    assert row.items() <= shown.items()
    assert {job["jobId"] for job in shown["jobs"]} == set(ids[:2])
    assert (stranger.status_code, stranger.json()["workerId"]) == (404, "elsewhere-1")
    assert health["workers"] == 1


async def test_nobody_works(serve: Serve, clean_server: StoreServer) -> None:
    async with serve() as client:
        clean_server.call("FLUSHALL")
        assert (await client.get("/workers")).json() == {"items": [], "nextCursor": None}
