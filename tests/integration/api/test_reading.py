"""GET: jobs, lists, attempts, queues, types, health; waiting; cancelling."""

from __future__ import annotations

import asyncio
import base64
import time

import msgspec
import pytest

from integration.api.conftest import WELCOME, HandWorker, Serve
from support.servers import StoreServer
from taskmaster.engine.artifacts import ArtifactStore
from taskmaster.model.ids import new_job_id
from taskmaster.store import calls
from taskmaster.store.calls import NewJob
from taskmaster.store.client import SyncStore

pytestmark = pytest.mark.anyio


async def _submit(client, count: int = 1, **more) -> list[str]:
    jobs = [WELCOME | {"idempotencyKey": f"{more.get('type', '')}{more.get('fairnessKey', '')}{i}"} | more for i in range(count)]
    answer = await client.post("/jobs/bulk", json={"jobs": jobs})
    return [item["job"]["jobId"] for item in answer.json()["items"]]


async def _all(client, path: str, limit: int) -> list[str]:
    """Every id of a list, page by page, by its Link header."""
    found: list[str] = []
    while path:
        answer = await client.get(path if "limit=" in path else f"{path}{'&' if '?' in path else '?'}limit={limit}")
        assert answer.status_code == 200, answer.text
        found += [item["jobId"] for item in answer.json()["items"]]
        assert len(answer.json()["items"]) <= limit
        link = answer.headers.get("link", "")
        assert bool(link) == bool(answer.json()["nextCursor"])
        path = link.partition(">")[0].lstrip("<")
    return found


async def test_life_of_a_job_as_told(serve: Serve, worker: HandWorker) -> None:
    """waiting, active, completed: times, worker, plugin version, result."""
    async with serve() as client:
        (job_id,) = await _submit(client)
        (claimed,) = worker.claim()
        running = (await client.get(f"/jobs/{job_id}/attempts")).json()["items"]
        worker.end(claimed, "c", '{"sent":true}')
        job = (await client.get(f"/jobs/{job_id}")).json()
        basic = (await client.get(f"/jobs/{job_id}?view=basic")).json()
        (attempt,) = (await client.get(f"/jobs/{job_id}/attempts")).json()["items"]

    assert [one["outcome"] for one in running] == ["running"]
    assert running[0]["endedAt"] is None
    assert (job["state"], job["result"], job["payload"], job["attemptsMade"]) == ("completed", {"sent": True}, WELCOME["payload"], 1)
    assert job["createdAt"] <= job["processedAt"] <= job["finishedAt"]
    assert (job["failedReason"], job["error"], job["reason"], job["idempotencyKey"]) == (None, None, None, "0")
    assert {"payload", "result"} & basic.keys() == set()
    assert attempt["worker"] == {"consumer": "handworker", "host": "testhost", "pid": 4711, "name": "worker 1"}
    assert (attempt["outcome"], attempt["plugin"], attempt["pluginVersion"]) == ("completed", "test", "1.0")


async def test_retrying_job_says_why_and_when(serve: Serve, worker: HandWorker) -> None:
    failure = msgspec.json.encode(["smtp.Refused", "try later", "fp", "trace", "test==1.0"]).decode()
    row = msgspec.json.encode([1, "failed", 1, 2, "handworker", "smtp.Refused", "try later", "test==1.0"]).decode()
    async with serve() as client:
        (job_id,) = await _submit(client)
        (claimed,) = worker.claim()
        worker.end(claimed, "r", failure, row=row, delay_ms=60_000, fingerprint="fp")
        status = (await client.get(f"/jobs/{job_id}/status")).json()
        (attempt,) = (await client.get(f"/jobs/{job_id}/attempts")).json()["items"]

    assert (status["state"], status["reason"], status["failedReason"]) == ("delayed", "retrying", "Refused: try later")
    assert status["nextRunAt"] > status["processedAt"]
    assert (attempt["error"], attempt["message"], attempt["worker"]["pid"]) == ("smtp.Refused", "try later", 4711)


async def test_waiting_job_without_worker_says_so(serve: Serve, worker: HandWorker) -> None:
    """`no_worker` is read from who is alive, and is gone when somebody comes."""
    async with serve() as client:
        (job_id,) = await _submit(client)
        before = (await client.get(f"/jobs/{job_id}/status")).json()["reason"]
        worker.store.raw().delete("tm:{0}:tc:welcome-email")
        alone = (await client.get(f"/jobs/{job_id}/status")).json()["reason"]
        health = (await client.get("/health")).json()
        queue = (await client.get("/queues/email-queue")).json()

    assert (before, alone) == (None, "no_worker")
    assert health["status"] == "degraded"
    assert [rule["queue"] for rule in health["rules"] if not rule["ok"]] == ["email-queue"]
    assert queue["noWorkerTypes"] == ["welcome-email"]


