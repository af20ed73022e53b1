"""Limiters over HTTP: what they say is what the store does."""

from __future__ import annotations

import time
from typing import Any

import pytest

from integration.api.conftest import HandWorker, Serve

pytestmark = pytest.mark.anyio

FREE: dict[str, Any] = {"type": "free", "payload": {}}
SLOTS = {"kind": "concurrency", "max": 1}


async def made(client: Any, name: str, rule: dict[str, Any], **headers: str) -> dict[str, Any]:
    answer = await client.put(f"/limits/{name}", json=rule, headers={"if-match": headers["if_match"]} if headers else {})
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def submitted(client: Any, count: int, **fields: Any) -> list[str]:
    return [(await client.post("/jobs", json=FREE | fields)).json()["jobId"] for _ in range(count)]


async def test_concurrency_of_a_queue_holds_and_is_told(serve: Serve, worker: HandWorker) -> None:
    """One slot: one attempt; the limiter says that it is in use, who waits, and that somebody must give back first."""
    async with serve() as client:
        await made(client, "few", SLOTS)
        queue = (await client.patch("/queues/default", json={"limits": ["few"]})).json()
        await submitted(client, 3)
        first = worker.claim("default", 5)
        busy = (await client.get("/limits/few")).json()
        none = worker.claim("default", 5)
        worker.end(first[0])
        second = worker.claim("default", 5)

    assert (queue["limits"], queue["warnings"]) == (["few"], [])
    assert [len(first), len(none), len(second)] == [1, 0, 1]
    assert (busy["inUse"], busy["roomInMs"], busy["queues"], busy["jobTypes"]) == (1, None, ["default"], [])
    assert busy["waiting"] >= 0


async def test_rate_counts_claims_and_tells_when_there_is_room(serve: Serve, worker: HandWorker) -> None:
    """Two in ten seconds: the third waits, and the limiter says for how long at most."""
    async with serve() as client:
        await made(client, "api", {"kind": "rate", "max": 2, "perMs": 10_000})
        await submitted(client, 3, limits=["api"])
        claimed = worker.claim("default", 5)
        told = (await client.get("/limits/api")).json()

    assert len(claimed) == 2
    assert told["inUse"] == 2
    assert 0 < told["roomInMs"] <= 10_000


async def test_a_wider_limit_lets_waiting_jobs_go(serve: Serve, worker: HandWorker) -> None:
    """Changed at runtime: the next round claims what the new rule allows, without anything having ended."""
    async with serve() as client:
        await made(client, "few", SLOTS)
        await submitted(client, 4, limits=["few"])
        before = worker.claim("default", 9)
        await made(client, "few", {"kind": "concurrency", "max": 3})
        after = worker.claim("default", 9)
        gone = await client.delete("/limits/few")
        rest = worker.claim("default", 9)
        missing = await client.get("/limits/few")

    assert [len(before), len(after), len(rest)] == [1, 2, 1]
    assert (gone.status_code, gone.content, missing.status_code) == (204, b"", 404)


async def test_each_fairness_key_has_its_own_and_some_have_more(serve: Serve, worker: HandWorker) -> None:
    """By fairnessKey: one slot a key; the premium key has three, and is told by its own name."""
    async with serve() as client:
        rule = await made(client, "tier", SLOTS | {"by": "fairnessKey", "overrides": {"Kunde ä": 3, "b": 2}})
        await client.patch("/queues/default", json={"limits": ["tier"]})
        for key in ("a", "b", "Kunde ä"):
            await submitted(client, 4, fairnessKey=key)
        claimed = worker.claim("default", 20)

    assert rule["overrides"] == {"Kunde ä": 3, "b": 2}
    assert (rule["by"], rule["inUse"]) == ("fairnessKey", None)
    assert len(claimed) == 1 + 2 + 3


async def test_a_type_needs_what_its_operator_says(serve: Serve, worker: HandWorker) -> None:
    """PATCH of the type holds in every queue, and a worker that registers anew does not undo it; null does."""
    async with serve() as client:
        await made(client, "few", SLOTS)
        changed = await client.patch("/job-types/free", json={"limits": ["few", "few"], "by": "ann", "reason": "quota"})
        again = HandWorker(worker.store.url, "another")
        after = (await client.get("/job-types/free")).json()
        for queue in ("default", "other"):
            await submitted(client, 2, queue=queue)
        claimed = len(again.claim("default", 5)) + len(again.claim("other", 5))
        limit = (await client.get("/limits/few")).json()
        back = (await client.patch("/job-types/free", json={"limits": None})).json()
        rest = len(again.claim("default", 5)) + len(again.claim("other", 5))
        again.store.close()

    assert (changed.status_code, changed.json()["limits"], changed.json()["declaredLimits"]) == (200, ["few"], [])
    assert (after["limits"], after["revision"], limit["jobTypes"]) == (["few"], 1, ["free"])
    assert (claimed, rest, back["limits"], back["revision"]) == (1, 3, [], 2)


