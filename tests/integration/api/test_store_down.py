"""The store goes away: 503 with Retry-After in bounded time, and all is well when it is back."""

from __future__ import annotations

import asyncio
import time

import pytest

from integration.api.conftest import WELCOME, HandWorker, Serve, running
from support.eventually import eventually_async
from support.servers import StoreServer
from taskmaster.settings import Settings

pytestmark = pytest.mark.anyio

PATHS = ["/jobs", "/jobs/01a20557-4f89-7362-bf7c-8356bbe4029a", "/queues", "/dlq", "/readyz", "/health"]


async def _again(client, body) -> None:
    """Until it is taken."""

    async def is_taken() -> bool:
        return (await client.post("/jobs", json=body)).status_code == 202

    await eventually_async(is_taken, what="the submission is accepted")


@pytest.mark.server("valkey")
async def test_killed_store_is_503_and_recovers(serve: Serve, clean_server: StoreServer, worker: HandWorker) -> None:
    async with serve(store_timeout_ms=1_000) as client:
        assert (await client.post("/jobs", json=WELCOME)).status_code == 202
        clean_server.kill()
        started = time.monotonic()
        posts = await asyncio.gather(*(client.post("/jobs", json=WELCOME | {"idempotencyKey": f"d{i}"}) for i in range(50)))
        took_s = time.monotonic() - started
        reads = [await client.get(path) for path in PATHS]
        alive = await client.get("/livez")
        clean_server.start()
        HandWorker(clean_server.url, "second").store.close()
        await _again(client, WELCOME)

    assert {answer.status_code for answer in posts} == {503}
    assert {answer.json()["type"] for answer in posts} == {"/problems/store-unavailable"}
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in [*posts, *reads])
    assert took_s < 1.9
    assert {answer.status_code for answer in reads} == {503}
    assert reads[-1].json()["status"] == "unhealthy"
    assert alive.status_code == 200


@pytest.mark.server("valkey")
async def test_silent_store_is_503_within_the_time_out(serve: Serve, clean_server: StoreServer) -> None:
    """Frozen, not gone: connections stay open and nothing answers."""
    async with serve(store_timeout_ms=1_500) as client:
        await client.post("/jobs", json=WELCOME)
        clean_server.pause()
        try:
            started = time.monotonic()
            first = asyncio.create_task(client.post("/jobs", json=WELCOME | {"idempotencyKey": "s1"}))
            await asyncio.wait({first}, timeout=0.5)
            second = await client.post("/jobs", json=WELCOME | {"idempotencyKey": "s2"})
            took_s = time.monotonic() - started
            statuses = {(await first).status_code, second.status_code, (await client.get("/jobs")).status_code}
        finally:
            clean_server.resume()
        await _again(client, WELCOME | {"idempotencyKey": "s1"})
        jobs = (await client.get("/jobs")).json()["items"]

    assert statuses == {503}
    assert took_s < 2.7
    assert len({job["jobId"] for job in jobs}) == len(jobs)


@pytest.mark.server("valkey")
async def test_full_store_is_503_and_nothing_is_stored(clean_server: StoreServer, worker: HandWorker) -> None:
    clean_server.call("CONFIG", "SET", "maxmemory", "1")
    try:
        async with running(Settings(redis_url=clean_server.url)) as client:
            answer = await client.post("/jobs", json=WELCOME)
            listed = await client.get("/jobs")
    finally:
        clean_server.call("CONFIG", "SET", "maxmemory", "0")

    assert (answer.status_code, answer.json()["type"]) == (503, "/problems/store-refused")
    assert answer.headers["retry-after"]
    assert (listed.status_code, listed.json()["items"]) == (200, [])


@pytest.mark.server("valkey")
async def test_start_without_a_store_waits_for_it(clean_server: StoreServer) -> None:
    """The API starts, says what is missing, and works as soon as the store is there."""
    clean_server.kill()
    async with running(Settings(redis_url=clean_server.url, store_timeout_ms=500)) as client:
        before = await client.post("/jobs", json=WELCOME)
        clean_server.start()
        worker = HandWorker(clean_server.url)
        await _again(client, WELCOME)
        worker.store.close()

    assert before.status_code == 503
