"""PATCH /jobs/{id} and POST /jobs/{id}/run-now."""

from __future__ import annotations

import asyncio
import datetime as dt
from typing import Any

import pytest

from integration.api.conftest import WELCOME, HandWorker, Serve

pytestmark = pytest.mark.anyio

DELAYED = WELCOME | {"delayMs": 600_000}


async def submitted(client: Any, wanted: dict[str, Any] = WELCOME, **fields: Any) -> str:
    answer = await client.post("/jobs", json=wanted | fields)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["jobId"])


async def test_priority_changes_who_is_next(serve: Serve, worker: HandWorker) -> None:
    """A waiting job goes to the level that it is given, and is claimed as one of that level."""
    async with serve() as client:
        ids = [await submitted(client, idempotencyKey=f"k{n}", priority="low") for n in range(3)]
        answer = await client.patch(f"/jobs/{ids[2]}", json={"priority": "critical"})
        (first,) = worker.claim()

    assert (answer.status_code, answer.json()["priority"], answer.json()["revision"]) == (200, "critical", 1)
    assert first[0].id == ids[2]


async def test_same_priority_leaves_the_job_its_place(serve: Serve, worker: HandWorker) -> None:
    """What is as wanted is not touched: no revision, no place lost."""
    async with serve() as client:
        ids = [await submitted(client, idempotencyKey=f"k{n}") for n in range(2)]
        answer = await client.patch(f"/jobs/{ids[0]}", json={"priority": "normal", "delayMs": 0})
        (first,) = worker.claim()

    assert (answer.status_code, answer.json()["revision"]) == (200, 0)
    assert first[0].id == ids[0]


async def test_time_of_a_job_can_be_put_off_and_brought_forward(serve: Serve, worker: HandWorker) -> None:
    """A waiting job becomes delayed, and run-now makes it wait again."""
    at = dt.datetime(2030, 1, 1, tzinfo=dt.UTC)
    async with serve() as client:
        job_id = await submitted(client)
        later = (await client.patch(f"/jobs/{job_id}", json={"runAt": at.isoformat()})).json()
        nothing = worker.claim()
        now = (await client.post(f"/jobs/{job_id}/run-now")).json()
        again = await client.post(f"/jobs/{job_id}/run-now")
        (claimed,) = worker.claim()
        active = await client.post(f"/jobs/{job_id}/run-now")

    assert (later["state"], later["nextRunAt"], nothing) == ("delayed", "2030-01-01T00:00:00.000Z", [])
    assert (now["state"], again.status_code, claimed[0].id) == ("waiting", 200, job_id)
    assert (active.status_code, active.json()["state"]) == (409, "active")


async def test_payload_is_checked_and_is_what_the_handler_gets(serve: Serve, worker: HandWorker) -> None:
    """422 with pointers when it does not fit; else the claim brings it, and nothing else of the submission has changed."""
    payload = WELCOME["payload"] | {"name": "Berta"}
    async with serve() as client:
        job_id = await submitted(client, timeoutMs=7_000)
        wrong = await client.patch(f"/jobs/{job_id}", json={"payload": {"email": 5}})
        right = await client.patch(f"/jobs/{job_id}", json={"payload": payload})
        (claimed,) = worker.claim()
        job = right.json()

    assert (wrong.status_code, wrong.json()["type"]) == (422, "/problems/invalid-payload")
    assert (job["payload"], job["timeoutMs"], job["idempotencyKey"]) == (
        payload,
        7_000,
        WELCOME["idempotencyKey"],
    )
    assert b"Berta" in claimed[0].blob


async def test_tags_are_replaced_in_job_and_list(serve: Serve) -> None:
    """The job is listed under its new tags only; an empty list takes all away."""
    async with serve() as client:
        job_id = await submitted(client, tags=["old", "both"])
        changed = (await client.patch(f"/jobs/{job_id}", json={"tags": ["both", "new"]})).json()
        listed = [[row["jobId"] for row in (await client.get(f"/jobs?tag={tag}")).json()["items"]] for tag in ("old", "both", "new")]
        bare = (await client.patch(f"/jobs/{job_id}", json={"tags": []})).json()
        none = (await client.get("/jobs?tag=both")).json()["items"]

    assert (changed["tags"], bare["tags"]) == (["both", "new"], [])
    assert listed == [[], [job_id], [job_id]]
    assert none == []


