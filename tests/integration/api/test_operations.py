"""Groups, search, discard and operations over HTTP and on the command line, with the duty done by hand."""

from __future__ import annotations

import json
from typing import Any

import httpx
import msgspec
import pytest
from click.testing import CliRunner, Result

from integration.api.conftest import HandWorker, Serve
from support.operations import duty, work
from support.servers import StoreServer
from taskmaster.cli import main
from taskmaster.model.retention import Rule
from taskmaster.model.scopes import ORDINARY

pytestmark = pytest.mark.anyio
NOBODY = "01a20557-4f89-7362-bf7c-8356bbe4029a"
ALL = (*ORDINARY, "dlq:discard")


def body(action: str = "replay", **fields: Any) -> dict[str, Any]:
    return {"action": action, "filter": {}, "reason": "mended", "by": "ann", "ratePerS": 1_000} | fields


async def bury(client: httpx.AsyncClient, worker: HandWorker, n: int, fingerprint: str = "f", version: str = "1.0") -> list[str]:
    """Dead letters of the type `free`; ids, oldest first."""
    jobs = [{"type": "free", "payload": {"n": n}} for n in range(n)]
    answer = await client.post("/jobs/bulk", json={"jobs": jobs})
    assert answer.status_code == 202
    claimed = worker.claim("default", n)
    failure = msgspec.json.encode(["ValueError", f"no {fingerprint} here", fingerprint, "Traceback …", f"test=={version}"]).decode()
    for one in claimed:
        worker.end(one, "f", failure, reason="fatal", fingerprint=fingerprint)
    made = {claim.id for claim, _ in claimed}
    rows: Any = worker.store.raw().zrange("tm:{0}:dlq:default", 0, -1)  # some of one millisecond
    return [row.decode() for row in rows if row.decode() in made]


def run(*args: str) -> Result:
    return CliRunner().invoke(main, list(args))


# ---------------------------------------------------------------- groups and search
async def test_groups_and_their_records(serve: Serve, worker: HandWorker) -> None:
    """A cause is found, its records are listed, and each is there."""
    async with serve() as client:
        first = await bury(client, worker, 3)
        second = await bury(client, worker, 2, "g", "2.0")
        page = (await client.get("/dlq/groups")).json()
        one = (await client.get("/dlq/groups/f")).json()
        none = await client.get("/dlq/groups/nothing")
        records = (await client.get("/dlq?fingerprint=g")).json()["items"]
        of_type = (await client.get("/dlq/groups?type=free&queue=default")).json()["items"]
        of_other = (await client.get("/dlq/groups?type=keyed")).json()["items"]

    assert [(group["fingerprint"], group["count"]) for group in page["items"]] == [("g", 2), ("f", 3)]
    assert page["items"] == of_type
    assert (one["types"], one["queues"], one["reason"]) == (["free"], ["default"], "fatal")
    assert one["error"] == {"class": "ValueError", "message": "no f here"}
    assert (one["pluginVersions"], one["sampled"], one["sampleEntryId"]) == ({"test==1.0": 3}, 3, first[-1])
    assert one["firstSeenAt"] <= one["lastSeenAt"]
    assert [record["entryId"] for record in records] == second[::-1]
    assert (none.status_code, of_other) == (404, [])


async def test_pages_of_groups(serve: Serve, worker: HandWorker) -> None:
    """Each group once; a cursor fits its own list only."""
    async with serve() as client:
        for n in range(5):
            await bury(client, worker, 1, f"p{n}")
        seen, path = [], "/dlq/groups?limit=2"
        while path:
            answer = await client.get(path)
            seen += [group["fingerprint"] for group in answer.json()["items"]]
            path = answer.links["next"]["url"] if "next" in answer.links else ""
        cursor = (await client.get("/dlq/groups?limit=2")).json()["nextCursor"]
        foreign = await client.get(f"/dlq?cursor={cursor}")

    assert seen == ["p4", "p3", "p2", "p1", "p0"]
    assert foreign.status_code == 400


