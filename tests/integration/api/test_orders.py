"""Orders of operators over HTTP: pauses, draining, settings of queues."""

from __future__ import annotations

from typing import Any

import pytest

from integration.api.conftest import HandWorker, Serve, entry
from taskmaster.model.ids import partition_of
from taskmaster.plugins.catalogue import encode
from taskmaster.store import calls

pytestmark = pytest.mark.anyio

FREE: dict[str, Any] = {"type": "free", "payload": {}}
ANN = {"by": "ann", "reason": "the provider is down"}


async def submitted(client: Any, count: int = 1, **fields: Any) -> list[str]:
    answers = [await client.post("/jobs", json=FREE | fields) for _ in range(count)]
    assert {answer.status_code for answer in answers} == {202}, answers[-1].text
    return [answer.json()["jobId"] for answer in answers]


async def test_paused_queue_gives_nothing_and_says_whose_word_it_is(serve: Serve, worker: HandWorker) -> None:
    """New jobs are taken and wait; another API process says the same; resume lets them go."""
    async with serve() as client:
        await submitted(client)
        paused = await client.post("/queues/default/pause", json=ANN)
        await submitted(client)
        none = worker.claim("default", 5)
    async with serve() as client:
        shown = (await client.get("/queues/default")).json()
        again = (await client.post("/queues/default/pause", json={"by": "bob"})).json()
        resumed = (await client.post("/queues/default/resume")).json()
        claimed = worker.claim("default", 5)

    assert (paused.status_code, none, len(claimed)) == (200, [], 2)
    assert (shown["paused"], shown["pausedBy"], shown["pauseReason"], again["pausedBy"]) == (True, "ann", "the provider is down", "ann")
    assert shown["pausedAt"].endswith("Z")
    assert (resumed["paused"], resumed["pausedBy"], resumed["pausedAt"]) == (False, None, None)


async def test_draining_queue_works_off_what_it_has(serve: Serve, worker: HandWorker) -> None:
    """Nothing new comes in, what is there goes out; resume ends it, and a pause with it."""
    async with serve() as client:
        await submitted(client, 2)
        drained = (await client.post("/queues/default/drain", json=ANN)).json()
        refused = await client.post("/jobs", json=FREE)
        claimed = worker.claim("default", 5)
        await client.post("/queues/default/pause")
        resumed = (await client.post("/queues/default/resume")).json()
        await submitted(client)

    assert (drained["draining"], drained["drainedBy"], drained["drainReason"], drained["paused"]) == (True, "ann", ANN["reason"], False)
    assert (refused.status_code, len(claimed)) == (409, 2)
    assert (resumed["draining"], resumed["drainedBy"], resumed["paused"]) == (False, None, False)


async def test_paused_type_lets_its_neighbours_go(serve: Serve, worker: HandWorker) -> None:
    """The other types of the same queue run on."""
    async with serve() as client:
        [held] = await submitted(client)
        [other] = await submitted(client, type="keyed", idempotencyKey="k")
        paused = (await client.post("/job-types/free/pause", json=ANN)).json()
        first = [claim.id for claim, _ in worker.claim("default", 5)]
        resumed = (await client.post("/job-types/free/resume")).json()
        second = [claim.id for claim, _ in worker.claim("default", 5)]

    assert (first, second) == ([other], [held])
    assert (paused["paused"], paused["pausedBy"], paused["pausedWithPlugin"], resumed["paused"]) == (True, "ann", False, False)


async def test_paused_plugin_holds_its_types_also_new_ones(serve: Serve, worker: HandWorker) -> None:
    """A type that the plugin publishes during the pause is paused too; one that was paused by itself stays so afterwards."""
    async with serve() as client:
        await client.post("/job-types/keyed/pause", json={"by": "bob"})
        paused = await client.post("/plugins/test/pause", json=ANN)
        new = entry("newcomer", "default", key_required=False)
        worker.store.run(
            calls.register(
                0,
                wid="second",
                cap="cap1",
                info="{}",
                plugin_set="{}",
                types=["newcomer"],
                catalogue=[calls.Published("newcomer", encode(new).decode(), "test")],
                alive_ms=60_000,
                gen="gen",
            )
        )
        types: dict[str, Any] = {}
        while "newcomer" not in types:  # the API looks at the catalogue anew a few times a second
            types = {item["type"]: item for item in (await client.get("/job-types")).json()["items"]}
        refused = await client.post("/job-types/newcomer/resume")
        plugin = (await client.get("/plugins/test")).json()
        resumed = (await client.post("/plugins/test/resume")).json()
        after = {item["type"]: item["paused"] for item in (await client.get("/job-types")).json()["items"]}
        listed = (await client.get("/plugins")).json()["items"]
        missing = await client.post("/plugins/nobody/pause")

    assert paused.status_code == 200
    assert {name: (one["paused"], one["pausedBy"], one["pausedWithPlugin"]) for name, one in types.items()} == {
        "free": (True, "ann", True),
        "keyed": (True, "bob", False),
        "newcomer": (True, "ann", True),
        "welcome-email": (True, "ann", True),
    }
    assert (refused.status_code, refused.json()["plugin"]) == (409, "test")
    assert (plugin["paused"], plugin["pauseReason"], plugin["types"]) == (
        True,
        ANN["reason"],
        ["free", "keyed", "newcomer", "welcome-email"],
    )
    assert (resumed["paused"], [one["name"] for one in listed], missing.status_code) == (False, ["test"], 404)
    assert after == {"free": False, "keyed": True, "newcomer": False, "welcome-email": False}


