"""Schedules with real processes: a plugin declares them, a worker brings them in, a scheduler fires them, a worker runs the jobs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from support.eventually import eventually
from support.processes import Processes, environ_of, serve_api
from support.servers import StoreServer
from support.service import WorkerService, install_plugin

PLUGIN = """
from taskmaster_sdk import Schedule, hookimpl, job

@job("tick")
def tick(payload, ctx):
    return payload

@hookimpl
def register_jobs():
    return [tick]

@hookimpl
def register_schedules():
    yield Schedule(id="ticker", type="tick", version=%d, every_ms=%d, payload={"at": "{{instantMs}}"})
"""


@pytest.mark.server("valkey")
def test_a_schedule_that_a_plugin_declares_runs_and_keeps_what_an_operator_says(clean_server: StoreServer, tmp_path: Path) -> None:
    """From the declaration to the results of its jobs; a pause is kept over the next version, which is taken."""
    url = clean_server.url

    def service(version: int, every_ms: int) -> WorkerService:
        plugins = tmp_path / f"plugins-{version}"
        plugins.mkdir()
        install_plugin(plugins, "clockwork", PLUGIN % (version, every_ms))
        return WorkerService(url, tmp_path / f"service-{version}", plugins_folder=plugins, plugins="clockwork", worker_processes=1)

    with Processes(tmp_path / "processes") as processes:
        _, base = serve_api(processes, "api", url)
        processes.start("scheduler", ["-m", "taskmaster", "scheduler"], environ_of(redis_url=url, data_dir=tmp_path / "data"))

        def get(path: str) -> Any:
            return httpx.get(f"{base}{path}", timeout=10).raise_for_status().json()

        with service(1, 1_000):
            done = eventually(lambda: get("/jobs?type=tick&state=completed")["items"][1:], 30, "two jobs have completed")
            # An API that does not know the type yet hides the payload; it looks every two seconds.
            result = eventually(lambda: (job := get(f"/jobs/{done[-1]['jobId']}"))["payload"] != "***" and job, 20)
            health = get("/health")
            paused = httpx.post(f"{base}/schedules/ticker/pause", timeout=10).json()
            count = len(get("/schedules/ticker/fires")["items"])
        with service(2, 2_000):
            renewed = eventually(lambda: get("/schedules/ticker")["version"] == 2 and get("/schedules/ticker"), 30)
        after = len(get("/schedules/ticker/fires")["items"])

    assert result["origin"] == "schedule"
    assert result["idempotencyKey"].startswith("ticker@")
    assert result["result"] == result["payload"]
    assert health["schedulers"] == 1
    assert paused["declaredBy"] == {"plugin": "clockwork", "version": 1, "overridden": False}
    assert (renewed["everyMs"], renewed["enabled"], renewed["declaredBy"]["version"]) == (2_000, False, 2)
    assert after == count
