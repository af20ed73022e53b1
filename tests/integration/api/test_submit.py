"""POST /jobs and POST /jobs/bulk."""

from __future__ import annotations

import asyncio
import datetime as dt
from typing import Any

import pytest

from integration.api.conftest import WELCOME, HandWorker, Serve
from support.servers import StoreServer
from taskmaster.engine.submit import key_digest
from taskmaster.model.ids import digest_slot, slot_of

pytestmark = [pytest.mark.anyio, pytest.mark.server("valkey", "redis")]


async def test_accepted_job_is_described_and_stored(serve: Serve) -> None:
    """202 with Location, the names of the contract, and the job is there."""
    async with serve() as client:
        answer = await client.post("/jobs", json=WELCOME)
        said = answer.json()
        status = (await client.get(f"/jobs/{said['jobId']}/status")).json()

    assert answer.status_code == 202
    assert answer.headers["location"] == f"/jobs/{said['jobId']}"
    assert list(said) == ["status", "jobId", "state", "type", "queue", "priority", "createdAt", "runAt", "duplicate"]
    assert (said["status"], said["state"], said["queue"], said["priority"], said["duplicate"], said["runAt"]) == (
        "accepted",
        "waiting",
        "email-queue",
        "normal",
        False,
        None,
    )
    assert said["createdAt"].endswith("Z")
    assert len(said["createdAt"]) == 24
    assert list(status)[:6] == ["jobId", "type", "state", "createdAt", "processedAt", "failedReason"]
    assert (status["state"], status["processedAt"], status["failedReason"], status["maxAttempts"]) == ("waiting", None, None, 5)
    assert slot_of(said["jobId"]) == digest_slot(key_digest("", "welcome-email", WELCOME["idempotencyKey"]))


async def test_same_key_and_request_answers_the_first_job(serve: Serve, worker: HandWorker) -> None:
    """A repeat is 202 with the first id, its present state, duplicate and Idempotency-Replayed; names may come in another order."""
    turned = dict(reversed(WELCOME.items())) | {"payload": dict(reversed(WELCOME["payload"].items()))}
    async with serve() as client:
        first = (await client.post("/jobs", json=WELCOME)).json()
        worker.claim()
        again = await client.post("/jobs", json=turned)

    assert again.status_code == 202
    assert again.headers["idempotency-replayed"] == "true"
    assert again.json() == first | {"duplicate": True, "state": "active"}


@pytest.mark.parametrize(
    "change",
    [{"payload": {"email": "b@example.com", "name": "B"}}, {"attempts": 3}, {"priority": "high"}, {"queue": "other"}],
    ids=["payload", "attempts", "priority", "queue"],
)
async def test_key_of_another_request_is_refused(serve: Serve, change: dict[str, Any]) -> None:
    """422 idempotency-key-reused names the job that has the key."""
    async with serve() as client:
        first = (await client.post("/jobs", json=WELCOME)).json()
        other = await client.post("/jobs", json=WELCOME | change)

    assert other.status_code == 422
    assert other.headers["content-type"] == "application/problem+json"
    assert other.json()["type"] == "/problems/idempotency-key-reused"
    assert other.json()["jobId"] == first["jobId"]


async def test_scope_of_a_key_is_its_type(serve: Serve) -> None:
    """The same key under another type is another job."""
    async with serve() as client:
        first = (await client.post("/jobs", json=WELCOME)).json()
        other = await client.post("/jobs", json={"type": "free", "idempotencyKey": WELCOME["idempotencyKey"], "payload": {}})

    assert other.status_code == 202
    assert other.json()["jobId"] != first["jobId"]


async def test_key_is_required_unless_setting_or_type_says_otherwise(serve: Serve) -> None:
    """The type's word goes before the setting's."""
    bare = {"type": "welcome-email", "payload": WELCOME["payload"]}
    async with serve() as strict, serve(idempotency="optional") as lax:
        missing = await strict.post("/jobs", json=bare)
        by_type = await strict.post("/jobs", json={"type": "free", "payload": {}})
        by_setting = await lax.post("/jobs", json=bare)
        kept = await lax.post("/jobs", json={"type": "keyed", "payload": {}})

    assert (missing.status_code, missing.json()["type"]) == (400, "/problems/idempotency-key-missing")
    assert (by_type.status_code, by_setting.status_code, kept.status_code) == (202, 202, 400)


