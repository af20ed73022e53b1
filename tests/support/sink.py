"""The world outside: a process of its own that counts effects, so that no bug of ours can hide one.

    with Sink(folder) as sink:
        record(sink.path, "key", job_id, 1)     # from any process: returns once it is on the disk
        assert sink.counts() == {"key": 1}

It never asks the store for anything. An effect counts when its bytes have arrived, whether or not its sender lives to hear so. Run as a
program (`python sink.py <socket> <database>`) it serves until it is killed.
"""

from __future__ import annotations

import contextlib
import json
import socket
import sqlite3
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

__all__ = ["Effect", "Sink", "record", "seen"]

_TIMEOUT_S = 30.0


class Effect(NamedTuple):
    """One that happened. *at*: seconds of the wall clock."""

    key: str
    job: str
    attempt: int
    at: float


def record(path: str, key: str, job: str, attempt: int) -> int:
    """Make the effect happen; how often it has happened now. What the receiver of a mail or payment is in real life.

    Raises:
        OSError: no answer; it may have happened.
    """
    return int(_ask(path, {"do": "record", "key": key, "job": job, "attempt": attempt})["n"])


def seen(path: str, key: str) -> int:
    """How often it has happened: what a `verify` callback asks."""
    return int(_ask(path, {"do": "seen", "key": key})["n"])


def _ask(path: str, question: dict[str, Any]) -> dict[str, Any]:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(_TIMEOUT_S)
        connection.connect(path)
        connection.sendall(json.dumps(question).encode() + b"\n")
        with connection.makefile("rb") as answers:
            answer = answers.readline()
    if not answer:
        raise ConnectionError("the sink closed the connection without an answer")
    said: dict[str, Any] = json.loads(answer)
    return said


class Sink:
    """The sink's process, seen from a test. The socket is in *folder*; a path of a socket has at most 107 characters."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._database = folder / "sink.db"
        self.path = str(folder / "sink")
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        command = [sys.executable, __file__, self.path, str(self._database)]
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, start_new_session=True)
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"ready\n", "the sink did not start"
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        self._process.kill()
        self._process.wait(20)
        self._process.stdout.close()

    def hold(self) -> None:
        """Take connections and their bytes, but let the effects happen only at `release`: the mail is in the provider's queue."""
        _ask(self.path, {"do": "hold"})

    def release(self) -> None:
        """Undo `hold`."""
        _ask(self.path, {"do": "release"})

    def held(self) -> int:
        """Effects whose bytes have arrived and which are held."""
        return int(_ask(self.path, {"do": "held"})["n"])

    def effects(self) -> list[Effect]:
        """All, in the order in which they happened; read from the disk, not asked of the process."""
        with sqlite3.connect(f"file:{self._database}?mode=ro", uri=True) as database:
            rows = database.execute("SELECT key, job, attempt, at FROM effect ORDER BY n").fetchall()
        database.close()
        return [Effect(*row) for row in rows]

    def counts(self) -> Counter[str]:
        """How often each key happened."""
        return Counter(effect.key for effect in self.effects())


# ---------------------------------------------------------------- the process
class _Server:
    def __init__(self, path: str, database: str) -> None:
        self._database = sqlite3.connect(database, check_same_thread=False, isolation_level=None)
        self._database.execute("PRAGMA journal_mode=WAL")
        self._database.execute("PRAGMA synchronous=FULL")
        self._database.execute("CREATE TABLE IF NOT EXISTS effect (n INTEGER PRIMARY KEY, key TEXT, job TEXT, attempt INTEGER, at REAL)")
        self._database.execute("CREATE INDEX IF NOT EXISTS by_key ON effect (key)")
        self._lock = threading.Lock()
        self._flows = threading.Event()
        self._flows.set()
        self._held = 0
        self._listener = socket.socket(socket.AF_UNIX)
        Path(path).unlink(missing_ok=True)
        self._listener.bind(path)
        self._listener.listen(256)

    def serve(self) -> None:
        print("ready", flush=True)
        while True:
            connection, _ = self._listener.accept()
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        """One sender. It may be gone before its answer: the effect has happened all the same."""
        with contextlib.suppress(OSError), connection, connection.makefile("rb") as lines:
            for line in lines:
                connection.sendall(json.dumps(self._do(json.loads(line))).encode() + b"\n")

    def _do(self, question: dict[str, Any]) -> dict[str, Any]:
        verb = question["do"]
        if verb == "hold":
            self._flows.clear()
        elif verb == "release":
            self._flows.set()
        elif verb == "held":
            return {"n": self._held}
        elif verb == "record":
            self._wait()
            with self._lock:
                self._database.execute(
                    "INSERT INTO effect (key, job, attempt, at) VALUES (?, ?, ?, unixepoch('subsec'))",
                    (question["key"], question["job"], question["attempt"]),
                )
        if verb in ("record", "seen"):
            with self._lock:
                return {"n": self._database.execute("SELECT count(*) FROM effect WHERE key = ?", (question["key"],)).fetchone()[0]}
        return {}

    def _wait(self) -> None:
        if not self._flows.is_set():
            with self._lock:
                self._held += 1
            self._flows.wait()
            with self._lock:
                self._held -= 1


if __name__ == "__main__":
    _Server(*sys.argv[1:3]).serve()
