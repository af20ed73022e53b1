"""Health on the command line, and endpoints that are told when a rule of it is broken."""

from __future__ import annotations

import json
from typing import Any

import pytest
from click.testing import CliRunner

from integration.api.conftest import WELCOME, HandWorker, Serve
from integration.api.test_webhooks import deliveries, made
from support.eventually import eventually_async
from support.servers import StoreServer
from taskmaster.cli import main
from taskmaster.engine.health import HealthRule
from taskmaster.engine.rules import Word
from taskmaster.engine.webhooks import Endpoint, make_endpoint
from taskmaster.maintenance import alarms as module
from taskmaster.maintenance.alarms import Alarms
from taskmaster.model.webhooks import DELIVERY, QUEUE
from taskmaster.store import reads
from taskmaster.store.client import SyncStore

pytestmark = pytest.mark.anyio


async def broken(client: Any) -> list[tuple[str, str | None]]:
    found = (await client.get("/health")).json()
    return [(rule["rule"], rule["queue"]) for rule in found["rules"] if not rule["ok"]]


async def late(client: Any) -> None:
    """A job waits for longer than the SLA of its queue allows."""
    await client.patch("/queues/email-queue", json={"slaMs": 1})
    await client.post("/jobs", json=WELCOME | {"idempotencyKey": "late"})
    await eventually_async(lambda: broken(client), what="a rule is broken")


@pytest.fixture
def alarms(worker: HandWorker, monkeypatch: pytest.MonkeyPatch) -> Alarms:
    """Of one hour: no test sees it end."""
    now_ms = worker.store.now_ms()
    monkeypatch.setattr(worker.store, "now_ms", lambda: now_ms)
    return Alarms(worker.store, 1, is_strict=False)


async def test_who_wants_to_hear_of_it_is_told_once_an_hour(serve: Serve, alarms: Alarms, clean_server: StoreServer) -> None:
    """By name, for its queues, and not of the ends of jobs; who did not ask for it is not told, nor who is disabled."""
    asks = {"events": ["health.degraded"]}
    async with serve() as client:
        all_ = await made(client, **asks)
        of_queue = await made(client, **asks, queues=["email-queue"])
        of_other = await made(client, **asks, queues=["another"])
        disabled = await made(client, **asks, disabled=True)
        of_ends = await made(client)
        alarms.look()
        quiet = [await deliveries(client, one["id"]) for one in (all_, of_queue)]
        await late(client)
        for _ in range(3):
            alarms.look()
        told = {name: await deliveries(client, one["id"]) for name, one in {"all": all_, "queue": of_queue}.items()}
        untold = [await deliveries(client, one["id"]) for one in (of_other, disabled, of_ends)]
        listening = clean_server.call("SMEMBERS", "tm:{0}:whl")
        jobs = (await client.get(f"/jobs?type={DELIVERY}")).json()["items"]
        shown = [json.loads(clean_server.call("GET", f"tm:{{0}}:b:{job['jobId']}"))[1] for job in jobs]

    assert quiet == [[], []]
    # That nobody here delivers is a broken rule as well, seen from the second look on.
    assert {name: len(rows) for name, rows in told.items()} == {"all": 2, "queue": 1}
    assert untold == [[], [], []]
    assert set(listening) == {of_ends["id"]}
    [event] = [payload["event"] for payload in shown if payload["endpoint"] == of_queue["id"]]
    assert (event["type"], event["data"]["rule"], event["data"]["queue"]) == ("health.degraded", "oldestWaiting", "email-queue")
    assert event["data"]["observed"] > event["data"]["limit"] == 1
    assert {payload["event"]["data"]["rule"] for payload in shown} == {"oldestWaiting", "noWorker"}


async def test_an_hour_is_an_hour_however_short_keys_are_remembered(serve: Serve, alarms: Alarms, clean_server: StoreServer) -> None:
    """The delivery has ended and its key is forgotten: with TASKMASTER_IDEMPOTENCY_WINDOW_MS=0 that is so a minute later."""
    async with serve() as client:
        endpoint = await made(client, events=["health.degraded"], queues=["email-queue"])
        await late(client)
        alarms.look()
        [first] = await deliveries(client, endpoint["id"])
        await client.post(f"/jobs/{first['jobId']}/cancel")
        clean_server.call("DEL", *clean_server.call("KEYS", "tm:{0}:k:*"))
        alarms.look()
        told = await deliveries(client, endpoint["id"])

    assert [row["jobId"] for row in told] == [first["jobId"]]


async def test_nobody_listens_and_nothing_is_looked_at(serve: Serve, worker: HandWorker, clean_server: StoreServer) -> None:
    """One call a minute is what alarms cost where nobody wants them."""
    async with serve() as client:
        await made(client)
        await late(client)
    worker.store.now_ms()
    before = int(clean_server.call("INFO", "commandstats")["cmdstat_evalsha"]["calls"])
    Alarms(worker.store, 1, is_strict=False).look()
    after = int(clean_server.call("INFO", "commandstats")["cmdstat_evalsha"]["calls"])

    assert after - before == 1


def test_everything_is_broken_and_everybody_wants_to_hear_of_it(clean_server: StoreServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """5,000 deliveries at once are more than one script can make: they come in several calls, each of them whole."""
    broken = [HealthRule("noWorker", f"queue-{n}", 1, 0, ok=False) for n in range(50)]
    monkeypatch.setattr(module, "look_at_health", lambda *_, **__: broken)
    store = SyncStore(clean_server.url)
    for n in range(100):
        store.converse(make_endpoint(Endpoint(f"https://h{n}.example.com/", ("health.degraded",)), Word("test"), partitions=1))
    Alarms(store, 1, is_strict=False).look()
    [queue] = [row for row in store.run(reads.queues(0)) if row.name == QUEUE]
    store.close()

    assert sum(queue.by_priority) == len(clean_server.call("KEYS", "tm:{0}:b:*")) == 5_000


async def test_the_command_line_says_what_is_broken(serve: Serve, clean_server: StoreServer) -> None:
    """Exit code 0 while all rules hold, 1 when one is broken, with what GET /health answers."""

    def run(*words: str) -> tuple[int, str]:
        done = CliRunner().invoke(main, ["health", *words, "--redis-url", clean_server.url])
        return done.exit_code, done.output

    async with serve() as client:
        healthy = run()
        await late(client)
        seen = await broken(client)
        degraded, as_json, every = run(), run("--json"), run("--all")

    assert healthy == (0, "healthy\n")
    assert degraded[0] == as_json[0] == every[0] == 1
    assert degraded[1].startswith("degraded\n  broken  oldestWaiting email-queue: ")
    rules = json.loads(as_json[1])["rules"]
    assert [(rule["rule"], rule["queue"]) for rule in rules if not rule["ok"]] == seen
    assert "  ok      waiting email-queue: 1, limit 1000" in every[1]
