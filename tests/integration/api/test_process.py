"""The process: it says where it is, ends in time, and refuses a store that would lose jobs."""

from __future__ import annotations

import contextlib
import http.client
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from integration.api.conftest import WELCOME, HandWorker
from support import web
from support.eventually import eventually
from support.servers import StoreServer

SERVICES = Path(__file__).resolve().parents[3] / "services"
PROGRAM = """
import sys
from taskmaster.settings import Settings
from taskmaster.asgi import serve
from taskmaster.telemetry import logs
logs.configure("warning")
sys.exit(serve(Settings(redis_url=sys.argv[1], port=int(sys.argv[2]), streams_max=2)))
"""
Started = tuple["subprocess.Popen[str]", str]


def start(url: str, port: int = 0) -> subprocess.Popen[str]:
    env = os.environ | {"PYTHONPATH": str(SERVICES)}
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, url, str(port)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env
    )


@pytest.fixture
def process(clean_server: StoreServer, worker: HandWorker) -> Iterator[Started]:
    started = start(clean_server.url)
    assert started.stdout is not None
    yield started, started.stdout.readline().split()[-1]
    started.kill()
    started.communicate()


@pytest.mark.server("valkey")
def test_sigterm_ends_it_although_a_client_waits(process: Started, clean_server: StoreServer) -> None:
    """The one who waits is answered, the exit code is 0, within 3 seconds."""
    running, url = process
    job = web.post(f"{url}/jobs", json=WELCOME).json()
    answers: list[httpx.Response] = []
    waiting = threading.Thread(target=lambda: answers.append(web.get(f"{url}/jobs/{job['jobId']}?wait=30", timeout=40)))
    waiting.start()
    eventually(lambda: "cmd=xread" in clean_server.call("CLIENT", "LIST"), what="the client's wait has begun")

    started = time.monotonic()
    running.send_signal(signal.SIGTERM)
    code = running.wait(10)
    took_s = time.monotonic() - started
    waiting.join(5)

    assert code == 0
    assert took_s < 3
    assert [answer.json()["state"] for answer in answers] == ["waiting"]


@pytest.mark.server("valkey")
@pytest.mark.parametrize(
    ("path", "kind", "size", "status"),
    [("/jobs", "application/json", 1_000_000, 413), ("/jobs", "text/plain", 200_000, 415), ("/nowhere", "text/plain", 200_000, 404)],
)
def test_an_answer_before_the_body_was_read_costs_the_client_no_other_request(
    process: Started, path: str, kind: str, size: int, status: int
) -> None:
    """The server closes a connection whose body it did not read: it says so, and a client does not send its next request there."""
    with contextlib.closing(http.client.HTTPConnection(process[1].removeprefix("http://"), timeout=10)) as client:
        with contextlib.suppress(BrokenPipeError):  # it may be refused while it is still being sent
            client.request("POST", path, body=b" " * size, headers={"content-type": kind})
        refused = client.getresponse()
        refused.read()
        client.request("POST", "/jobs", body=b"{}", headers={"content-type": "application/json"})
        next_one = client.getresponse()
        next_one.read()

    assert (refused.status, refused.headers["connection"]) == (status, "close")
    assert (next_one.status, next_one.headers["connection"]) == (422, None)


@pytest.mark.server("valkey")
def test_taken_port_is_an_error(process: Started, clean_server: StoreServer) -> None:
    """Two servers never share a port without saying so."""
    _, url = process
    second = start(clean_server.url, int(url.rpartition(":")[2]))
    _, said = second.communicate(timeout=20)

    assert second.returncode not in (0, None)
    assert "in use" in said


@pytest.mark.server("valkey")
def test_evicting_store_is_refused(clean_server: StoreServer) -> None:
    """Exit 78 before anything is served."""
    clean_server.call("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    try:
        command = [sys.executable, "-m", "taskmaster", "api", "--redis-url", clean_server.url, "--port", "0"]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    finally:
        clean_server.call("CONFIG", "SET", "maxmemory-policy", "noeviction")

    assert ended.returncode == 78
    assert "noeviction" in ended.stderr
    assert "http://" not in ended.stdout


@pytest.mark.server("valkey")
@pytest.mark.parametrize(
    "request_",
    ["GET /jobs/{id}?wait=60 HTTP/1.1\r\nhost: x\r\n\r\n", "POST /jobs HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n{"],
    ids=["wait", "slow body"],
)
def test_many_who_wait_keep_nobody_from_an_answer(process: Started, request_: str) -> None:
    """1,100 clients that wait for a job, or send a body by and by; others are answered as ever."""
    _, url = process
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if most != resource.RLIM_INFINITY and most < 4_096:
        pytest.skip("this system grants too few files")
    job = web.post(f"{url}/jobs", json=WELCOME | {"delayMs": 600_000}).json()
    host, port = url.removeprefix("http://").split(":")
    given = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(given[0], 4_096), given[1]))
    with contextlib.ExitStack() as held:
        held.callback(resource.setrlimit, resource.RLIMIT_NOFILE, given)
        for _ in range(1_100):
            client = held.enter_context(socket.create_connection((host, int(port)), timeout=10))
            client.sendall(request_.replace("{id}", job["jobId"]).encode())
        shown = web.get(f"{url}/jobs/{job['jobId']}", timeout=10)
        lives = web.get(f"{url}/livez", timeout=10)

    assert (shown.status_code, lives.status_code) == (200, 200)
