"""F59: whoever reads the logs does not read: work goes on, and what was not written is counted."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest

from support import plugin
from support.eventually import eventually
from support.processes import environ_of
from support.servers import die_with_thread

pytestmark = pytest.mark.server("valkey")


def test_a_log_pipe_that_nobody_reads_holds_up_nothing(clean_server, sink, hands, tmp_path) -> None:
    """Hundreds of lines more than a pipe holds; once it is read again, a line says how many are missing."""
    plugins = plugin.install(tmp_path / "plugins")
    settings = {"redis_url": clean_server.url, "worker_processes": 1, "log_format": "json", "data_dir": tmp_path, "drain_ms": 5_000}
    environ = environ_of(**settings | plugin.settings_of(sink.path)) | {"PYTHONPATH": str(plugins)}
    with subprocess.Popen(
        [sys.executable, "-m", "taskmaster", "worker"],
        env=environ,
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
        preexec_fn=die_with_thread(),
    ) as service:
        try:
            ids = hands.submit_many("failing", [{"key": f"k{n}", "n": 1} for n in range(400)])
            assert {seen.state for seen in hands.all_ended(ids, 40)} == {"completed"}
            log = service.stderr
            assert log is not None
            os.set_blocking(log.fileno(), False)
            said = log.read() or b""
            assert len(said) >= 40_000, "the pipe was full"

            service.send_signal(signal.SIGTERM)
            rest = b""

            def has_ended() -> bool:
                nonlocal rest
                rest += log.read() or b""
                return service.poll() is not None

            eventually(has_ended, 20)
        finally:
            if service.poll() is None:
                os.killpg(service.pid, signal.SIGKILL)
        assert service.returncode == 0
        lines = [json.loads(line) for line in (said + rest).splitlines() if line.startswith(b"{")]
        assert sum(line.get("lines", 0) for line in lines if line["event"] == "log.dropped") > 100
