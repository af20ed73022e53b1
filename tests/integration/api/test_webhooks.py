"""Webhooks over HTTP: made, changed, tested, delivered again; their secrets are shown once."""

from __future__ import annotations

from typing import Any

import pytest

from integration.api.conftest import HandWorker, Serve
from support.eventually import eventually
from support.servers import StoreServer
from taskmaster.maintenance.webhooks import Outbox
from taskmaster.model.webhooks import DELIVERY, key_of, new_secret
from taskmaster.store import calls
from taskmaster.store.client import SyncStore

pytestmark = pytest.mark.anyio

URL = "https://hooks.example.com/in?token=1"
WANTED: dict[str, Any] = {"url": URL, "events": ["job.failed"], "types": ["free"], "queues": ["default"], "description": "for ops"}


async def made(client: Any, **fields: Any) -> dict[str, Any]:
    answer = await client.post("/webhooks", json={"url": URL} | fields)
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


async def ended(client: Any, server: StoreServer, **fields: Any) -> str:
    """A job that is cancelled, and what is in the outbox told of, as a worker process does each second."""
    job_id = str((await client.post("/jobs", json={"type": "free", "payload": {}} | fields)).json()["jobId"])
    await client.post(f"/jobs/{job_id}/cancel")
    tell(server)
    return job_id


def tell(server: StoreServer) -> None:
    store = SyncStore(server.url)
    Outbox(store, 0, 1).step()
    store.close()


async def deliveries(client: Any, webhook: str) -> list[dict[str, Any]]:
    answer = await client.get(f"/webhooks/{webhook}/deliveries")
    assert answer.status_code == 200, answer.text
    return list(answer.json()["items"])


async def test_what_was_made_is_shown_again_without_its_secret(serve: Serve, clean_server: StoreServer) -> None:
    """201 with location and secret; from then on nothing that is shown or kept for people has it."""
    async with serve() as client:
        answer = await client.post("/webhooks", json=WANTED)
        first = answer.json()
        one = await client.get(answer.headers["location"])
        every = await client.get("/webhooks")
        changed = await client.put(f"/webhooks/{first['id']}", json=WANTED | {"description": "other"})

    assert answer.status_code == 201, answer.text
    secret = first.pop("secret")
    assert len(key_of(secret)) == 32
    assert one.json() == first
    assert every.json() == {"items": [first]}
    assert {name: first[name] for name in WANTED} == WANTED
    assert (first["disabled"], first["disabledWhy"], first["secrets"], first["createdBy"], first["revision"]) == (False, None, 1, "api", 1)
    assert (one.headers["etag"], changed.headers["etag"], changed.json()["description"]) == ('"1"', '"2"', "other")
    assert secret not in one.text + every.text + changed.text
    assert secret not in str(clean_server.call("XRANGE", "tm:{0}:audit", "-", "+"))


async def test_each_change_is_in_the_audit(serve: Serve, clean_server: StoreServer) -> None:
    async with serve() as client:
        one = await made(client)
        await client.put(f"/webhooks/{one['id']}", json={"url": URL, "disabled": True})
        await client.post(f"/webhooks/{one['id']}/rotate", json={"by": "ann", "reason": "leaked"})
        await client.delete(f"/webhooks/{one['id']}")
    rows: list[dict[str, str]] = [fields for _, fields in clean_server.call("XRANGE", "tm:{0}:audit", "-", "+")]

    assert [(row["action"], row["who"], row["target"]) for row in rows] == [
        ("webhook.put", "api", one["id"]),
        ("webhook.put", "api", one["id"]),
        ("webhook.put", "ann", one["id"]),
        ("webhook.deleted", "api", one["id"]),
    ]
    assert rows[2]["reason"] == "leaked"
    assert ['"disabled":false' in rows[0]["detail"], '"disabled":true' in rows[1]["detail"], '"secret":"new"' in rows[2]["detail"]] == [
        True
    ] * 3
    assert "token" not in str(rows)


