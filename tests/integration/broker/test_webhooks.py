"""From the end of a job to whoever wants to hear of it: a worker with the plugin, a store, and a receiver on loopback."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from taskmaster_webhooks.plugin import WebhooksPlugin

from support.eventually import eventually
from support.receiver import Receiver, Reply, is_signed
from support.servers import StoreServer
from support.worker import Seen, Worker
from taskmaster.engine.enqueue import store_jobs
from taskmaster.engine.rules import Word
from taskmaster.engine.webhooks import (
    Endpoint,
    EndpointView,
    change_endpoint,
    delete_endpoint,
    find_endpoint,
    make_endpoint,
    new_endpoint_secret,
)
from taskmaster.engine.webhooks import test_delivery as delivery_of_a_test
from taskmaster.model.webhooks import DELIVERY, new_secret
from taskmaster.store import reads
from taskmaster_sdk import Discard, Fatal, Job, PluginContext, job

pytestmark = pytest.mark.server("valkey")

SECRET = new_secret()
CANARY = "canary-7d1f"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as started:
        yield started


#: Those that a test has started, each with what it was started with.
plugins: list[tuple[WebhooksPlugin, PluginContext]] = []


@pytest.fixture(autouse=True)
def _ended() -> Iterator[None]:
    yield
    while plugins:
        plugin, context = plugins.pop()
        plugin.on_shutdown(context)


@job("quick")
def quick(payload, ctx):
    return {"answer": CANARY}


@job("fatal")
def fatal(payload, ctx):
    raise Fatal(CANARY)


@job("unwanted")
def unwanted(payload, ctx):
    raise Discard("not wanted")


def jobs(server: StoreServer, folder: Path, **environ: str) -> list[Job]:
    plugin = WebhooksPlugin()
    usual = {"TASKMASTER_REDIS_URL": server.url, "TASKMASTER_WEBHOOK_ALLOW": "127.0.0.1", "TASKMASTER_WEBHOOK_SECRETS": SECRET}
    context = PluginContext("webhooks", folder, usual | {f"TASKMASTER_{name.upper()}": value for name, value in environ.items()})
    plugin.on_init(context)
    plugins.append((plugin, context))
    return [quick, fatal, unwanted, *plugin.register_jobs()]


def deliveries(worker: Worker, partition: int = 0) -> list[tuple[str, Seen]]:
    rows = worker.store.run(reads.find(partition, "created", job_type=DELIVERY)).rows
    return [(row.id, worker.look(row.id)) for row in rows]


def test_each_end_is_told_once_and_signed(clean_server: StoreServer, tmp_path: Path, receiver: Receiver) -> None:
    """Completed, failed, cancelled: the facts of the job and where its result is; nothing of payload, result or error."""
    with Worker(clean_server.url, jobs(clean_server, tmp_path)) as worker:
        ids = {kind: worker.submit(kind, {"secret": CANARY}, callback=receiver.url) for kind in ("quick", "fatal", "unwanted")}
        silent = worker.submit("quick")
        eventually(lambda: len(receiver.ids) == 3, 10, lambda: f"all are told of: {receiver.seen}")
        told = {request.event["data"]["type"]: request for request in receiver.seen}
        worker.all_ended([job_id for job_id, _ in deliveries(worker)])
        results = [seen.result for _, seen in deliveries(worker)]
        finished = worker.look(ids["quick"]).fields["fa"]

    assert sorted(receiver.ids) == sorted(f"evt_{job_id}" for job_id in ids.values())
    assert silent not in str(receiver.seen)
    assert all(is_signed(request, SECRET) for request in receiver.seen)
    assert [told[kind].event["type"] for kind in ids] == ["job.completed", "job.failed", "job.cancelled"]
    event = told["quick"].event
    assert event["timestamp"] == event["data"]["finishedAt"] == _text(finished)
    assert event["data"] | {"createdAt": "", "finishedAt": ""} == {
        "jobId": ids["quick"],
        "type": "quick",
        "queue": "default",
        "state": "completed",
        "reason": None,
        "attempts": 1,
        "createdAt": "",
        "finishedAt": "",
        "result": f"/jobs/{ids['quick']}/result",
    }
    assert (told["fatal"].event["data"]["reason"], told["fatal"].event["data"]["result"]) == ("fatal", None)
    assert CANARY not in str([request.body for request in receiver.seen])
    assert {result["status"] for result in results} == {204}


def _text(ms: str) -> str:
    import datetime as dt

    at = dt.datetime.fromtimestamp(int(ms) / 1_000, dt.UTC)
    return f"{at:%Y-%m-%dT%H:%M:%S}.{int(ms) % 1_000:03d}Z"


def test_a_receiver_that_asks_for_patience_is_called_again_with_the_same_id(
    clean_server: StoreServer, tmp_path: Path, receiver: Receiver
) -> None:
    """429 with Retry-After, then 204: two requests, one id, a fresh signature; one failure of the delivery and none of the job."""
    receiver.answers.append(Reply(429, {"Retry-After": "1"}))
    with Worker(clean_server.url, jobs(clean_server, tmp_path)) as worker:
        job_id = worker.submit("quick", callback=receiver.url)
        eventually(lambda: len(receiver.ids) == 1, 10, "it is told in the end")
        [(delivery, _)] = deliveries(worker)
        seen = worker.ended(delivery)

    first, second = receiver.seen
    assert first.headers["webhook-id"] == second.headers["webhook-id"] == f"evt_{job_id}"
    assert first.body == second.body
    assert int(second.headers["webhook-timestamp"]) >= int(first.headers["webhook-timestamp"]) + 1
    assert is_signed(second, SECRET)
    assert (seen.state, seen.failures) == ("completed", 1)


def test_one_receiver_gone_and_one_forbidden_end_for_good(clean_server: StoreServer, tmp_path: Path, receiver: Receiver) -> None:
    """410: discarded. A private address that nothing allows: a dead letter with what to do, and nobody was called."""
    receiver.answers.append(Reply(410))
    with Worker(clean_server.url, jobs(clean_server, tmp_path)) as worker:
        gone = worker.submit("quick", callback=receiver.url)
        eventually(lambda: receiver.seen, 10, "it is called")
        forbidden = worker.submit("quick", callback=f"http://[::1]:{receiver.port}/")
        eventually(lambda: len(deliveries(worker)) == 2, 10, "both deliveries are made")
        by_job = {seen.fields["tg"].partition("about:")[2]: delivery for delivery, seen in deliveries(worker)}
        ends = {job_id: worker.ended(by_job[job_id]) for job_id in (gone, forbidden)}
        letter = worker.dead(by_job[forbidden])

    assert len(receiver.seen) == 1
    assert (ends[gone].state, ends[gone].reason) == ("cancelled", "discarded")
    assert (ends[forbidden].state, ends[forbidden].reason) == ("failed", "fatal")
    assert b"TASKMASTER_WEBHOOK_ALLOW" in letter["er"]


def make(worker: Worker, url: str, **fields: Any) -> tuple[str, str]:
    """An endpoint: its id and its secret."""
    talk = make_endpoint(Endpoint(url=url, **fields), Word("test"), partitions=worker.partitions)
    view, secret = worker.store.converse(talk)
    return view.id, secret


@pytest.mark.parametrize("partitions", [1, 3])
def test_endpoints_are_told_of_jobs_of_all_partitions(
    clean_server: StoreServer, tmp_path: Path, receiver: Receiver, partitions: int
) -> None:
    """Each by its own wishes and signed with its own secrets, with both while one replaces the other; deliveries are told to nobody."""
    with (
        Receiver() as other,
        Worker(clean_server.url, jobs(clean_server, tmp_path, partitions=str(partitions)), partitions=partitions) as worker,
    ):
        one, first = make(worker, receiver.url)
        _, second = make(worker, other.url, events=("job.failed",))
        word, now_ms = Word("test"), worker.store.now_ms()
        _, fresh = worker.store.converse(new_endpoint_secret(one, word, partitions=partitions, now_ms=now_ms))
        ids = worker.submit_many("quick", [{"secret": CANARY}] * 6) + worker.submit_many("fatal", [{}] * 2)
        eventually(lambda: (len(receiver.ids), len(other.ids)) == (8, 2), 15, lambda: f"{len(receiver.ids)}, {len(other.ids)}")
        made = [row for partition in range(partitions) for row in deliveries(worker, partition)]
        worker.all_ended([delivery for delivery, _ in made])
        again = [row for partition in range(partitions) for row in deliveries(worker, partition)]

    assert sorted(receiver.ids) == sorted(f"evt_{job_id}" for job_id in ids)
    assert sorted(other.ids) == sorted(f"evt_{job_id}" for job_id in ids[6:])
    assert all(is_signed(request, first) and is_signed(request, fresh) for request in receiver.seen)
    assert all(is_signed(request, second) and not is_signed(request, first) for request in other.seen)
    assert len(again) == len(made) == 10
    assert CANARY not in str(receiver.seen)


def test_an_endpoint_that_is_gone_is_disabled_and_told_no_more(clean_server: StoreServer, tmp_path: Path, receiver: Receiver) -> None:
    """410: no later end is told to it, in any partition, until somebody enables it; what had been made for it is discarded."""
    receiver.answers.append(Reply(410))
    with Worker(clean_server.url, jobs(clean_server, tmp_path, partitions="2"), partitions=2) as worker:
        endpoint, _ = make(worker, receiver.url)
        worker.submit("quick")
        view = eventually(lambda: (seen := worker.store.converse(find_endpoint(endpoint))).endpoint.disabled and seen, 10, "it is disabled")
        [(delivery, _)] = eventually(lambda: [row for p in range(2) for row in deliveries(worker, p)], 10, "its delivery is there")
        ended = worker.ended(delivery)
        worker.all_ended(worker.submit_many("quick", [{}] * 4))
        for partition in range(2):
            assert worker.store.raw().smembers(f"tm:{{{partition}}}:whl") == set()
        eventually(lambda: not any(worker.store.raw().xlen(f"tm:{{{p}}}:ob") for p in range(2)), 10, "nothing is left in the outbox")

    assert isinstance(view, EndpointView)
    assert view.disabled_why == "127.0.0.1 answered 410 Gone"
    assert (ended.state, ended.reason) == ("cancelled", "discarded")
    assert len(receiver.seen) == 1


def test_a_secret_signs_as_long_as_the_store_says(
    clean_server: StoreServer, tmp_path: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that was replaced signs for a day by the store's clock, whatever that of the worker says."""
    ahead = SimpleNamespace(time=lambda: time.time() + 2 * 86_400, monotonic=time.monotonic)
    monkeypatch.setattr(sys.modules[WebhooksPlugin.__module__], "time", ahead)  # the package calls its plugin `plugin`, too
    with Worker(clean_server.url, jobs(clean_server, tmp_path)) as worker:
        endpoint, first = make(worker, receiver.url)
        talk = new_endpoint_secret(endpoint, Word("test"), partitions=1, now_ms=worker.store.now_ms())
        _, fresh = worker.store.converse(talk)
        worker.submit("quick")
        [request] = eventually(lambda: receiver.seen, 10, "it is told")

    assert is_signed(request, fresh)
    assert is_signed(request, first)


