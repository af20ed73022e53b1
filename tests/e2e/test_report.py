"""The report of nine o'clock in New York, from the schedule to the result, over the days when clocks change."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from support.clock import MachineClock
from support.eventually import eventually
from support.processes import Processes, environ_of, serve_api
from support.servers import StoreServer
from support.service import WorkerService

REPORT = {
    "type": "generate-report",
    "payload": {"title": "Figures of {{localDate}}, {{localTime}}", "pages": 2, "pageMs": 1},
    "cron": "0 9 * * *",
    "timezone": "America/New_York",
    "catchUp": "none",
}
AUTUMN = ("2026-10-31T13:00:00Z", "2026-11-01T14:00:00Z", "2026-11-02T14:00:00Z")
SPRING = ("2027-03-13T14:00:00Z", "2027-03-14T13:00:00Z", "2027-03-15T13:00:00Z")


@pytest.mark.timeout(180)
@pytest.mark.parametrize(
    ("instants", "wrong_hour"), [(AUTUMN, "2026-11-01T12:59:58Z"), (SPRING, "2027-03-15T13:59:58Z")], ids=["autumn", "spring"]
)
def test_the_nine_oclock_report_of_new_york(tmp_path: Path, instants: tuple[str, ...], wrong_hour: str) -> None:
    """The clock is set to just before nine, day after day: one report a day, at nine, of that day.

    Store, scheduler and API go by that clock. The worker's own is weeks off, which does not matter.
    """
    clock = MachineClock(tmp_path)
    clock.set(instants[0])
    clock.move(-3_600)
    with StoreServer("valkey", environ=clock.environ) as server, Processes(tmp_path / "processes") as processes:
        _, base = serve_api(processes, "api", server.url, clock.environ)
        settings = environ_of(redis_url=server.url, data_dir=tmp_path / "data")
        processes.start("scheduler", ["-m", "taskmaster", "scheduler"], settings | clock.environ)

        def get(path: str) -> Any:
            return httpx.get(f"{base}{path}", timeout=10).raise_for_status().json()

        def reports() -> list[dict[str, Any]]:
            """Those that have ended, the oldest first; the samples of the demo plugin are none of them."""
            found = [get(f"/jobs/{job['jobId']}") for job in get("/jobs?type=generate-report&state=completed")["items"]]
            ours = [job for job in found if job["idempotencyKey"].startswith("daily-report@")]
            return sorted(ours, key=lambda job: str(job["idempotencyKey"]))

        def wait_for(n: int) -> None:
            def told() -> str:
                return f"{n} reports; {get('/schedules/daily-report')}; {worker.log()[-3_000:]}"

            eventually(lambda: len(reports()) == n, 40, told)

        with WorkerService(server.url, tmp_path / "worker", worker_processes=1) as worker:
            put = partial(httpx.put, f"{base}/schedules/daily-report", json=REPORT, timeout=10)
            eventually(lambda: put().raise_for_status(), 20, "the API knows the worker's types")
            for n, instant in enumerate(instants, 1):
                clock.set(instant)
                clock.move(-2)
                wait_for(n)
            clock.set(wrong_hour)
            seconds = int(server.call("TIME")[0])
            eventually(lambda: int(server.call("TIME")[0]) > seconds + 3, 20, "nine o'clock by the other offset is over")
            found = reports()
            fires = get("/schedules/daily-report/fires")["items"]
            shown = get("/schedules/daily-report")

    assert [job["idempotencyKey"] for job in found] == [f"daily-report@{instant}" for instant in instants]
    assert [job["result"]["title"] for job in found] == [f"Figures of {instant[:10]}, 09:00:00" for instant in instants]
    assert [job["origin"] for job in found] == ["schedule"] * 3
    assert [(fire["outcome"], fire["instant"][:19] + "Z") for fire in reversed(fires)] == [("fired", instant) for instant in instants]
    assert shown["counts"]["missed"] == 0
