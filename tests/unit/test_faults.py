"""What an error of the client library means, class by class and word by word; and that nothing is sent twice behind our back."""

from __future__ import annotations

import contextlib
import inspect
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hiredis
import pytest
import redis
from redis import exceptions as rx
from redis._parsers.base import BaseParser

from taskmaster.errors import StoreDefect, StoreRefused, StoreUnavailable
from taskmaster.store import upkeep
from taskmaster.store.client import SyncStore, connection_options
from taskmaster.store.faults import Action, classify, translate
from taskmaster.store.inbox import Inbox

RESEND, RECONNECT, REJECT, BUG = Action.RESEND, Action.RECONNECT, Action.REJECT, Action.BUG

#: Every error class of redis-py. One that a new version brings fails the test until somebody has thought about it.
CLASSES = {
    "AskError": RECONNECT,
    "AuthenticationError": REJECT,
    "AuthenticationWrongNumberOfArgsError": REJECT,
    "AuthorizationError": REJECT,
    "BusyLoadingError": RESEND,
    "ChildDeadlockedError": BUG,
    "ClusterCrossSlotError": BUG,
    "ClusterDownError": RECONNECT,
    "ClusterError": BUG,
    "ConnectionError": RECONNECT,
    "CrossSlotTransactionError": BUG,
    "DataError": BUG,
    "ExecAbortError": BUG,
    "ExternalAuthProviderError": RECONNECT,
    "IncorrectPolicyType": BUG,
    "InvalidPipelineStack": BUG,
    "InvalidResponse": RECONNECT,
    "LockError": BUG,
    "LockNotOwnedError": BUG,
    "MasterDownError": RECONNECT,
    "MaxConnectionsError": RESEND,
    "ModuleError": BUG,
    "MovedError": RECONNECT,
    "NoPermissionError": REJECT,
    "NoScriptError": BUG,
    "NoSuchFieldsetError": BUG,
    "OutOfMemoryError": REJECT,
    "PubSubError": BUG,
    "ReadOnlyError": RECONNECT,
    "RedisClusterException": BUG,
    "RedisError": BUG,
    "ResponseError": BUG,
    "SlotNotCoveredError": BUG,
    "TimeoutError": RECONNECT,
    "TryAgainError": RESEND,
    "WatchError": BUG,
}
#: Error replies as servers send them.
REPLIES = {
    "LOADING Valkey is loading the dataset in memory": RESEND,
    "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.": RESEND,
    "TRYAGAIN Multiple keys request during rehashing of slot": RESEND,
    "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.": RECONNECT,
    "READONLY You can't write against a read only replica.": RECONNECT,
    "READONLY You can't write against a read only replica. script: 3f2a, on @user_script:12.": RECONNECT,
    "CLUSTERDOWN The cluster is down": RECONNECT,
    "MOVED 3999 127.0.0.1:6381": RECONNECT,
    "ASK 3999 127.0.0.1:6381": RECONNECT,
    "UNBLOCKED force unblock from blocking operation, instance state changed (master -> replica?)": RECONNECT,
    "ERR max number of clients reached": RECONNECT,
    "OOM command not allowed when used memory > 'maxmemory'.": REJECT,
    "OOM allow-oom flag is not set on the script, can not run it when used memory > 'maxmemory'": REJECT,
    "MISCONF Errors writing to the AOF file: No space left on device": REJECT,
    "NOREPLICAS Not enough good replicas to write.": REJECT,
    "NOAUTH Authentication required.": REJECT,
    "WRONGPASS invalid username-password pair or user is disabled.": REJECT,
    "ERR invalid password": REJECT,
    "ERR Client sent AUTH, but no password is set": REJECT,
    "ERR wrong number of arguments for 'auth' command": REJECT,
    "NOPERM this user has no permissions to run the 'evalsha' command": REJECT,
    "DENIED Valkey is running in protected mode because protected mode is enabled": REJECT,
    "WRONGTYPE Operation against a key holding the wrong kind of value": BUG,
    "NOSCRIPT No matching script. Please use EVAL.": BUG,
    "CROSSSLOT Keys in request don't hash to the same slot": BUG,
    "ERR unknown command 'BZPOPMIN'": BUG,
    "ERR user_script:12: Script attempted to access nonexistent global variable 'x'": BUG,
    "ERR value is not an integer or out of range": BUG,
}


def make(kind: type[BaseException]) -> BaseException:
    return kind("3999 127.0.0.1:6381") if issubclass(kind, rx.AskError) else kind("text")


