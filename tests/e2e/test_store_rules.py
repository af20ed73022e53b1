"""Commands that look at the store: durability strict at boot, and the doctor's sweep."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from support.servers import StoreServer
from support.worker import Hands


def run(folder: Path, *command: str, **environ: str) -> subprocess.CompletedProcess[str]:
    names = {name: value for name, value in os.environ.items() if not name.startswith("TASKMASTER_")}
    return subprocess.run(
        [sys.executable, "-m", "taskmaster", *command], cwd=folder, env=names | environ, capture_output=True, text=True, timeout=60
    )


@pytest.mark.parametrize("command", ["api", "worker", "up"])
@pytest.mark.parametrize(
    ("options", "cure"),
    [
        (["--appendonly", "no", "--appendfsync", "always"], "CONFIG SET appendonly yes"),
        (["--appendonly", "yes", "--appendfsync", "everysec"], "CONFIG SET appendfsync always"),
        (["--rename-command", "CONFIG", ""], "durability strict"),
    ],
)
def test_strict_durability_refuses_a_store_that_does_not_keep_it(tmp_path: Path, command: str, options: list[str], cure: str) -> None:
    """Exit code 78 and what to change; a server that does not show its configuration cannot be believed."""
    with StoreServer("valkey", options=options) as server:
        done = run(tmp_path, command, TASKMASTER_REDIS_URL=server.url, TASKMASTER_DURABILITY="strict", TASKMASTER_PORT="0")

    assert done.returncode == 78, done.stderr
    assert cure in done.stderr


def test_the_embedded_store_is_strict_when_asked(tmp_path: Path) -> None:
    """What `taskmaster up` starts writes to disk before it answers."""
    from taskmaster.store import embedded
    from taskmaster.store.client import SyncStore

    store = embedded.start(tmp_path, fsync="always")
    client = SyncStore(store.url)
    try:
        configuration = client.configuration() or {}
        seen = run(tmp_path, "doctor", "--json", TASKMASTER_DATA_DIR=str(tmp_path), TASKMASTER_DURABILITY="strict")
    finally:
        client.close()
        store.stop()

    assert (configuration["appendonly"], configuration["appendfsync"]) == ("yes", "always")
    checks = {check["rule"]: check["severity"] for check in json.loads(seen.stdout)["checks"]}
    assert (checks["persistence"], checks["fsync"]) == ("ok", "ok")


def test_the_doctor_sweeps_when_asked(tmp_path: Path) -> None:
    """It finds what no index names any more, mends it, and shows what it did; the next time all is well."""
    with StoreServer("valkey") as server:
        hands = Hands(server.url)
        job_id, other = hands.submit_many("alpha", [{}, {}], delay_ms=600_000)
        hands.close()
        server.call("DEL", "tm:{0}:delayed", "tm:{0}:it:alpha", "tm:{0}:n", "tm:{0}:qs")
        server.call("DEL", f"tm:{{0}}:j:{other}")

        first, second = (run(tmp_path, "doctor", "--sweep", "--json", TASKMASTER_REDIS_URL=server.url) for _ in range(2))
        due = server.call("ZRANGE", "tm:{0}:delayed", 0, -1)

    def sweep(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
        return next(check for check in json.loads(done.stdout)["checks"] if check["rule"] == "sweep")

    assert due == [job_id]
    assert sweep(first)["severity"] == "warning"
    assert f"index_missing {job_id}" in sweep(first)["observed"]
    assert f"record_lost {other}" in sweep(first)["observed"]
    assert sweep(second)["severity"] == "ok"
