"""`taskmaster up` with real processes: it starts everything, keeps it running, and leaves nothing behind."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from support import web
from support.eventually import eventually
from support.servers import StoreServer, binary_of

TASKMASTER = [sys.executable, "-P", "-m", "taskmaster"]


class Up:
    """A running `taskmaster up` in a folder of its own."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder = folder
        self.err = folder / "err"
        out = folder / "out"
        with out.open("wb") as stdout, self.err.open("wb") as stderr:
            self.process = subprocess.Popen(
                [*TASKMASTER, "up", "--port", "0", "--worker-processes", "1", *options], cwd=folder, stdout=stdout, stderr=stderr
            )
        told = eventually(lambda: self._told(out), within_s=30, what=lambda: f"the banner; said: {self.err.read_text()[-3000:]}")
        self.url = told

    def _told(self, out: Path) -> str:
        assert self.process.poll() is None, self.err.read_text()
        text = out.read_text()
        return next((line.split()[-1] for line in text.splitlines() if line.startswith("  API")), "") if "workers" in text else ""

    def child(self, part: str) -> int:
        """Process id of store, worker, api or scheduler; waits until there is one."""
        marks = {"store": "valkey-server", "worker": "worker supervisor", "api": "taskmaster api", "scheduler": "taskmaster: scheduler"}
        mark = marks[part]

        def find() -> int:
            return next((child.pid for child in psutil.Process(self.process.pid).children() if mark in " ".join(child.cmdline())), 0)

        return eventually(find, what=f"a {part} process")

    def family(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def submit(self, key: str, **payload: Any) -> str:
        body = {"type": "dummy", "idempotencyKey": key, "payload": {"mode": "ok"} | payload}

        def accepted() -> str:
            return str(web.post(f"{self.url}/jobs", json=body, timeout=5).raise_for_status().json()["jobId"])

        return eventually(accepted, within_s=20, what="the submission is accepted")

    def state(self, job_id: str) -> str:
        return str(web.get(f"{self.url}/jobs/{job_id}/status", timeout=5).raise_for_status().json()["state"])

    def runs(self, job_id: str) -> None:
        """Until its handler has begun; `active` is a job from its claim on, and an unstarted claim is handed back."""

        def begun() -> bool:
            return any("job.started" in line and job_id in line for line in self.err.read_text().splitlines())

        eventually(begun, within_s=20, what=lambda: f"the job runs; said: {self.err.read_text()[-3000:]}")

    def said(self) -> str:
        return "\n".join(line for line in self.err.read_text().splitlines() if line.startswith("taskmaster:"))


@pytest.fixture
def folder() -> Iterator[Path]:
    """Short enough for a socket path."""
    path = Path(tempfile.mkdtemp(prefix="tm-up-"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def up(folder: Path) -> Iterator[Up]:
    if binary_of("valkey") is None:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)("there is no valkey-server here")
    running = Up(folder)
    family = running.family()
    yield running
    running.process.kill()
    running.process.wait()
    _, alive = psutil.wait_procs(family, timeout=20)
    for process in alive:
        process.kill()


def all_gone(family: list[psutil.Process], within_s: float = 15) -> None:
    eventually(lambda: not psutil.wait_procs(family, timeout=0)[1], within_s=within_s, what=f"the end of {family}")


WELCOME = {
    "type": "welcome-email",
    "idempotencyKey": "user-123-welcome-v1",
    "payload": {"email": "albert@example.com", "name": "Albert", "message": "Congratulations!"},
}


def test_the_welcome_mail_of_the_readme_is_sent(up: Up) -> None:
    """One command, one POST: 202 with the promised fields, then `completed`, and the mail in the outbox."""
    answer = web.post(f"{up.url}/jobs", json=WELCOME, timeout=5)

    assert answer.status_code == 202
    told = answer.json()
    assert answer.headers["location"] == f"/jobs/{told['jobId']}"
    named = {"status": "accepted", "type": "welcome-email", "queue": "email-queue", "priority": "normal", "runAt": None, "duplicate": False}
    assert named.items() <= told.items()
    ended = web.get(f"{up.url}/jobs/{told['jobId']}?wait=20", timeout=25).json()
    assert ended["state"] == "completed"
    status = web.get(f"{up.url}/jobs/{told['jobId']}/status", timeout=5).json()
    assert {"jobId", "type", "state", "createdAt", "processedAt", "failedReason"} <= status.keys()
    [mail] = (up.folder / ".taskmaster" / "outbox").glob("*.eml")
    text = mail.read_text()
    assert "To: Albert <albert@example.com>" in text
    assert "Congratulations!" in text


def test_a_hundred_equal_posts_over_two_processes_make_one_job(up: Up) -> None:
    """Whichever process takes it, one key is one job."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    other = subprocess.Popen([*TASKMASTER, "api", "--port", str(port)], cwd=up.folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        urls = (up.url, f"http://127.0.0.1:{port}")

        def answers() -> bool:
            try:
                return web.get(f"{urls[1]}/readyz", timeout=2).status_code == 200
            except httpx.TransportError:
                return False

        eventually(answers, within_s=20, what="the second API answers")
        with ThreadPoolExecutor(25) as clients:
            told = list(clients.map(lambda n: web.post(f"{urls[n % 2]}/jobs", json=WELCOME, timeout=20), range(100)))
    finally:
        other.terminate()
        assert other.wait(20) == 0

    assert {answer.status_code for answer in told} == {202}
    assert len({answer.json()["jobId"] for answer in told}) == 1
    assert sorted(answer.json()["duplicate"] for answer in told) == [False] + [True] * 99


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_lets_running_jobs_end_and_leaves_nothing(up: Up, sign: signal.Signals) -> None:
    """One command up, one Ctrl-C down: exit code 0, no process left, the job's end is stored."""
    job_id = up.submit("long", sleepMs=1_500)
    up.runs(job_id)
    family = up.family()

    up.process.send_signal(sign)

    assert up.process.wait(30) == 0
    all_gone(family)
    again = Up(up.folder)
    try:
        assert again.state(job_id) == "completed"
    finally:
        again.process.terminate()
        assert again.process.wait(30) == 0


def test_whatever_dies_is_started_again_and_said(up: Up) -> None:
    before = up.submit("before")
    eventually(lambda: up.state(before) == "completed", what="the job before all deaths completes")
    for part in ("store", "worker", "api", "scheduler"):
        pid = up.child(part)
        os.kill(pid, signal.SIGKILL)
        eventually(lambda pid=pid, part=part: up.child(part) != pid, within_s=15, what=f"a new {part}")  # type: ignore[misc]

    after = up.submit("after")

    eventually(lambda: up.state(after) == "completed", within_s=30, what="the job after all deaths completes")
    assert up.state(before) == "completed"
    for words in (
        "the embedded store ended",
        "worker ended (signal SIGKILL)",
        "api ended (signal SIGKILL)",
        "scheduler ended (signal SIGKILL)",
    ):
        assert words in up.said()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent died")
def test_nothing_outlives_a_killed_launcher(up: Up) -> None:
    family = up.family()

    up.process.kill()

    all_gone(family)


def test_a_second_signal_cuts_running_jobs_short(up: Up) -> None:
    job_id = up.submit("endless", sleepMs=50_000)
    up.runs(job_id)
    family = up.family()

    up.process.terminate()
    eventually(lambda: "stopping" in up.said(), what="the first signal is answered")
    up.process.terminate()

    assert up.process.wait(20) == 1
    assert "cutting running jobs short" in up.said()
    all_gone(family)


def run(folder: Path, *command: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*TASKMASTER, *command], cwd=folder, env=os.environ | environ, capture_output=True, text=True, timeout=60)


def test_a_port_that_is_taken_is_told_before_anything_starts(folder: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        done = run(folder, "up", "--port", str(taken.getsockname()[1]))

    assert done.returncode == 78
    assert "--port 0" in done.stderr
    assert not (folder / ".taskmaster").exists()


@pytest.mark.parametrize("command", ["up", "worker", "api"])
def test_an_evicting_store_is_refused(folder: Path, command: str) -> None:
    """Every process that would write to it looks."""
    kind = next(kind for kind in ("valkey", "redis") if binary_of(kind))  # type: ignore[arg-type]
    with StoreServer(kind, options=["--maxmemory-policy", "allkeys-lru"]) as server:  # type: ignore[arg-type]
        done = run(folder, command, TASKMASTER_REDIS_URL=server.url, TASKMASTER_PORT="0")

    assert done.returncode == 78
    assert "CONFIG SET maxmemory-policy noeviction" in done.stderr


@pytest.mark.parametrize("command", [["worker"], ["api"], ["submit", "dummy"], ["job", "x"], ["doctor"]])
def test_without_a_store_the_cure_is_named(folder: Path, command: list[str]) -> None:
    done = run(folder, *command)

    assert done.returncode == 69
    assert "taskmaster up" in done.stderr + done.stdout
    assert "TASKMASTER_REDIS_URL" in done.stderr + done.stdout
