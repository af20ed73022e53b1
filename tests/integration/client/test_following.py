"""Looking, waiting, cancelling and replaying from Python, with jobs that really run."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator

import pytest

from integration.client.conftest import working
from support.proxy import StoreProxy
from support.servers import StoreServer
from support.worker import Worker
from taskmaster.client import AsyncClient, Client, JobEvent
from taskmaster.errors import Conflict, InvalidRequest, NotCompleted, NotEnded, NotFound, StoreUnavailable
from taskmaster.settings import Settings
from taskmaster_sdk import Fatal, JobContext, job

NOBODY = "01a20559-5c04-703d-92fa-d5c287a09582"
FAR_MS = 600_000


@job("double")
def double(payload: dict[str, int], ctx: JobContext) -> int:
    """Twice the number."""
    return payload["n"] * 2


@job("nothing")
def nothing(payload: dict[str, int], ctx: JobContext) -> None:
    """No answer."""


@job("nap")
def nap(payload: dict[str, float], ctx: JobContext) -> str:
    """Sleep."""
    time.sleep(payload["s"])
    return "slept"


release = threading.Event()


@job("hold")
def hold(payload: dict[str, float], ctx: JobContext) -> str:
    """Until it is released."""
    release.wait(20)
    return "held"


@job("refuse", attempts=1)
def refuse(payload: dict[str, int], ctx: JobContext) -> None:
    """Never."""
    raise Fatal("no such mailbox")


@job("chat")
def chat(payload: dict[str, int], ctx: JobContext) -> None:
    """Log a number of lines."""
    for n in range(1, payload["n"] + 1):
        ctx.log(f"{n} of {payload['n']}")


@pytest.fixture
def worker(clean_server: StoreServer) -> Iterator[Worker]:
    release.clear()
    with working(clean_server.url, double, nothing, nap, hold, refuse, chat) as running:
        yield running
        release.set()


@pytest.fixture
def client(worker: Worker) -> Iterator[Client]:
    with Client(worker.url) as made:
        yield made


def test_logs_are_read_by_both_clients(client: Client, worker: Worker) -> None:
    """All lines, or those behind a number."""
    done = client.submit("chat", {"n": 250}, key="a")
    client.wait(done.id, 10)

    async def read() -> list[int]:
        async with AsyncClient(worker.url) as one:
            return [kept.number for kept in await one.logs(done.id, after=248)]

    assert [kept.line.text for kept in client.logs(done.id)] == [f"{n} of 250" for n in range(1, 251)]
    assert asyncio.run(read()) == [249, 250]
    with pytest.raises(NotFound):
        client.logs(NOBODY)


def test_a_job_is_followed_by_both_clients(client: Client, worker: Worker) -> None:
    """All its lines, then its end; behind an event, what came later."""
    done = client.submit("chat", {"n": 300}, key="a")
    seen = list(client.stream(done.id))
    middle = next(event for event in seen if event.line and event.line.number == 298)

    async def follow(after: str = "") -> list[JobEvent]:
        async with AsyncClient(worker.url) as one:
            return [event async for event in one.stream(done.id, after=after)]

    assert [event.line.number for event in seen if event.line] == list(range(1, 301))
    assert (seen[-1].kind, seen[-1].record.state) == ("state", "completed")
    assert [event.kind for event in client.stream(done.id, after=middle.id)] == ["log", "log", "state"]
    assert [event.kind for event in asyncio.run(follow(middle.id))] == ["log", "log", "state"]
    assert len(asyncio.run(follow())) == 301
    with pytest.raises(NotFound):
        list(client.stream(NOBODY))


def test_many_follow_a_running_job(client: Client, worker: Worker) -> None:
    """Tasks on one loop, each hears of the end; one that leaves early costs the others nothing."""
    slow = client.submit("hold", {}, key="a")
    hear = 0

    async def follow(one: AsyncClient, count: int) -> str:
        nonlocal hear
        state = ""
        async for event in one.stream(slow.id):
            if not state:
                hear += 1
            if hear == 21:
                release.set()
            state = event.record.state
            count -= 1
            if not count:
                break
        return state

    async def all_of_them() -> list[str]:
        async with AsyncClient(worker.url) as one:
            return await asyncio.gather(follow(one, 1), *(follow(one, 100) for _ in range(20)))

    assert asyncio.run(all_of_them())[1:] == ["completed"] * 20


def test_results_come_back_decoded(client: Client) -> None:
    """Of a job that runs, of one that has ended, and of one without an answer."""
    slow = client.submit("nap", {"s": 0.5}, key="a")
    quick = client.submit("double", {"n": 21}, key="b")
    silent = client.submit("nothing", {}, key="c")

    assert client.result(slow.id, 10) == "slept"
    assert client.result(quick.id, 10) == 42
    assert client.result(silent.id, 10) is None
    assert client.wait(quick.id, 0).state == "completed"


def test_a_failure_is_told_with_its_reason(client: Client) -> None:
    failed = client.submit("refuse", {}, key="a")

    with pytest.raises(NotCompleted, match="no such mailbox") as caught:
        client.result(failed.id, 10)

    assert (caught.value.facts["state"], caught.value.facts["reason"]) == ("failed", "fatal")
    assert client.wait(failed.id, 0).state == "failed"


def test_a_wait_that_is_too_short_says_so(client: Client) -> None:
    """NotEnded is a TimeoutError, comes when the time is over, and the job goes on."""
    slow = client.submit("hold", {}, key="a")
    began = time.monotonic()

    with pytest.raises(TimeoutError) as caught:
        client.wait(slow.id, 0.3)

    assert isinstance(caught.value, NotEnded)
    assert caught.value.facts["state"] in ("waiting", "active")
    assert 0.3 <= time.monotonic() - began < 2.0
    release.set()
    assert client.result(slow.id, 10) == "held"


def test_waiting_listens_and_does_not_poll(worker: Worker, clean_server: StoreServer) -> None:
    """A wait of seconds costs a few questions, however short its reaction is."""
    with StoreProxy(clean_server) as road, Client(road.url) as client:
        slow = client.submit("nap", {"s": 1.5}, key="a")

        assert client.result(slow.id, 10) == "slept"

        ended_ms = client.status(slow.id).finished_ms
        assert time.time() * 1_000 - ended_ms < 1_000
        assert road.seen["show"] <= 5


def test_no_such_job(client: Client) -> None:
    for act in (client.get, client.status, client.cancel, client.replay, lambda one: client.wait(one, 1)):
        for job_id in (NOBODY, "nonsense", "{0}:*"):
            with pytest.raises(NotFound):
                act(job_id)


def test_cancelling_a_job_that_waits_runs_or_has_ended(client: Client) -> None:
    waiting = client.submit("double", {"n": 1}, key="a", delay_ms=FAR_MS)
    done = client.submit("double", {"n": 1}, key="b")
    client.wait(done.id, 10)

    assert client.cancel(waiting.id) == client.cancel(waiting.id) == "cancelled"
    with pytest.raises(NotCompleted, match="cancelled"):
        client.result(waiting.id, 1)
    with pytest.raises(Conflict):
        client.cancel(done.id)


def test_a_replay_is_a_new_job_and_its_repeat_is_not(client: Client) -> None:
    """Equal request ids make one; the new job has the payload and knows where it comes from."""
    first = client.submit("double", {"n": 4}, key="a")
    client.wait(first.id, 10)

    again = client.replay(first.id, request_id="r", reason="to see")
    repeat = client.replay(first.id, request_id="r", reason="to see")
    other = client.replay(first.id)

    assert again.id == repeat.id
    assert (again.duplicate, repeat.duplicate) == (False, True)
    assert len({first.id, again.id, other.id}) == 3
    assert client.result(again.id, 10) == 8
    assert client.get(again.id).replayed_from == first.id


def test_a_dead_letter_is_replayed_when_its_job_is_gone(client: Client, worker: Worker) -> None:
    failed = client.submit("refuse", {}, key="a")
    client.wait(failed.id, 10)
    worker.store.raw().delete(*(f"tm:{{0}}:{letter}:{failed.id}" for letter in "jbrh"))

    again = client.replay(failed.id, request_id="r")

    assert client.wait(again.id, 10).replayed_from == failed.id


def test_what_has_not_ended_is_not_replayed(client: Client) -> None:
    waiting = client.submit("double", {"n": 1}, key="a", delay_ms=FAR_MS)

    with pytest.raises(Conflict):
        client.replay(waiting.id)
    with pytest.raises(InvalidRequest, match="255"):
        client.replay(waiting.id, request_id="r" * 256)


def test_many_wait_on_one_client(client: Client) -> None:
    """Threads, each for its own job."""
    jobs = [client.submit("nap", {"s": 0.2}, key=f"k{n}") for n in range(8)]
    seen: list[object] = []
    threads = [threading.Thread(target=lambda one=one: seen.append(client.result(one.id, 20))) for one in jobs]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert seen == ["slept"] * 8


@pytest.mark.server("valkey")
def test_a_wait_outlives_a_restart_of_the_store() -> None:
    """It is told of the end as if nothing had been; when the store does not come back, that is what it says."""
    with StoreServer("valkey", aof=True) as server, working(server.url, double):
        settings = Settings(redis_url=server.url, store_timeout_ms=1_000)
        with Client(settings) as client, Client(settings) as other:
            job_id = client.submit("double", {"n": 1}, key="a", delay_ms=FAR_MS).id
            seen: list[str] = []
            waiter = threading.Thread(target=lambda: seen.append(client.wait(job_id, 30).state))
            waiter.start()

            server.kill()
            server.start()
            other.cancel(job_id)
            waiter.join(25)
            server.kill()

            assert seen == ["cancelled"]
            with pytest.raises(StoreUnavailable):
                other.wait(job_id, 1)


@pytest.mark.anyio
async def test_the_loops_client_does_all_of_it(worker: Worker) -> None:
    """Many tasks on one client, cold: submissions share calls, waits share a reader."""
    async with AsyncClient(worker.url) as client:

        async def double_of(n: int) -> int:
            told = await client.submit("double", {"n": n}, key=f"k{n}")
            found: int = await client.result(told.id, 20)
            return found

        doubles = await asyncio.gather(*(double_of(n) for n in range(200)))
        failed = await client.submit("refuse", {}, key="a")
        with pytest.raises(NotCompleted):
            await client.result(failed.id, 10)
        again = await client.replay(failed.id, request_id="r")
        far = await client.submit("double", {"n": 1}, key="far", delay_ms=FAR_MS)
        with pytest.raises(NotEnded):
            await client.wait(far.id, 0.1)
        states = await client.cancel(far.id), (await client.status(far.id)).state, (await client.get(again.id)).replayed_from
        with pytest.raises(NotFound):
            await client.get(NOBODY)

    assert doubles == [n * 2 for n in range(200)]
    assert states == ("cancelled", "cancelled", failed.id)


def test_a_client_goes_on_in_another_loop(worker: Worker) -> None:
    """One made at import serves each `asyncio.run` of its process."""
    client = AsyncClient(worker.url)

    async def once(n: int) -> int:
        async with client:
            told = await client.submit("double", {"n": n}, key=f"k{n}")
            found: int = await client.result(told.id, 10)
            return found

    assert [asyncio.run(once(n)) for n in (1, 2)] == [2, 4]


@pytest.mark.anyio
@pytest.mark.server("valkey")
async def test_the_loops_client_tells_of_a_store_that_is_away() -> None:
    with StoreServer("valkey", aof=True) as server, working(server.url, double):
        async with AsyncClient(Settings(redis_url=server.url, store_timeout_ms=1_000)) as client:
            first = await client.submit("double", {"n": 1}, key="k")
            server.pause()
            began = time.monotonic()
            with pytest.raises(StoreUnavailable):
                await client.submit("double", {"n": 2}, key="k2")
            took_s = time.monotonic() - began
            server.resume()
            again = await client.submit("double", {"n": 2}, key="k2")

            assert took_s < 3.0
            assert await client.result(again.id, 20) == 4
            assert await client.result(first.id, 20) == 2
