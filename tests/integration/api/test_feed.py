"""GET /events, from a process of its own, with a worker played by hand; and the same for clients and the command line."""

from __future__ import annotations

import asyncio
import http.client
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self
from urllib.parse import urlencode, urlsplit

import pytest
from click.testing import CliRunner

from integration.api.conftest import WELCOME, HandWorker, Serve
from integration.api.test_process import Started, start
from support import web
from support.eventually import eventually, eventually_async
from support.proxy import StoreProxy
from support.servers import StoreServer
from support.worker import Hands
from taskmaster.api.app import create_app
from taskmaster.cli import main
from taskmaster.client import AsyncClient, Client
from taskmaster.errors import InvalidRequest
from taskmaster.settings import Settings
from taskmaster.store import calls

pytestmark = [pytest.mark.anyio, pytest.mark.server("valkey")]


@pytest.fixture
def process(clean_server: StoreServer, worker: HandWorker) -> Iterator[Started]:
    started = start(clean_server.url)  # two streams at most
    assert started.stdout is not None
    yield started, started.stdout.readline().split()[-1]
    started.kill()
    started.communicate()


class Feed:
    """A caller who reads line by line, as a browser does.

    Attributes:
        place: the last id that came, with an event or without.
    """

    def __init__(self, url: str, after: str = "", **filters: Any) -> None:
        self._url = urlsplit(url).netloc
        self._request = f"/events?{urlencode(filters, doseq=True)}", {"Last-Event-ID": after} if after else {}
        self.place = ""
        eventually(self._is_served, 20, "the places of callers who left are free")

    def _is_served(self) -> bool:
        path, headers = self._request
        self._connection = http.client.HTTPConnection(self._url, timeout=20)
        self._connection.request("GET", path, headers=headers)
        self.answer = self._connection.getresponse()
        if self.answer.status != 200:
            self._close()
        return self.answer.status == 200

    def begun(self) -> Self:
        """Once it tells of what happens from now on."""
        while not self.place:
            self._line()
        return self

    def _line(self) -> tuple[str, str] | None:
        line = self.answer.readline().decode()
        name, _, text = line.rstrip("\n").partition(": ")
        if name == "id":
            self.place = text
        return (name, text) if line else None

    def next(self) -> dict[str, Any] | None:
        """The next event's data; None: the stream is over."""
        event: dict[str, Any] = {}
        while (line := self._line()) is not None:
            name, text = line
            if name == "event":
                event = {"name": text}
            elif name == "data":
                event |= json.loads(text)
                assert event["event"] == event["name"]
                return event
        return None

    def some(self, count: int) -> list[tuple[str, str]]:
        """The next *count* in short: what, and of which job."""
        found = [self.next() for _ in range(count)]
        return [(event["event"], event["jobId"]) for event in found if event]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def _close(self) -> None:
        self.answer.close()
        self._connection.close()


def submit(url: str, key: str, **more: Any) -> str:
    job_id: str = web.post(f"{url}/jobs", json=WELCOME | {"idempotencyKey": key} | more).json()["jobId"]
    return job_id


def free(url: str, **more: Any) -> str:
    job_id: str = web.post(f"{url}/jobs", json={"type": "free", "payload": {}} | more).json()["jobId"]
    return job_id


def test_all_jobs_are_followed_from_now_on(process: Started, worker: HandWorker) -> None:
    """What happens to whom and when, in order; nothing of what was before, and nothing of a payload."""
    url = process[1]
    before = submit(url, "before")
    with Feed(url) as feed:
        assert feed.answer.headers["content-type"] == "text/event-stream"
        feed.begun()
        one, two = submit(url, "one"), free(url)
        told = [feed.next(), feed.next()]
        claimed = worker.claim(slots=2)
        worker.end(claimed[1], "c", '{"token": "hidden-result"}')
        rest = feed.some(3)

    assert [event and (event["event"], event["jobId"], event["type"], event["queue"]) for event in told] == [
        ("submitted", one, "welcome-email", "email-queue"),
        ("submitted", two, "free", "default"),
    ]
    assert told[0] is not None
    assert set(told[0]) == {"name", "event", "jobId", "type", "queue", "at", "partition"}
    assert rest == [("claimed", before), ("claimed", one), ("completed", one)]


