"""What is left of a job: its result, its lineage, the end of its record; and lists by time."""

from __future__ import annotations

from typing import Any

import pytest

from integration.api.conftest import WELCOME, HandWorker, Serve
from taskmaster.model.ids import new_job_id
from taskmaster.model.scopes import ORDINARY
from taskmaster.store import calls

pytestmark = [pytest.mark.anyio, pytest.mark.server("valkey")]

MAY_DELETE = (*ORDINARY, "jobs:delete")
WHY = {"reason": "asked to forget", "by": "ann"}


async def _submit(client, key: str, **more) -> str:
    answer = await client.post("/jobs", json=WELCOME | {"idempotencyKey": key} | more)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["jobId"])


@pytest.mark.parametrize(("body", "told"), [('{"sent":true}', {"sent": True}), ("", None)])
async def test_a_result_is_the_bare_json(serve: Serve, worker: HandWorker, body: str, told: object) -> None:
    """As the handler answered it; null when it answered nothing."""
    async with serve() as client:
        job_id = await _submit(client, "one")
        worker.end(worker.claim()[0], "c", body)
        answer = await client.get(f"/jobs/{job_id}/result")

    assert (answer.status_code, answer.headers["content-type"], answer.json()) == (200, "application/json", told)


async def test_without_a_result_state_and_error_are_told(serve: Serve, worker: HandWorker) -> None:
    """Not yet, not any more, never."""
    async with serve() as client:
        failing, waiting = await _submit(client, "failing"), await _submit(client, "waiting", delayMs=60_000)
        worker.kill_job()
        failed = await client.get(f"/jobs/{failing}/result")
        early = await client.get(f"/jobs/{waiting}/result")
        never = await client.get(f"/jobs/{new_job_id(1)}/result")

    assert (failed.status_code, failed.json()["type"], failed.json()["state"]) == (409, "/problems/not-completed", "failed")
    assert "no such mailbox" in failed.json()["detail"]
    assert (early.status_code, early.json()["state"]) == (409, "delayed")
    assert never.status_code == 404


async def test_a_lineage_is_told_from_any_of_its_jobs(serve: Serve, worker: HandWorker) -> None:
    """Root, replays and their replays, oldest first; a job that retention took is left as its dead letter."""
    async with serve() as client:
        root = await _submit(client, "root")
        alone = (await client.get(f"/jobs/{root}/lineage")).json()
        worker.kill_job()
        second = (await client.post(f"/jobs/{root}/replay")).json()["jobId"]
        worker.kill_job()
        third = (await client.post(f"/jobs/{second}/replay")).json()["jobId"]
        told = [(await client.get(f"/jobs/{one}/lineage")).json() for one in (root, second, third)]
        worker.store.run(calls.purge(0, [root]))
        later = (await client.get(f"/jobs/{third}/lineage")).json()
        nobody = await client.get(f"/jobs/{new_job_id(1)}/lineage")

    assert (alone["rootJobId"], [job["jobId"] for job in alone["items"]], alone["deadLetters"]) == (root, [root], [])
    assert told[0] == told[1] == told[2]
    assert told[0]["rootJobId"] == root
    assert [(job["jobId"], job["replayedFromJobId"]) for job in told[0]["items"]] == [(root, None), (second, root), (third, second)]
    assert told[0]["deadLetters"] == sorted([root, second])
    assert not told[0]["truncated"]
    assert [job["jobId"] for job in later["items"]] == [second, third]
    assert later["deadLetters"] == sorted([root, second])
    assert nobody.status_code == 404


async def test_a_lineage_of_hundreds_is_cut_off_and_says_so(serve: Serve, worker: HandWorker) -> None:
    async with serve() as client:
        root = await _submit(client, "root")
        worker.kill_job()
        for n in range(205):
            answer = await client.post(f"/jobs/{root}/replay", headers={"idempotency-key": f"replay-{n}"})
            assert answer.status_code == 202, answer.text
        told = (await client.get(f"/jobs/{root}/lineage")).json()

    assert told["truncated"]
    assert len(told["items"]) == 200
    assert root in [job["jobId"] for job in told["items"]]


