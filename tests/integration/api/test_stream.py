"""GET /jobs/{id}/stream, from a process of its own, with a worker played by hand."""

from __future__ import annotations

import http.client
import json
import signal
from collections.abc import Iterator
from typing import Any, Self
from urllib.parse import urlsplit

import msgspec
import pytest

from integration.api.conftest import WELCOME, HandWorker
from integration.api.test_process import Started, start
from support import web
from support.eventually import eventually
from support.servers import StoreServer
from taskmaster.model.ids import new_job_id
from taskmaster.store import calls

pytestmark = pytest.mark.server("valkey")


@pytest.fixture
def process(clean_server: StoreServer, worker: HandWorker) -> Iterator[Started]:
    started = start(clean_server.url)  # two streams at most
    assert started.stdout is not None
    yield started, started.stdout.readline().split()[-1]
    started.kill()
    started.communicate()


class Stream:
    """A caller who reads line by line, as a browser does."""

    def __init__(self, url: str, job_id: str, after: str = "") -> None:
        self._connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=20)
        self._connection.request("GET", f"/jobs/{job_id}/stream", headers={"Last-Event-ID": after} if after else {})
        self.answer = self._connection.getresponse()

    def next(self) -> dict[str, Any] | None:
        """The next event: its name, id and data; None: the stream is over. Comments and the first word on reconnecting are passed over."""
        event: dict[str, Any] = {}
        while line := self.answer.readline():
            name, _, text = line.decode().rstrip("\n").partition(": ")
            if name == "" and event.keys() - {"retry"}:
                return event
            if name in ("event", "id", "data"):
                assert name not in event, f"{name} came twice"
                event[name] = json.loads(text) if name == "data" else text
        return None

    def rest(self) -> list[dict[str, Any]]:
        return list(iter(self.next, None))

    def close(self) -> None:
        self.answer.close()
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def submit(url: str, key: str = "k") -> str:
    job_id: str = web.post(f"{url}/jobs", json=WELCOME | {"idempotencyKey": key}).json()["jobId"]
    return job_id


def line(text: str, attempt: int = 1) -> str:
    return msgspec.json.encode([1_700_000_000_000, attempt, "info", text]).decode()


def told(event: dict[str, Any] | None) -> tuple[str, Any]:
    """An event in short."""
    assert event is not None, "the stream is over"
    return event["event"], event["data"].get("state") or event["data"].get("text") or event["data"].get("progress")


def test_a_job_is_followed_from_its_wait_to_its_end(process: Started, worker: HandWorker) -> None:
    """State, progress and lines as they come; what a line holds cannot be taken for another event; the last word is the terminal state."""
    url = process[1]
    job_id = submit(url)
    with Stream(url, job_id) as stream:
        assert stream.answer.headers["content-type"] == "text/event-stream"
        assert told(stream.next()) == ("state", "waiting")
        ((claim, token),) = worker.claim()
        assert told(stream.next()) == ("state", "active")
        worker.store.run(calls.progress(0, [calls.Word(claim.id, token, "0.4 page 4", 1, [line("one")])]))
        assert sorted(map(told, (stream.next(), stream.next()))) == [("log", "one"), ("progress", 0.4)]
        hostile = "two\n\nevent: state\ndata: {}\r\n\u2028"
        worker.store.run(calls.progress(0, [calls.Word(claim.id, token, "", 2, [line(hostile)])]))
        assert told(stream.next()) == ("log", hostile)
        worker.store.run(calls.progress(0, [calls.Word(claim.id, token, "", 3, [line(str(n)) for n in range(500)])]))
        worker.end((claim, token), "c", "{}")
        rest = [told(event) for event in stream.rest()]

    assert rest == [("log", str(n)) for n in range(500)] + [("state", "completed")]


def test_a_stream_goes_on_behind_the_last_event_that_was_heard(process: Started, worker: HandWorker) -> None:
    """What came meanwhile comes, and nothing twice; after the end there is nothing more to come back for."""
    url = process[1]
    job_id = submit(url)
    ((claim, token),) = worker.claim()
    worker.store.run(calls.progress(0, [calls.Word(claim.id, token, "", 1, [line("one"), line("two")])]))
    with Stream(url, job_id) as stream:
        assert [told(stream.next()) for _ in range(2)] == [("state", "active"), ("log", "one")]
        event = stream.next()
    assert event is not None
    worker.store.run(calls.progress(0, [calls.Word(claim.id, token, "0.9", 3, [line("three")])]))
    worker.end((claim, token), "c", "{}")

    with Stream(url, job_id, event["id"]) as again:
        rest = again.rest()
    with Stream(url, job_id, rest[-1]["id"]) as over, Stream(url, job_id, "nonsense") as anew:
        assert over.answer.status == 204
        assert len(anew.rest()) == 5

    assert [told(event) for event in rest] == [("log", "three"), ("progress", 0.9), ("state", "completed")]


def test_streams_are_bounded_and_given_back(process: Started, worker: HandWorker) -> None:
    """One too many is told when to come again; a caller that leaves without a word makes room."""
    url = process[1]
    job_id = submit(url)
    first, second = Stream(url, job_id), Stream(url, job_id)
    assert (told(first.next()), told(second.next())) == (("state", "waiting"), ("state", "waiting"))

    refused = web.get(f"{url}/jobs/{job_id}/stream")
    first.close()

    assert (refused.status_code, refused.json()["type"], refused.headers["retry-after"]) == (503, "/problems/too-many-streams", "5")

    def served() -> bool:
        with Stream(url, job_id) as third:
            return third.answer.status == 200

    eventually(served, 20, "the place of the caller who left is free")
    second.close()


def test_a_job_that_is_forgotten_ends_its_stream(process: Started, worker: HandWorker) -> None:
    """The caller is told that it is gone; one that comes again gets 404."""
    url = process[1]
    job_id = submit(url)
    (claimed,) = worker.claim()
    with Stream(url, job_id) as stream:
        assert told(stream.next()) == ("state", "active")
        worker.store.raw().delete(f"tm:{{0}}:j:{job_id}")
        rest = stream.rest()

    assert [event["event"] for event in rest] == ["gone"]
    assert web.get(f"{url}/jobs/{job_id}/stream").status_code == 404
    assert web.get(f"{url}/jobs/{new_job_id(1)}/stream").status_code == 404
    assert claimed


def test_sigterm_ends_all_streams(process: Started, worker: HandWorker) -> None:
    """They end, and the process does, in time."""
    running, url = process
    with Stream(url, submit(url)) as stream:
        assert told(stream.next()) == ("state", "waiting")
        running.send_signal(signal.SIGTERM)
        assert stream.rest() == []
    assert running.wait(10) == 0
