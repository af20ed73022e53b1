"""What TaskMaster does for itself: the schedules of the system plugin run, and a script submits without HTTP."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from support.eventually import eventually
from support.processes import Processes, environ_of, serve_api
from support.servers import StoreServer
from support.service import WorkerService

SCHEDULES = ("system-doctor", "system-sweep", "system-dlq-digest", "demo-nightly-report")


@pytest.mark.timeout(120)
def test_the_system_schedules_run_and_a_script_produces(tmp_path: Path) -> None:
    """Doctor, sweep, digest of dead letters and nightly report, from their declarations to their results; one job of the script a day.

    The store has no append-only file: the doctor says so, and its job completes.
    """
    with StoreServer("valkey") as server:
        _run(server.url, tmp_path)


def _run(url: str, tmp_path: Path) -> None:
    environ = environ_of(redis_url=url, data_dir=tmp_path / "data")
    with Processes(tmp_path / "processes") as processes:
        _, base = serve_api(processes, "api", url)
        processes.start("scheduler", ["-m", "taskmaster", "scheduler"], environ)

        def get(path: str) -> Any:
            return httpx.get(f"{base}{path}", timeout=10).raise_for_status().json()

        def produce(*words: str) -> subprocess.CompletedProcess[str]:
            command = [sys.executable, "-m", "taskmaster_system.producer", *words]
            return subprocess.run(command, env=environ, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)

        with WorkerService(url, tmp_path / "worker", plugins="demo,system", worker_processes=1):
            eventually(lambda: {one["scheduleId"] for one in get("/schedules")["items"]} >= set(SCHEDULES), 20, "all are declared")
            made = produce("dummy", '{"mode": "fatal"}', "--every-s", "1000000000")
            again = produce("dummy", '{"mode": "fatal"}', "--every-s", "1000000000")
            unheard = produce("unheard-of")
            eventually(lambda: get(f"/jobs/{made.stdout.strip()}")["state"] == "failed", 20, "the job of the script is dead")
            for name in SCHEDULES:
                change = {"cron": None, "everyMs": 1_000, "jitterMs": None, "overlap": "skip"}
                httpx.patch(f"{base}/schedules/{name}", json=change, timeout=10).raise_for_status()

            def done(name: str) -> list[str]:
                return [fire["jobId"] for fire in get(f"/schedules/{name}/fires")["items"] if fire["jobState"] == "completed"]

            results = {}
            for name in SCHEDULES:
                job_id = eventually(lambda: done(name), 60, lambda: f"{name}: {get(f'/schedules/{name}/fires')}")[0]  # noqa: B023
                results[name] = get(f"/jobs/{job_id}")["result"]
            swept = get("/doctor")["partitions"][0]

    assert (made.returncode, again.returncode) == (0, 0), made.stderr
    assert made.stdout == again.stdout
    assert unheard.returncode == 1
    assert "unheard-of" in unheard.stderr
    assert results["system-doctor"]["checks"] >= 4
    assert (results["system-doctor"]["ok"], results["system-doctor"]["broken"]) == (False, ["persistence"])
    assert results["system-dlq-digest"]["causes"] == 1
    assert results["system-dlq-digest"]["groups"][0]["types"] == ["dummy"]
    assert results["demo-nightly-report"]["pages"] == 3
    assert swept["lastSweep"] is not None