async def test_secrets_go_on_side_by_side_for_a_while(serve: Serve, clean_server: StoreServer) -> None:
    """A new one, made or given: both sign, the newest first; the same one twice is one."""
    own = new_secret()
    async with serve() as client:
        one = await made(client)
        fresh = (await client.post(f"/webhooks/{one['id']}/rotate")).json()
        given = await client.put(f"/webhooks/{one['id']}", json={"url": URL, "secret": own})
        again = (await client.put(f"/webhooks/{one['id']}", json={"url": URL, "secret": own})).json()
    stored = clean_server.call("HGET", f"tm:{{0}}:wh:{one['id']}", "sec")

    assert len({one["secret"], fresh["secret"], own}) == 3
    assert [fresh["secrets"], given.json()["secrets"], again["secrets"]] == [2, 3, 3]
    assert own not in given.text
    assert stored.index(own) < stored.index(fresh["secret"]) < stored.index(one["secret"])


@pytest.mark.server("valkey")
@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        ({"url": "ftp://example.com"}, "/url"),
        ({"url": "https://user:pass@example.com"}, "/url"),
        ({"url": "http://0x7f.1/"}, "/url"),
        ({"url": ""}, "/url"),
        ({"events": ["job.started"]}, "/events/0"),
        ({"types": ["A"]}, "/types/0"),
        ({"queues": [","]}, "/queues/0"),
        ({"description": "x" * 201}, "/description"),
        ({"secret": "whsec_short"}, "/secret"),
        ({"id": "we_1"}, "/id"),
    ],
)
async def test_what_cannot_be_is_refused_with_its_place(serve: Serve, fields: dict[str, Any], pointer: str) -> None:
    async with serve() as client:
        answer = await client.post("/webhooks", json={"url": URL} | fields)
        there = (await client.get("/webhooks")).json()["items"]

    assert answer.status_code == 422, answer.text
    assert pointer in [error["pointer"] for error in answer.json()["errors"]]
    assert "whsec_short" not in answer.text
    assert there == []


async def test_an_older_order_changes_nothing(serve: Serve) -> None:
    """If-Match with an older revision: 409 or 412, and it stays as it is; what is gone is 404."""
    async with serve() as client:
        one = await made(client)
        await client.put(f"/webhooks/{one['id']}", json={"url": URL, "description": "second"})
        late = await client.put(f"/webhooks/{one['id']}", json={"url": URL}, headers={"if-match": '"1"'})
        late_rotation = await client.post(f"/webhooks/{one['id']}/rotate", headers={"if-match": '"1"'})
        late_end = await client.delete(f"/webhooks/{one['id']}", headers={"if-match": '"1"'})
        seen = (await client.get(f"/webhooks/{one['id']}")).json()
        gone = await client.delete(f"/webhooks/{one['id']}")
        missing = [
            (await client.request(method, f"/webhooks/{name}{rest}", json=body)).status_code
            for name in (one["id"], "we_0123456789abcdef", "nothing", "callback")
            for method, rest, body in (
                ("GET", "", None),
                ("PUT", "", {"url": URL}),
                ("DELETE", "", None),
                ("POST", "/test", None),
                ("POST", "/rotate", None),
            )
        ]

    assert {late.status_code, late_rotation.status_code, late_end.status_code} == {409}
    assert (seen["description"], seen["revision"]) == ("second", 2)
    assert (gone.status_code, gone.content) == (204, b"")
    assert set(missing) == {404}


@pytest.mark.parametrize(
    ("method", "rest"),
    [("POST", ""), ("PUT", "/x"), ("DELETE", "/x"), ("POST", "/x/test"), ("POST", "/x/rotate"), ("POST", "/x/deliveries/y/redeliver")],
)
@pytest.mark.server("valkey")
async def test_changes_need_their_scope(serve: Serve, method: str, rest: str) -> None:
    async with serve(scopes=("jobs:submit", "dlq:replay")) as client:
        answer = await client.request(method, f"/webhooks{rest}", json={"url": URL})

    assert (answer.status_code, answer.json()["scope"]) == (403, "webhooks:manage")


