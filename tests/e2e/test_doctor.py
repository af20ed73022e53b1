"""The doctor over real workers: what they tell of themselves from another machine's point of view."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from support.processes import environ_of
from support.servers import StoreServer
from support.service import WorkerService, install_plugin

FAX = "raise ImportError('no modem')\n"


@pytest.mark.server("valkey")
def test_a_plugin_that_fails_in_a_worker_alone_is_found_from_elsewhere(tmp_path: Path) -> None:
    """The doctor has not got the plugin and is told by whom it could not be loaded; when it is gone, nothing fails."""
    plugins = tmp_path / "plugins"
    plugins.mkdir()
    install_plugin(plugins, "fax", FAX)

    def look() -> tuple[int, dict[str, Any]]:
        command = [sys.executable, "-m", "taskmaster", "doctor", "--json", "--port", "0"]
        environ = environ_of(redis_url=server.url, plugins="demo", data_dir=tmp_path / "data")
        done = subprocess.run(command, env=environ, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
        return done.returncode, {check["rule"]: check for check in json.loads(done.stdout)["checks"]}

    with StoreServer("valkey", aof=True) as server:
        with WorkerService(
            server.url, tmp_path / "w", plugins_folder=plugins, plugins="demo,fax", worker_processes=1, drain_ms=1_000
        ) as service:
            code, found = look()
            service.send(signal.SIGTERM)
            assert service.wait() == 0
        gone, later = look()

    failed = found["plugin-loading"]
    assert (code, failed["severity"]) == (1, "error")
    assert "no modem" in failed["observed"]
    assert list(failed["facts"]["plugins"]) == ["fax"]
    assert found["shutdown"]["facts"]["drainMs"] == 1_000
    assert (found["workers"]["severity"], found["concurrency"]["severity"], found["plugin-sets"]["severity"]) == ("ok", "ok", "ok")
    assert (gone, later["workers"]["severity"], later["plugin-loading"]["severity"]) == (0, "warning", "skipped")
