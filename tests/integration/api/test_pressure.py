"""Submissions under pressure, on a real store whose memory runs out and whose queues grow."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.eventually import eventually_async
from support.servers import StoreServer

pytestmark = [pytest.mark.anyio, pytest.mark.server("valkey")]


@pytest.fixture
def tight(clean_server: StoreServer) -> Iterator[StoreServer]:
    """The store's memory limit can be set, and is taken away in the end. It holds so much that a few buffers more or less do not matter."""
    for n in range(50):
        clean_server.call("SET", f"ballast:{n}", "x" * 1_000_000)
    yield clean_server
    clean_server.call("CONFIG", "SET", "maxmemory", "0")


def fill_to(server: StoreServer, share: float) -> None:
    """As if what the store uses now were *share* of its limit."""
    used = int(server.call("INFO", "memory")["used_memory"])
    server.call("CONFIG", "SET", "maxmemory", str(int(used / share)))


async def until(ask, is_so):
    """Ask again until the figures of the API have caught up; they are a second old at most."""

    async def asked():
        answer = await ask()
        return answer if is_so(answer) else None

    return await eventually_async(asked, 15)


def submit(client, priority: str):
    return client.post("/jobs", json={"type": "free", "priority": priority})


async def test_memory_is_kept_for_higher_priorities(serve, tight):
    """At 85 % low is refused with 503 and figures, all others come; at 95 % only critical does. It ends when there is room again."""
    async with serve() as client:
        fill_to(tight, 0.84)
        shed = await until(lambda: submit(client, "low"), lambda answer: answer.status_code == 503)
        problem = shed.json()
        assert (problem["type"], problem["rule"], problem["priority"], shed.headers["retry-after"]) == (
            "/problems/store-filling",
            "memory",
            "low",
            "5",
        )
        assert 0.8 <= problem["observed"] < 0.9
        assert problem["limit"] == 0.8
        assert [(await submit(client, name)).status_code for name in ("normal", "high", "critical")] == [202] * 3

        fill_to(tight, 0.945)
        await until(lambda: submit(client, "high"), lambda answer: answer.status_code == 503)
        assert [(await submit(client, name)).status_code for name in ("normal", "low", "critical")] == [503, 503, 202]

        tight.call("CONFIG", "SET", "maxmemory", "0")
        await until(lambda: submit(client, "low"), lambda answer: answer.status_code == 202)


async def test_readiness_turns_before_the_store_refuses(serve, tight):
    """At 98 % no more traffic is to be sent, though the store still takes writes: a critical job is stored."""
    async with serve() as client:
        assert (await client.get("/readyz")).status_code == 200
        fill_to(tight, 0.98)

        answer = await until(lambda: client.get("/readyz"), lambda answer: answer.status_code == 503)

        assert answer.json()["type"] == "/problems/store-refused"
        assert (await submit(client, "critical")).status_code == 202


async def test_a_queue_that_is_behind_takes_no_low_priority(serve):
    """By length: 429 with figures; another queue is not concerned; once it is worked off low comes again."""
    async with serve(shed_waiting=5) as client:
        for _ in range(6):
            assert (await submit(client, "critical")).status_code == 202

        shed = await until(lambda: submit(client, "low"), lambda answer: answer.status_code == 429)

        problem = shed.json()
        facts = (problem["type"], problem["rule"], problem["queue"], problem["limit"], shed.headers["retry-after"])
        assert facts == ("/problems/overloaded", "waiting", "default", 5, "10")
        assert problem["observed"] >= 5
        other = await client.post("/jobs", json={"type": "free", "priority": "low", "queue": "calm"})
        assert other.status_code == 202
        assert (await submit(client, "critical")).status_code == 202


async def test_a_queue_whose_oldest_job_waits_long_takes_no_low_priority(serve):
    """By age."""
    async with serve(shed_age_ms=500) as client:
        assert (await submit(client, "normal")).status_code == 202

        shed = await until(lambda: submit(client, "low"), lambda answer: answer.status_code == 429)

        assert (shed.json()["rule"], shed.json()["limit"]) == ("oldest", 500)


async def test_bulk_sheds_item_by_item_and_atomic_all_at_once(serve):
    """Independent: each item has its own answer; atomic: nothing is stored, and the answer says when to come back."""
    async with serve(shed_waiting=2) as client:
        for _ in range(3):
            await submit(client, "critical")
        low = {"type": "free", "priority": "low", "idempotencyKey": "of one job, however often it is asked for"}
        await until(lambda: client.post("/jobs", json=low), lambda answer: answer.status_code == 429)
        jobs = [{"type": "free", "priority": name} for name in ("critical", "low", "high")]

        independent = await client.post("/jobs/bulk", json={"jobs": jobs})
        atomic = await client.post("/jobs/bulk", json={"jobs": jobs, "mode": "atomic"})

        assert (independent.status_code, [item["status"] for item in independent.json()["items"]]) == (
            207,
            ["accepted", "rejected", "accepted"],
        )
        assert independent.json()["items"][1]["problem"]["status"] == 429
        assert (atomic.status_code, atomic.headers["retry-after"]) == (429, "10")
