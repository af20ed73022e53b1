"""`/why` over HTTP and on the command line; the rules behind it are tested on the store."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from taskmaster.cli import main
from taskmaster.store import flow
from taskmaster.store.flow import Order

pytestmark = [pytest.mark.anyio, pytest.mark.server("valkey")]


async def submitted(client) -> str:
    answer = await client.post("/jobs", json={"type": "free"})
    return answer.json()["jobId"]


async def test_the_reasons_are_told_with_their_numbers(serve, worker):
    """In camel case, instants in UTC; the first is the reason of the job itself and of its status."""
    async with serve() as client:
        job_id = await submitted(client)
        worker.store.run(flow.pause(0, "q/default", "pause", Order("op", None, "ann", "migration")))

        why = (await client.get(f"/jobs/{job_id}/why")).json()

        assert (why["jobId"], why["state"], why["type"], why["queue"], why["estimatedStartAt"]) == (
            job_id,
            "waiting",
            "free",
            "default",
            None,
        )
        first = why["reasons"][0]
        assert (first["code"], first["message"]) == ("paused", "the queue default is paused by ann")
        assert first["facts"].keys() == {"scope", "name", "by", "since", "reason"}
        assert first["facts"]["since"].endswith("Z")
        assert [one["code"] for one in why["reasons"]] == ["paused", "no_free_slot", "waiting_its_turn"]
        assert (await client.get(f"/jobs/{job_id}")).json()["reason"] == "paused"
        assert (await client.get(f"/jobs/{job_id}/status")).json()["reason"] == "paused"
        worker.store.run(flow.pause(0, "q/default", "resume", Order("op2", None, "ann", "")))
        assert (await client.get(f"/jobs/{job_id}/status")).json()["reason"] is None


async def test_a_running_and_an_ended_job(serve, worker):
    """Where it runs; how it ended."""
    async with serve() as client:
        job_id = await submitted(client)
        (claimed,) = worker.claim("default")

        (running,) = (await client.get(f"/jobs/{job_id}/why")).json()["reasons"]
        worker.end(claimed)
        (ended,) = (await client.get(f"/jobs/{job_id}/why")).json()["reasons"]

        assert (running["code"], running["facts"]["host"], running["facts"]["pid"], running["facts"]["attempt"]) == (
            "running",
            "testhost",
            4711,
            1,
        )
        assert ended["code"] == "completed"


async def test_there_must_be_such_a_job(serve):
    """404 for an id that is none, or no longer."""
    async with serve() as client:
        assert (await client.get("/jobs/01a20557-4f89-7362-bf7c-8356bbe4029a/why")).status_code == 404
        assert (await client.get("/jobs/nonsense/why")).status_code == 404


async def test_the_command_line_says_it_too(serve, worker, clean_server):
    """A line a reason, or what the API answers; 1 when there is no such job."""
    async with serve() as client:
        job_id = await submitted(client)
        worker.store.run(flow.pause(0, "t/free", "pause", Order("op", None, "ann", "migration")))

        plain = CliRunner().invoke(main, ["job", job_id, "--why", "--redis-url", clean_server.url])
        asjson = CliRunner().invoke(main, ["job", job_id, "--why", "--json", "--redis-url", clean_server.url])
        gone = CliRunner().invoke(main, ["job", "01a20557-4f89-7362-bf7c-8356bbe4029a", "--why", "--redis-url", clean_server.url])

        assert (plain.exit_code, plain.output.split()[:2]) == (0, ["paused", "the"])
        assert "reason migration" in plain.output
        assert json.loads(asjson.output) == (await client.get(f"/jobs/{job_id}/why")).json()
        assert gone.exit_code == 1