def test_filters_hold_together(process: Started, worker: HandWorker) -> None:
    """Any of one filter, all of different ones; what is left out is passed by, and its place is known."""
    url = process[1]
    with Feed(url, type=["welcome-email", "keyed"], event=["submitted", "completed"]) as typed, Feed(url, queue="default") as queued:
        typed.begun()
        queued.begun()
        other, mail = free(url, fairnessKey="ann"), submit(url, "mail")
        (claimed,) = worker.claim()
        worker.end(claimed)
        assert typed.some(2) == [("submitted", mail), ("completed", mail)]
        assert queued.some(1) == [("submitted", other)]
        start_at = queued.place
    with Feed(url, start_at, job=[other, mail]) as both:
        assert both.some(3) == [("submitted", mail), ("claimed", mail), ("completed", mail)]
    with Feed(url, start_at, fairnessKey="bob") as bob:
        bob.begun()
        free(url)
        of_bob = free(url, fairnessKey="bob")
        assert bob.some(1) == [("submitted", of_bob)]


def test_a_stream_goes_on_in_the_middle_of_one_step(process: Started, worker: HandWorker) -> None:
    """A bulk is one step of the store, and has a place behind each of its events: nothing is told twice, nothing is left out."""
    url = process[1]
    with Feed(url) as feed:
        feed.begun()
        jobs = [WELCOME | {"idempotencyKey": f"k{n}"} for n in range(5)]
        ids = [item["job"]["jobId"] for item in web.post(f"{url}/jobs/bulk", json={"mode": "atomic", "jobs": jobs}).json()["items"]]
        assert feed.some(2) == [("submitted", job_id) for job_id in ids[:2]]
        place = feed.place
    with Feed(url, place) as again:
        rest = again.some(3)

    assert rest == [("submitted", job_id) for job_id in ids[2:]]


def test_what_the_store_has_trimmed_is_told_as_a_gap(process: Started, worker: HandWorker) -> None:
    """First; then what is left. Whoever comes back with the same place hears of it again."""
    url = process[1]
    with Feed(url) as feed:
        feed.begun()
        ids = [submit(url, str(n)) for n in range(6)]
        assert feed.some(1) == [("submitted", ids[0])]
        place = feed.place
    worker.store.raw().xtrim("tm:{0}:ev", maxlen=2, approximate=False)

    with Feed(url, place) as again:
        gap = again.next()
        told = again.place
        assert again.some(2) == [("submitted", job_id) for job_id in ids[4:]]
        newest = again.place
    with Feed(url, told) as once_more, Feed(url, newest) as well:
        repeated = once_more.next()
        well.begun()
        after = submit(url, "after")
        assert well.some(1) == [("submitted", after)]

    assert gap is not None
    assert (gap["event"], gap["jobId"], gap["partition"]) == ("gap", None, 0)
    assert repeated == gap


def test_a_store_that_was_emptied_is_told_as_a_gap(process: Started, worker: HandWorker) -> None:
    """Nobody knows what was in it."""
    url = process[1]
    with Feed(url) as feed:
        feed.begun()
        submit(url, "one")
        assert len(feed.some(1)) == 1
        place = feed.place
    worker.store.raw().delete("tm:{0}:ev")

    with Feed(url, place) as again:
        gap = again.next()
        next_id = submit(url, "two")
        assert again.some(1) == [("submitted", next_id)]

    assert gap is not None
    assert gap["event"] == "gap"


def test_a_place_before_anything_had_happened_is_lost_when_anything_was_trimmed(process: Started, worker: HandWorker) -> None:
    """And is not, as long as all is there."""
    url = process[1]
    worker.store.raw().delete("tm:{0}:ev")
    with Feed(url) as feed:
        place = feed.begun().place
    first, second = submit(url, "one"), submit(url, "two")
    with Feed(url, place) as again:
        assert again.some(2) == [("submitted", first), ("submitted", second)]
    worker.store.raw().xtrim("tm:{0}:ev", maxlen=1, approximate=False)
    with Feed(url, place) as late:
        gap = late.next()

    assert gap is not None
    assert gap["event"] == "gap"


@pytest.mark.parametrize(
    ("after", "query"),
    [("nonsense", ""), ("19a-0.19a-0", ""), ("19a", ""), ("19a-0~", ""), ("", "job=x"), ("", "event=exploded"), ("", "state=failed")],
)
async def test_what_makes_no_sense_is_refused(serve: Serve, after: str, query: str) -> None:
    """With the parameter's name, before a stream begins."""
    async with serve() as api:
        answer = await api.get(f"/events?{query}", headers={"Last-Event-ID": after} if after else {})

    assert (answer.status_code, answer.json()["type"]) == (400, "/problems/bad-parameter")
    assert answer.json()["parameter"] == ("Last-Event-ID" if after else query.partition("=")[0])


