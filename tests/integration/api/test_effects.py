"""Effects over HTTP and on the command line: listed, settled, and in the way of a replay."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from integration.api.conftest import WELCOME, HandWorker, Serve
from support.servers import StoreServer
from taskmaster.cli import main
from taskmaster.store import effects
from taskmaster.store.calls import Claim

pytestmark = pytest.mark.anyio
SMTP = "5" * 32
NOBODY = "0190f000-0000-7000-8000-000000000001"


def reserve(worker: HandWorker, claimed: tuple[Claim, str], effect: str = SMTP) -> None:
    claim, token = claimed
    worker.store.run(effects.reserve(0, claim.id, token, 1, effect, name="smtp", key="albert@example.com", again=False))


async def test_an_unknown_effect_is_listed_settled_and_then_lets_a_replay_through(serve: Serve, worker: HandWorker) -> None:
    async with serve(lease_ms=1_000) as client:
        job_id = (await client.post("/jobs", json=WELCOME)).json()["jobId"]
        (claimed,) = worker.claim()
        reserve(worker, claimed)
        effect_id = f"{job_id}.{SMTP}"
        settled = {"happened": True, "reason": "it is in the mail log", "by": "ann"}

        running = (await client.get("/effects")).json()["items"]
        too_early = await client.post(f"/effects/{effect_id}/settle", json=settled)
        worker.end(claimed, "f", reason="effect_unknown", fingerprint="fp")
        (unknown,) = (await client.get("/effects?state=unknown")).json()["items"]
        refused = await client.post(f"/dlq/{job_id}/replay")
        accepted = await client.post(f"/dlq/{job_id}/replay", json={"acceptUnknown": True, "reason": "asked the provider"})
        done = await client.post(f"/effects/{effect_id}/settle", json=settled)
        again = await client.post(f"/effects/{effect_id}/settle", json=settled)
        otherwise = await client.post(f"/effects/{effect_id}/settle", json=settled | {"happened": False})
        left = (await client.get("/effects")).json()["items"]
        (of_job,) = (await client.get(f"/jobs/{accepted.json()['jobId']}/effects")).json()["items"]
        replayed = await client.post(f"/jobs/{job_id}/replay")

    assert [one["state"] for one in running] == ["running"]
    assert (too_early.status_code, too_early.json()["why"]) == (409, "running")
    assert (unknown["effectId"], unknown["state"], unknown["name"], unknown["key"]) == (effect_id, "unknown", "smtp", "albert@example.com")
    assert (refused.status_code, refused.json()["type"], refused.json()["jobId"]) == (409, "/problems/effect-unknown", job_id)
    assert accepted.status_code == 202
    assert (done.status_code, done.json()) == (200, {"effectId": effect_id, "state": "done"})
    assert again.status_code == 200
    assert (otherwise.status_code, otherwise.json()["why"]) == (409, "settled")
    assert left == []
    assert (of_job["state"], of_job["settledBy"], of_job["reason"], of_job["rootJobId"]) == ("done", "ann", "it is in the mail log", job_id)
    assert replayed.status_code == 202


async def test_pages_of_effects(serve: Serve, worker: HandWorker) -> None:
    async with serve() as client:
        await client.post("/jobs", json=WELCOME)
        (claimed,) = worker.claim()
        for n in range(5):
            reserve(worker, claimed, f"{n:032x}")
        seen, url = [], "/effects?limit=2"
        while url:
            page = await client.get(url)
            seen += [one["effectId"][-1] for one in page.json()["items"]]
            word = page.json()["nextCursor"]
            url = f"/effects?limit=2&cursor={word}" if word else ""
        strange = await client.get(f"/dlq?cursor={word or 'x'}")

    assert seen == list("01234")
    assert strange.status_code == 400


@pytest.mark.parametrize("effect_id", ["x", "x.y", f"{NOBODY}.{SMTP}", f"{NOBODY}.{SMTP}0"])
async def test_an_effect_that_is_not_there(serve: Serve, effect_id: str) -> None:
    async with serve() as client:
        answer = await client.post(f"/effects/{effect_id}/settle", json={"happened": True, "reason": "x", "by": "y"})
        shapeless = await client.post(f"/effects/{effect_id}/settle", json={"happened": "perhaps"})
        no_job = await client.get(f"/jobs/{NOBODY}/effects")
    assert answer.status_code == no_job.status_code == 404
    assert shapeless.status_code in (404, 422)


async def test_on_the_command_line(serve: Serve, worker: HandWorker, clean_server: StoreServer) -> None:
    async with serve() as client:
        job_id = (await client.post("/jobs", json=WELCOME)).json()["jobId"]
    (claimed,) = worker.claim()
    reserve(worker, claimed)
    where = ["--redis-url", clean_server.url]

    def run(*args: str) -> tuple[int, str]:
        result = CliRunner().invoke(main, ["effects", *args])
        return result.exit_code, result.output

    assert json.loads(run("list", "--json", *where)[1]) == []
    (running,) = json.loads(run("list", "--all", "--json", *where)[1])
    assert (running["jobId"], running["state"]) == (job_id, "running")
    settle = ["settle", running["effectId"], "--happened", "--reason", "mail log", "--by", "ann", *where]
    assert run(*settle)[0] == 1
    worker.end(claimed, "f", reason="effect_unknown", fingerprint="fp")
    assert "smtp albert@example.com" in run("list", *where)[1]
    assert run(*settle) == (0, "settled: it happened\n")
    (done,) = json.loads(run("list", "--job", job_id, "--json", *where)[1])
    assert (done["state"], done["settledBy"]) == ("done", "ann")
    assert run("settle", running["effectId"], "--reason", "x", *where)[0] == 2
    assert run("list", "--job", "x", *where)[0] == 1