async def test_search_over_http(serve: Serve, worker: HandWorker) -> None:
    """Every filter, and what cannot be one."""
    async with serve() as client:
        first = await bury(client, worker, 2)
        middle = (await client.get(f"/dlq/{first[-1]}")).json()["failedAt"]
        second = await bury(client, worker, 2, "g", "2.0")

        async def ids(**params: str) -> list[str]:
            return [one["entryId"] for one in (await client.get("/dlq", params=params)).json()["items"]]

        assert await ids(text="NO G") == second[::-1]
        assert await ids(pluginVersion="2.0") == second[::-1]
        whole = {"failedBefore": "2100-01-01T00:00:00+00:00", "failedAfter": "2020-01-01T00:00:00Z"}
        assert await ids(reason="fatal", **whole) == [*second[::-1], *first[::-1]]
        late, early = await ids(failedAfter=middle), await ids(failedBefore=middle)
        assert sorted([*late, *early]) == sorted([*first, *second])
        assert {first[-1], *second} <= set(late)
        assert await ids(fingerprint="no such/thing") == []
        bad = [
            await client.get(f"/dlq?{query}") for query in ("failedAfter=today", "failedBefore=2027-01-01T00:00:00", "text=", "colour=red")
        ]
        paged = await client.get("/dlq?text=value&limit=1")
        rest = await client.get(paged.links["next"]["url"])

    assert [answer.status_code for answer in bad] == [400] * 4
    assert [paged.json()["items"][0]["entryId"], rest.json()["items"][0]["entryId"]] == second[::-1]


# ---------------------------------------------------------------- discard
async def test_discard_needs_a_scope(serve: Serve, worker: HandWorker) -> None:
    """The answer names it and how it is granted; the record stays."""
    async with serve() as client:
        (job_id,) = await bury(client, worker, 1)
        refused = await client.delete(f"/dlq/{job_id}?reason=old&by=ann")
        operation = await client.post("/operations", json=body("discard"))
        there = await client.get(f"/dlq/{job_id}")

    for answer in (refused, operation):
        assert (answer.status_code, answer.json()["type"], answer.json()["scope"]) == (403, "/problems/forbidden", "dlq:discard")
        assert (
            "TASKMASTER_SCOPES=jobs:submit,jobs:cancel,dlq:replay,effects:settle,audit:read,webhooks:manage,dlq:discard"
            in answer.json()["detail"]
        )
    assert there.status_code == 200


async def test_a_discarded_record_is_gone(serve: Serve, worker: HandWorker, clean_server: StoreServer) -> None:
    """With its job; who and why is asked for; the second time there is nothing."""
    async with serve(scopes=ALL) as client:
        one, two = await bury(client, worker, 2)
        silent = [await client.delete(f"/dlq/{one}"), await client.delete(f"/dlq/{one}?reason=old")]
        done = await client.delete(f"/dlq/{one}?reason=old&by=ann")
        again = await client.delete(f"/dlq/{one}?reason=old&by=ann")
        by_body = await client.request("DELETE", f"/dlq/{two}", json={"reason": "old", "by": "bob"})
        nowhere = [(await client.get(path)).status_code for path in (f"/dlq/{one}", f"/jobs/{one}", "/dlq/groups/f")]
        strange = await client.delete("/dlq/x?reason=old&by=ann")

    assert [answer.status_code for answer in silent] == [422, 422]
    assert (done.status_code, done.json()) == (200, {"entryId": one, "status": "discarded"})
    assert (again.status_code, by_body.status_code, strange.status_code) == (404, 200, 404)
    assert nowhere == [404, 404, 404]
    rows = clean_server.call("XRANGE", "tm:{0}:audit", "-", "+")
    assert [fields["who"] for _, fields in rows] == ["ann", "bob"]


@pytest.mark.parametrize(
    ("method", "path", "scope"),
    [
        ("POST", "/jobs", "jobs:submit"),
        ("POST", "/jobs/bulk", "jobs:submit"),
        ("POST", f"/jobs/{NOBODY}/cancel", "jobs:cancel"),
        ("POST", f"/jobs/{NOBODY}/replay", "dlq:replay"),
        ("POST", f"/dlq/{NOBODY}/replay", "dlq:replay"),
        ("DELETE", f"/dlq/{NOBODY}", "dlq:discard"),
        ("POST", f"/effects/{NOBODY}.{'0' * 32}/settle", "effects:settle"),
    ],
)
@pytest.mark.server("valkey")
async def test_each_deed_has_its_scope(serve: Serve, method: str, path: str, scope: str) -> None:
    """Without it: 403, before anything is looked at. Reading needs none."""
    async with serve(scopes=tuple(one for one in ALL if one != scope)) as client:
        refused = await client.request(method, path, json={})
        read = await client.get("/dlq")

    assert (refused.status_code, refused.json()["scope"]) == (403, scope)
    assert read.status_code == 200


