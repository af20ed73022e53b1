"""Breakers over HTTP and on the command line."""

from __future__ import annotations

import json
from typing import Any

import pytest
from click.testing import CliRunner

from taskmaster.cli import main
from taskmaster.store import calls
from taskmaster.store.client import SyncStore

pytestmark = [pytest.mark.anyio, pytest.mark.server("valkey")]


@pytest.fixture
def depends(worker) -> None:
    """`free` depends on stripe."""
    worker.store.run(
        calls.register(
            0,
            wid="d",
            cap="cap1",
            info="{}",
            plugin_set="{}",
            types=["free"],
            catalogue=[],
            alive_ms=600_000,
            gen="gen",
            dependencies=[("free", "stripe", "")],
        )
    )


def break_it(worker: Any, n: int = 10) -> None:
    for _ in range(n):
        (claimed,) = worker.claim("default")
        worker.end(claimed, "d", reason="dependency_down", delay_ms=60_000)


@pytest.mark.usefixtures("depends")
async def test_a_breaker_is_shown_as_it_is(serve, worker):
    """Closed with its figures; open with cause and time; what waits is counted."""
    async with serve() as client:
        fresh = (await client.get("/breakers/stripe")).json()
        assert (fresh["name"], fresh["state"], fresh["calls"], fresh["failureRate"], fresh["types"]) == (
            "stripe",
            "closed",
            0,
            None,
            ["free"],
        )
        assert fresh["settings"]["failureRatio"] == 0.5
        for _ in range(11):
            assert (await client.post("/jobs", json={"type": "free"})).status_code == 202
        break_it(worker)
        assert worker.claim("default") == []

        seen = (await client.get("/breakers")).json()["items"]

        assert [one["name"] for one in seen] == ["stripe"]
        assert (seen[0]["state"], seen[0]["cause"], seen[0]["waiting"], seen[0]["by"]) == ("open", "failures", 1, None)
        assert seen[0]["openUntil"] > seen[0]["since"]


async def test_a_breaker_can_be_set_up_before_anybody_depends_on_it(serve):
    """PUT makes it or changes it; what is left out is as usual; what cannot be is refused with its place."""
    async with serve() as client:
        made = await client.put("/breakers/adyen", json={"failureRatio": 0.25, "cooldownMs": 30_000})
        assert (made.status_code, made.json()["settings"]["failureRatio"], made.json()["types"]) == (200, 0.25, [])
        assert made.json()["settings"]["minimumCalls"] == 10
        again = await client.put("/breakers/adyen", json={"minimumCalls": 3})
        assert again.json()["settings"] == made.json()["settings"] | {"failureRatio": 0.5, "cooldownMs": 5_000, "minimumCalls": 3}
        assert again.json()["revision"] == made.json()["revision"] + 1

        wrong = await client.put("/breakers/adyen", json={"failureRatio": 2})

        assert (wrong.status_code, wrong.json()["errors"][0]["pointer"]) == (422, "/failureRatio")
        assert (await client.put("/breakers/adyen", json={"ratio": 2})).status_code == 422
        assert (await client.put("/breakers/Not%20a%20name", json={})).status_code == 422
        assert (await client.get("/breakers/nobody")).status_code == 404


@pytest.mark.usefixtures("depends")
async def test_by_order(serve, worker):
    """Open until it is closed by order, with who and why; a reason must be given."""
    async with serve() as client:
        assert (await client.post("/breakers/stripe/force-open", json={})).status_code == 422
        opened = await client.post("/breakers/stripe/force-open", json={"reason": "their incident 7", "by": "ann"})
        shown = opened.json()
        assert (opened.status_code, shown["state"], shown["cause"], shown["by"], shown["reason"], shown["openUntil"]) == (
            200,
            "open",
            "order",
            "ann",
            "their incident 7",
            None,
        )
        await client.post("/jobs", json={"type": "free"})
        assert worker.claim("default") == []

        closed = await client.post("/breakers/stripe/force-close", json={"reason": "over"})

        assert (closed.json()["state"], closed.json()["by"]) == ("closed", None)
        assert len(worker.claim("default")) == 1
        assert (await client.post("/breakers/nobody/force-open", json={"reason": "x"})).status_code == 404


@pytest.mark.usefixtures("depends")
async def test_several_partitions_are_one_breaker(clean_server, serve):
    """An order goes to all; the worst state is shown."""
    store = SyncStore(clean_server.url)
    async with serve(partitions=3) as client:
        await client.put("/breakers/stripe", json={"minimumCalls": 5})
        assert {store.raw().hget(f"tm:{{{p}}}:L:!stripe", "least") for p in range(3)} == {b"5"}
        assert (await client.post("/breakers/stripe/force-open", json={"reason": "x"})).json()["state"] == "open"
        store.raw().hset("tm:{1}:L:!stripe", "state", "closed")
        assert (await client.get("/breakers/stripe")).json()["state"] == "open"
    store.close()


@pytest.mark.usefixtures("depends")
def test_the_command_line_does_the_same(clean_server):
    """list, show, set, force-open, force-close; unknown names are told with exit code 1."""

    def run(*words: str, code: int = 0) -> str:
        ended = CliRunner().invoke(main, ["breakers", *words, "--redis-url", clean_server.url])
        assert ended.exit_code == code, ended.output
        return ended.output

    assert run("list").split()[:2] == ["stripe", "closed"]
    run("set", "stripe", "failureRatio=0.3", "probes=2")
    shown = json.loads(run("show", "stripe", "--json"))
    assert (shown["settings"]["failureRatio"], shown["settings"]["probes"], shown["settings"]["minimumCalls"]) == (0.3, 2, 10)
    assert "failureRatio" in run("set", "stripe", "ratio=1", code=2)
    assert "until it is closed by order" in run("force-open", "stripe", "--reason", "incident", "--by", "ann")
    assert "ann: incident" in run("list")
    assert "closed" in run("force-close", "stripe", "--reason", "over")
    assert "no breaker" in run("show", "nobody", code=1)
    run("force-open", "nobody", "--reason", "x", code=1)