def test_an_endpoint_that_moved_is_not_disabled_by_where_it_was(clean_server: StoreServer, tmp_path: Path, receiver: Receiver) -> None:
    """The old address says 410 while somebody names the new one: the delivery goes there, and so does what ends later."""
    is_moved = threading.Event()
    receiver.answers.append(Reply(410, waits=is_moved))
    with Receiver() as new, Worker(clean_server.url, jobs(clean_server, tmp_path)) as worker:
        endpoint, _ = make(worker, receiver.url)
        job_id = worker.submit("quick")
        eventually(lambda: receiver.seen, 10, "the old address is called")
        talk = change_endpoint(endpoint, Endpoint(url=new.url), Word("test"), partitions=1, now_ms=worker.store.now_ms())
        worker.store.converse(talk)
        is_moved.set()
        [(delivery, _)] = deliveries(worker)
        ended = worker.ended(delivery)
        view = worker.store.converse(find_endpoint(endpoint))

    assert (ended.failures, ended.state, new.ids) == (1, "completed", [f"evt_{job_id}"])
    assert not view.endpoint.disabled


def test_what_was_made_for_an_endpoint_goes_where_it_is_now(clean_server: StoreServer, tmp_path: Path, receiver: Receiver) -> None:
    """Moved between the event and its delivery: the new address is called. Deleted: the delivery is discarded."""
    with Worker(clean_server.url, jobs(clean_server, tmp_path)) as worker:
        moved, _ = make(worker, "http://127.0.0.1:1/")
        gone, _ = make(worker, receiver.url)
        now_ms = worker.store.now_ms()
        prepared = [worker.store.converse(delivery_of_a_test(one, partitions=1, now_ms=now_ms)) for one in (moved, gone)]
        worker.store.converse(change_endpoint(moved, Endpoint(url=receiver.url), Word("test"), partitions=1, now_ms=now_ms))
        worker.store.converse(delete_endpoint(gone, Word("test"), partitions=1))
        for _, one in prepared:
            store_jobs(worker.store, 0, [one])
        ends = [worker.ended(one.id) for _, one in prepared]

    assert [end.state for end in ends] == ["completed", "cancelled"]
    assert [request.event["type"] for request in receiver.seen] == ["webhook.test"]


