"""F48: workers with two versions of a plugin serve one store side by side."""

from __future__ import annotations

import json
import signal

import pytest

from support.service import WorkerService, install_plugin

pytestmark = pytest.mark.server("valkey")

VERSION = """
from taskmaster_sdk import Backoff, hookimpl, job
@job("both", backoff=Backoff(kind="fixed", delay_ms=10))
def both(payload, ctx):
    if ctx.attempt == 1:
        raise ValueError("a row for the history")
    return "{version}"
@job("{own}")
def own(payload, ctx):
    return "{version}"
@hookimpl
def register_jobs():
    return [both, own]
"""


def test_two_versions_of_a_plugin_side_by_side(clean_server, hands, tmp_path) -> None:
    """The old one neither takes nor kills what only the new one knows, each attempt tells which it ran on, and the old one drains."""
    services = []
    for version, own in (("1", "old-only"), ("2", "new-only")):
        folder = tmp_path / f"plugins-{version}"
        folder.mkdir()
        install_plugin(folder, "shop", VERSION.format(version=version, own=own))
        (folder / "tm_test_shop-1.0.dist-info" / "METADATA").write_text(f"Metadata-Version: 2.1\nName: shop\nVersion: {version}\n")
        services.append(
            WorkerService(clean_server.url, tmp_path / f"v{version}", plugins_folder=folder, plugins="shop", worker_processes=1)
        )
    with services[0] as old:
        waiting = hands.submit_many("new-only", [{}] * 5)
        assert {seen.result for seen in hands.all_ended(hands.submit_many("old-only", [{}] * 5))} == {"1"}
        assert {(seen.state, seen.deliveries) for seen in map(hands.look, waiting)} == {("waiting", 0)}
        with services[1] as new:
            assert {seen.result for seen in hands.all_ended(waiting)} == {"2"}
            ids = hands.submit_many("both", [{}] * 60)
            for job_id, seen in zip(ids, hands.all_ended(ids, 30), strict=True):
                rows = [json.loads(row) for row in hands.store.raw().lrange(f"tm:{{0}}:h:{job_id}", 0, -1)]
                assert (seen.state, rows[-1][-1]) == ("completed", f"shop=={seen.result}")
            old.send(signal.SIGTERM)
            assert old.wait() == 0
            assert {seen.result for seen in hands.all_ended(hands.submit_many("both", [{}] * 5))} == {"2"}
            assert new.process.poll() is None
