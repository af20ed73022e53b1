"""Submission options that say where a job stands among others: over HTTP, on a real store."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest

from integration.api.conftest import HandWorker, Serve
from support.servers import StoreServer
from taskmaster.store import flow
from taskmaster.store.client import SyncStore

pytestmark = pytest.mark.anyio

FREE: dict[str, Any] = {"type": "free", "payload": {}}


def free(**fields: Any) -> dict[str, Any]:
    return FREE | fields


def soon(seconds: float) -> str:
    return (dt.datetime.now(dt.UTC) + dt.timedelta(seconds=seconds)).isoformat()


async def state_of(client: Any, job_id: str) -> tuple[str, str | None]:
    said = (await client.get(f"/jobs/{job_id}/status")).json()
    return said["state"], said["reason"]


def queue_put(server: StoreServer, queue: str, **settings: Any) -> None:
    store = SyncStore(server.url)
    store.run(flow.put_queue(0, queue, settings, flow.Order(f"op{settings}", None, "test", "")))
    store.close()


async def test_what_was_asked_for_is_shown_again(serve: Serve) -> None:
    """GET /jobs/{id} tells the place of the job in the words of its submission."""
    wanted = free(
        fairnessKey="Kunde 7/ä",
        tags=["onboarding", "eu:1"],
        limits=["stripe", "api"],
        lifo=True,
        expiresAt=soon(600),
        unique={"key": "welcome:123"},
        callbackUrl="https://example.com/hook?a=b",
    )
    async with serve() as client:
        answer = await client.post("/jobs", json=wanted)
        job = (await client.get(f"/jobs/{answer.json()['jobId']}")).json()
        [row] = (await client.get("/jobs")).json()["items"]

    assert answer.status_code == 202, answer.text
    assert {name: job[name] for name in ("fairnessKey", "tags", "limits", "lifo", "uniqueKey", "callbackUrl", "revision")} == {
        "fairnessKey": "Kunde 7/ä",
        "tags": ["onboarding", "eu:1"],
        "limits": ["api", "stripe"],
        "lifo": True,
        "uniqueKey": "welcome:123",
        "callbackUrl": "https://example.com/hook?a=b",
        "revision": 0,
    }
    assert job["expiresAt"].endswith("Z")
    assert (row["tags"], row["limits"]) == (job["tags"], job["limits"])


@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        ({"fairnessKey": ""}, "/fairnessKey"),
        ({"fairnessKey": "x" * 257}, "/fairnessKey"),
        ({"tags": ["a b"]}, "/tags/0"),
        ({"tags": [f"t{n}" for n in range(11)]}, "/tags"),
        ({"limits": ["A"]}, "/limits/0"),
        ({"unique": {}}, "/unique/key"),
        ({"unique": {"key": "k", "until": "ttl"}}, "/unique/ttlMs"),
        ({"expiresAt": "2027-01-01T00:00:00"}, "/expiresAt"),
        ({"expiresAt": soon(-1)}, "/expiresAt"),
        ({"expiresAt": soon(5), "delayMs": 60_000}, "/expiresAt"),
        ({"callbackUrl": ""}, "/callbackUrl"),
        ({"callbackUrl": "ftp://example.com"}, "/callbackUrl"),
        ({"callbackUrl": "https://user:pw@example.com"}, "/callbackUrl"),
        ({"callbackUrl": "http://2130706433/"}, "/callbackUrl"),
    ],
)
async def test_options_that_cannot_be_are_refused_with_their_place(serve: Serve, fields: dict[str, Any], pointer: str) -> None:
    """422 with a JSON pointer, and nothing is stored."""
    async with serve() as client:
        answer = await client.post("/jobs", json=free(**fields))
        stored = (await client.get("/jobs")).json()["items"]

    assert answer.status_code == 422, answer.text
    assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]
    assert stored == []


async def test_unique_work_is_refused_while_another_has_it(serve: Serve, worker: HandWorker) -> None:
    """409 names the job that has the work and its state; when that has ended, the work is free."""
    wanted = free(unique={"key": "w"})
    async with serve() as client:
        first = (await client.post("/jobs", json=wanted)).json()
        (claimed,) = worker.claim("default")
        second = await client.post("/jobs", json=wanted)
        other_type = await client.post("/jobs", json=wanted | {"type": "keyed", "idempotencyKey": "k"})
        worker.end(claimed)
        third = await client.post("/jobs", json=wanted)

    assert (second.status_code, second.json()["type"]) == (409, "/problems/unique-conflict")
    assert (second.json()["jobId"], second.json()["state"]) == (first["jobId"], "active")
    assert other_type.status_code == third.status_code == 202


async def test_existing_job_is_answered(serve: Serve) -> None:
    """return-existing: 202 with the id of the job that has the work."""
    wanted = free(unique={"key": "w", "onConflict": "return-existing"})
    async with serve() as client:
        first, second = [(await client.post("/jobs", json=wanted)).json() for _ in range(2)]

    assert (first["duplicate"], second["duplicate"], second["jobId"]) == (False, True, first["jobId"])


async def test_until_started_lets_the_next_one_wait_beside_the_running(serve: Serve, worker: HandWorker) -> None:
    """The work is free as soon as the first attempt has begun."""
    wanted = free(unique={"key": "w", "until": "started"})
    async with serve() as client:
        first = await client.post("/jobs", json=wanted)
        refused = await client.post("/jobs", json=wanted)
        worker.claim("default")
        second = await client.post("/jobs", json=wanted)

    assert [first.status_code, refused.status_code, second.status_code] == [202, 409, 202]


async def test_debounce_runs_the_last_of_a_burst(serve: Serve) -> None:
    """Each one replaces the one that waits out its delay; that is cancelled as replaced."""
    wanted = free(delayMs=60_000, unique={"key": "w", "onConflict": "debounce"})
    async with serve() as client:
        ids = [(await client.post("/jobs", json=wanted | {"payload": {"n": n}})).json()["jobId"] for n in range(3)]
        states = [await state_of(client, job_id) for job_id in ids]

    assert states == [("cancelled", "replaced"), ("cancelled", "replaced"), ("delayed", None)]


async def test_throttle_takes_one_in_its_time(serve: Serve, worker: HandWorker) -> None:
    """Within ttlMs the first job is answered, ended or not."""
    wanted = free(unique={"key": "w", "onConflict": "throttle", "ttlMs": 60_000})
    async with serve() as client:
        first = (await client.post("/jobs", json=wanted)).json()
        (claimed,) = worker.claim("default")
        worker.end(claimed)
        second = (await client.post("/jobs", json=wanted)).json()

    assert (second["jobId"], second["duplicate"], second["state"]) == (first["jobId"], True, "completed")


async def test_full_queue_answers_429(serve: Serve, clean_server: StoreServer, worker: HandWorker) -> None:
    """With Retry-After and how many may wait; one that has begun makes room."""
    queue_put(clean_server, "default", max=2)
    async with serve() as client:
        taken = [await client.post("/jobs", json=FREE), await client.post("/jobs", json=free(delayMs=60_000))]
        full = await client.post("/jobs", json=FREE)
        bulk = await client.post("/jobs/bulk", json={"jobs": [FREE, free(queue="other")]})
        atomic = await client.post("/jobs/bulk", json={"mode": "atomic", "jobs": [free(queue="other"), FREE]})
        worker.claim("default")
        after = await client.post("/jobs", json=FREE)

    assert [answer.status_code for answer in taken] == [202, 202]
    assert (full.status_code, full.json()["type"], full.json()["queue"], full.json()["max"]) == (429, "/problems/queue-full", "default", 2)
    assert int(full.headers["retry-after"]) >= 1
    assert [item["status"] for item in bulk.json()["items"]] == ["rejected", "accepted"]
    assert bulk.json()["items"][0]["problem"]["status"] == 429
    assert atomic.status_code == 422
    assert after.status_code == 202


async def test_draining_queue_takes_nothing_new(serve: Serve, clean_server: StoreServer) -> None:
    """409 queue-draining; a repeat of what is there is still answered."""
    keyed = free(idempotencyKey="k")
    async with serve() as client:
        first = (await client.post("/jobs", json=keyed)).json()
        queue_put(clean_server, "default", drain=1)
        refused = await client.post("/jobs", json=FREE)
        again = await client.post("/jobs", json=keyed)

    assert (refused.status_code, refused.json()["type"], refused.json()["queue"]) == (409, "/problems/queue-draining", "default")
    assert (again.status_code, again.json()["jobId"]) == (202, first["jobId"])


async def test_two_of_one_work_are_no_atomic_batch(serve: Serve) -> None:
    """What cannot be all is none."""
    wanted = free(unique={"key": "w"})
    async with serve() as client:
        answer = await client.post("/jobs/bulk", json={"mode": "atomic", "jobs": [wanted, wanted]})
        bulk = await client.post("/jobs/bulk", json={"jobs": [wanted, wanted]})

    assert answer.status_code == 422
    assert [item["status"] for item in bulk.json()["items"]] == ["accepted", "rejected"]


async def test_works_meet_in_one_of_several_partitions(serve: Serve) -> None:
    """Jobs of one work come to one partition, whatever their idempotency keys, and so are seen by each other."""
    async with serve(partitions=4) as client:
        answers = [await client.post("/jobs", json=free(idempotencyKey=f"k{n}", unique={"key": "w"})) for n in range(4)]

    assert [answer.status_code for answer in answers] == [202, 409, 409, 409]


async def test_a_replay_keeps_its_place_but_not_its_work(serve: Serve, worker: HandWorker) -> None:
    """Fairness key, limiters and tags are the old job's; its expiry and its unique work are not asked for again."""
    async with serve() as client:
        first = (await client.post("/jobs", json=free(fairnessKey="K 1", tags=["t"], limits=["a"], unique={"key": "w"}))).json()
        (claimed,) = worker.claim("default")
        worker.end(claimed)
        replayed = (await client.post(f"/jobs/{first['jobId']}/replay")).json()
        job = (await client.get(f"/jobs/{replayed['jobId']}")).json()

    assert (job["fairnessKey"], job["tags"], job["limits"], job["state"]) == ("K 1", ["t"], ["a"], "waiting")
    assert job["uniqueKey"] is None
