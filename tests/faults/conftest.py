"""A store, a sink, and workers that run the plugin of faults."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support import plugin
from support.servers import StoreServer
from support.service import WorkerService
from support.sink import Sink
from support.worker import Hands

Serve = Callable[..., WorkerService]


@pytest.fixture
def sink(tmp_path: Path) -> Iterator[Sink]:
    with Sink(tmp_path / "sink") as started:
        yield started


@pytest.fixture
def hands(clean_server: StoreServer) -> Iterator[Hands]:
    made = Hands(clean_server.url)
    yield made
    made.close()


@pytest.fixture
def serve(clean_server: StoreServer, sink: Sink, tmp_path: Path) -> Serve:
    """What `with` turns into a worker service that runs the plugin of faults, with short leases and, if wanted, failpoints."""
    plugins, number = plugin.install(tmp_path / "plugins"), iter(range(100))

    def start(*, url: str = "", failpoints: str = "", **settings: Any) -> WorkerService:
        fired = tmp_path / "fired"
        fired.mkdir(exist_ok=True)
        usual = {"worker_processes": 1, "lease_ms": 1_000, **plugin.settings_of(sink.path)}
        environ = {"TM_FAILPOINTS": failpoints, "TM_FAILPOINTS_DIR": str(fired)} if failpoints else {}
        folder = tmp_path / f"service-{next(number)}"
        return WorkerService(url or clean_server.url, folder, plugins_folder=plugins, environ=environ, **usual | settings)

    return start


@pytest.fixture
def fired(tmp_path: Path) -> Callable[[], set[str]]:
    """The failpoints that have acted."""
    return lambda: {path.name for path in (tmp_path / "fired").glob("*")}
