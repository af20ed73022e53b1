"""GET /doctor: the checklist as the API tells it."""

from __future__ import annotations

import pytest

from integration.api.conftest import HandWorker, Serve
from support.servers import StoreServer
from taskmaster.model import scopes

pytestmark = [pytest.mark.anyio, pytest.mark.server("valkey")]


async def test_every_check_has_its_shape_and_tells_what_is_so(serve: Serve, worker: HandWorker) -> None:
    """200 also when something is wrong; rule, severity, what was seen, facts, why and what to do."""
    async with serve(host="0.0.0.0", idempotency="optional") as client:
        answer = await client.get("/doctor")
        report = answer.json()

    found = {check["rule"]: check for check in report["checks"]}
    assert answer.status_code == 200
    assert report.keys() == {"ok", "checks", "durability", "server", "partitions"}
    assert all(check.keys() == {"rule", "severity", "observed", "why", "fix", "facts"} for check in report["checks"])
    assert {check["severity"] for check in report["checks"]} <= {"ok", "warning", "error", "skipped"}
    assert (report["ok"], found["persistence"]["severity"]) == (False, "error")
    assert found["api-exposure"]["facts"] == {"host": "0.0.0.0", "scopes": list(scopes.ORDINARY)}
    assert found["idempotency"]["facts"] == {"setting": "optional", "types": ["free", "welcome-email"]}
    assert found["pii-marks"]["facts"] == {"fields": {"welcome-email": ["email"]}}
    assert found["scaling"]["facts"] == {"processes": 1, "hosts": ["testhost"]}
    assert found["concurrency"]["severity"] == "skipped"
    assert found["scaling-endpoint"]["severity"] == "ok"
    assert "plugins" not in found


async def test_it_is_for_whoever_may_read(serve: Serve) -> None:
    """No scope is needed, as for all that only looks; a parameter that it does not know is refused."""
    async with serve(scopes=()) as client:
        answer = await client.get("/doctor")
        wrong = await client.get("/doctor?strict=1")

    assert (answer.status_code, wrong.status_code) == (200, 400)


async def test_a_well_kept_installation_is_ok(serve: Serve, clean_server: StoreServer) -> None:
    """Warnings leave `ok` true; only errors do not."""
    clean_server.call("CONFIG", "SET", "appendonly", "yes")
    try:
        async with serve() as client:
            report = (await client.get("/doctor")).json()
    finally:
        clean_server.call("CONFIG", "SET", "appendonly", "no")

    assert report["ok"] is True
    assert {check["severity"] for check in report["checks"]} == {"ok", "warning", "skipped"}
