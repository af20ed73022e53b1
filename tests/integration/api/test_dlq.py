"""Dead letters: what the record says, and replays."""

from __future__ import annotations

import pytest

from integration.api.conftest import WELCOME, HandWorker, Serve
from support.servers import StoreServer

pytestmark = pytest.mark.anyio


async def test_record_says_what_happened(serve: Serve, worker: HandWorker) -> None:
    async with serve() as client:
        job_id = (await client.post("/jobs", json=WELCOME)).json()["jobId"]
        assert worker.kill_job() == job_id
        entry = (await client.get(f"/dlq/{job_id}")).json()
        listed = (await client.get("/dlq?type=welcome-email&queue=email-queue")).json()["items"]
        others = (await client.get("/dlq?type=free")).json()["items"]
        status = (await client.get(f"/jobs/{job_id}/status")).json()

    assert entry["entryId"] == entry["jobId"] == entry["rootJobId"] == job_id
    assert (entry["type"], entry["queue"], entry["payload"]) == ("welcome-email", "email-queue", WELCOME["payload"])
    assert (entry["reason"], entry["failureReason"], entry["attempts"]) == ("fatal", "ValueError: no such mailbox", 1)
    assert entry["error"] == {
        "class": "ValueError",
        "message": "no such mailbox",
        "fingerprint": "fp1",
        "trace": "Traceback …",
        "plugin": "test==1.0",
    }
    assert (entry["plugin"], entry["pluginVersion"], entry["errorFingerprint"]) == ("test", "1.0", "fp1")
    assert (entry["idempotencyKey"], entry["replayedFromJobId"]) == (WELCOME["idempotencyKey"], None)
    assert entry["worker"]["consumer"] == "handworker"
    assert entry["createdAt"] <= entry["failedAt"]
    assert [one["entryId"] for one in listed] == [job_id]
    assert others == []
    assert (status["state"], status["failedReason"]) == ("failed", "ValueError: no such mailbox")


async def test_replay_is_a_new_job_and_leaves_the_record_alone(serve: Serve, worker: HandWorker, clean_server: StoreServer) -> None:
    """New id, the payload, the lineage; the record and the failed job stay byte for byte."""
    async with serve() as client:
        old = (await client.post("/jobs", json=WELCOME | {"priority": "high"})).json()["jobId"]
        worker.kill_job()
        keys = [f"tm:{{0}}:{kind}:{old}" for kind in "djbrh"]
        before = [clean_server.call("TYPE", key) for key in keys], _dump(clean_server, old)
        answer = await client.post(f"/dlq/{old}/replay", json={"reason": "mailbox made"})
        new = answer.json()["jobId"]
        job = (await client.get(f"/jobs/{new}")).json()
        after = [clean_server.call("TYPE", key) for key in keys], _dump(clean_server, old)

    assert answer.status_code == 202
    assert answer.headers["location"] == f"/jobs/{new}"
    assert new != old
    assert (answer.json()["replayedFromJobId"], answer.json()["rootJobId"]) == (old, old)
    assert answer.json()["replayedAt"] == answer.json()["createdAt"] == job["replayedAt"]
    assert (job["state"], job["payload"], job["priority"], job["queue"]) == ("waiting", WELCOME["payload"], "high", "email-queue")
    assert (job["replayedFromJobId"], job["rootJobId"], job["replayedBy"], job["origin"]) == (old, old, "api: mailbox made", "replay")
    assert before == after


def _dump(server: StoreServer, job_id: str) -> list[object]:
    return [
        server.call("HGETALL", f"tm:{{0}}:d:{job_id}"),
        server.call("HGETALL", f"tm:{{0}}:j:{job_id}"),
        server.call("GET", f"tm:{{0}}:b:{job_id}"),
        server.call("GET", f"tm:{{0}}:r:{job_id}"),
        server.call("ZSCORE", "tm:{0}:dlq:email-queue", job_id),
    ]


async def test_replay_of_a_replay_keeps_the_root(serve: Serve, worker: HandWorker) -> None:
    """A replay that fails again makes a second record; the first stays; the chain leads to the first job."""
    async with serve() as client:
        root = (await client.post("/jobs", json=WELCOME)).json()["jobId"]
        worker.kill_job()
        first = (await client.post(f"/dlq/{root}/replay")).json()["jobId"]
        assert worker.kill_job() == first
        second = (await client.post(f"/dlq/{first}/replay")).json()
        entries = [one["entryId"] for one in (await client.get("/dlq")).json()["items"]]
        entry = (await client.get(f"/dlq/{first}")).json()

    assert (second["replayedFromJobId"], second["rootJobId"]) == (first, root)
    assert entries == [first, root]
    assert (entry["rootJobId"], entry["replayedFromJobId"]) == (root, root)


async def test_request_id_makes_a_replay_safe_to_repeat(serve: Serve, worker: HandWorker) -> None:
    """The same Idempotency-Key: the same replay. Another one, or none: another replay."""
    async with serve() as client:
        old = (await client.post("/jobs", json=WELCOME)).json()["jobId"]
        worker.kill_job()
        one = await client.post(f"/dlq/{old}/replay", headers={"Idempotency-Key": "r1"})
        same = await client.post(f"/dlq/{old}/replay", headers={"Idempotency-Key": "r1"})
        other = await client.post(f"/dlq/{old}/replay", headers={"Idempotency-Key": "r2"})
        plain = [(await client.post(f"/dlq/{old}/replay")).json()["jobId"] for _ in range(2)]

    assert same.json() == one.json() | {"duplicate": True}
    assert same.headers["idempotency-replayed"] == "true"
    assert len({one.json()["jobId"], other.json()["jobId"], *plain}) == 4


async def test_any_ended_job_can_be_replayed(serve: Serve, worker: HandWorker) -> None:
    """Completed: yes. Waiting: 409. Purged, with a dead letter left: from the letter."""
    async with serve() as client:
        waiting = (await client.post("/jobs", json=WELCOME)).json()["jobId"]
        refused = await client.post(f"/jobs/{waiting}/replay")
        (claimed,) = worker.claim()
        worker.end(claimed)
        done = await client.post(f"/jobs/{waiting}/replay")
        dead = worker.kill_job()
        from taskmaster.store import calls

        worker.store.run(calls.purge(0, [dead]))
        gone = await client.get(f"/jobs/{dead}")
        from_letter = await client.post(f"/dlq/{dead}/replay")
        nobody = await client.post("/dlq/01a20557-4f89-7362-bf7c-8356bbe4029a/replay")

    assert (refused.status_code, refused.json()["state"]) == (409, "waiting")
    assert (done.status_code, done.json()["replayedFromJobId"]) == (202, waiting)
    assert (gone.status_code, from_letter.status_code, nobody.status_code) == (404, 202, 404)
    assert (from_letter.json()["replayedFromJobId"], from_letter.json()["rootJobId"]) == (dead, waiting)