@pytest.mark.parametrize(
    "path", ["/jobs/nope", "/jobs/01a20557-4f89-7362-bf7c-8356bbe4029a", "/jobs/{1}:*/status", "/dlq/x", "/queues/none", "/job-types/none"]
)
async def test_unknown_things_are_404(serve: Serve, path: str) -> None:
    async with serve() as client:
        answer = await client.get(path)

    assert (answer.status_code, answer.json()["type"]) == (404, "/problems/not-found")


@pytest.mark.parametrize(
    "query", ["state=nope", "limit=0", "limit=201", "limit=x", "cursor=zzz", "cursor=%ff", "colour=a", "state=waiting&nope=1"]
)
async def test_bad_parameters_are_400(serve: Serve, query: str) -> None:
    """A filter that would be ignored is refused."""
    async with serve() as client:
        answer = await client.get(f"/jobs?{query}")

    assert (answer.status_code, answer.json()["type"]) == (400, "/problems/bad-parameter")


async def test_lists_filter_by_state_type_and_queue(serve: Serve, clean_server: StoreServer, worker: HandWorker) -> None:
    """Each state, type and queue, and all of them, the newest first: by when the store took them, which may not be the id's own time."""
    async with serve() as client:
        mails = await _submit(client, 6)
        free = await _submit(client, 3, type="free", payload={})
        later = await _submit(client, 2, type="keyed", payload={}, delayMs=60_000)
        first, second, _ = worker.claim(slots=3)
        worker.end(first)
        worker.end(second)
        await client.post(f"/jobs/{mails[5]}/cancel")
        found = {
            query: set(await _all(client, f"/jobs?{query}", 2))
            for query in (
                "type=free", "queue=default", "state=waiting", "state=queued", "state=completed", "state=active", "state=delayed",
                "state=cancelled", "state=failed", "state=waiting&type=free", "state=completed&queue=default", "queue=none", "type=None!",
            )
        }  # fmt: skip
        everything = await _all(client, "/jobs", 4)

    kinds = {"welcome-email": mails, "free": free, "keyed": later}
    taken = {one: float(clean_server.call("ZSCORE", f"tm:{{0}}:it:{kind}", one)) for kind, ids in kinds.items() for one in ids}
    assert everything == sorted(taken, reverse=True, key=lambda one: (taken[one], one))
    assert found["type=free"] == set(free)
    assert found["queue=default"] == {*free, *later}
    assert found["state=waiting"] == found["state=queued"] == {*mails[3:5], *free}
    assert found["state=completed"] == set(mails[:2])
    assert found["state=active"] == {mails[2]}
    assert found["state=delayed"] == set(later)
    assert found["state=cancelled"] == {mails[5]}
    assert found["state=waiting&type=free"] == set(free)
    assert not found["state=failed"] | found["state=completed&queue=default"] | found["queue=none"] | found["type=None!"]


async def test_paging_is_complete_with_equal_timestamps(serve: Serve, clean_server: StoreServer) -> None:
    """3,000 jobs of one millisecond in two types: every one once, newest first, also when the cursor's job is gone."""
    now_ms = SyncStore(clean_server.url).now_ms()
    store = SyncStore(clean_server.url, now_ms=lambda: now_ms)
    jobs = [NewJob(new_job_id(now_ms), "default", f"type-{i % 2}", 2, 0, 0, 5, "", "r", f'["type-{i % 2}",{{}}]') for i in range(3_000)]
    for start in range(0, 3_000, 500):
        store.run(calls.submit(0, jobs[start : start + 500]))
    ids = sorted((job.id for job in jobs), reverse=True)

    async with serve() as client:
        everything = await _all(client, "/jobs", 200)
        one_type = await _all(client, "/jobs?type=type-1", 200)
        page = (await client.get("/jobs?limit=100")).json()
        gone = page["items"][-1]["jobId"]
        await client.post(f"/jobs/{gone}/cancel")
        store.run(calls.purge(0, [gone]))
        after = (await client.get(f"/jobs?limit=100&cursor={page['nextCursor']}")).json()
    store.close()

    assert everything == ids
    assert one_type == sorted((job.id for job in jobs if job.type == "type-1"), reverse=True)
    assert [item["jobId"] for item in after["items"]] == ids[100:200]


