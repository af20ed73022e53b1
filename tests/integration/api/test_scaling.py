"""`GET /scaling`: what an autoscaler asks; and the rules of health that queues have."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml

from integration.api.conftest import WELCOME
from support.eventually import eventually_async

pytestmark = pytest.mark.anyio
ROOT = Path(__file__).parents[3]


async def submit(client, n: int) -> None:
    for i in range(n):
        assert (await client.post("/jobs", json=WELCOME | {"idempotencyKey": f"k{i}"})).status_code == 202


async def test_a_queue_says_what_it_needs(serve, worker):
    """Backlog, age and workers; slots and time as the caller has them; a paused queue asks for nobody."""
    async with serve() as client:
        await submit(client, 21)
        worker.claim()

        one = (await client.get("/scaling/email-queue", params={"slots": "4"})).json()
        assert (one["backlog"], one["active"], one["slotsPerWorker"], one["withinMs"]) == (20, 1, 4, 60_000)
        assert one["workersNeeded"] == 6
        assert one["oldestWaitingMs"] > 0
        (listed,) = [row for row in (await client.get("/scaling")).json()["items"] if row["queue"] == "email-queue"]
        assert (listed["slotsPerWorker"], listed["workersNeeded"]) == (16, 2)
        await client.patch("/queues/email-queue", json={"slaMs": 5_000, "concurrency": 3})
        followed = (await client.get("/scaling/email-queue")).json()
        assert (followed["withinMs"], followed["slotsPerWorker"]) == (5_000, 6)
        await client.post("/queues/email-queue/pause", json={})
        paused = (await client.get("/scaling/email-queue")).json()
        assert (paused["isPaused"], paused["workersNeeded"]) == (True, 1)


async def test_queues_that_share_slots_have_those_of_their_group(serve, worker):
    """As `GET /queues` tells them."""
    async with serve(queue_groups={"default+email-queue": 5}, worker_processes=2) as client:
        await submit(client, 1)
        asked = (await client.get("/scaling/email-queue")).json()
        queue = (await client.get("/queues/email-queue")).json()

    assert (asked["slotsPerWorker"], queue["concurrency"]) == (10, 5)


async def test_a_queue_without_a_job_needs_nobody(serve):
    async with serve() as client:
        assert (await client.get("/scaling/email-queue")).json()["workersNeeded"] == 0
        assert (await client.get("/scaling/no-such")).status_code == 404


@pytest.mark.parametrize("query", ["slots=0", "slots=-1", "slots=x", "withinS=0", "withinS=86401", "slots=1e3", "what=1"])
async def test_a_wrong_question_is_refused(serve, query):
    async with serve() as client:
        assert (await client.get(f"/scaling/email-queue?{query}")).status_code == 400


async def test_the_example_for_keda_asks_what_is_answered(serve):
    """URL and value location of the documented ScaledObject lead to a number."""
    text = (ROOT / "ops" / "README.md").read_text()
    (example,) = [block for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL) if "ScaledObject" in block]
    (trigger,) = yaml.safe_load(example)["spec"]["triggers"]
    address = urlsplit(trigger["metadata"]["url"])

    async with serve() as client:
        await submit(client, 1)
        answer = (await client.get(address.path, params={name: value[0] for name, value in parse_qs(address.query).items()})).json()

    assert trigger["type"] == "metrics-api"
    assert answer[trigger["metadata"]["valueLocation"]] == 1
    assert float(trigger["metadata"]["targetValue"]) == 1


async def test_health_tells_of_a_queue_that_is_behind_its_sla(serve, worker):
    """The rule is there where the queue has an SLA, and trips when its oldest job has waited for longer."""

    async def rule() -> dict:
        found = (await client.get("/health")).json()
        rules = [one for one in found["rules"] if one["rule"] == "oldestWaiting"]
        return {"status": found["status"], **(rules[0] if rules else {})}

    async with serve() as client:
        await submit(client, 1)
        assert "rule" not in await rule()
        await client.patch("/queues/email-queue", json={"slaMs": 600_000})
        assert (await rule())["ok"] is True
        assert (await client.patch("/queues/email-queue", json={"slaMs": 1})).json()["slaMs"] == 1

        async def is_behind() -> bool:
            found = await rule()
            return found["ok"] is False and found["queue"] == "email-queue" and found["observed"] > 1 and found["status"] == "degraded"

        await eventually_async(is_behind, what="the rule trips")
        await client.patch("/queues/email-queue", json={"slaMs": None})
        assert "rule" not in await rule()
