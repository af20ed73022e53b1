"""What every test may ask for: real servers, an environment without our settings, one event loop backend.

`server` is one private server for the whole run, and the test runs once on each kind; `clean_server` is the same with nothing in it.
`@pytest.mark.server("valkey")` keeps a test to one kind. A missing binary skips the test, and fails it when CI=true.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from support.desk import Desk, desk_at
from support.servers import KINDS, StoreServer, binary_of, version_of


def pytest_configure(config: pytest.Config) -> None:
    """Settings of the person who runs the tests are none of the tests' business, nor of the processes they start."""
    for name in [name for name in os.environ if name.startswith("TASKMASTER_") or name == "REDIS_URL"]:
        del os.environ[name]


def pytest_report_header(config: pytest.Config) -> str:
    return "store servers: " + ", ".join(f"{kind} {version_of(kind) or 'MISSING'}" for kind in KINDS)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "server" in metafunc.fixturenames:
        marker = metafunc.definition.get_closest_marker("server")
        metafunc.parametrize("server", marker.args if marker else KINDS, indirect=True, scope="session")


@pytest.fixture(scope="session")
def server(request: pytest.FixtureRequest) -> Iterator[StoreServer]:
    """A running server that is ours alone. A test that kills it need not start it again."""
    kind = request.param
    if binary_of(kind) is None:
        complain = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
        complain(f"there is no {kind}-server here: `ops/dev setup` brings valkey, `apt-get install redis-server` redis")
    with StoreServer(kind) as started:
        yield started


@pytest.fixture
def clean_server(server: StoreServer) -> StoreServer:
    """`server`, running and without a key in it."""
    server.start()
    server.flush()
    return server


@pytest.fixture
def desk(clean_server: StoreServer) -> Iterator[Desk]:
    """A store with a clock of its own."""
    with desk_at(clean_server) as made:
        yield made


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Coroutine tests (`@pytest.mark.anyio`) run on asyncio: the one that the API and the workers use."""
    return "asyncio"
