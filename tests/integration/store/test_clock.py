"""The store's clock as our processes know it."""

from __future__ import annotations

import time

import pytest

from support.servers import StoreServer
from taskmaster.store.aio import AsyncStore
from taskmaster.store.client import SyncStore

pytestmark = [pytest.mark.anyio, pytest.mark.server("valkey")]
HOUR_S = 3_600


def set_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock of this machine is put right: it was an hour behind."""
    wall, wall_ns = time.time, time.time_ns
    monkeypatch.setattr(time, "time", lambda: wall() + HOUR_S)
    monkeypatch.setattr(time, "time_ns", lambda: wall_ns() + HOUR_S * 1_000_000_000)


def late_s(server: StoreServer, now_ms: int) -> float:
    return abs(int(server.call("TIME")[0]) - now_ms / 1_000)


async def test_a_clock_that_is_set_is_compared_with_the_stores_again(clean_server: StoreServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else what is decided by it, such as which instants of a schedule are over, is an hour off for as long as the process lives."""
    sync, on_loop = SyncStore(clean_server.url), AsyncStore(clean_server.url)
    before = sync.now_ms(), await on_loop.now_ms()
    set_on(monkeypatch)
    after = sync.now_ms(), await on_loop.now_ms()
    sync.close()
    await on_loop.close()

    assert [late_s(clean_server, now_ms) < 60 for now_ms in (*before, *after)] == [True] * 4