async def test_a_name_without_a_rule_limits_nothing_and_says_so(serve: Serve, worker: HandWorker) -> None:
    """A warning, no refusal: the rule may come later."""
    async with serve() as client:
        queue = (await client.patch("/queues/default", json={"limits": ["typo"]})).json()
        job_type = (await client.patch("/job-types/free", json={"limits": ["typo"]})).json()
        await submitted(client, 2, limits=["nowhere"])
        claimed = worker.claim("default", 5)
        checks = {check["rule"]: check for check in (await client.get("/doctor")).json()["checks"]}

    assert checks["limiters"]["observed"] == "no rule for typo"
    assert ["typo" in said["warnings"][0] for said in (queue, job_type)] == [True, True]
    assert len(claimed) == 2


async def test_changes_are_bound_to_the_revision_that_was_seen(serve: Serve) -> None:
    """If-Match with an old ETag: 409 with the present revision; nothing changed."""
    async with serve() as client:
        first = await client.put("/limits/few", json=SLOTS)
        second = await client.put("/limits/few", json=SLOTS | {"max": 2}, headers={"if-match": first.headers["etag"]})
        stale = await client.put("/limits/few", json=SLOTS | {"max": 9}, headers={"if-match": first.headers["etag"]})
        gone = await client.delete("/limits/few", headers={"if-match": first.headers["etag"]})
        now = (await client.get("/limits/few")).json()
        wrong = await client.put("/limits/few", json=SLOTS, headers={"if-match": '"abc"'})

    assert (second.status_code, second.json()["revision"]) == (200, 2)
    assert [(answer.status_code, answer.json()["revision"]) for answer in (stale, gone)] == [(409, 2), (409, 2)]
    assert (now["max"], wrong.status_code) == (2, 400)


@pytest.mark.parametrize(
    "rule",
    [
        {},
        {"kind": "gate", "max": 1},
        {"kind": "rate", "max": 1},
        {"kind": "rate", "max": 0, "perMs": 1},
        {"kind": "rate", "max": 1, "perMs": 0},
        {"kind": "concurrency", "max": 1, "perMs": 5},
        {"kind": "concurrency", "max": 1, "burst": 5},
        {"kind": "concurrency", "max": 1, "overrides": {"a": 1}},
        {"kind": "concurrency", "max": 1, "by": "tenant"},
    ],
)
async def test_rules_that_cannot_be(serve: Serve, rule: dict[str, Any]) -> None:
    """422 with the place that is wrong, and there is no limiter."""
    async with serve() as client:
        answer = await client.put("/limits/few", json=rule)
        listed = (await client.get("/limits")).json()["items"]
        name = await client.put("/limits/UPPER", json=SLOTS)

    assert (answer.status_code, name.status_code) == (422, 422)
    assert answer.json()["errors"]
    assert listed == []


async def test_partitions_share_a_limit(serve: Serve, worker: HandWorker) -> None:
    """Never more than max over all partitions; shown as one; a rule that cannot be shared is refused."""
    async with serve(partitions=3) as client:
        refused = await client.put("/limits/few", json={"kind": "concurrency", "max": 2})
        told = await made(client, "few", {"kind": "rate", "max": 7, "perMs": 60_000, "burst": 4})
        changed = await made(client, "few", {"kind": "concurrency", "max": 4}, if_match='"1"')
        length = (await client.patch("/queues/default", json={"maxLength": 4})).json()
        answers = [await client.post("/jobs", json=FREE) for _ in range(40)]

    assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, "/max")
    assert (told["max"], told["burst"], told["inUse"], changed["max"], changed["revision"]) == (7, 4, 0, 4, 2)
    assert length["maxLength"] == 4
    assert sum(answer.status_code == 202 for answer in answers) == 4


async def test_listed_with_what_they_are_attached_to(serve: Serve) -> None:
    """Sorted by name."""
    async with serve() as client:
        for name in ("b", "a"):
            await made(client, name, SLOTS)
        await client.patch("/queues/mail", json={"limits": ["a", "b"]})
        items = (await client.get("/limits")).json()["items"]

    assert [(item["name"], item["queues"]) for item in items] == [("a", ["mail"]), ("b", ["mail"])]


async def test_window_of_a_rate_passes(serve: Serve, worker: HandWorker) -> None:
    """When the window has passed, the next may begin."""
    async with serve() as client:
        await made(client, "api", {"kind": "rate", "max": 1, "perMs": 300})
        await submitted(client, 2, limits=["api"])
        first = worker.claim("default", 5)
        none = worker.claim("default", 5)
        deadline, second = time.monotonic() + 5, []
        while not second and time.monotonic() < deadline:
            second = worker.claim("default", 5)

    assert [len(first), len(none), len(second)] == [1, 0, 1]
