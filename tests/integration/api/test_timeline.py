"""GET /jobs/{id}/events: what happened to a job, from all that the store keeps of it, and nothing that it does not."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner

from integration.api.conftest import WELCOME, HandWorker, Serve
from support.servers import StoreServer
from support.worker import Hands
from taskmaster.cli import main
from taskmaster.model.ids import new_job_id
from taskmaster.model.scopes import ORDINARY
from taskmaster.store import calls, upkeep

pytestmark = [pytest.mark.anyio, pytest.mark.server("valkey")]
ANN = {"by": "ann", "reason": "asked to forget"}
Claimed = tuple[calls.Claim, str]


async def _submit(client: Any, key: str, **more: Any) -> str:
    return str((await client.post("/jobs", json=WELCOME | {"idempotencyKey": key} | more)).json()["jobId"])


async def _told(client: Any, job_id: str) -> list[dict[str, Any]]:
    answer = (await client.get(f"/jobs/{job_id}/events")).json()
    assert answer["jobId"] == job_id
    assert not answer["truncated"]
    at = [event["at"] for event in answer["items"] if event["at"]]
    assert at == sorted(at)
    return list(answer["items"])


def words(events: Sequence[dict[str, Any]], *names: str) -> list[Any]:
    """Of each event its word, and what else is asked for."""
    return [tuple(event[name] for name in ("event", *names)) if names else event["event"] for event in events]


def fail(worker: HandWorker, claimed: Claimed, outcome: str = "r", **more: Any) -> None:
    """An attempt ends with an error, and with a row in the history as a worker writes it."""
    claim = claimed[0]
    began: Any = worker.store.raw().hget(f"tm:{{0}}:j:{claim.id}", "sa")
    seconds, micros = worker.store.raw().time()  # the store's own: what is reckoned here may be ahead of it, and of the next claim
    now = seconds * 1_000 + micros // 1_000
    failure = msgspec.json.encode(["ValueError", "no such mailbox", "fp1", "Traceback …", "test==1.0"]).decode()
    row = msgspec.json.encode([claim.epoch, "failed", int(began), now, worker.wid, "ValueError", "no such mailbox", "test==1.0"]).decode()
    worker.end(claimed, outcome, failure, row=row, fingerprint="fp1", **more)


def lose(worker: HandWorker) -> None:
    """The worker of what runs is dead for good."""
    worker.store.run(upkeep.abandon(0, worker.wid))
    worker.store.run(upkeep.reap(0, grace_ms=0, losses=3, key_window_ms=60_000))


async def test_what_was_done_to_a_job_whose_submitter_was_ahead_is_told(serve: Serve, worker: HandWorker) -> None:
    """Its id says a time that has not come yet by the store's clock, which the audit goes by: 30 s are taken."""
    hands = Hands(worker.store.url)
    hands.store._skew_ms = 20_000
    job_id = hands.submit("free")
    hands.close()
    worker.store.run(calls.audit_note(0, "ann", "looked", job_id, "to see"))
    async with serve() as client:
        answer = (await client.get(f"/jobs/{job_id}/events")).json()

    assert ("looked", "ann") in words(answer["items"], "who")


async def test_a_job_with_two_retries(serve: Serve, worker: HandWorker) -> None:
    """Every delivery with its number, worker and plugin version, and how it ended."""
    async with serve() as client:
        job_id = await _submit(client, "one")
        for _ in range(2):
            (claimed,) = worker.claim()
            fail(worker, claimed)
        (claimed,) = worker.claim()
        running = await _told(client, job_id)
        row = msgspec.json.encode([3, "completed", claimed[0].due_ms, worker.store.now_ms(), worker.wid, "", "", "test==1.0"]).decode()
        worker.end(claimed, "c", "{}", row=row)
        told = await _told(client, job_id)

    assert words(running, "attempt") == [
        ("submitted", None),
        ("claimed", 1),
        ("retrying", 1),
        ("claimed", 2),
        ("retrying", 2),
        ("claimed", 3),
    ]
    assert words(told) == [*words(running), "completed"]
    assert [event["who"] for event in told] == ["api", *["worker"] * 6]
    assert told[2]["error"] == "ValueError: no such mailbox"
    assert told[2]["worker"] == {"consumer": worker.wid, "host": "testhost", "pid": 4711, "name": "worker 1"}
    assert {(event["plugin"], event["pluginVersion"]) for event in told[1:]} == {("test", "1.0")}


async def test_a_first_try_success_is_told_although_it_left_no_row(serve: Serve, worker: HandWorker) -> None:
    """Its facts are in the job."""
    async with serve() as client:
        job_id = await _submit(client, "one")
        (claimed,) = worker.claim()
        worker.end(claimed, "c", "{}")
        told = await _told(client, job_id)

    assert words(told, "attempt") == [("submitted", None), ("claimed", 1), ("completed", 1)]
    assert told[2]["worker"]["pid"] == 4711


async def test_cancelled_jobs(serve: Serve, worker: HandWorker) -> None:
    """One that waits is cancelled by whoever said so, in one step; of one that runs the wish has its own time."""
    async with serve() as client:
        waiting = await _submit(client, "waiting", delayMs=60_000)
        assert (await client.post(f"/jobs/{waiting}/cancel")).status_code == 200
        active = await _submit(client, "active")
        (claimed,) = worker.claim()
        assert (await client.post(f"/jobs/{active}/cancel")).status_code == 202
        asked = await _told(client, active)
        fail(worker, claimed, "x")
        told = [await _told(client, one) for one in (waiting, active)]

    assert words(told[0], "who", "reason") == [("submitted", "api", None), ("cancelled", "api", "cancelled")]
    assert words(asked, "who") == [("submitted", "api"), ("claimed", "worker"), ("cancel_requested", "api")]
    assert words(told[1], "who") == [*words(asked, "who"), ("cancelled", "worker")]