async def test_header_gives_the_key(serve: Serve) -> None:
    """Header alone, header equal to the body, header in quotes: the same key. Different ones: 400."""
    bare = {name: value for name, value in WELCOME.items() if name != "idempotencyKey"}
    key = str(WELCOME["idempotencyKey"])
    async with serve() as client:
        first = await client.post("/jobs", json=bare, headers={"Idempotency-Key": key})
        quoted = await client.post("/jobs", json=bare, headers={"Idempotency-Key": f'"{key}"'})
        both = await client.post("/jobs", json=WELCOME, headers={"Idempotency-Key": key})
        differ = await client.post("/jobs", json=WELCOME, headers={"Idempotency-Key": "another"})

    assert {first.json()["jobId"]} == {quoted.json()["jobId"], both.json()["jobId"]}
    assert (differ.status_code, differ.json()["type"]) == (400, "/problems/idempotency-key-conflict")


async def test_refused_submission_leaves_the_key_free(serve: Serve, clean_server: StoreServer) -> None:
    """What is refused before the script ran stores nothing."""
    async with serve() as client:
        bad = await client.post("/jobs", json=WELCOME | {"payload": {"email": 1}})
        keys = clean_server.call("KEYS", "tm:{0}:k:*")
        good = await client.post("/jobs", json=WELCOME)

    assert bad.status_code == 422
    assert keys == []
    assert (good.status_code, good.json()["duplicate"]) == (202, False)


async def test_hundred_equal_requests_over_two_processes_make_one_job(serve: Serve, clean_server: StoreServer) -> None:
    """Exactly one is new, and all name it."""
    async with serve() as one, serve() as two:
        answers = await asyncio.gather(*((one, two)[i % 2].post("/jobs", json=WELCOME) for i in range(100)))

    said = [answer.json() for answer in answers]
    assert {answer.status_code for answer in answers} == {202}
    assert len({one["jobId"] for one in said}) == 1
    assert sorted(one["duplicate"] for one in said) == [False] + [True] * 99
    assert len(clean_server.call("KEYS", "tm:{0}:j:*")) == 1


async def test_different_requests_under_one_key_race_to_one_winner(serve: Serve, clean_server: StoreServer) -> None:
    """One is stored; the equal ones are its duplicates, the others are refused."""
    bodies = [WELCOME | {"payload": WELCOME["payload"] | {"name": f"N{i % 5}"}} for i in range(50)]
    async with serve() as one, serve() as two:
        answers = await asyncio.gather(*((one, two)[i % 2].post("/jobs", json=body) for i, body in enumerate(bodies)))
        (job_id,) = {answer.json()["jobId"] for answer in answers}
        stored = (await one.get(f"/jobs/{job_id}")).json()["payload"]["name"]

    winners = {body["payload"]["name"] for body, answer in zip(bodies, answers, strict=True) if answer.status_code == 202}
    assert winners == {stored}
    assert sum(answer.status_code == 422 for answer in answers) == 40


async def test_unknown_type_names_the_nearest(serve: Serve) -> None:
    async with serve() as client:
        answer = await client.post("/jobs", json=WELCOME | {"type": "welcom-email"})

    assert answer.status_code == 422
    assert answer.json()["type"] == "/problems/unknown-job-type"
    assert answer.json()["near"] == ["welcome-email"]
    assert answer.json()["jobType"] == "welcom-email"


async def test_wrong_payload_is_told_place_by_place(serve: Serve) -> None:
    """JSON Pointers from the body's root."""
    async with serve() as client:
        answer = await client.post("/jobs", json=WELCOME | {"payload": {"email": 5}})

    assert answer.status_code == 422
    assert answer.json()["type"] == "/problems/invalid-payload"
    assert {error["pointer"] for error in answer.json()["errors"]} == {"/payload/email", "/payload/name"}


async def test_options_reach_the_job(serve: Serve) -> None:
    """What the caller asks for goes before the type's defaults."""
    options = {
        "queue": "slow-lane",
        "priority": "critical",
        "delayMs": 60_000,
        "attempts": 3,
        "backoff": {"kind": "fixed", "delayMs": 50},
        "timeoutMs": 5_000,
    }
    async with serve() as client:
        answer = (await client.post("/jobs", json=WELCOME | options)).json()
        job = (await client.get(f"/jobs/{answer['jobId']}")).json()

    assert (answer["state"], answer["queue"], answer["priority"]) == ("delayed", "slow-lane", "critical")
    assert answer["runAt"] == job["nextRunAt"]
    made, due = (dt.datetime.fromisoformat(text) for text in (answer["createdAt"], answer["runAt"]))
    assert abs((due - made).total_seconds() - 60) < 2
    assert (job["maxAttempts"], job["timeoutMs"], job["retryScheduleMs"]) == (3, 5_000, [50, 50])
    assert job["backoff"] == {"kind": "fixed", "delayMs": 50, "maxMs": 3_600_000, "jitter": 0.0, "delaysMs": None}


