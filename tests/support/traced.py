"""An API and a worker service whose plugin traces what it does and has secrets, and hands to look at both with."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

from support import plugin
from support.eventually import eventually
from support.processes import Processes, serve_api
from support.service import WorkerService

__all__ = ["CALLER", "CALLERS_TRACE", "World", "world"]

CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
CALLERS_TRACE = CALLER[3:35]


class World:
    """An API and a worker service that trace to *endpoint*."""

    def __init__(self, url: str, folder: Path, processes: Processes, **settings: Any) -> None:
        child, self.address = serve_api(processes, "api", url, trace_url="http://jaeger.test/trace/{trace_id}", **settings)
        self.api = child
        environ = {"TASKMASTER_PLUGIN_TRACED_STORE": url}
        folder = folder / "worker"
        plugins = plugin.install_traced(folder / "plugins")
        self.worker = WorkerService(
            url, folder, plugins_folder=plugins, environ=environ, worker_processes=1, plugins="traced,webhooks", **settings
        )

    def submit(
        self, job_type: str, payload: dict[str, Any] | None = None, *, caller: str = CALLER, key: str = "k1", callback: str | None = None
    ) -> str:
        body = {"type": job_type, "payload": payload or {}, "callbackUrl": callback}
        headers = {"idempotency-key": key} | ({"traceparent": caller} if caller else {})
        answer = httpx.post(f"{self.address}/jobs", json=body, headers=headers, timeout=30)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["jobId"])

    def ended(self, job_id: str) -> dict[str, Any]:
        job: dict[str, Any] = httpx.get(f"{self.address}/jobs/{job_id}", params={"wait": 20}, timeout=30).json()
        assert job["state"] in ("completed", "failed"), job
        return job

    def attempts(self, job_id: str) -> list[dict[str, Any]]:
        return list(httpx.get(f"{self.address}/jobs/{job_id}/attempts").json()["items"])

    def lines_of(self, job_id: str) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in self.worker.log().splitlines() if line.startswith("{")]
        return [line for line in lines if line.get("jobId") == job_id]


@contextlib.contextmanager
def world(url: str, folder: Path, **settings: Any) -> Iterator[World]:
    with Processes(folder) as processes:
        one = World(url, folder, processes, **settings)
        with one.worker:
            eventually(lambda: httpx.get(f"{one.address}/job-types", timeout=10).json()["items"], 20, "the API knows the job types")
            yield one
