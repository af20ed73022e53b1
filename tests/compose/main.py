"""Build the image and run compose.yaml with podman, for real: `ops/dev compose-test`.

Needs Linux, root, and podman (`apt-get install podman runc catatonit iptables netavark aardvark-dns debootstrap`). Where no registry of
images can be reached, the base image is made from the system's own packages, and the store is the binary that our image has. Jaeger and
Prometheus are not started: their images cannot be had in that way.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from support.eventually import eventually

__all__ = ["main"]

ROOT = Path(__file__).resolve().parents[2]
BASE = "python:3.11-slim-bookworm"
PROJECT = "taskmaster-test"
SERVICES = ("valkey", "api", "worker", "scheduler")
PACKAGES = "ca-certificates,python3,python3-venv,python3-pip"
PORT = 18_973
API = f"http://127.0.0.1:{PORT}"
#: Long enough for a worker to be killed in the middle of one.
JOBS, JOB_MS = 60, 1_000


def main() -> int:
    """Everything in turn; 0 when all of it was as it must be, 69 when podman is missing."""
    parser = argparse.ArgumentParser(description="Build the image, start the stack, lose a worker, and see every job end once.")
    parser.add_argument("--keep", action="store_true", help="leave the stack running")
    keep = parser.parse_args().keep
    if shutil.which("podman") is None:
        say("podman is missing: apt-get install podman runc catatonit iptables netavark aardvark-dns debootstrap")
        return 69
    os.environ |= {"CONTAINERS_CONF": str(ROOT / "ops/containers/podman.conf"), "TASKMASTER_API_PORT": str(PORT)}
    step("base image", have_base)
    step("image", build)
    with stack(keep=keep):
        step("the API is ready", lambda: eventually(lambda: get("/readyz"), 120))
        step("a job through the published port", one_job)
        step("three workers", scale)
        step("one of them is killed in mid-job", lose_a_worker)
        step("health checks", health)
    say("all of it as it must be")
    return 0


def step(name: str, do: Callable[[], Any]) -> None:
    began = time.monotonic()
    said = do()
    say(f"{name}: {'' if said in (None, True) else str(said) + ', '}{time.monotonic() - began:.1f} s")


def have_base() -> str:
    """The image that ours is made from: the one there is, the one that a registry has, or one made of Debian's packages."""
    if run("podman", "image", "exists", BASE, check=False).returncode == 0:
        return "there"
    if run("podman", "pull", "--quiet", BASE, check=False).returncode == 0:
        return "pulled"
    sources = "".join(path.read_text() for path in Path("/etc/apt/sources.list.d").glob("*.sources"))
    mirror = next(line.split()[1] for line in sources.splitlines() if line.startswith("URIs:"))
    rootfs = Path(os.environ.get("TMPDIR", "/tmp")) / f"taskmaster-rootfs-{os.getpid()}"
    try:
        run("debootstrap", "--variant=minbase", f"--include={PACKAGES}", "bookworm", str(rootfs), mirror)
        tar = subprocess.Popen(["tar", "-C", str(rootfs), "-c", "."], stdout=subprocess.PIPE)
        subprocess.run(["podman", "import", "-", f"localhost/{BASE}"], stdin=tar.stdout, check=True, capture_output=True)
        tar.wait()
    finally:
        shutil.rmtree(rootfs, ignore_errors=True)
    return "made with debootstrap"


def build() -> None:
    """Ours. The way to the packages, and the certificate for it, are this machine's, mounted for the build alone."""
    mounts = []
    cert = os.environ.get("PIP_CERT") or os.environ.get("SSL_CERT_FILE")
    if cert:
        mounts += ["-v", f"{cert}:{cert}:ro"]
    for conf in (Path("/etc/pip.conf"), Path.home() / ".config/pip/pip.conf"):
        if conf.exists():
            mounts += ["-v", f"{conf}:{conf}:ro"]
    run("podman", "build", *mounts, "-f", "ops/containers/Containerfile", "-t", "taskmaster:local", ".")