def test_over_several_partitions_each_end_is_told_once(clean_server: StoreServer, tmp_path: Path, receiver: Receiver) -> None:
    """The outbox is where the job is, the delivery wherever its key belongs."""
    with Worker(clean_server.url, jobs(clean_server, tmp_path), partitions=3) as worker:
        ids = worker.submit_many("quick", [{}] * 12, callback=receiver.url)
        eventually(lambda: len(receiver.ids) >= 12, 15, lambda: f"all are told of: {len(receiver.ids)}")
        homes = {partition for partition in range(3) if deliveries(worker, partition)}
        eventually(lambda: all(worker.store.raw().xlen(f"tm:{{{p}}}:ob") == 0 for p in range(3)), 10, "nothing is left in the outbox")

    assert sorted(receiver.ids) == sorted(f"evt_{job_id}" for job_id in ids)
    assert len(homes) > 1


def test_what_a_delivery_is_made_of_fits_its_type(clean_server: StoreServer, tmp_path: Path, receiver: Receiver) -> None:
    """The queue, the attempts and the receiver's turn are as the plugin says and the API shows."""
    receiver.answers += [Reply(500)] * 20
    with Worker(clean_server.url, jobs(clean_server, tmp_path)) as worker:
        worker.submit("quick", callback=receiver.url)
        eventually(lambda: deliveries(worker), 10, "it is made")
        [(delivery, _)] = deliveries(worker)
        seen = worker.until(delivery, lambda seen: seen.state == "delayed" and seen.failures == 1)
        shown = worker.store.run(reads.show(0, delivery))

    assert shown is not None
    envelope = json.loads(shown.blob)
    assert (seen.fields["q"], seen.fields["ma"], seen.fields["ln"]) == ("webhooks", "12", "127.0.0.1")
    assert envelope[3] == "webhook"
    assert 4_000 <= int(seen.fields["ra"]) - int(shown.rows and json.loads(shown.rows[0])[3]) < 60_000