async def test_run_at_is_an_instant(serve: Serve) -> None:
    """Any offset is taken; one without is refused; the past means now."""
    async with serve() as client:
        future = await client.post("/jobs", json=WELCOME | {"runAt": "2035-01-01T02:00:00+02:00"})
        past = await client.post("/jobs", json=WELCOME | {"idempotencyKey": "p", "runAt": "2001-01-01T00:00:00Z"})
        naive = await client.post("/jobs", json=WELCOME | {"idempotencyKey": "n", "runAt": "2035-01-01T00:00:00"})

    assert (future.json()["state"], future.json()["runAt"]) == ("delayed", "2035-01-01T00:00:00.000Z")
    assert past.json()["state"] == "waiting"
    assert naive.status_code == 422


async def test_late_clock_is_set_and_tried_again(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host whose clock is a day behind the store's still submits."""
    from taskmaster.store.aio import AsyncStore

    now_ms = AsyncStore.now_ms

    async def yesterday(store: AsyncStore) -> int:
        return await now_ms(store) - 86_400_000

    monkeypatch.setattr(AsyncStore, "now_ms", yesterday)
    async with serve() as client:
        answer = await client.post("/jobs", json=WELCOME)
        again = await client.post("/jobs", json=WELCOME)

    assert answer.status_code == 202
    assert again.json()["jobId"] == answer.json()["jobId"]


# ---------------------------------------------------------------- bulk


def _many(count: int, mark: str = "b") -> list[dict[str, Any]]:
    return [WELCOME | {"idempotencyKey": f"{mark}{i}"} for i in range(count)]


async def test_bulk_takes_a_thousand_in_order(serve: Serve) -> None:
    async with serve() as client:
        answer = await client.post("/jobs/bulk", json={"jobs": _many(1_000)})
        again = await client.post("/jobs/bulk", json={"jobs": _many(1_000)})
        over = await client.post("/jobs/bulk", json={"jobs": _many(1_001)})

    assert (answer.status_code, answer.json()["accepted"], answer.json()["rejected"]) == (202, 1_000, 0)
    ids = [item["job"]["jobId"] for item in answer.json()["items"]]
    assert len(set(ids)) == 1_000
    assert [item["job"]["jobId"] for item in again.json()["items"]] == ids
    assert all(item["job"]["duplicate"] for item in again.json()["items"])
    assert over.status_code == 422


async def test_independent_bulk_refuses_only_what_is_wrong(serve: Serve) -> None:
    """207, with a problem in the place of each item that was refused."""
    jobs = [*_many(2), {"type": "nope"}, WELCOME | {"idempotencyKey": "x", "payload": {}}, 7, *_many(2)]
    async with serve() as client:
        answer = await client.post("/jobs/bulk", json={"mode": "independent", "jobs": jobs})

    said = answer.json()
    assert answer.status_code == 207
    assert [item["status"] for item in said["items"]] == ["accepted"] * 2 + ["rejected"] * 3 + ["accepted"] * 2
    assert [item["problem"]["type"] for item in said["items"][2:5]] == [
        "/problems/unknown-job-type",
        "/problems/invalid-payload",
        "/problems/invalid-request",
    ]
    assert [item["job"]["duplicate"] for item in said["items"][5:]] == [True, True]


@pytest.mark.parametrize("bad", [{"type": "nope"}, WELCOME | {"payload": {"email": "a", "name": "other"}}], ids=["invalid", "key-reused"])
async def test_atomic_bulk_is_all_or_nothing(serve: Serve, clean_server: StoreServer, bad: dict[str, Any]) -> None:
    async with serve() as client:
        await client.post("/jobs", json=WELCOME)
        refused = await client.post("/jobs/bulk", json={"mode": "atomic", "jobs": [*_many(3), bad]})
        after = len(clean_server.call("KEYS", "tm:{0}:j:*"))
        taken = await client.post("/jobs/bulk", json={"mode": "atomic", "jobs": _many(3)})

    assert refused.status_code == 422
    assert [item["index"] for item in refused.json()["items"]] == [0, 1, 2, 3]
    assert after == 1
    assert (taken.status_code, taken.json()["accepted"]) == (202, 3)


async def test_a_submission_goes_where_it_is_sent(serve):
    """A host that is none, and a path with a slash too many, are answered as with any other route."""
    async with serve() as client:
        strange = await client.post("/jobs", json={"type": "free"}, headers={"host": "<script>"})
        other = await client.get("/queues", headers={"host": "<script>"})
        longer = await client.post("/jobs/", json={"type": "free"})

    assert strange.status_code == other.status_code == 400
    assert longer.status_code == 202