async def test_rare_matches_are_found_across_short_pages(serve: Serve, clean_server: StoreServer) -> None:
    """A filter that few match looks at a bounded number of jobs a call, and the cursor goes on from there."""
    store = SyncStore(clean_server.url)
    now_ms = store.now_ms()
    jobs = [
        NewJob(new_job_id(now_ms), "rare" if i in (3, 2_500) else "default", "plain", 2, 0, 0, 5, "", "r", '["plain",{}]')
        for i in range(2_600)
    ]
    for start in range(0, 2_600, 500):
        store.run(calls.submit(0, jobs[start : start + 500]))
    store.close()

    async with serve() as client:
        found = await _all(client, "/jobs?queue=rare", 50)

    assert sorted(found) == sorted(job.id for job in jobs if job.queue == "rare")


async def test_etag_spares_what_is_known(serve: Serve, worker: HandWorker) -> None:
    """Strong, 304 while nothing has changed, another one when something has."""
    async with serve() as client:
        (job_id,) = await _submit(client)
        first = await client.get(f"/jobs/{job_id}")
        tag = first.headers["etag"]
        same = await client.get(f"/jobs/{job_id}", headers={"If-None-Match": f'"x", {tag}'})
        worker.claim()
        changed = await client.get(f"/jobs/{job_id}", headers={"If-None-Match": tag})

    assert not tag.startswith("W/")
    assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", tag)
    assert changed.status_code == 200
    assert changed.headers["etag"] != tag


@pytest.mark.parametrize("how", ["query", "prefer"])
async def test_wait_answers_when_the_job_ends(serve: Serve, worker: HandWorker, how: str) -> None:
    async with serve() as client:
        (job_id,) = await _submit(client)
        headers, query = ({}, "?wait=20") if how == "query" else ({"Prefer": "respond-async, wait=20"}, "")
        waiting = asyncio.create_task(client.get(f"/jobs/{job_id}{query}", headers=headers))
        (claimed,) = await asyncio.to_thread(worker.claim)
        done, _ = await asyncio.wait({waiting}, timeout=0.3)
        assert not done
        ended = time.monotonic()
        await asyncio.to_thread(worker.end, claimed)
        answer = await waiting
        took_s = time.monotonic() - ended
        at_once = await client.get(f"/jobs/{job_id}?wait=20")

    assert answer.json()["state"] == at_once.json()["state"] == "completed"
    assert took_s < 1.5
    assert answer.headers.get("preference-applied") == (None if how == "query" else "wait=20")


async def test_wait_ends_with_the_present_state(serve: Serve) -> None:
    async with serve() as client:
        (job_id,) = await _submit(client)
        started = time.monotonic()
        answer = await client.get(f"/jobs/{job_id}?wait=0.4")
        took_s = time.monotonic() - started
        too_long = await client.get(f"/jobs/{job_id}?wait=61")
        unknown = await client.get("/jobs/01a20557-4f89-7362-bf7c-8356bbe4029a?wait=20")

    assert answer.json()["state"] == "waiting"
    assert 0.4 <= took_s < 2.0
    assert (too_long.status_code, unknown.status_code) == (400, 404)


async def test_shutdown_answers_those_who_wait(serve: Serve) -> None:
    context = serve()
    client = await context.__aenter__()
    (job_id,) = await _submit(client)
    waiting = asyncio.create_task(client.get(f"/jobs/{job_id}?wait=30"))
    await asyncio.wait({waiting}, timeout=0.3)
    from taskmaster.api.app import end_waits

    end_waits(client._transport.app)  # type: ignore[attr-defined]
    answer = await asyncio.wait_for(waiting, 2)
    await context.__aexit__(None, None, None)

    assert answer.json()["state"] == "waiting"


async def test_cancel_of_each_state(serve: Serve, worker: HandWorker) -> None:
    """Waiting and delayed: at once. Active: asked. Ended otherwise: 409. Twice: the same."""
    async with serve() as client:
        active, done, waiting = await _submit(client, 3)
        (delayed,) = await _submit(client, 1, type="free", payload={}, delayMs=60_000)
        first, second = worker.claim(slots=2)
        worker.end(second)
        answers = {name: await client.post(f"/jobs/{name}/cancel") for name in (active, done, waiting, delayed)}
        again = await client.post(f"/jobs/{waiting}/cancel")
        seen = (await client.get(f"/jobs/{active}/status")).json()
        missing = await client.post("/jobs/01a20557-4f89-7362-bf7c-8356bbe4029a/cancel")

    assert first[0].id == active
    assert answers[waiting].json() == {"jobId": waiting, "status": "cancelled", "state": "cancelled"}
    assert (answers[delayed].status_code, again.status_code, missing.status_code) == (200, 200, 404)
    assert (answers[active].status_code, answers[active].json()["status"]) == (202, "cancelling")
    assert (seen["state"], seen["reason"]) == ("active", "cancelling")
    assert (answers[done].status_code, answers[done].json()["state"]) == (409, "completed")