async def test_an_endpoint_is_told_of_what_it_asked_for(serve: Serve, worker: HandWorker, clean_server: StoreServer) -> None:
    """By event, type and queue; each matching endpoint and the callback have a delivery each, of what ends after it was made."""
    async with serve() as client:
        await ended(client, clean_server)
        everything = (await made(client))["id"]
        failures = (await made(client, events=["job.failed"]))["id"]
        elsewhere = (await made(client, queues=["reports"]))["id"]
        other_type = (await made(client, types=["keyed"]))["id"]
        off = (await made(client, disabled=True))["id"]
        job_id = await ended(client, clean_server, callbackUrl="https://caller.example.com/")
        told = {name: await deliveries(client, name) for name in (everything, failures, elsewhere, other_type, off, "callback")}
        [delivery] = told[everything]
        job = (await client.get(f"/jobs/{delivery['jobId']}")).json()

    assert [len(rows) for rows in told.values()] == [1, 0, 0, 0, 0, 1]
    assert (delivery["about"], delivery["state"], delivery["maxAttempts"]) == (job_id, "waiting", 12)
    assert (job["type"], job["queue"], job["origin"]) == (DELIVERY, "webhooks", "webhook")


async def test_what_ended_while_it_was_disabled_is_not_told(serve: Serve, worker: HandWorker, clean_server: StoreServer) -> None:
    """Somebody else wanted to hear of it, so that its row lies in the outbox when the endpoint is enabled again."""
    async with serve() as client:
        one, other = await made(client), await made(client)
        await client.put(f"/webhooks/{one['id']}", json={"url": URL, "disabled": True})
        job_id = str((await client.post("/jobs", json={"type": "free", "payload": {}})).json()["jobId"])
        await client.post(f"/jobs/{job_id}/cancel")
        ended_at = clean_server.call("TIME")
        eventually(lambda: clean_server.call("TIME")[0] != ended_at[0], what="it is enabled in another second than that of the end")
        await client.put(f"/webhooks/{one['id']}", json={"url": URL})
        later = await ended(client, clean_server)
        told = [{row["about"] for row in await deliveries(client, hook["id"])} for hook in (one, other)]

    assert told == [{later}, {later, job_id}]


async def test_what_the_queue_does_not_take_waits_in_the_outbox(serve: Serve, worker: HandWorker, clean_server: StoreServer) -> None:
    """It drains: nothing is lost, nothing is delivered; when it takes jobs again, each end is told of once."""
    async with serve() as client:
        one = (await made(client))["id"]
        first = await ended(client, clean_server)
        drained = await client.post("/queues/webhooks/drain")
        ids = [await ended(client, clean_server) for _ in range(2)]
        before, waiting = await deliveries(client, one), clean_server.call("XLEN", "tm:{0}:ob")
        await client.post("/queues/webhooks/resume")
        tell(clean_server)
        tell(clean_server)
        after = await deliveries(client, one)

    assert drained.status_code == 200, drained.text
    assert ([row["about"] for row in before], waiting) == ([first], 2)
    assert sorted(row["about"] for row in after) == sorted([first, *ids])
    assert clean_server.call("XLEN", "tm:{0}:ob") == 0


async def test_a_test_is_an_event_of_its_own(serve: Serve) -> None:
    """Each request another one; a disabled webhook is not tested."""
    async with serve() as client:
        one = await made(client)
        answers = [await client.post(f"/webhooks/{one['id']}/test") for _ in range(2)]
        rows = await deliveries(client, one["id"])
        await client.put(f"/webhooks/{one['id']}", json={"url": URL, "disabled": True})
        refused = await client.post(f"/webhooks/{one['id']}/test")

    assert [answer.status_code for answer in answers] == [202, 202]
    assert {row["jobId"] for row in rows} == {answer.json()["jobId"] for answer in answers}
    assert {row["about"] for row in rows} == {None}
    assert refused.status_code == 409