async def test_an_id_of_another_number_of_partitions_is_refused(serve: Serve) -> None:
    """It would go on at the wrong places."""
    async with serve(partitions=3) as api:
        answer = await api.get("/events", headers={"Last-Event-ID": "19a-0.19a-0"})

    assert answer.status_code == 400
    assert "2 places" in answer.json()["detail"]


def test_streams_of_all_jobs_count_as_streams(process: Started) -> None:
    """One too many is told when to come again; a caller that leaves makes room."""
    url = process[1]
    with Feed(url) as first, Feed(url) as second:
        first.begun()
        second.begun()
        refused = web.get(f"{url}/events")

    assert (refused.status_code, refused.json()["type"], refused.headers["retry-after"]) == (503, "/problems/too-many-streams", "5")
    with Feed(url) as third:
        assert third.answer.status == 200


@pytest.mark.parametrize("path", ["/events", "/jobs/{job}/stream"])
async def test_streams_that_begin_at_once_are_counted_each(clean_server: StoreServer, path: str) -> None:
    """All of them ask the store first: none of them sees the others then, but no more begin than may."""
    app = create_app(Settings(redis_url=clean_server.url, streams_max=2))
    hands = Hands(clean_server.url)
    job_id = hands.submit("free")
    hands.close()
    answered: list[int] = []
    gone = asyncio.Event()

    async def call() -> None:
        asked = False

        async def receive() -> Any:
            nonlocal asked
            if not asked:
                asked = True
                return {"type": "http.request", "body": b"", "more_body": False}
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                answered.append(message["status"])

        scope: Any = {"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET", "scheme": "http", "root_path": ""}
        at = path.format(job=job_id)
        await app(scope | {"path": at, "raw_path": at.encode(), "query_string": b"", "headers": [], "server": ("test", 80)}, receive, send)

    async def has_answered() -> bool:
        return len(answered) == 6

    async with app.lifespan(), asyncio.TaskGroup() as group:
        for _ in range(6):
            group.create_task(call())
        await eventually_async(has_answered, what="all are answered")
        gone.set()

    assert sorted(answered) == [200, 200, 503, 503, 503, 503]


def test_a_store_that_is_away_is_waited_for(clean_server: StoreServer, worker: HandWorker) -> None:
    """What happened meanwhile comes when it is back, once, in a stream that never ended."""
    with StoreProxy(clean_server) as road, Client(clean_server.url) as client:
        started = start(road.url)
        assert started.stdout is not None
        try:
            with Feed(started.stdout.readline().split()[-1], event="submitted") as feed:
                feed.begun()
                road.cut()
                first = client.submit("free", {}, key="one").id
                road.restore()
                second = client.submit("free", {}, key="two").id
                told = feed.some(2)
        finally:
            started.kill()
            started.communicate()

    assert told == [("submitted", first), ("submitted", second)]


def test_sigterm_ends_the_stream(process: Started) -> None:
    """It ends, and the process does, in time."""
    running, url = process
    with Feed(url) as feed:
        feed.begun()
        running.send_signal(signal.SIGTERM)
        assert feed.next() is None
    assert running.wait(10) == 0


# ---------------------------------------------------------------- several partitions, clients, the command line
@contextmanager
def spread(server: StoreServer) -> Iterator[Client]:
    """A client of a store with three partitions."""
    with Client(Settings(redis_url=server.url, partitions=3, idempotency="optional")) as client:
        yield client


def test_a_place_holds_over_all_partitions(clean_server: StoreServer, worker: HandWorker) -> None:
    """Events of three partitions in order of time; behind any of them the others go on; a gap is told of its partition alone."""
    with spread(clean_server) as client:
        place = ".".join(["0-0"] * 3)
        ids = {client.submit("free", {}).id for _ in range(30)}
        told = list(client.events(after=place, kinds=["submitted"], goes_on=False))
        again = list(client.events(after=told[10].id, kinds=["submitted"], goes_on=False))
        for partition in (1, 2):
            worker.store.raw().xtrim(f"tm:{{{partition}}}:ev", maxlen=1, approximate=False)
        late = list(client.events(after=told[0].id, goes_on=False))

    assert {event.job_id for event in told} == ids
    assert {event.partition for event in told} == {0, 1, 2}
    assert [event.at_ms for event in told] == sorted(event.at_ms for event in told)
    assert again == told[11:]
    assert {event.partition for event in late if event.kind == "gap"} == {1, 2}
    assert [event.kind for event in late[:2]] == ["gap", "gap"]
    assert [event.job_id for event in late if event.partition == 0] == [event.job_id for event in told[1:] if event.partition == 0]


