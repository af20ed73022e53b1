"""What every test may ask for: real servers, an environment without our settings, one event loop backend.

`server` is one private server for the whole run; `clean_server` is the same with nothing in it. Tests of the store, the broker and of
faults run once on each kind of server, all others on Valkey: what differs between the kinds is in the store.
`@pytest.mark.server("valkey", "redis")` says otherwise. A missing binary skips the test, and fails it when CI=true.

The whole suite runs on several workers (pytest-xdist), each with servers of its own; any choice of tests runs in this process, unless
`-n` says otherwise.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import structlog
from hypothesis import HealthCheck, settings

from support.desk import Desk, desk_at
from support.servers import KINDS, StoreServer, binary_of, version_of

# Other tests, and whatever else the machine does, run beside a property: how long one example takes says nothing.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")

#: Where tests run once on each kind of server.
ON_EACH_KIND = ("tests/integration/store/", "tests/integration/broker/", "tests/faults/")
#: Options by which somebody looks at some tests, or into them.
CHOICES = ("keyword", "markexpr", "lf", "stepwise", "usepdb", "trace", "collectonly", "showfixtures", "show_fixtures_per_test")


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """How many workers: most of the suite's time is waiting, so one more than there are cores, and no more than four."""
    option = config.option
    is_whole = config.args_source is pytest.Config.ArgsSource.TESTPATHS and not any(getattr(option, name) for name in CHOICES)
    is_unsaid = getattr(option, "numprocesses", 0) is None and not option.tx and not hasattr(config, "workerinput")
    if is_whole and is_unsaid and option.capture != "no":
        # One at a time to whoever is free. `loadgroup` and its like hang for ever when a worker crashes (xdist 3.8).
        option.numprocesses, option.dist, option.maxschedchunk = min(4, (os.cpu_count() or 1) + 1), "load", 1


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that have asked for more time than the others come first: none of them begins when all others are done."""
    items.sort(key=lambda item: item.get_closest_marker("timeout") is None)


def pytest_configure(config: pytest.Config) -> None:
    """Settings of the person who runs the tests are none of the tests' business, nor of the processes they start."""
    for name in [name for name in os.environ if name.startswith("TASKMASTER_") or name == "REDIS_URL"]:
        del os.environ[name]
    os.environ |= {"TASKMASTER_WORKER_METRICS_PORT": "0", "TASKMASTER_SCHEDULER_METRICS_PORT": "0"}  # no port that all tests would want
    _never_cache_loggers()


def _never_cache_loggers() -> None:
    """A service that runs in a test sets up the log; a logger that is bound for good then is deaf to `capture_logs` ever after."""
    configure = structlog.configure
    structlog.configure = lambda *args, **words: configure(*args, **(words | {"cache_logger_on_first_use": False}))  # type: ignore[assignment]


@pytest.fixture(autouse=True)
def _log_as_at_first() -> Iterator[None]:
    """The level and form that a test has set are its own."""
    yield
    structlog.reset_defaults()


def pytest_report_header(config: pytest.Config) -> str:
    return "store servers: " + ", ".join(f"{kind} {version_of(kind) or 'MISSING'}" for kind in KINDS)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "server" in metafunc.fixturenames:
        marker = metafunc.definition.get_closest_marker("server")
        is_on_each = any(folder in metafunc.definition.path.as_posix() for folder in ON_EACH_KIND)
        kinds = marker.args if marker else KINDS if is_on_each else KINDS[:1]
        metafunc.parametrize("server", kinds, indirect=True, scope="session")


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
