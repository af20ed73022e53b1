"""A breakable road to a store server: a unix socket that passes commands on, and can lose, delay, cut or tear what goes over it.

    with StoreProxy(server) as proxy:
        store = SyncStore(proxy.url)
        proxy.drop_reply("cycle")           # the next cycle runs, its answer is lost

It reads requests command by command, so it knows which script a call runs. A client of ours has one command in flight on a connection.
One-shot faults name a script (or a command by its name), the others hold for all that goes over the road until they are undone.
"""

from __future__ import annotations

import contextlib
import random
import socket
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from types import TracebackType
from typing import Self

from support.servers import StoreServer
from taskmaster.store.scripts import PREFIX, load, names

__all__ = ["StoreProxy"]

_CHUNK = 65_536


class StoreProxy:
    """Stands before *server*. All methods may be called from any thread.

    Attributes:
        seen: how many calls of each script, or commands by their name, were passed on.
        lost: the same of those whose answers were lost.
    """

    def __init__(self, server: StoreServer) -> None:
        self.seen: Counter[str] = Counter()
        self.lost: Counter[str] = Counter()
        self._server = server
        self._folder = Path(tempfile.mkdtemp(prefix="tm-proxy-"))
        self._path = self._folder / "s"
        self._listener = socket.socket(socket.AF_UNIX)
        self._to_drop: Counter[str] = Counter()
        self._to_halve: Counter[str] = Counter()
        self._names: dict[bytes, str] = {}
        self._open: set[socket.socket] = set()
        self._near: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._passes = threading.Event()
        self._passes.set()
        self._answers_pass = threading.Event()
        self._answers_pass.set()
        self._to_close: Counter[str] = Counter()
        self._delay_s = self._jitter_s = 0.0
        self._piece = 0
        self._is_closed = False
        self._threads: list[threading.Thread] = []

    @property
    def url(self) -> str:
        """Address in redis-py's spelling."""
        return f"unix://{self._path}"

    def __enter__(self) -> Self:
        self._listener.bind(str(self._path))
        self._listener.listen(64)
        self._spawn(self._accept)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._is_closed = True
        self.restore()
        with socket.socket(socket.AF_UNIX) as last:  # ends the accept
            last.connect(str(self._path))
        self.cut()
        for thread in self._threads:
            thread.join(10)
        self._listener.close()
        self._path.unlink()
        self._folder.rmdir()

    # ------------------------------------------------------------ breaking things
    def drop_reply(self, script: str, times: int = 1) -> None:
        """Let the next calls of *script* run, and close their connections in place of the answer.

        A server that has not the script runs nothing: that answer is passed on, and the script itself, which the client sends then, counts.
        """
        with self._lock:
            self._to_drop[script] += times

    def pass_replies(self, script: str) -> None:
        """No more answers of *script* are lost."""
        with self._lock:
            self._to_drop.pop(script, None)

    def halve_request(self, script: str, times: int = 1) -> None:
        """Pass on half of the next requests for *script*, and close their connections."""
        with self._lock:
            self._to_halve[script] += times

    def close_after_request(self, script: str, times: int = 1) -> None:
        """Pass the next requests for *script* on whole and close their connections at once, on both sides, whether or not they ran."""
        with self._lock:
            self._to_close[script] += times

    def latency(self, delay_s: float, jitter_s: float = 0.0) -> None:
        """Every request takes so much longer, give or take a random part of *jitter_s*. 0 undoes it."""
        self._delay_s, self._jitter_s = delay_s, jitter_s

    def split_bytes(self, size: int) -> None:
        """Send answers in pieces of *size* bytes, each a write of its own. 0 undoes it."""
        self._piece = size

    def half_close(self) -> None:
        """Tell every client that nothing more will come, while what it sends is still passed on: the server's end of a dying link."""
        with self._lock:
            ends = set(self._near)
        for end in ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_WR)

    def mute(self) -> None:
        """Requests pass and run, answers are kept back, until `restore`: a road that is open in one direction."""
        self._answers_pass.clear()

    def cut(self) -> None:
        """Close every connection there is."""
        with self._lock:
            doomed, self._open = self._open, set()
        for end in doomed:
            _close(end)

    def blackhole(self) -> None:
        """Pass on nothing more; connections stay, new ones are taken."""
        self._passes.clear()

    def restore(self) -> None:
        """Undo `blackhole` and `mute`: what was kept back is passed on now, late."""
        self._passes.set()
        self._answers_pass.set()

    # ------------------------------------------------------------ passing things on
    def _spawn(self, target, *args) -> None:
        thread = threading.Thread(target=target, args=args, name="proxy", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            near, _ = self._listener.accept()
            if self._is_closed:
                near.close()
                return
            far = socket.socket(socket.AF_UNIX)
            try:
                far.connect(str(self._server.socket_path))
            except OSError:
                near.close()
                far.close()
                continue
            with self._lock:
                self._open |= {near, far}
                self._near.add(near)
            doomed: list[str] = []
            self._spawn(self._requests, near, far, doomed)
            self._spawn(self._answers, near, far, doomed)

    def _requests(self, near: socket.socket, far: socket.socket, doomed: list[str]) -> None:
        kept = b""
        try:
            while chunk := near.recv(_CHUNK):
                kept += chunk
                while (found := _command(kept)) is not None:
                    words, end = found
                    request, kept = kept[:end], kept[end:]
                    self._passes.wait()
                    if self._delay_s or self._jitter_s:
                        time.sleep(self._delay_s + self._jitter_s * random.random())
                    name = self._name(words)
                    with self._lock:
                        self.seen[name] += 1
                        halved = _take(self._to_halve, name)
                        closed = _take(self._to_close, name)
                        if _take(self._to_drop, name):
                            doomed.append(name)
                    if closed:
                        _close(near)  # first, so that no answer can be quicker
                    far.sendall(request[: len(request) // 2] if halved else request)
                    if halved or closed:
                        return
        except OSError:
            pass
        finally:
            self._end(near, far)

    def _answers(self, near: socket.socket, far: socket.socket, doomed: list[str]) -> None:
        try:
            while chunk := far.recv(_CHUNK):
                self._passes.wait()
                self._answers_pass.wait()
                if doomed:
                    with self._lock:
                        name = doomed.pop()
                        has_run = not chunk.startswith((b"-NOSCRIPT", b"-ERR Function not found", b"-ERR unknown command 'FCALL'"))
                        (self.lost if has_run else self._to_drop)[name] += 1
                    if has_run:
                        return
                size = self._piece or len(chunk)
                for at in range(0, len(chunk), size):
                    near.sendall(chunk[at : at + size])
        except OSError:
            pass
        finally:
            self._end(near, far)

    def _end(self, near: socket.socket, far: socket.socket) -> None:
        with self._lock:
            self._open -= {near, far}
            self._near.discard(near)
        _close(near)
        _close(far)

    def _name(self, words: list[bytes]) -> str:
        if words[0] == b"FCALL":
            return words[1].decode().removeprefix(PREFIX).rpartition("_")[0]
        if words[0] not in (b"EVALSHA", b"EVAL"):
            return words[0].decode().lower()
        name = self._names.get(words[1])
        if name is None:
            for script in map(load, names()):
                self._names[script.sha.encode()] = self._names[script.text] = script.name
            name = self._names.get(words[1], "unknown")
        return name


def _take(faults: Counter[str], name: str) -> bool:
    """Use up one of the faults that are due for *name*, if there is one."""
    if faults[name] <= 0:
        return False
    faults[name] -= 1
    return True


def _close(end: socket.socket) -> None:
    """Also wakes a thread that reads from it, which `close` alone would not."""
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
    end.close()


def _command(data: bytes) -> tuple[list[bytes], int] | None:
    """The first command in *data* and where it ends; None while it is not whole."""
    line = data.find(b"\r\n")
    if line < 0:
        return None
    assert data[:1] == b"*", data[:20]
    words, at = [], line + 2
    for _ in range(int(data[1:line])):
        line = data.find(b"\r\n", at)
        if line < 0:
            return None
        size = int(data[at + 1 : line])
        at = line + 2 + size + 2
        if len(data) < at:
            return None
        words.append(data[line + 2 : line + 2 + size])
    return words, at