def test_every_class_of_the_library_is_classified() -> None:
    """The table above names each error class there is, and what it means."""
    found = {name: classify(make(kind)) for name, kind in vars(rx).items() if inspect.isclass(kind) and issubclass(kind, Exception)}

    assert found == CLASSES


@pytest.mark.parametrize(("reply", "action"), REPLIES.items())
def test_every_error_reply_is_classified(reply: str, action: Action) -> None:
    """Whatever the library makes of the text: it cuts the first word off some replies and says it by the class."""
    assert classify(BaseParser.parse_error(reply)) is action


@pytest.mark.parametrize(
    "error",
    [
        ConnectionResetError(104, "Connection reset by peer"),
        ConnectionRefusedError(111, "Connection refused"),
        BrokenPipeError(32, "Broken pipe"),
        FileNotFoundError(2, "No such file or directory"),
        socket.gaierror(-2, "Name or service not known"),
        ssl.SSLError("certificate verify failed"),
        TimeoutError("timed out"),
        EOFError(),
    ],
)
def test_a_broken_connection_is_made_again(error: BaseException) -> None:
    """Errors of the socket say nothing of what the store did."""
    assert classify(error) is RECONNECT
    assert isinstance(translate(error, "submit"), StoreUnavailable)


@pytest.mark.parametrize("error", [ValueError("x"), TypeError("x"), KeyError("x"), UnicodeDecodeError("utf-8", b"", 0, 1, "x")])
def test_anything_else_is_a_defect(error: Exception) -> None:
    """Repeating what cannot work helps nobody."""
    assert classify(error) is BUG


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        ("OOM command not allowed", StoreRefused),
        ("NOAUTH Authentication required.", StoreRefused),
        ("LOADING dataset", StoreUnavailable),
        ("READONLY replica", StoreUnavailable),
        ("WRONGTYPE Operation", StoreDefect),
    ],
)
def test_our_error_says_what_was_asked_and_what_came_back(reply: str, kind: type[Exception]) -> None:
    """One of three classes; the message names the request and the library's words."""
    error = translate(BaseParser.parse_error(reply), "cycle")

    assert type(error) is kind
    assert str(error).startswith("cycle: ")
    assert reply.split(" ", 1)[1] in str(error)


# ---------------------------------------------------------------- connections
URLS = {
    "redis://user:secret@localhost:1/3": redis.Connection,
    "rediss://localhost:1/0": redis.SSLConnection,
    "unix:///nowhere/socket?db=2": redis.UnixDomainSocketConnection,
}


@pytest.mark.parametrize(("url", "kind"), URLS.items())
def test_no_kind_of_connection_retries_by_itself(url: str, kind: type) -> None:
    """The library's own retries are off and its time-outs are ours, whatever the address is."""
    store = SyncStore(url, timeout_s=3.0)
    pool = store.raw().connection_pool
    connection: Any = pool.make_connection()

    assert connection.retry.get_retries() == 0
    assert connection.socket_timeout == 3.0
    assert pool.connection_kwargs["socket_connect_timeout"] == 2.0
    assert pool.connection_kwargs["protocol"] == 2
    assert type(connection) is kind
    store.close()


def test_a_short_time_out_bounds_the_connect_as_well() -> None:
    """Two seconds at most to connect, less if a reply may take less."""
    assert [connection_options(t)["socket_connect_timeout"] for t in (0.5, 5.0)] == [0.5, 2.0]