async def test_queues_tell_depths_and_times(serve: Serve, worker: HandWorker) -> None:
    async with serve() as client:
        await _submit(client, 3)
        await _submit(client, 1, type="free", payload={}, queue="email-queue", priority="low")
        (claimed,) = worker.claim()
        worker.end(claimed)
        queue = (await client.get("/queues/email-queue")).json()
        names = [one["name"] for one in (await client.get("/queues")).json()["items"]]

    assert queue["counts"] == {"waiting": 3, "delayed": 0, "active": 0, "completed": 1, "failed": 0, "cancelled": 0, "blocked": 0}
    assert queue["byPriority"] == {"critical": 0, "high": 0, "normal": 2, "low": 1}
    assert queue["oldestWaitingMs"] >= 0
    assert (queue["ratePerMinute"], queue["failureRate"], queue["paused"], queue["limits"]) == (1, 0.0, False, [])
    assert queue["runMs"].keys() == {"p50", "p95", "p99"}
    assert names == ["default", "email-queue"]


async def test_types_are_the_catalogue(serve: Serve) -> None:
    async with serve() as client:
        found = (await client.get("/job-types")).json()["items"]
        one = (await client.get("/job-types/welcome-email")).json()
        far = await client.get("/job-types/welcome-emale")

    assert [entry["type"] for entry in found] == ["free", "keyed", "welcome-email"]
    assert (one["plugin"], one["version"], one["keyRequired"], one["retryScheduleMs"]) == (
        "test",
        "1.0",
        True,
        [1_000, 2_000, 4_000, 8_000],
    )
    assert one["schema"]["required"] == ["email", "name"]
    assert far.json()["near"] == ["welcome-email"]


