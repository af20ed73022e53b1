"""Submitting one job from Python: the rules of the API, by the same code."""

from __future__ import annotations

import datetime as dt
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest

from integration.client.conftest import counted, entry, publish
from support.proxy import StoreProxy
from support.servers import StoreServer
from taskmaster.client import Backoff, Client
from taskmaster.engine.submit import key_digest
from taskmaster.errors import (
    InvalidPayload,
    InvalidRequest,
    KeyMissing,
    KeyReused,
    StoreUnavailable,
    UnknownJobType,
)
from taskmaster.model.ids import digest_slot, slot_of
from taskmaster.settings import Settings

pytestmark = pytest.mark.server("valkey", "redis")
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@dataclass
class Mail:
    to: str
    n: int = 1


class Letter(msgspec.Struct):
    to: str
    n: int = 1


def test_a_callback_is_kept_and_goes_with_a_replay(client: Client) -> None:
    """Whoever was to be told of the job is told of its replay."""
    job = client.submit("mail", {"to": "a"}, key="k", callback_url="https://example.com/hook")
    client.cancel(job.id)
    replay = client.replay(job.id)
    shown = [client.get(one.id).envelope for one in (job, replay)]

    assert [envelope.callback_url for envelope in shown if envelope] == ["https://example.com/hook"] * 2
    with pytest.raises(InvalidRequest, match="callbackUrl: http"):
        client.submit("mail", {"to": "a"}, key="l", callback_url="ftp://example.com/")


def test_a_job_is_stored_as_over_http(client: Client) -> None:
    """Type's queue and policy, the caller's key and trace context, a slot of the key."""
    at = dt.datetime(2035, 1, 1, tzinfo=dt.UTC)

    job = client.submit(
        "mail", Mail("a"), key="k", traceparent=TRACE, priority="high", run_at=at, attempts=2, backoff=Backoff(kind="fixed")
    )
    seen = client.get(job.id)

    assert (job.type, job.state, job.duplicate) == ("mail", "delayed", False)
    assert job.created_ms == seen.created_ms
    assert slot_of(job.id) == digest_slot(key_digest("", "mail", "k"))
    assert (seen.queue, seen.priority, seen.attempts, seen.due_ms) == ("mails", "high", 2, int(at.timestamp() * 1_000))
    assert seen.envelope is not None
    assert (bytes(seen.envelope.payload), seen.envelope.key, seen.envelope.origin) == (b'{"to":"a","n":1}', "k", "client")
    assert (seen.envelope.traceparent, seen.envelope.backoff) == (TRACE, Backoff(kind="fixed"))


def test_dict_dataclass_and_struct_are_one_request(client: Client) -> None:
    """Equal data under one key is a repeat, whatever it was in Python."""
    told = [client.submit("mail", payload, key="k") for payload in (Mail("a"), Letter("a"), {"n": 1, "to": "a"})]

    assert {one.id for one in told} == {told[0].id}
    assert [one.duplicate for one in told] == [False, True, True]


def test_a_repeat_tells_what_became_of_the_first(client: Client) -> None:
    first = client.submit("mail", {"to": "a"}, key="k")
    client.cancel(first.id)

    again = client.submit("mail", {"to": "a"}, key="k")

    assert (again.id, again.state, again.duplicate) == (first.id, "cancelled", True)


@pytest.mark.parametrize("change", [{"payload": {"to": "b"}}, {"attempts": 3}, {"priority": "high"}, {"queue": "other"}])
def test_a_key_of_another_request_is_refused(client: Client, change: dict[str, Any]) -> None:
    first = client.submit("mail", {"to": "a"}, key="k")

    with pytest.raises(KeyReused) as caught:
        client.submit("mail", **{"payload": {"to": "a"}, "key": "k"} | change)

    assert caught.value.facts["jobId"] == first.id


def test_the_scope_of_a_key_is_its_type(client: Client) -> None:
    assert client.submit("mail", {"to": "a"}, key="k").id != client.submit("free", {"to": "a"}, key="k").id


@pytest.mark.parametrize(
    ("job_type", "setting", "is_needed"),
    [("mail", "required", True), ("mail", "optional", False), ("keyed", "optional", True), ("free", "required", False)],
)
def test_type_and_setting_say_whether_a_key_is_needed(url: str, job_type: str, setting: Any, is_needed: bool) -> None:
    """Without one, each submission is another job."""
    with Client(Settings(redis_url=url, idempotency=setting)) as client:
        if is_needed:
            with pytest.raises(KeyMissing):
                client.submit(job_type, {"to": "a"})
        else:
            assert client.submit(job_type, {"to": "a"}).id != client.submit(job_type, {"to": "a"}).id