async def test_the_record_of_an_ended_job_is_deleted_and_that_is_audited(serve: Serve, worker: HandWorker) -> None:
    """Its dead letter stays, its key keeps its job, and it is gone for all who ask."""
    async with serve(scopes=MAY_DELETE) as client:
        job_id = await _submit(client, "one")
        alive = await client.delete(f"/jobs/{job_id}", params=WHY)
        worker.kill_job()
        gone = await client.delete(f"/jobs/{job_id}", params=WHY)
        again = await client.delete(f"/jobs/{job_id}", params=WHY)
        shown, letter = await client.get(f"/jobs/{job_id}"), await client.get(f"/dlq/{job_id}")
        same_key = (await client.post("/jobs", json=WELCOME | {"idempotencyKey": "one"})).json()
        audit: Any = [entry for _, entry in worker.store.raw().xrange("tm:{0}:audit") or []]

    assert (alive.status_code, alive.json()["type"]) == (409, "/problems/conflict")
    assert (gone.status_code, gone.json()) == (200, {"jobId": job_id, "deleted": True})
    assert [again.status_code, shown.status_code, letter.status_code] == [404, 404, 200]
    assert (same_key["jobId"], same_key["duplicate"], same_key["state"]) == (job_id, True, None)
    assert [(e[b"who"], e[b"action"], e[b"target"], e[b"reason"], e[b"detail"]) for e in audit] == [
        (b"ann", b"delete", job_id.encode(), b"asked to forget", b"f")
    ]


async def test_deleting_needs_its_scope_a_reason_and_a_name(serve: Serve) -> None:
    async with serve() as client:
        forbidden = await client.delete(f"/jobs/{new_job_id(1)}", params=WHY)
    async with serve(scopes=MAY_DELETE) as client:
        bare = [await client.delete(f"/jobs/{new_job_id(1)}", params=params) for params in ({}, {"by": "ann"}, WHY | {"reason": "x" * 201})]

    assert (forbidden.status_code, forbidden.json()["scope"]) == (403, "jobs:delete")
    assert [(answer.status_code, answer.json()["type"]) for answer in bare] == [(400, "/problems/bad-parameter")] * 3


async def test_lists_by_time(serve: Serve, worker: HandWorker) -> None:
    """From an instant on, and before another, by creation in any state, by the end in those that have one; with pages."""
    async with serve() as client:
        ids = [await _submit(client, f"k{n}", delayMs=0) for n in range(6)]
        times = [(await client.get(f"/jobs/{one}")).json()["createdAt"] for one in ids]
        for _ in range(3):
            worker.end(worker.claim()[0])
        ended = {job["jobId"]: job["finishedAt"] for job in (await client.get("/jobs?state=completed")).json()["items"]}

        async def listed(**params: str) -> list[str]:
            first = (await client.get("/jobs", params=params | {"limit": "1"})).json()
            found, after = [job["jobId"] for job in first["items"]], first["nextCursor"]
            while after:
                page = (await client.get("/jobs", params=params | {"limit": "1", "cursor": after})).json()
                found, after = [*found, *(job["jobId"] for job in page["items"])], page["nextCursor"]
            return sorted(found)

        since = await listed(createdAfter=times[2])
        between = await listed(createdAfter=times[1], createdBefore=times[4])
        waiting = await listed(createdAfter=times[1], state="waiting")
        until = await listed(state="completed", finishedBefore=max(ended.values()))
        last = await listed(state="completed", finishedAfter=max(ended.values()))
        refused = [
            await client.get("/jobs", params=params)
            for params in (
                {"createdAfter": "yesterday"},
                {"finishedAfter": times[0]},
                {"finishedAfter": times[0], "state": "waiting"},
                {"createdAfter": times[0], "tag": "a"},
                {"createdAfter": times[0], "finishedBefore": times[0], "state": "completed"},
            )
        ]

    assert since == sorted(one for one, at in zip(ids, times, strict=True) if at >= times[2])
    assert between == sorted(one for one, at in zip(ids, times, strict=True) if times[1] <= at < times[4])
    assert waiting == sorted(one for one, at in zip(ids, times, strict=True) if at >= times[1] and one not in ended)
    assert until == sorted(one for one, at in ended.items() if at < max(ended.values()))
    assert last == sorted(one for one, at in ended.items() if at == max(ended.values()))
    assert [answer.status_code for answer in refused] == [400] * 5
