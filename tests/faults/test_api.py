"""F30-F33, F50: API processes are killed at any point of a submission, and answers are lost: one key is one job, always."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis

from integration.api.conftest import HandWorker
from support import web
from support.eventually import eventually
from support.processes import Processes, serve_api
from support.protocol.dump import snapshot, violations
from support.proxy import StoreProxy
from support.servers import StoreServer

pytestmark = pytest.mark.server("valkey")


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    with Processes(tmp_path / "processes") as started:
        yield started


@pytest.fixture
def types(clean_server: StoreServer) -> Iterator[None]:
    """The catalogue that submissions are checked against."""
    worker = HandWorker(clean_server.url)
    yield
    worker.store.close()


def body(key: str, n: int = 0) -> dict[str, Any]:
    return {"type": "free", "idempotencyKey": key, "payload": {"n": n}}


def submit(url: str, what: dict[str, Any]) -> httpx.Response:
    return web.post(f"{url}/jobs", json=what, timeout=20)


def jobs(server: StoreServer) -> int:
    return len(server.call("KEYS", "tm:{0}:j:*"))


@pytest.mark.parametrize(("point", "stored"), [("submit.before_store", 0), ("submit.stored", 1)])
def test_an_api_killed_before_or_after_it_stored(types, clean_server, processes, tmp_path, point, stored) -> None:
    """The client hears nothing, repeats the request elsewhere, and there is one job, whichever side of the store the kill fell on."""
    (tmp_path / "fired").mkdir()
    environ = {"TM_FAILPOINTS": f"{point}:kill9", "TM_FAILPOINTS_DIR": str(tmp_path / "fired")}
    doomed, first = serve_api(processes, "first", clean_server.url, environ)
    _, second = serve_api(processes, "second", clean_server.url)

    with pytest.raises(httpx.TransportError):
        submit(first, body("one"))
    assert doomed.popen.wait(10) == -9
    assert jobs(clean_server) == stored
    answers = [submit(second, body("one")).json() for _ in range(3)]

    assert jobs(clean_server) == 1
    assert len({answer["jobId"] for answer in answers}) == 1
    assert [answer["duplicate"] for answer in answers] == [bool(stored), True, True]


def test_a_hundred_equal_submissions_over_four_apis_that_lose_answers(types, clean_server, processes) -> None:
    """One is created, all others are told of it, however often the store's answers were lost on the way."""
    with StoreProxy(clean_server) as proxy:
        urls = [serve_api(processes, f"api-{n}", proxy.url)[1] for n in range(4)]
        submit(urls[0], body("warm"))
        proxy.drop_reply("submit", 6)
        with ThreadPoolExecutor(32) as pool:
            answers = list(pool.map(lambda n: submit(urls[n % 4], body("one")), range(100)))

        assert proxy.lost["submit"] == 6
        assert {answer.status_code for answer in answers} <= {200, 202}
        assert len({answer.json()["jobId"] for answer in answers}) == 1
        # One whose first answer was lost may hear of its own job: at most one says that it is new.
        assert sum(not answer.json()["duplicate"] for answer in answers) <= 1
        assert jobs(clean_server) == 2


def test_two_payloads_race_for_one_key(types, clean_server, processes) -> None:
    """One of them wins everywhere; whoever sent the other is refused; the job has the winner's payload."""
    urls = [serve_api(processes, f"api-{n}", clean_server.url)[1] for n in range(2)]
    for key in ("a", "b", "c"):
        start = threading.Barrier(20)

        def send(n: int, key: str = key, start: threading.Barrier = start) -> tuple[int, httpx.Response]:
            start.wait(10)
            return n % 2, submit(urls[n // 2 % 2], body(key, n % 2))

        with ThreadPoolExecutor(20) as pool:
            answers = list(pool.map(send, range(20)))

        taken = {n for n, answer in answers if answer.status_code in (200, 202)}
        refused = {(n, answer.status_code) for n, answer in answers if answer.status_code not in (200, 202)}
        assert len(taken) == 1
        winner = taken.pop()
        assert refused == {(1 - winner, 422)}
        (job_id,) = {answer.json()["jobId"] for n, answer in answers if n == winner}
        assert web.get(f"{urls[0]}/jobs/{job_id}").json()["payload"] == {"n": winner}


def test_a_bulk_whose_answer_is_lost_is_completed_by_its_repeat(types, clean_server, processes) -> None:
    """900 items with keys in chunks; the API dies after one of them was stored: the same request again leaves each item once."""
    items = [body(f"k{n}", n) for n in range(900)]
    environ = {"TM_FAILPOINTS": "submit.stored:kill9"}
    doomed, first = serve_api(processes, "first", clean_server.url, environ)
    _, second = serve_api(processes, "second", clean_server.url)
    with pytest.raises(httpx.TransportError):
        web.post(f"{first}/jobs/bulk", json={"jobs": items}, timeout=30)
    doomed.popen.wait(10)
    eventually(lambda: 0 < jobs(clean_server) <= 900)
    before = jobs(clean_server)

    answer = web.post(f"{second}/jobs/bulk", json={"jobs": items}, timeout=30).json()

    assert jobs(clean_server) == 900
    said = Counter(row["job"]["duplicate"] for row in answer["items"])
    assert said == Counter({True: before, False: 900 - before})


HOSTILE = ["a{b}", "a:b", "a*", "a?[x]", "a\nb", "{0}:meta", "../a", "A", "", "a" * 65, "a" * 1_000_000, "a\x00b", "é", "tm:{0}:ws"]


def test_no_name_leaves_its_place_among_the_keys(types, clean_server, processes) -> None:
    """Types, queues and ids that are no names are refused; keys and tenants may be anything, and never show in a key of the store."""
    _, url = serve_api(processes, "api", clean_server.url)
    with httpx.Client(base_url=url, timeout=20) as client:
        taken = client.post("/jobs", json=body("fine")).json()["jobId"]
        for name in HOSTILE:
            assert 400 <= client.post("/jobs", json=body("k") | {"type": name}).status_code < 500
            assert 400 <= client.post("/jobs", json=body("k") | {"queue": name}).status_code < 500
            if len(name) < 1_000:
                path = "".join(f"%{byte:02X}" for byte in name.encode()) or "%20"
                assert client.get(f"/jobs/{path}").status_code in (400, 404)
                assert client.post(f"/jobs/{path}/cancel").status_code in (400, 404)
                key = client.post("/jobs", json=body(name))
                assert key.status_code in (202, 422)
        assert client.get(f"/jobs/{taken}").status_code == 200
    with redis.Redis.from_url(clean_server.url, decode_responses=True, protocol=2) as raw:
        snap, wrong = snapshot(raw)
    assert not wrong + violations(snap)
