"""The process that forks runners."""

from __future__ import annotations

import faulthandler
import os
import socket
from collections.abc import Iterator

import psutil
import pytest

from support.eventually import eventually
from taskmaster.broker.isolation import nursery as nurseries
from taskmaster.broker.isolation.nursery import Nursery, NurseryLost


def obey(sock: socket.socket) -> None:
    """A runner that ends as it is told to."""
    word = sock.recv(16)
    if word == b"crash":
        faulthandler.disable()  # pytest's: this crash is meant
        os.abort()
    if word == b"environ":
        sock.sendall(" ".join(os.environ).encode())


@pytest.fixture
def nursery() -> Iterator[Nursery]:
    made = Nursery(obey, [], lambda name: name != "SECRET_OF_OURS")
    yield made
    made.close()
    made.close()


def test_each_runner_has_its_own_end(nursery):
    """One crashes, one ends well, and each status is told for its own process id."""
    (one, first), (two, second) = nursery.spawn(), nursery.spawn()
    with first, second:
        assert nursery.status(one, 0) is None
        first.sendall(b"crash")
        assert nursery.status(one, 10) == -6
        second.sendall(b"end")
        assert nursery.status(two, 10) == 0


def test_a_runner_does_not_see_what_it_must_not(monkeypatch):
    """Variables that the service keeps to itself are gone; the others stay."""
    monkeypatch.setenv("SECRET_OF_OURS", "x")
    monkeypatch.setenv("NO_SECRET", "x")
    nursery = Nursery(obey, [], lambda name: name != "SECRET_OF_OURS")
    try:
        _, sock = nursery.spawn()
        with sock:
            sock.sendall(b"environ")
            seen = sock.recv(65_536).decode().split()
    finally:
        nursery.close()
    assert "NO_SECRET" in seen
    assert "SECRET_OF_OURS" not in seen


def test_a_dismissed_runner_is_reaped(nursery):
    """Nobody asks for its status; it does not stay as a zombie."""
    pid, sock = nursery.spawn()
    nursery.dismiss(pid)
    with sock:
        sock.sendall(b"end")
    eventually(lambda: not psutil.pid_exists(pid), 10)


def test_closing_ends_every_runner(nursery):
    """Those that wait for a word, too; nothing more can be started."""
    pids = []
    socks = []
    for _ in range(3):
        pid, sock = nursery.spawn()
        pids.append(pid)
        socks.append(sock)
    nursery.close()
    for sock in socks:
        sock.close()
    assert not [pid for pid in (nursery.pid, *pids) if psutil.pid_exists(pid)]
    with pytest.raises(NurseryLost):
        nursery.spawn()


def test_a_fork_that_failed_is_no_process_to_be_killed(monkeypatch):
    """Its answer is -1, which to `kill` means every process there is."""
    reads, writes = os.pipe()
    monkeypatch.setattr(nurseries, "_fork", lambda control, theirs, run: theirs.close() or -1)
    monkeypatch.setattr(nurseries.os, "kill", lambda pid, number: os.write(writes, b"%d " % pid))  # the nursery inherits it
    nursery = Nursery(obey, [], lambda name: True)
    try:
        with pytest.raises(NurseryLost, match="does not fork"):
            nursery.spawn()
    finally:
        nursery.close()
        os.close(writes)
    with os.fdopen(reads, "rb") as killed:
        assert killed.read() == b""