async def test_settings_of_a_queue_are_kept_and_shown(serve: Serve) -> None:
    """Also of one that has had no job yet; null goes back to the default, what is left out stays."""
    wanted = {"limits": ["a"], "strict": True, "weights": {"vip": 3, "Kunde ä": 2}, "weight": 4, "maxLength": 500, "concurrency": 3}
    async with serve(concurrency=8) as client:
        first = await client.patch("/queues/fresh", json=wanted)
        second = await client.patch(
            "/queues/fresh", json={"strict": False, "concurrency": None}, headers={"if-match": first.headers["etag"]}
        )
        stale = await client.patch("/queues/fresh", json={"strict": True, "revision": 1})
        shown = (await client.get("/queues/fresh")).json()

    assert first.status_code == 200, first.text
    assert {name: first.json()[name] for name in wanted} == wanted
    assert (second.json()["strict"], second.json()["concurrency"], second.json()["weights"]) == (False, 8, wanted["weights"])
    assert (stale.status_code, stale.json()["revision"], shown["revision"], shown["strict"]) == (409, 2, 2, False)


async def test_weights_are_turns(serve: Serve, worker: HandWorker) -> None:
    """A key with weight 3 is served three times as often as one with 1, whatever the keys are called."""
    async with serve() as client:
        await client.patch("/queues/default", json={"weights": {"Kunde ä": 3}})
        heavy = await submitted(client, 12, fairnessKey="Kunde ä")
        await submitted(client, 12, fairnessKey="b")
        claimed = [claim.id for claim, _ in worker.claim("default", 12)]

    assert sum(job_id in heavy for job_id in claimed) == 9


async def test_strict_queue_serves_the_highest_first(serve: Serve, worker: HandWorker) -> None:
    """All critical jobs go before the first low one."""
    async with serve() as client:
        await client.patch("/queues/default", json={"strict": True})
        low = await submitted(client, 5, priority="low")
        critical = await submitted(client, 20, priority="critical")
        claimed = [claim.id for claim, _ in worker.claim("default", 21)]

    assert claimed == [*critical, low[0]]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"revision": 1},
        {"limits": ["A"]},
        {"limits": ["a\n"]},
        {"limits": [f"l{n}" for n in range(9)]},
        {"weights": {"a": 0}},
        {"maxLength": 0},
        {"concurrency": 0},
        {"weight": 0},
        {"wait": 5},
        {"strict": "yes"},
    ],
)
async def test_settings_that_cannot_be(serve: Serve, body: dict[str, Any]) -> None:
    """422, and nothing is stored."""
    async with serve() as client:
        answer = await client.patch("/queues/default", json=body)
        name = await client.patch("/queues/UPPER", json={"strict": True})
        shown = (await client.get("/queues/default")).json()

    assert (answer.status_code, name.status_code, shown["revision"]) == (422, 422, 0)


async def test_orders_to_what_is_not_there(serve: Serve) -> None:
    """404, not an order that waits for its victim."""
    async with serve() as client:
        paths = ("/queues/nope/pause", "/queues/UP/drain", "/queues/nope/resume", "/job-types/nope/pause", "/plugins/no%20pe/resume")
        answers = [await client.post(path) for path in paths]
        patched = await client.patch("/job-types/nope", json={"limits": []})

    assert {answer.status_code for answer in [*answers, patched]} == {404}


async def test_every_partition_is_paused(serve: Serve, worker: HandWorker) -> None:
    """With several partitions an order holds in each of them."""
    async with serve(partitions=2) as client:
        for _ in range(2):
            await client.post("/queues/default/pause", json=ANN)
        await submitted(client, 8)
        shown = (await client.get("/queues/default")).json()
        raw = worker.store.raw()
        held = [raw.hget(f"tm:{{{partition}}}:pause", "q/default") for partition in range(2)]

    assert (shown["paused"], shown["counts"]["waiting"]) == (True, 8)
    assert all(held)


async def test_paused_tenant_lets_the_others_go(serve: Serve, worker: HandWorker) -> None:
    """Whatever it is called and in every partition; its jobs wait, and say why; an attempt is not spent."""
    async with serve(partitions=2) as client:
        path = "/tenants/Kunde%20%C3%A4"
        held = [
            job_id for job_id in await submitted(client, 16, fairnessKey="Kunde ä") if partition_of(job_id, 2) == 0
        ]  # where a worker is
        free = await submitted(client, 4, fairnessKey="b")
        paused = (await client.post(f"{path}/pause", json=ANN)).json()
        again = (await client.post(f"{path}/pause", json={"by": "bob"})).json()
        listed = (await client.get("/tenants")).json()["items"]
        first = [claim.id for claim, _ in worker.claim("default", 20)]
        why = (await client.get(f"/jobs/{held[0]}/why")).json()["reasons"][0]
        short = (await client.get(f"/jobs/{held[0]}/status")).json()["reason"]
        resumed = (await client.post(f"{path}/resume")).json()
        shown = (await client.get(path)).json()
        wrong = await client.post(f"/tenants/{'x' * 257}/pause")

    assert set(first) <= set(free)
    assert (paused["name"], paused["paused"], paused["pausedBy"], paused["pauseReason"]) == ("Kunde ä", True, "ann", ANN["reason"])
    assert (again, listed) == (paused, [paused])
    assert (why["code"], short) == ("paused", "paused")
    facts = why["facts"]
    assert (facts["scope"], facts["name"], facts["by"], facts["reason"]) == ("tenant", "Kunde ä", "ann", ANN["reason"])
    assert facts["since"] == paused["pausedAt"]
    assert (resumed["paused"], shown, wrong.status_code) == (False, resumed, 422)