# ---------------------------------------------------------------- operations
async def test_an_operation_from_preview_to_its_end(serve: Serve, worker: HandWorker) -> None:
    """Preview stores nothing; the operation is carried out; its progress is told."""
    async with serve() as client:
        ids = await bury(client, worker, 3)
        await bury(client, worker, 2, "g")
        wanted = body(filter={"fingerprint": "f"}, stopOnFailures=2)
        preview = await client.post("/operations", json=wanted | {"dryRun": True, "reason": ""})
        before = (await client.get("/operations")).json()["items"]
        started = await client.post("/operations", json=wanted)
        operation_id = started.json()["operationId"]
        work(worker.store, operation_id)
        jobs = worker.claim("default", 5)
        for claimed, outcome in zip(jobs, "ccf", strict=True):
            worker.end(claimed, outcome, reason="fatal", fingerprint="f")
        duty(worker.store).step()
        shown = (await client.get(f"/operations/{operation_id}")).json()
        listed = (await client.get("/operations")).json()["items"]
        too_late = await client.post(f"/operations/{operation_id}/cancel")

    assert (preview.status_code, preview.json()) == (
        200,
        {"dryRun": True, "action": "replay", "matched": 3, "matchedIs": "exact", "sampleIds": ids},
    )
    assert before == []
    assert (started.status_code, started.headers["location"]) == (202, f"/operations/{operation_id}")
    assert (started.json()["state"], started.json()["duplicate"], started.json()["startedAt"]) == ("running", False, None)
    assert listed == [shown]
    assert (shown["state"], shown["action"], shown["filter"], shown["ids"]) == ("completed", "replay", {"fingerprint": "f"}, None)
    assert (shown["reason"], shown["by"], shown["ratePerS"], shown["stopOnFailures"]) == ("mended", "ann", 1_000, 2)
    assert shown["createdAt"] <= shown["startedAt"] <= shown["lastStepAt"] == shown["finishedAt"]
    progress = shown["progress"]
    assert (progress["total"], progress["totalIs"], progress["done"], progress["replayed"]) == (3, "exact", 3, 3)
    assert (progress["succeeded"], progress["failed"], progress["pending"], progress["skipped"]) == (2, 1, 0, {})
    assert shown["lastFailedJobId"] in {claim.id for claim, _ in jobs}
    assert (too_late.status_code, too_late.json()["state"]) == (409, "completed")


async def test_the_jobs_of_an_operation_tell_where_they_come_from(serve: Serve, worker: HandWorker) -> None:
    """Lineage as for any replay, with the operation and its reason."""
    async with serve() as client:
        (old,) = await bury(client, worker, 1)
        operation_id = (await client.post("/operations", json=body(filter=None, ids=[old]))).json()["operationId"]
        work(worker.store, operation_id)
        ((claim, _),) = worker.claim("default")
        job = (await client.get(f"/jobs/{claim.id}")).json()

    assert (job["replayedFromJobId"], job["rootJobId"], job["origin"]) == (old, old, "replay")
    assert job["replayedBy"] == f"operation {operation_id}: ann: mended"


async def test_one_request_is_one_operation(serve: Serve, worker: HandWorker) -> None:
    """The same key with the same order: the same operation. With another order: 422."""
    async with serve() as client:
        await bury(client, worker, 1)
        key = {"Idempotency-Key": "request-1"}
        one = await client.post("/operations", json=body(), headers=key)
        same = await client.post("/operations", json=body(), headers=key)
        other = await client.post("/operations", json=body(ratePerS=1), headers=key)
        plain = await client.post("/operations", json=body())

    assert same.json() == one.json() | {"duplicate": True}
    assert same.headers["idempotency-replayed"] == "true"
    assert (other.status_code, other.json()["type"]) == (422, "/problems/idempotency-key-reused")
    assert other.json()["operationId"] == one.json()["operationId"] != plain.json()["operationId"]


async def test_a_cancelled_operation_does_no_more(serve: Serve, worker: HandWorker) -> None:
    """It says so at once, and again; what it did not come to stays."""
    async with serve() as client:
        await bury(client, worker, 3)
        operation_id = (await client.post("/operations", json=body())).json()["operationId"]
        cancelled = await client.post(f"/operations/{operation_id}/cancel", json={"reason": "enough", "by": "bob"})
        again = await client.post(f"/operations/{operation_id}/cancel")
        duty(worker.store).step()
        nobody = await client.post("/operations/none/cancel")

    assert (cancelled.status_code, cancelled.json()["state"]) == (200, "cancelled")
    assert again.json()["state"] == "cancelled"
    assert worker.claim("default") == []
    assert nobody.status_code == 404