@contextlib.contextmanager
def stack(*, keep: bool) -> Iterator[None]:
    """Up, and down again with its volumes."""
    down()
    try:
        step("stack up", lambda: compose("up", "-d", "--no-build", *SERVICES))
        yield
    except BaseException:
        print(compose("logs", "--tail", "30", check=False).stdout, file=sys.stderr)
        raise
    finally:
        if not keep:
            step("stack down", down)


def down() -> None:
    """Everything of ours goes, also what `podman-compose down` does not know: the second and third of a scaled service."""
    mine = ("--filter", f"label=io.podman.compose.project={PROJECT}")
    for name in run("podman", "ps", "--all", "--quiet", *mine).stdout.split():
        run("podman", "rm", "--force", "--depend", "--time", "10", name, check=False)
    compose("down", "-v", check=False)


def compose(*words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    tool = str(Path(sys.executable).parent / "podman-compose")
    done = run(tool, "-p", PROJECT, "-f", "compose.yaml", "-f", "ops/containers/compose.test.yaml", *words, check=check)
    return done if words[0] == "logs" else None  # type: ignore[return-value]


def one_job() -> str:
    eventually(lambda: "dummy" in {one["type"] for one in get("/job-types")["items"]}, 60)
    job_id = submit("first", 10)["jobId"]
    job = get(f"/jobs/{job_id}?wait=60", timeout_s=70)
    assert job["state"] == "completed", job
    return str(job["state"])


def scale() -> str:
    """Three containers of workers, each with as many processes as the one had."""
    eventually(lambda: get("/health")["workers"] > 0, 60)
    processes = get("/health")["workers"]
    compose("up", "-d", "--no-build", "--scale", "worker=3", *SERVICES)
    eventually(lambda: get("/health")["workers"] == 3 * processes, 120)
    return f"{3 * processes} processes"


def lose_a_worker() -> str:
    """SIGKILL for a container whose processes run jobs: each job ends, well, and once."""
    ids = [submit(f"k{n}", JOB_MS)["jobId"] for n in range(JOBS)]
    eventually(lambda: counts()["active"] > 0, 60)
    victim = next(name for name in containers("worker"))
    run("podman", "kill", "--signal", "KILL", victim)
    eventually(lambda: all(get(f"/jobs/{one}/status")["state"] == "completed" for one in ids), 240)
    assert counts()["completed"] == JOBS + 1, counts()
    repeated = sum(get(f"/jobs/{one}")["losses"] > 0 for one in ids)
    return f"{JOBS} completed, {repeated} of them had lost a worker"


def health() -> str:
    """As a supervisor of containers would ask; podman asks by itself only under systemd."""
    names = [name for service in ("valkey", "api", "worker", "scheduler") for name in containers(service)]
    for name in names:
        eventually(lambda name=name: run("podman", "healthcheck", "run", name, check=False).returncode == 0, 60)  # type: ignore[misc]
    return f"{len(names)} containers are well"


def containers(service: str) -> list[str]:
    told = run("podman", "ps", "--format", "{{.Names}}", "--filter", f"name={PROJECT}[_-]{service}[_-]").stdout
    return sorted(told.split())


def counts() -> dict[str, int]:
    return dict(get("/queues/default")["counts"])


def submit(key: str, sleep_ms: int) -> Any:
    body = {"type": "dummy", "idempotencyKey": key, "payload": {"sleepMs": sleep_ms}}
    request = urllib.request.Request(f"{API}/jobs", json.dumps(body).encode(), {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


def get(path: str, timeout_s: float = 30) -> Any:
    with urllib.request.urlopen(API + path, timeout=timeout_s) as answer:
        return json.load(answer)


def run(*command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if check and done.returncode:
        raise SystemExit(f"{' '.join(command)[:200]} ended with {done.returncode}:\n{done.stdout[-2_000:]}{done.stderr[-4_000:]}")
    return done


def say(text: str) -> None:
    print(f"compose-test: {text}", file=sys.stderr, flush=True)