async def test_a_dead_letter_and_its_replay(serve: Serve, worker: HandWorker) -> None:
    """The record, who asked for the replay and why, and what the replay is one of; discarded, it is still told by whom."""
    async with serve(scopes=(*ORDINARY, "dlq:discard")) as client:
        job_id = await _submit(client, "one")
        (claimed,) = worker.claim()
        fail(worker, claimed, "f", reason="fatal")
        replay = (await client.post(f"/dlq/{job_id}/replay", json={"reason": "mended"})).json()["jobId"]
        told, of_replay = await _told(client, job_id), await _told(client, replay)
        await client.delete(f"/dlq/{job_id}", params=ANN)
        discarded = await _told(client, job_id)

    assert words(told, "reason") == [
        ("submitted", None),
        ("claimed", None),
        ("failed", "fatal"),
        ("dead_lettered", "fatal"),
        ("replayed", None),
    ]
    assert (told[3]["error"], told[3]["pluginVersion"]) == ("ValueError: no such mailbox", "1.0")
    assert (told[4]["who"], told[4]["jobId"]) == ("api: mended", replay)
    assert words(of_replay, "who", "jobId") == [("submitted", "api: mended", job_id)]
    assert words(discarded, "who", "reason") == [
        ("replayed", "api: mended", None),
        ("dead_letter.discarded", "ann", "asked to forget"),
    ]


async def test_a_hand_back_is_told_without_a_time_that_nobody_kept(serve: Serve, worker: HandWorker) -> None:
    """Of the last one it is known when it was claimed and by whom; of earlier ones only that they were."""
    async with serve() as client:
        job_id = await _submit(client, "one")
        for _ in range(2):
            (claimed,) = worker.claim()
            worker.end(claimed, "h")
        told = await _told(client, job_id)
        await client.post(f"/jobs/{job_id}/cancel")
        cancelled = await _told(client, job_id)

    assert words(told, "attempt") == [("submitted", None), ("handed_back", 1), ("claimed", 2), ("handed_back", 2)]
    assert [bool(event["at"]) for event in told] == [True, False, True, False]
    assert [event["worker"] and event["worker"]["consumer"] for event in told] == [None, None, worker.wid, worker.wid]
    assert words(cancelled, "attempt") == [*words(told, "attempt"), ("cancelled", None)]


async def test_a_lost_worker_is_told(serve: Serve, worker: HandWorker) -> None:
    """Of which process, and that nobody said so."""
    async with serve() as client:
        job_id = await _submit(client, "one")
        worker.claim()
        lose(worker)
        told = await _told(client, job_id)

    assert words(told, "who", "attempt") == [("submitted", "api", None), ("claimed", "worker", 1), ("lost", None, 1)]
    assert told[2]["worker"]["pid"] == 4711


async def test_what_is_left_of_a_job_that_is_gone(serve: Serve, worker: HandWorker) -> None:
    """Its dead letter, and who removed its record; without the scope only the first. Of a job that never was there is nothing."""
    async with serve(scopes=(*ORDINARY, "jobs:delete", "payload:reveal")) as client:
        job_id = await _submit(client, "one")
        await client.get(f"/jobs/{job_id}?reveal=true")
        worker.kill_job()
        await client.delete(f"/jobs/{job_id}", params=ANN)
        told = await _told(client, job_id)
        nobody = [(await client.get(f"/jobs/{one}/events")).status_code for one in (new_job_id(1), "nonsense")]
    async with serve(scopes=("jobs:submit",)) as client:
        answer = (await client.get(f"/jobs/{job_id}/events")).json()

    assert words(told, "who", "reason") == [
        ("payload.revealed", "api", None),
        ("dead_lettered", None, "fatal"),
        ("delete", "ann", "asked to forget"),
    ]
    assert nobody == [404, 404]
    assert (words(answer["items"]), answer["audited"]) == (["dead_lettered"], False)


async def test_a_history_that_was_cut_is_said_to_be(serve: Serve, worker: HandWorker) -> None:
    """More attempts than are kept: no delivery is taken for a hand-back."""
    async with serve() as client:
        job_id = await _submit(client, "one", attempts=60)
        for _ in range(52):
            (claimed,) = worker.claim()
            fail(worker, claimed)
        answer = (await client.get(f"/jobs/{job_id}/events")).json()

    assert answer["truncated"]
    assert set(words(answer["items"])) == {"submitted", "claimed", "retrying"}
    assert [event["attempt"] for event in answer["items"] if event["event"] == "claimed"] == [1, *range(4, 53)]


async def test_the_command_prints_the_timeline(serve: Serve, worker: HandWorker, clean_server: StoreServer) -> None:
    """A line each; as JSON what the API answers; nothing kept: exit code 1."""
    async with serve() as client:
        job_id = await _submit(client, "one")
        (claimed,) = worker.claim()
        fail(worker, claimed)
        answer = (await client.get(f"/jobs/{job_id}/events")).json()
    command = ["job", "--events", "--redis-url", clean_server.url]
    text = CliRunner().invoke(main, [*command, job_id])
    printed = CliRunner().invoke(main, [*command, job_id, "--json"])
    missing = CliRunner().invoke(main, [*command, new_job_id(1)])

    assert json.loads(printed.output) == answer
    assert [line.split()[1] for line in text.output.splitlines()] == ["submitted", "claimed", "retrying"]
    assert "attempt 1, on testhost 4711, with test 1.0, ValueError: no such mailbox" in text.output
    assert missing.exit_code == 1