WRONG = [
    ({"action": "delete"}, "/action", "is no action"),
    ({"action": "reprioritise"}, "/action", "is no action"),
    ({"ids": [NOBODY]}, "/filter", "either"),
    ({"filter": None}, "/filter", "either"),
    ({"filter": None, "ids": []}, "/ids", "length"),
    ({"filter": None, "ids": ["x"]}, "/ids/0", "no job id"),
    ({"filter": None, "ids": [NOBODY] * 1_001}, "/ids", "length"),
    ({"reason": " "}, "/reason", "why"),
    ({"ratePerS": 0}, "/ratePerS", "> 0"),
    ({"ratePerS": 1_001}, "/ratePerS", "<= 1000"),
    ({"stopOnFailures": 0}, "/stopOnFailures", ">= 1"),
    ({"action": "discard", "stopOnFailures": 1}, "/stopOnFailures", "replay"),
    ({"action": "cancel"}, "/filter/state", "waiting or delayed"),
    ({"action": "cancel", "filter": {"state": "waiting", "text": "x"}}, "/filter", "state, type and queue"),
    ({"filter": {"state": "waiting"}}, "/filter/state", "no state"),
    ({"filter": {"colour": "red"}}, "/filter/colour", "known"),
    ({"filter": {"queue": "x/*"}}, "/filter/queue", "regex"),
    ({"filter": {"failedAfter": "today"}}, "/filter/failedAfter", "datetime"),
]


@pytest.mark.parametrize(("change", "pointer", "words"), WRONG)
@pytest.mark.server("valkey")
async def test_a_wrong_order_is_refused_with_its_place(serve: Serve, change: dict[str, Any], pointer: str, words: str) -> None:
    """Nothing of an order is ignored, and nothing is stored."""
    order = {name: value for name, value in (body() | change).items() if value is not None}
    async with serve(scopes=ALL) as client:
        refused = await client.post("/operations", json=order)
        listed = (await client.get("/operations")).json()["items"]

    assert refused.status_code == 422
    assert refused.json()["errors"][0]["pointer"] == pointer, refused.json()
    assert words in refused.json()["errors"][0]["message"]
    assert listed == []


async def test_pages_of_operations(serve: Serve) -> None:
    """Newest first, each once."""
    async with serve() as client:
        made = [(await client.post("/operations", json=body())).json()["operationId"] for _ in range(5)]
        seen, path = [], "/operations?limit=2"
        while path:
            answer = await client.get(path)
            seen += [one["operationId"] for one in answer.json()["items"]]
            path = answer.links["next"]["url"] if "next" in answer.links else ""

    assert sorted(seen) == sorted(made)


async def test_partitions_share_an_operation(serve: Serve, worker: HandWorker, clean_server: StoreServer) -> None:
    """One operation in the list; the rate and the list of ids are shared out; failures anywhere stop it everywhere."""
    async with serve(partitions=4) as client:
        ids = [f"01a20557-4f89-7362-bf7c-8356bbe4029{n}" for n in range(8)]
        chosen = (await client.post("/operations", json=body(filter=None, ids=ids))).json()
        every = (await client.post("/operations", json=body(stopOnFailures=2, ratePerS=100))).json()
        items = (await client.get("/operations?limit=1")).json()
        rest = (await client.get("/operations", params={"limit": "5", "cursor": items["nextCursor"]})).json()["items"]
        for partition in range(4):
            clean_server.call("HSET", f"tm:{{{partition}}}:op:{every['operationId']}", "n/failed", 1 if partition < 2 else 0)
            clean_server.call("ZADD", f"tm:{{{partition}}}:dlq:default", 1, NOBODY)
            clean_server.call("SADD", f"tm:{{{partition}}}:qs", "default")
        for partition in range(4):
            duty(worker.store, partition, 4).step()
        stopped = (await client.get(f"/operations/{every['operationId']}")).json()

    rates = [clean_server.call("HGET", f"tm:{{{partition}}}:op:{every['operationId']}", "ra") for partition in range(4)]
    assert (chosen["ids"], chosen["progress"]["total"], chosen["ratePerS"]) == (8, 8, 1_000)
    assert rates == ["25"] * 4
    assert [items["items"][0]["operationId"], rest[0]["operationId"]] == [every["operationId"], chosen["operationId"]]
    assert (stopped["state"], stopped["why"], stopped["progress"]["failed"]) == ("stopped", "2 of its jobs have failed", 2)


async def test_queues_tell_what_is_kept(serve: Serve, worker: HandWorker) -> None:
    """The rules in force, and the bytes that ended jobs take."""
    async with serve(retention={"default": {"failed": Rule(bytes=5_000)}}, keep_completed=3) as client:
        await bury(client, worker, 2)
        queue = (await client.get("/queues/default")).json()
        other = (await client.get("/queues/email-queue")).json()

    assert queue["retention"]["failed"] | {"bytesKept": 0} == {"count": 50_000, "ageMs": 604_800_000, "bytes": 5_000, "bytesKept": 0}
    assert queue["retention"]["failed"]["bytesKept"] > 100
    assert other["retention"]["completed"] == {"count": 3, "ageMs": 604_800_000, "bytes": None, "bytesKept": 0}