async def test_a_delivery_that_has_ended_is_made_again(serve: Serve, worker: HandWorker, clean_server: StoreServer) -> None:
    """The same event as a replay, from the job or from the dead letter that outlived it; one that goes on, or of another, is not."""
    async with serve() as client:
        one, other = await made(client), await made(client, types=["keyed"])
        await ended(client, clean_server)
        [delivery] = await deliveries(client, one["id"])
        path = f"/webhooks/{one['id']}/deliveries/{delivery['jobId']}/redeliver"
        early = await client.post(path)
        await client.post(f"/jobs/{delivery['jobId']}/cancel")
        again = [await client.post(path, headers={"idempotency-key": "once"}) for _ in range(2)]
        wrong = await client.post(f"/webhooks/{other['id']}/deliveries/{delivery['jobId']}/redeliver")
        none = await client.post(f"/webhooks/{one['id']}/deliveries/nothing/redeliver")
        rows = await deliveries(client, one["id"])
        first = (await client.get(f"/jobs/{delivery['jobId']}")).json()
        second = (await client.get(again[0].headers["location"])).json()

    assert early.status_code == 409
    assert [answer.status_code for answer in again] == [202, 202]
    assert {answer.json()["jobId"] for answer in again} == {second["jobId"]}
    assert (second["payload"], second["replayedFromJobId"]) == (first["payload"], delivery["jobId"])
    assert [row["jobId"] for row in rows] == [second["jobId"], delivery["jobId"]]
    assert (wrong.status_code, none.status_code) == (404, 404)


async def test_a_dead_letter_is_delivered_again_when_its_job_is_gone(serve: Serve, worker: HandWorker, clean_server: StoreServer) -> None:
    async with serve() as client:
        one = await made(client)
        await ended(client, clean_server)
        [delivery] = await deliveries(client, one["id"])
        dead = kill(clean_server, delivery["jobId"])
        again = await client.post(f"/webhooks/{one['id']}/deliveries/{dead}/redeliver")

    assert again.status_code == 202, again.text
    assert again.json()["replayedFromJobId"] == dead


def kill(server: StoreServer, job_id: str) -> str:
    """The delivery becomes a dead letter, and retention takes the job."""
    store = SyncStore(server.url)
    store.run(calls.register(0, wid="w", cap="c", info="{}", plugin_set="{}", types=[DELIVERY], catalogue=[], alive_ms=60_000, gen="gen"))
    facts: dict[str, Any] = {"gen": "gen", "wid": "w", "lease_ms": 60_000}
    [claim] = store.run(calls.cycle(0, seq=1, wants=[(1, "webhooks")], **facts)).claims
    end = calls.Finish(claim.id, calls.token_of("w", 1), "f", '["E","no"]', reason="fatal", fingerprint="f")
    store.run(calls.cycle(0, seq=2, finishes=[end], **facts))
    store.run(calls.purge(0, [job_id]))
    store.close()
    return str(claim.id)


async def test_nobody_submits_or_rewrites_a_delivery(serve: Serve, worker: HandWorker, clean_server: StoreServer) -> None:
    """It would be signed, and say whatever they want."""
    async with serve() as client:
        one = await made(client)
        await client.post(f"/webhooks/{one['id']}/test")
        [delivery] = await deliveries(client, one["id"])
        rewritten = await client.patch(f"/jobs/{delivery['jobId']}", json={"payload": {"event": {"id": "evt_forged"}}})
        reprioritised = await client.patch(f"/jobs/{delivery['jobId']}", json={"priority": "high"})
        payload = (await client.get(f"/jobs/{delivery['jobId']}")).json()["payload"]

    assert (rewritten.status_code, reprioritised.status_code) == (422, 200)
    assert "evt_forged" not in str(payload)