class Peer:
    """A server of a few lines: counts what arrives and answers as told."""

    def __init__(self, folder: Path, answer: Callable[[list[bytes]], bytes | None]) -> None:
        self.path = folder / "s"
        self.scripts: list[bytes] = []
        self.connections = 0
        self._answer = answer
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(self.path))
        self._socket.listen(8)
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"unix://{self.path}"

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._socket.accept()
                self.connections += 1
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        reader = hiredis.Reader()
        with connection, contextlib.suppress(OSError):
            while data := connection.recv(65536):
                reader.feed(data)
                while (command := reader.gets()) is not False:
                    if command[0] in (b"EVALSHA", b"EVAL", b"BZPOPMIN"):
                        self.scripts.append(command[0])
                    elif command[0] == b"CLIENT":
                        connection.sendall(b"+OK\r\n")
                        continue
                    said = self._answer(command)
                    if said is None:
                        return
                    connection.sendall(said)

    def stop(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(5)


@pytest.fixture
def peer_of(tmp_path: Path) -> Iterator[Callable[[Callable[[list[bytes]], bytes | None]], Peer]]:
    peers: list[Peer] = []

    def make_peer(answer: Callable[[list[bytes]], bytes | None]) -> Peer:
        peers.append(Peer(tmp_path, answer))
        return peers[-1]

    yield make_peer
    for peer in peers:
        peer.stop()


def test_a_call_is_sent_once_when_nothing_else_was_asked_for(peer_of: Callable[..., Peer]) -> None:
    """The connection breaks after the request: it may have run, so whether it is sent again is the caller's choice."""
    peer = peer_of(lambda command: None)
    store = SyncStore(peer.url, timeout_s=2.0)

    with pytest.raises(StoreUnavailable):
        store.run(upkeep.promote(0))

    assert peer.scripts == [b"EVALSHA"]
    store.close()


def test_a_call_is_sent_again_on_a_fresh_connection_while_the_time_allows(peer_of: Callable[..., Peer]) -> None:
    """Two broken connections, then an answer: three requests, all alike."""
    answers = iter([None, None, b":0\r\n"])
    peer = peer_of(lambda command: next(answers))
    store = SyncStore(peer.url, timeout_s=2.0)

    assert store.run(upkeep.promote(0), within_s=10.0) is False

    assert peer.scripts == [b"EVALSHA"] * 3
    assert peer.connections == 3
    store.close()


@pytest.mark.parametrize("reply", ["OOM full", "WRONGTYPE foreign", "NOPERM no"])
def test_a_refusal_is_not_repeated(peer_of: Callable[..., Peer], reply: str) -> None:
    """What cannot get better is said at once."""
    peer = peer_of(lambda command: f"-{reply}\r\n".encode())
    store = SyncStore(peer.url, timeout_s=2.0)

    with pytest.raises((StoreRefused, StoreDefect)):
        store.run(upkeep.promote(0), within_s=10.0)

    assert peer.scripts == [b"EVALSHA"]
    store.close()


def test_a_loading_store_is_waited_for(peer_of: Callable[..., Peer]) -> None:
    """The same connection serves: it was the store that was not ready."""
    answers = iter([b"-LOADING dataset\r\n", b"-BUSY script\r\n", b":1\r\n"])
    peer = peer_of(lambda command: next(answers))
    store = SyncStore(peer.url, timeout_s=2.0)

    assert store.run(upkeep.promote(0), within_s=10.0) is True
    assert peer.scripts == [b"EVALSHA"] * 3
    store.close()


def test_a_script_that_the_server_has_not_is_sent_whole(peer_of: Callable[..., Peer]) -> None:
    """NOSCRIPT means that nothing ran."""
    peer = peer_of(lambda command: b"-NOSCRIPT none\r\n" if command[0] == b"EVALSHA" else b":0\r\n")
    store = SyncStore(peer.url, timeout_s=2.0)

    assert store.run(upkeep.promote(0)) is False
    assert peer.scripts == [b"EVALSHA", b"EVAL"]
    store.close()


def test_a_store_that_does_not_answer_holds_a_call_no_longer_than_the_time_out(tmp_path: Path) -> None:
    """A frozen server accepts connections and says nothing: the request gives up."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen(8)
        store = SyncStore(f"unix://{tmp_path / 's'}", timeout_s=0.2)
        began = time.monotonic()

        with pytest.raises(StoreUnavailable):
            store.run(upkeep.promote(0))
        assert time.monotonic() - began < 5.0
        store.close()


def heard(inbox: Inbox, within_s: float = 5.0) -> str | None:
    """The next answer of *inbox*, which was asked."""
    assert select.select([inbox.fileno()], [], [], within_s)[0]
    return inbox.take()


def test_a_block_may_last_longer_than_a_reply(peer_of: Callable[..., Peer]) -> None:
    """The inbox waits as long as it was asked to, though a request would have timed out by then."""
    late = threading.Event()

    def answer(command: list[bytes]) -> bytes:
        late.wait(0.6)
        return b"*3\r\n$1\r\nk\r\n$1\r\nw\r\n$1\r\n1\r\n"

    peer = peer_of(answer)
    store = SyncStore(peer.url, timeout_s=0.2)
    inbox = store.inbox(0, "wid")

    inbox.ask(0.5)
    assert inbox.answers_by > time.monotonic() + 0.5
    assert heard(inbox) == "w"
    assert not inbox.answers_by
    inbox.close()
    store.close()