def test_a_client_hears_of_what_comes(clean_server: StoreServer, worker: HandWorker) -> None:
    """Waiting for it; what makes no sense is refused before."""
    with spread(clean_server) as client:
        first = client.submit("free", {})
        coming = client.events(after="oldest", kinds=["submitted", "cancelled"])
        heard = [next(coming)]
        client.cancel(first.id)
        heard.append(next(coming))
        for wrong in ({"after": "x"}, {"kinds": ["exploded"]}, {"jobs": ["x"]}, {"types": ["x"] * 101}):
            with pytest.raises(InvalidRequest):
                client.events(**wrong)  # type: ignore[arg-type]

    assert [(event.kind, event.job_id) for event in heard] == [("submitted", first.id), ("cancelled", first.id)]


async def test_tasks_hear_of_what_comes(clean_server: StoreServer, worker: HandWorker) -> None:
    """Two on one loop, until the client is closed."""
    settings = Settings(redis_url=clean_server.url, partitions=3, idempotency="optional")
    async with AsyncClient(settings) as client:
        first = await client.submit("free", {})
        heard = [client.events(after="oldest", jobs=[first.id]), client.events(after="oldest")]
        begun = [await anext(one) for one in heard]
        rest = asyncio.create_task(anext(heard[0]))
        await client.cancel(first.id)
        told = await rest
    over = [event async for event in heard[0]]

    assert [(event.kind, event.job_id) for event in begun] == [("submitted", first.id)] * 2
    assert (told.kind, over) == ("cancelled", [])


def test_the_command_prints_what_is_kept_and_follows(clean_server: StoreServer, worker: HandWorker) -> None:
    """A line each; as JSON the events of the API; a wrong filter is wrong usage."""
    command = [sys.executable, "-m", "taskmaster", "events", "--redis-url", clean_server.url]
    with Client(Settings(redis_url=clean_server.url, idempotency="optional")) as client:
        job = client.submit("free", {})
        text = CliRunner().invoke(main, [*command[3:], "--type", "free"]).output
        (row,) = CliRunner().invoke(main, [*command[3:], "--type", "free", "--json"]).output.splitlines()
        last = json.loads(row)
        with subprocess.Popen([*command, "--follow", "--after", last["id"], "--json"], stdout=subprocess.PIPE) as following:
            assert following.stdout is not None
            client.cancel(job.id)
            heard = json.loads(following.stdout.readline())
            following.kill()
    wrong = CliRunner().invoke(main, [*command[3:], "--event", "exploded"])

    assert text.split()[1:] == ["submitted", job.id, "free", "default"]
    assert (last["event"], last["data"]["jobId"]) == ("submitted", job.id)
    assert (heard["event"], heard["data"]["jobId"]) == ("cancelled", job.id)
    assert (wrong.exit_code, "exploded" in wrong.output) == (2, True)


def test_a_change_that_delays_is_no_submission(clean_server: StoreServer, worker: HandWorker) -> None:
    """It is told as what it is."""
    with Client(Settings(redis_url=clean_server.url, idempotency="optional")) as client:
        job = client.submit("free", {})
        client.change(job.id, delay_ms=60_000)
        client.run_now(job.id)
        told = [event.kind for event in client.events(after="oldest", goes_on=False, jobs=[job.id])]

    assert told == ["submitted", "delayed", "promoted"]


def test_the_events_of_a_job_that_is_gone_have_no_type(clean_server: StoreServer, worker: HandWorker) -> None:
    """They are told, but fit no filter by what is not known any more; of a dead letter it still is."""
    with Client(Settings(redis_url=clean_server.url, idempotency="optional")) as client:
        gone, dead = client.submit("free", {}).id, client.submit("welcome-email", WELCOME["payload"], key="k").id
        client.cancel(gone)
        assert worker.kill_job() == dead
        worker.store.run(calls.purge(0, [gone, dead]))
        told = {(event.job_id, event.kind, event.type) for event in client.events(after="oldest", goes_on=False)}
        typed = list(client.events(after="oldest", goes_on=False, types=["free"]))

    assert {(gone, "submitted", ""), (gone, "purged", ""), (dead, "failed", "welcome-email")} <= told
    assert typed == []
