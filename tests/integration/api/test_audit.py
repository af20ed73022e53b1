"""GET /audit: what people did, newest first, over all partitions, without secrets; and where the chains stand."""

from __future__ import annotations

from typing import Any

import pytest
from click.testing import CliRunner

from integration.api.conftest import HandWorker, Serve, entry
from support.servers import StoreServer
from taskmaster.api import cursor
from taskmaster.cli import main
from taskmaster.model.scopes import ORDINARY
from taskmaster.plugins.catalogue import encode
from taskmaster.store import calls
from taskmaster.store.client import SyncStore

pytestmark = [pytest.mark.anyio, pytest.mark.server("valkey")]
SECRET = {"type": "object", "properties": {"token": {"type": "string", "x-taskmaster": "secret"}, "to": {"type": "string"}}}


def note(url: str, partition: int, *, at_ms: int, who: str = "ann", action: str = "paused", target: str = "q/one") -> None:
    store = SyncStore(url, now_ms=lambda: at_ms)
    store.run(calls.audit_note(partition, who, action, target, f"at {at_ms}"))
    store.close()


async def _list(client: Any, **query: Any) -> list[dict[str, Any]]:
    answer = await client.get("/audit", params=query)
    assert answer.status_code == 200, answer.text
    return list(answer.json()["items"])


async def test_what_people_did_is_listed_newest_first(serve: Serve) -> None:
    """Who, what, to what, why, with what is known beside it; and the head of the chain."""
    async with serve() as client:
        await client.post("/queues/email-queue/pause", json={"reason": "night", "by": "ann"})
        await client.put("/limits/api", json={"kind": "concurrency", "max": 5})
        answer = (await client.get("/audit")).json()

    limit, pause = answer["items"]
    assert [pause[name] for name in ("who", "action", "target", "reason", "detail", "partition", "number")] == [
        "ann",
        "paused",
        "q/email-queue",
        "night",
        None,
        0,
        1,
    ]
    assert (limit["action"], limit["target"], limit["detail"]["kind"], limit["number"]) == ("limit.put", "api", "slots", 2)
    assert [(head["partition"], head["number"], len(head["hash"])) for head in answer["heads"]] == [(0, 2, 40)]


async def test_filters_hold_together(serve: Serve, clean_server: StoreServer) -> None:
    """Who, what, to what or what is below it, and when, by the time that is shown."""
    store = SyncStore(clean_server.url)
    real_ms = store.now_ms()
    store.close()
    note(clean_server.url, 0, at_ms=real_ms - 30_000, who="ann", target="job-1")
    note(clean_server.url, 0, at_ms=real_ms - 20_000, who="bob", target="job-1/effect")
    note(clean_server.url, 0, at_ms=real_ms - 10_000, who="ann", action="resumed", target="job-10")
    async with serve() as client:
        everything = await _list(client)
        newest, middle, oldest = everything
        by_query = {
            "who": await _list(client, who="ann"),
            "action": await _list(client, action="resumed"),
            "target": await _list(client, target="job-1"),
            "after": await _list(client, after=middle["at"]),
            "before": await _list(client, before=middle["at"]),
            "both": await _list(client, who="ann", after=oldest["at"], before=newest["at"]),
        }

    assert by_query == {
        "who": [newest, oldest],
        "action": [newest],
        "target": [middle, oldest],
        "after": [newest, middle],
        "before": [oldest],
        "both": [oldest],
    }


@pytest.mark.parametrize("limit", [1, 3, 50])
async def test_pages_cover_all_partitions_once(serve: Serve, clean_server: StoreServer, limit: int) -> None:
    """Newest first; a cursor fits one list only."""
    store = SyncStore(clean_server.url)
    for n in range(12):
        store.run(calls.audit_note(n % 3, "ann" if n % 4 else "bob", "looked", "x", str(n)))
    store.close()
    seen: list[str] = []
    async with serve(partitions=3) as client:
        answer = (await client.get("/audit", params={"limit": limit, "who": "ann"})).json()
        seen += [one["reason"] for one in answer["items"]]
        while word := answer["nextCursor"]:
            answer = (await client.get("/audit", params={"limit": limit, "who": "ann", "cursor": word})).json()
            seen += [one["reason"] for one in answer["items"]]
            other = await client.get("/audit", params={"cursor": word})
            assert (other.status_code, other.json()["parameter"]) == (400, "cursor")

    assert sorted(seen, key=int) == [str(n) for n in range(12) if n % 4]
    assert len(answer["heads"]) == 3


async def test_what_is_marked_secret_is_hidden(serve: Serve, worker: HandWorker) -> None:
    """A schedule's payload is in the audit, and shown as elsewhere; what nobody knows the type of is hidden whole."""
    row = entry("secretive", "default", SECRET, key_required=False)
    worker.store.run(
        calls.register(
            0,
            wid="other",
            cap="c",
            info="{}",
            plugin_set="{}",
            types=["secretive"],
            catalogue=[calls.Published("secretive", encode(row).decode(), "test")],
            alive_ms=60_000,
            gen="gen",
        )
    )
    async with serve() as client:
        body = {"type": "secretive", "payload": {"token": "hunter2", "to": "ann"}, "everyMs": 3_600_000}
        assert (await client.put("/schedules/nightly", json=body)).status_code in (200, 201)
        answer = await client.get("/audit", params={"target": "nightly"})

    (one,) = answer.json()["items"]
    assert one["detail"]["payload"] == {"token": "***", "to": "ann"}
    assert "hunter2" not in answer.text


async def test_the_audit_needs_its_scope(serve: Serve) -> None:
    """It is granted unless scopes are named."""
    async with serve(scopes=("jobs:submit",)) as client:
        refused = await client.get("/audit")

    assert (refused.status_code, refused.json()["scope"]) == (403, "audit:read")
    assert "audit:read" in ORDINARY


@pytest.mark.parametrize(
    ("query", "parameter"),
    [("limit=0", "limit"), ("after=yesterday", "after"), ("who=", "who"), ("colour=red", "colour"), ("cursor=x", "cursor")],
)
async def test_what_makes_no_sense_is_refused(serve: Serve, query: str, parameter: str) -> None:
    """With the parameter's name."""
    async with serve() as client:
        answer = await client.get(f"/audit?{query}")

    assert (answer.status_code, answer.json()["parameter"]) == (400, parameter)


@pytest.mark.parametrize("place", [("0", 0), ("-5", 0), ("1e5", 0), ("5", 10**19)])
async def test_a_cursor_that_was_made_up_is_refused(serve: Serve, place: tuple[str, int]) -> None:
    """It is not signed, so anybody can write one."""
    word = cursor.pack((place[0], f"0000.{place[1]:020d}"), "audit", *[""] * 5)
    async with serve() as client:
        answer = await client.get("/audit", params={"cursor": word})

    assert (answer.status_code, answer.json()["parameter"]) == (400, "cursor")


@pytest.mark.parametrize("command", ["list", "verify"])
def test_the_commands_explain_themselves(command: str) -> None:
    """And their exit codes, without a store."""
    result = CliRunner().invoke(main, ["audit", command, "--help"])

    assert result.exit_code == 0
    assert "Exit codes" in " ".join(result.output.split())
