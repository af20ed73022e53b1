"""What crosses the socket between a worker process and a runner."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator

import pytest

from taskmaster.broker.isolation.frames import FROM_RUNNER_MAX, Bye, Channel, Closed, Ended, FromRunner, Log, Progress, Reply, ToRunner
from taskmaster.model.job import Failure


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def test_messages_arrive_whole_and_in_order(ends):
    """However the bytes are cut; several in one piece, one in many."""
    ours, theirs = ends
    sent = [Progress(0.5, "half"), Log(30, "a.b", "text\n\u2028", {"jobId": "1"}), Ended("f", 0, "fatal", b"\x00", Failure("E", "m"), 1.5)]
    sender, receiver = Channel(theirs, ToRunner, 1_000), Channel(ours, FromRunner, FROM_RUNNER_MAX)
    for message in sent:
        sender.send(message)
    assert [receiver.receive(5) for _ in sent] == sent

    large = Progress(1.0, "x" * 1_000_000)
    thread = threading.Thread(target=sender.send, args=(large,))
    thread.start()
    assert receiver.receive(5) == large
    thread.join()


def test_a_wait_ends_in_time_and_loses_nothing(ends):
    """Half a message is kept for the next call."""
    ours, theirs = ends
    receiver = Channel(ours, ToRunner, 1_000)
    theirs.sendall(struct.pack("!I", 9) + b'["re')
    with pytest.raises(TimeoutError):
        receiver.receive(0.01)
    theirs.sendall(b'ply"]')
    assert receiver.receive(5) == Reply()


@pytest.mark.parametrize("rubbish", [b"\xff\xff\xff\xff", struct.pack("!I", 3) + b"{}}", struct.pack("!I", 7) + b'["bye"]'])
def test_rubbish_closes(ends, rubbish):
    """Too long, no JSON, or a word that is the other side's to say."""
    ours, theirs = ends
    theirs.sendall(rubbish)
    with pytest.raises(Closed):
        Channel(ours, FromRunner, FROM_RUNNER_MAX).receive(5)


def test_the_end_of_the_other_side_is_noticed(ends):
    """Both by who listens and by who speaks."""
    ours, theirs = ends
    theirs.close()
    channel = Channel(ours, FromRunner, FROM_RUNNER_MAX)
    with pytest.raises(Closed):
        channel.receive(5)
    with pytest.raises(Closed):
        channel.send(Bye())
