"""Where a consumer sleeps: what ends it, what is heard, and an inbox that is lost."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from support.eventually import eventually
from support.proxy import StoreProxy
from support.servers import StoreServer
from taskmaster.broker import waker as waker_module
from taskmaster.broker.waker import Waker
from taskmaster.store import inbox as inbox_module
from taskmaster.store.client import SyncStore

INBOX = "tm:{0}:in:w1"


@pytest.fixture
def road(clean_server: StoreServer) -> Iterator[StoreProxy]:
    with StoreProxy(clean_server) as proxy:
        yield proxy


@pytest.fixture
def store(road: StoreProxy) -> Iterator[SyncStore]:
    made = SyncStore(road.url, timeout_s=1.0)
    yield made
    made.close()


@pytest.fixture
def heard() -> list[str]:
    return []


@pytest.fixture
def waker(store: SyncStore, heard: list[str]) -> Iterator[Waker]:
    made = Waker(heard.append)
    made.listen(store.inbox(0, "w1"))
    yield made
    made.close()


def put(server: StoreServer, marker: str, inbox: str = INBOX) -> None:
    server.call("ZADD", inbox, "1", marker)


def later(delay_s: float, what) -> threading.Timer:
    timer = threading.Timer(delay_s, what)
    timer.start()
    return timer


def test_a_marker_is_heard_whenever_it_came(waker: Waker, heard: list[str], clean_server: StoreServer) -> None:
    """Before the sleep, in the middle of it, and by who only looks; each once."""
    put(clean_server, "w")
    assert waker.wait(5)
    timer = later(0.1, lambda: put(clean_server, "c/one"))
    assert waker.wait(5)
    timer.join()
    assert not waker.wait(0.05)
    put(clean_server, "c/two")
    eventually(lambda: waker.wait(0), what="the marker is heard by who only looks")

    assert heard == ["w", "c/one", "c/two"]
    assert not waker.wait(0)


def test_a_sleep_ends_by_itself(waker: Waker, heard: list[str]) -> None:
    began = time.monotonic()

    assert not waker.wait(0.1)

    assert time.monotonic() - began >= 0.1
    assert heard == []


def test_a_ring_ends_the_sleep_or_the_next_one(waker: Waker, heard: list[str]) -> None:
    """However many there are before it; none is needed twice, and nothing is heard."""
    timer = later(0.05, waker.ring)
    assert waker.wait(10)
    timer.join()
    for _ in range(100_000):  # more than a pipe holds
        waker.ring()
    while waker.wait(0):
        pass

    assert not waker.wait(0.01)
    assert heard == []


def test_another_inbox_is_listened_to_in_place_of_the_first(
    waker: Waker, store: SyncStore, heard: list[str], clean_server: StoreServer
) -> None:
    """A new life has a new name: what is meant for the old one stays where it is."""
    waker.wait(0)
    waker.listen(store.inbox(0, "w2"))
    put(clean_server, "old")
    put(clean_server, "new", "tm:{0}:in:w2")

    assert waker.wait(5)
    assert not waker.wait(0.1)
    assert heard == ["new"]


def test_a_lost_inbox_asks_for_a_look_and_is_found_again(
    waker: Waker, heard: list[str], road: StoreProxy, clean_server: StoreServer
) -> None:
    """A marker may have been lost with the connection: told within half a second, and not at once, for all lose theirs together."""
    waker.wait(0.05)
    began = time.monotonic()
    road.cut()

    assert waker.wait(5)
    assert heard == [""]
    assert time.monotonic() - began >= 0.1

    put(clean_server, "w")
    assert waker.wait(5)
    assert heard == ["", "w"]


def test_a_store_that_is_away_is_tried_again_and_again(heard: list[str], tmp_path) -> None:
    """Each time it asks for a look; a ring is heard all the same."""
    store = SyncStore(f"unix://{tmp_path / 'nowhere'}", timeout_s=1.0)
    waker = Waker(heard.append)
    waker.listen(store.inbox(0, "w1"))
    ends = time.monotonic() + 1.5
    while time.monotonic() < ends:
        waker.wait(0.2)
    waker.ring()

    assert waker.wait(0.05)
    assert 2 <= len(heard) <= 15
    assert set(heard) == {""}
    waker.close()
    store.close()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A block of 0.2 s that is overdue 0.1 s after its end."""
    monkeypatch.setattr(waker_module, "BLOCK_S", 0.2)
    monkeypatch.setattr(inbox_module, "_OVERDUE_S", 0.1)


@pytest.mark.usefixtures("quick")
def test_an_answer_that_is_overdue_is_a_lost_inbox(waker: Waker, heard: list[str], road: StoreProxy, clean_server: StoreServer) -> None:
    """A frozen store says nothing to what it was asked: on another connection it may."""
    road.mute()
    assert waker.wait(5)
    assert heard == [""]

    road.restore()
    put(clean_server, "w")
    while "w" not in heard:
        assert waker.wait(5)
    assert set(heard) == {"", "w"}


@pytest.mark.usefixtures("quick")
def test_what_was_answered_while_nobody_looked_is_heard(waker: Waker, heard: list[str], clean_server: StoreServer) -> None:
    """However late: a consumer may be in a round for long."""
    waker.wait(0.05)
    put(clean_server, "c/one")
    asked = waker._inbox
    assert asked is not None
    eventually(lambda: asked.is_overdue(time.monotonic()), what="the answer is overdue, had it not come")

    assert waker.wait(1)
    assert heard == ["c/one"]


def test_who_only_looks_connects_at_first_and_not_soon_after_a_loss(
    waker: Waker, heard: list[str], road: StoreProxy, clean_server: StoreServer
) -> None:
    """Connecting may take a while, and a round stands behind the look. Who sleeps connects."""
    put(clean_server, "w")
    eventually(lambda: waker.wait(0), what="the marker is heard")
    waker.wait(0)  # asks for the next one
    road.cut()
    eventually(lambda: waker.wait(0), what="the loss is told")
    put(clean_server, "c/one")
    assert not waker.wait(0)

    assert waker._inbox is not None
    assert not waker._inbox.is_connected
    assert heard == ["w", ""]
    assert waker.wait(5)
    assert heard == ["w", "", "c/one"]


def test_an_answer_in_pieces_is_heard_whole(waker: Waker, heard: list[str], road: StoreProxy, clean_server: StoreServer) -> None:
    road.split_bytes(1)
    put(clean_server, "c/long-enough-to-come-in-pieces")

    while not heard:
        assert waker.wait(5)
    assert heard == ["c/long-enough-to-come-in-pieces"]


def test_once_closed_it_may_still_be_rung(waker: Waker) -> None:
    """By threads that end later. Closing twice is closing."""
    waker.close()
    waker.ring()
    waker.close()
    assert not waker.wait(5)
