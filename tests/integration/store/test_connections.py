"""The blocking client's connections: which are kept, and when they are let go."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from support.eventually import eventually
from support.servers import StoreServer
from taskmaster.errors import StoreError, StoreUnavailable
from taskmaster.store import upkeep
from taskmaster.store.client import SyncStore

pytestmark = pytest.mark.server("valkey")


def clients(server: StoreServer) -> int:
    return int(server.call("INFO", "clients")["connected_clients"])


def test_calls_one_after_the_other_share_a_connection(clean_server: StoreServer) -> None:
    """One that the server has closed meanwhile is noticed before the call."""
    store = SyncStore(clean_server.url)
    before = clients(clean_server)

    for _ in range(5):
        store.run(upkeep.promote(0))
    kept = clients(clean_server) - before
    clean_server.call("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")

    assert kept == 1
    assert store.run(upkeep.promote(0)) is False
    store.close()


@pytest.mark.parametrize("within_s", [0.0, 5.0])
def test_nothing_stays_with_a_primary_that_is_none_any_more(clean_server: StoreServer, tmp_path: Path, within_s: float) -> None:
    """The connection that was told so goes, with all that lie idle, whether or not the call goes on."""
    road = tmp_path / "s"
    road.symlink_to(clean_server.socket_path)
    store = SyncStore(f"unix://{road}")
    store.run(upkeep.promote(0))
    assert store.vitals() is not None
    with StoreServer("valkey") as successor:
        clean_server.call("REPLICAOF", "127.0.0.1", "1")
        try:
            road.unlink()
            road.symlink_to(successor.socket_path)
            successor.call("SET", "tm:{0}:sign", "1")

            if not within_s:
                with pytest.raises(StoreUnavailable):
                    store.run(upkeep.promote(0))
            assert store.run(upkeep.promote(0), within_s=within_s) is False
            vitals = store.vitals()
            assert vitals is not None
            assert vitals.role == "master"
            assert list(store.names(0)) == ["sign"]
        finally:
            clean_server.call("REPLICAOF", "NO", "ONE")
        store.close()


def test_a_store_that_is_closed_waits_for_nothing(clean_server: StoreServer) -> None:
    """Whoever waits for an answer is told that there is none, and no connection is left; a later call opens one."""
    store = SyncStore(clean_server.url, timeout_s=8)
    before = clients(clean_server)
    store.run(upkeep.promote(0))
    told: list[StoreError] = []

    def ask() -> None:
        try:
            store.run(upkeep.promote(0))
        except StoreError as error:
            told.append(error)

    clean_server.pause()
    thread = threading.Thread(target=ask)
    try:
        thread.start()
        eventually(lambda: store._busy)
        store.close()
        thread.join(20)
        assert not thread.is_alive()
    finally:
        clean_server.resume()

    assert isinstance(told[0], StoreUnavailable)
    eventually(lambda: clients(clean_server) == before)
    assert store.run(upkeep.promote(0)) is False
    store.close()


def test_calls_that_were_begun_are_answered_once_and_their_connection_goes_on(clean_server: StoreServer) -> None:
    """All over one, which serves the next call."""
    store = SyncStore(clean_server.url)
    before = clients(clean_server)

    assert store.begin([upkeep.promote(partition) for partition in range(5)]).answers() == [False] * 5
    assert store.run(upkeep.promote(0)) is False

    assert clients(clean_server) - before == 1
    store.close()


def test_a_fork_leaves_the_answers_to_its_parent(clean_server: StoreServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading one would leave the parent without, and the connection is not the child's to use."""
    store = SyncStore(clean_server.url)
    begun = store.begin([upkeep.promote(0)])
    with monkeypatch.context() as child:
        child.setattr(os, "getpid", lambda: -1)
        [answer] = begun.answers(within_s=5)

    assert isinstance(answer, StoreUnavailable)
    assert store.run(upkeep.promote(0)) is False
    store.close()