# ---------------------------------------------------------------- the command line
async def test_dead_letters_on_the_command_line(serve: Serve, worker: HandWorker, clean_server: StoreServer) -> None:
    """Listed, grouped, shown, replayed, discarded; exit codes."""
    url = ("--redis-url", clean_server.url)
    async with serve() as client:
        ids = await bury(client, worker, 3)
    listed = run("dlq", "list", "--text", "no f", "--limit", "2", "--json", *url)
    plain = run("dlq", "list", "--fingerprint", "f", *url)
    none = run("dlq", "list", "--queue", "other", *url)
    groups = run("dlq", "groups", *url)
    shown = run("dlq", "show", ids[0], *url)
    once = run("dlq", "replay", ids[0], "--request-id", "r1", "--reason", "mended", *url)
    again = run("dlq", "replay", ids[0], "--request-id", "r1", *url)
    unsure = run("dlq", "discard", ids[1], "--reason", "old", *url)
    silent = run("dlq", "discard", ids[1], "--yes", *url)
    done = run("dlq", "discard", ids[1], ids[2], NOBODY, "--yes", "--reason", "old", "--by", "ann", *url)

    assert [one["entryId"] for one in json.loads(listed.stdout)] == [ids[2], ids[1]]
    assert plain.stdout.count("ValueError: no f here") == 3
    assert (none.stdout, none.stderr) == ("", "no dead letters\n")
    assert "ValueError: no f here" in groups.stdout
    assert json.loads(shown.stdout)["entryId"] == ids[0]
    assert (once.exit_code, again.stdout) == (0, f"{once.stdout.strip()}  (replayed before)\n")
    assert (unsure.exit_code, silent.exit_code) == (2, 2)
    assert (done.exit_code, done.stdout) == (1, "discarded: 2\n")
    assert NOBODY in done.stderr
    assert run("dlq", "show", ids[1], *url).exit_code == 1
    assert run("dlq", "replay", ids[1], *url).exit_code == 1


async def test_operations_on_the_command_line(serve: Serve, worker: HandWorker, clean_server: StoreServer) -> None:
    """Previewed, started, followed, cancelled; exit codes."""
    url = ("--redis-url", clean_server.url)
    async with serve() as client:
        ids = await bury(client, worker, 3)
    start = ("operations", "start", "replay")
    preview = run(*start, "--fingerprint", "f", "--dry-run", *url)
    unsaid = [run(*start, *more, "--reason", "x", *url).exit_code for more in ((), ("--text", "x", "--id", ids[0]), ("--state", "waiting"))]
    reasonless = run(*start, "--all", *url)
    unsure = run("operations", "start", "discard", "--all", "--reason", "x", *url)
    started = run(*start, "--all", "--reason", "mended", "--key", "k", "--json", *url)
    operation_id = json.loads(started.stdout)["operationId"]
    again = run(*start, "--all", "--reason", "mended", "--key", "k", *url)
    unfinished = run(*start, "--id", ids[0], "--reason", "mended", "--wait", "0", *url)
    cancelled = run("operations", "cancel", operation_id, "--reason", "enough", *url)
    shown = json.loads(run("operations", "show", operation_id, "--json", *url).stdout)
    gone = run("operations", "start", "discard", "--id", NOBODY, "--reason", "x", "--yes", *url)
    work(worker.store, gone.stdout.split()[0])
    listed = run("operations", "list", *url)

    assert preview.stdout.splitlines() == ["replay: 3", *(f"  {job_id}" for job_id in ids)]
    assert (unsaid, reasonless.exit_code, unsure.exit_code) == ([2, 2, 2], 2, 2)
    assert (again.stdout.split()[0], again.stderr) == (operation_id, "(started before)\n")
    assert (unfinished.exit_code, "replay running: 0 of 1" in unfinished.stderr) == (1, True)
    assert (cancelled.exit_code, shown["state"]) == (0, "cancelled")
    assert [line.split()[0] for line in listed.stdout.splitlines()][-1] == operation_id
    assert "discard completed: 1 of 1, 0 discarded, 1 gone" in listed.stdout
    assert run("operations", "show", "none", *url).exit_code == 1
    assert run("operations", "cancel", operation_id, *url).exit_code == 0