@pytest.mark.parametrize(
    ("payload", "options", "error"),
    [
        ({"n": 1}, {}, InvalidPayload),
        ({"to": "x" * 300_000}, {}, InvalidPayload),
        ({"to": object()}, {}, InvalidPayload),
        ({"to": "a"}, {"attempts": 101}, InvalidRequest),
        ({"to": "a"}, {"delay_ms": 1, "run_at": dt.datetime(2035, 1, 1, tzinfo=dt.UTC)}, InvalidRequest),
        ({"to": "a"}, {"colour": "red"}, InvalidRequest),
    ],
)
def test_what_may_not_be_is_refused_and_not_stored(client: Client, url: str, payload: Any, options: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        client.submit("mail", payload, key="k", **options)

    assert counted(url) == 0


def test_unknown_types_are_named_and_new_ones_noticed(client: Client, url: str) -> None:
    """A type is known as soon as a worker has published it; a schema that changed within 2 s."""
    client.submit("mail", {"to": "a"}, key="k")
    with pytest.raises(UnknownJobType, match="did you mean mail"):
        client.submit("mial", {"to": "a"}, key="k")

    publish(url, entry("mial"))
    deadline = time.monotonic() + 10
    while True:
        try:
            job = client.submit("mial", {"to": "a"}, key="k")
            break
        except UnknownJobType:
            assert time.monotonic() < deadline

    assert job.type == "mial"


def test_many_threads_with_one_key_make_one_job(client: Client, url: str) -> None:
    """Also when the client connects in all of them at once."""
    told: list[Any] = []
    gate = threading.Barrier(16)

    def submit() -> None:
        gate.wait()
        told.extend(client.submit("mail", {"to": "a"}, key=f"k{n % 5}") for n in range(20))

    threads = [threading.Thread(target=submit) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(told) == 320
    assert len({one.id for one in told}) == counted(url) == 5
    assert sum(not one.duplicate for one in told) == 5


def test_partitions_are_the_settings(url: str) -> None:
    """A job lands where its key belongs, and is found, cancelled and known there."""
    with Client(Settings(redis_url=url, partitions=7)) as client:
        jobs = [client.submit("mail", {"to": "a"}, key=f"k{n}") for n in range(20)]

        assert len({slot_of(one.id) % 7 for one in jobs}) > 2
        assert {client.status(one.id).state for one in jobs} == {"waiting"}
        assert {client.cancel(one.id) for one in jobs} == {"cancelled"}
        assert all(client.submit("mail", {"to": "a"}, key=f"k{n}").duplicate for n in range(20))


def test_a_clock_that_ran_away_is_set_by_the_stores(client: Client) -> None:
    """An id from the past is refused by the store: the submission goes again under a fresh one, and the next are right at once."""
    client.submit("mail", {"to": "a"}, key="k0")
    store = client._here().store
    store._skew_ms = -600_000

    late = client.submit("mail", {"to": "a"}, key="k1")

    assert abs(late.created_ms - time.time() * 1_000) < 60_000
    assert store._skew_ms is not None
    assert abs(store._skew_ms) < 60_000
    assert client.submit("mail", {"to": "a"}, key="k1") == late._replace(duplicate=True)


@pytest.fixture
def road(clean_server: StoreServer) -> Iterator[StoreProxy]:
    publish(clean_server.url)
    with StoreProxy(clean_server) as proxy:
        yield proxy


def test_a_lost_answer_costs_nothing(road: StoreProxy, clean_server: StoreServer) -> None:
    """The same call is sent again, and finds its own job."""
    with Client(road.url) as client:
        client.submit("mail", {"to": "a"}, key="k0")
        road.drop_reply("submit")

        job = client.submit("free", {"to": "a"})

    assert road.lost["submit"] == 1
    assert (job.state, job.duplicate) == ("waiting", False)
    assert counted(clean_server.url) == 2


@pytest.mark.server("valkey")
def test_a_store_that_is_away_is_told_in_time_and_the_repeat_is_safe(tmp_path: Path) -> None:
    """Down from the begin, frozen, killed: always StoreUnavailable within the time-out; afterwards the same client goes on."""
    with StoreServer("valkey", aof=True) as server:
        settings = Settings(redis_url=server.url, store_timeout_ms=1_000)
        server.stop()
        with Client(settings) as client:
            with pytest.raises(StoreUnavailable):
                client.submit("mail", {"to": "a"}, key="k")
            server.start()
            publish(server.url)
            client.submit("mail", {"to": "a"}, key="k")

            for away, back in ((server.pause, server.resume), (server.kill, server.start)):
                away()
                began = time.monotonic()
                with pytest.raises(StoreUnavailable):
                    client.submit("mail", {"to": "a"}, key="k2")
                assert time.monotonic() - began < 4.0
                back()
                client.submit("mail", {"to": "a"}, key="k2")
            assert counted(server.url) == 2


def test_an_embedded_store_is_found_by_its_folder(tmp_path: Path) -> None:
    """As the commands find it; none there is an error with the way out."""
    with Client(Settings(data_dir=tmp_path)) as client, pytest.raises(StoreUnavailable, match="taskmaster up"):
        client.submit("mail", {"to": "a"}, key="k")