async def test_a_change_is_bound_to_what_was_seen(serve: Serve) -> None:
    """A revision or an ETag that is no longer true refuses the change: 409 with the present revision, or 412."""
    async with serve() as client:
        job_id = await submitted(client, DELAYED)
        seen = (await client.get(f"/jobs/{job_id}")).headers["etag"]
        basic = (await client.get(f"/jobs/{job_id}?view=basic")).headers["etag"]
        first = await client.patch(f"/jobs/{job_id}", json={"priority": "high", "revision": 0}, headers={"if-match": basic})
        stale = await client.patch(f"/jobs/{job_id}", json={"priority": "low", "revision": 0})
        gone = await client.patch(f"/jobs/{job_id}", json={"priority": "low"}, headers={"if-match": seen})
        fresh = await client.patch(f"/jobs/{job_id}", json={"priority": "low"}, headers={"if-match": first.headers["etag"]})

    assert (first.status_code, fresh.status_code, fresh.json()["priority"]) == (200, 200, "low")
    assert (stale.status_code, stale.json()["type"], stale.json()["revision"]) == (409, "/problems/revision-mismatch", 1)
    assert (gone.status_code, gone.json()["type"]) == (412, "/problems/precondition-failed")


async def test_changes_at_once_lose_nothing(serve: Serve) -> None:
    """Of many payloads and tags written at the same time, each is made on what the others left: the last state has one of each."""
    async with serve() as client:
        job_id = await submitted(client, DELAYED)
        wanted = [{"tags": [f"t{n}"]} for n in range(4)] + [{"payload": WELCOME["payload"] | {"message": f"m{n}"}} for n in range(4)]
        answers = await asyncio.gather(*(client.patch(f"/jobs/{job_id}", json=one) for one in wanted))
        job = (await client.get(f"/jobs/{job_id}")).json()

    done = [one for one, answer in zip(wanted, answers, strict=True) if answer.status_code == 200]
    assert {answer.status_code for answer in answers} <= {200, 409}
    assert job["revision"] == len(done) >= 5
    assert {"tags": job["tags"]} in done
    assert {"payload": job["payload"]} in done


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 422),
        ({"revision": 0}, 422),
        ({"priority": "urgent"}, 422),
        ({"delayMs": 1, "runAt": "2030-01-01T00:00:00Z"}, 422),
        ({"runAt": "2030-01-01T00:00:00"}, 422),
        ({"tags": ["a b"]}, 422),
        ({"queue": "other"}, 422),
    ],
)
async def test_changes_that_cannot_be(serve: Serve, body: dict[str, Any], status: int) -> None:
    """422, and the job is as it was."""
    async with serve() as client:
        job_id = await submitted(client)
        answer = await client.patch(f"/jobs/{job_id}", json=body)
        job = (await client.get(f"/jobs/{job_id}")).json()

    assert answer.status_code == status, answer.text
    assert job["revision"] == 0


async def test_only_a_job_that_has_not_begun_is_changed(serve: Serve, worker: HandWorker) -> None:
    """409 tells the state of one that runs or has ended, 404 that there is none."""
    async with serve() as client:
        job_id = await submitted(client)
        (claimed,) = worker.claim()
        active = await client.patch(f"/jobs/{job_id}", json={"priority": "high"})
        worker.end(claimed)
        ended = await client.patch(f"/jobs/{job_id}", json={"priority": "high"})
        missing = await client.patch(f"/jobs/{job_id[:-4]}0000", json={"priority": "high"})

    assert [(answer.status_code, answer.json().get("state")) for answer in (active, ended, missing)] == [
        (409, "active"),
        (409, "completed"),
        (404, None),
    ]


@pytest.mark.parametrize(("method", "path", "body"), [("PATCH", "", {"payload": {}}), ("POST", "/run-now", None)])
async def test_a_change_needs_the_scope_of_submissions(serve: Serve, method: str, path: str, body: dict[str, Any] | None) -> None:
    """Another payload is another job."""
    async with serve() as client:
        job_id = await submitted(client, DELAYED)
    async with serve(scopes=("audit:read",)) as client:
        answer = await client.request(method, f"/jobs/{job_id}{path}", json=body)

    assert (answer.status_code, answer.json()["scope"]) == (403, "jobs:submit")