async def test_document_lists_every_route(serve: Serve) -> None:
    """OpenAPI 3.1, with the bodies; no page that loads from elsewhere."""
    async with serve() as client:
        document = (await client.get("/openapi.json")).json()
        schema_page = await client.get("/schema")

    assert document["openapi"].startswith("3.1")
    assert {"/jobs", "/jobs/bulk", "/jobs/{job_id}", "/jobs/{job_id}/status", "/dlq/{entry_id}/replay", "/health"} <= document[
        "paths"
    ].keys()
    body = document["paths"]["/jobs"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert body["required"] == ["type"]
    assert "idempotencyKey" in body["properties"]
    finding = next(one for name, one in document["components"]["schemas"].items() if name.endswith("Finding"))
    assert set(finding["properties"]) == {"rule", "severity", "observed", "why", "fix", "facts"}
    assert schema_page.status_code == 404


async def test_lists_are_filtered_by_tag_priority_and_fairness_key(serve: Serve, worker: HandWorker) -> None:
    """Alone and together, page by page; a name that nothing can have finds nothing."""
    async with serve() as client:
        by_key = {}
        for n, key in enumerate(("a", "b", "ä ß")):
            more = {"fairnessKey": key, "tags": ["all", f"of:{n}"], "priority": ("low", "normal", "high")[n]}
            by_key[key] = await _submit(client, 3, **more, type="free", payload={"k": key}, queue="email-queue")
        everything = {job_id for ids in by_key.values() for job_id in ids}
        (claimed,) = worker.claim()
        tagged = await _all(client, "/jobs?tag=all", 2)
        keyed = await _all(client, "/jobs?fairnessKey=%C3%A4%20%C3%9F", 2)
        waiting = await _all(client, "/jobs?state=waiting", 2)
        both = await _all(client, "/jobs?tag=of:0&priority=low&state=waiting", 2)
        nothing = [
            (await client.get(f"/jobs?{query}")).json()["items"]
            for query in ("tag=of:9", "tag=%20", "fairnessKey=c", "tag=all&priority=critical")
        ]
        wrong = await client.get("/jobs?priority=urgent")

    assert (len(tagged), set(tagged)) == (9, everything)
    assert sorted(keyed) == sorted(by_key["ä ß"])
    assert (len(waiting), set(waiting)) == (8, everything - {claimed[0].id})
    assert sorted(both) == sorted(set(by_key["a"]) - {claimed[0].id})
    assert nothing == [[], [], [], []]
    assert (wrong.status_code, wrong.json()["parameter"]) == (400, "priority")


async def test_the_log_of_a_job_is_read_on_from_a_number(serve: Serve, worker: HandWorker) -> None:
    """Lines in order, a page at a time; nothing behind the last one; a job that logged nothing has none."""
    rows = [msgspec.json.encode([1_700_000_000_000 + n, 1, "info", f"line\u2028 {n}"]).decode() for n in range(1, 6)]
    async with serve() as client:
        job_id, silent = await _submit(client, 2)
        ((claim, token),) = worker.claim()
        worker.store.run(calls.progress(0, [calls.Word(claim.id, token, "", 1, rows)]))
        first = (await client.get(f"/jobs/{job_id}/logs?limit=3")).json()
        rest = (await client.get(f"/jobs/{job_id}/logs?after={first['nextCursor']}")).json()
        beyond = (await client.get(f"/jobs/{job_id}/logs?after=5")).json()
        nothing = (await client.get(f"/jobs/{silent}/logs")).json()
        wrong = [(await client.get(f"/jobs/{job_id}/logs?after={text}")).status_code for text in ("-1", "x", "9" * 30, "1&nope=1")]
        unknown = (await client.get(f"/jobs/{new_job_id(1)}/logs")).status_code

    assert first["items"][0] == {"number": 1, "at": "2023-11-14T22:13:20.001Z", "attempt": 1, "level": "info", "text": "line\u2028 1"}
    assert ([one["number"] for one in first["items"]], first["nextCursor"]) == ([1, 2, 3], "3")
    assert ([one["number"] for one in rest["items"]], rest["nextCursor"]) == ([4, 5], None)
    assert beyond == nothing == {"items": [], "nextCursor": None}
    assert (wrong, unknown) == ([400] * 4, 404)


async def test_an_artifact_is_downloaded_as_a_file(serve: Serve, worker: HandWorker, tmp_path) -> None:
    """To be saved, under its name, with its type and digest; not through another job, and not once its job is gone."""
    async with serve(data_dir=tmp_path) as client:
        job_id, other = await _submit(client, 2)
        store = ArtifactStore(tmp_path / "artifacts", 10_000_000)
        content = bytes(range(256)) * 4_000
        reference = store.write(job_id, 'r\u00fc"p.html', content, "text/html")
        path = f"/jobs/{job_id}/artifacts/{reference['artifact']}"
        answer = await client.get(path)
        wrong = [
            f"/jobs/{other}/artifacts/{reference['artifact']}",
            f"/jobs/{job_id}/artifacts/{job_id}.{'0' * 32}",
            f"/jobs/{job_id}/artifacts/{job_id}.%2e%2e",
            f"/jobs/{job_id}/artifacts/..%2f..%2fetc%2fpasswd",
        ]
        refused = [(await client.get(one)).status_code for one in wrong]
        worker.store.raw().delete(f"tm:{{0}}:j:{job_id}")
        gone = (await client.get(path)).status_code

    assert (answer.status_code, answer.content) == (200, content)
    headers = {name: answer.headers[name] for name in ("content-type", "content-length", "x-content-type-options", "etag")}
    assert headers == {
        "content-type": "text/html",
        "content-length": str(len(content)),
        "x-content-type-options": "nosniff",
        "etag": f'"{reference["sha256"]}"',
    }
    assert answer.headers["content-disposition"] == "attachment; filename=\"r__p.html\"; filename*=UTF-8''r%C3%BC_p.html"
    assert "sandbox" in answer.headers["content-security-policy"]
    assert (refused, gone) == ([404] * 4, 404)


@pytest.mark.parametrize("score", ["1_0", "1\n", " 1", "nan", "infinity", "0x10", "1e999", ""])
async def test_a_cursor_with_a_number_of_its_own_is_refused(serve: Serve, score: str) -> None:
    """Only what this API writes: the store reads numbers otherwise than Python does."""
    async with serve() as client:
        await _submit(client, 3)
        word = (await client.get("/jobs?limit=1")).json()["nextCursor"]
        mark, _, member = base64.urlsafe_b64decode(word + "=" * (-len(word) % 4)).decode().split(" ")
        forged = base64.urlsafe_b64encode(f"{mark} {score} {member}".encode()).rstrip(b"=").decode()
        answer = await client.get(f"/jobs?limit=1&cursor={forged}")

    assert (answer.status_code, answer.json()["type"]) == (400, "/problems/bad-parameter")
