"""The one reader behind all who follow everything, over a real store that fails when it is told to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from support.eventually import eventually_async
from support.servers import StoreServer
from taskmaster.engine import pulse as module
from taskmaster.engine.pulse import Pulse
from taskmaster.errors import StoreUnavailable
from taskmaster.store.aio import AsyncStore

pytestmark = [pytest.mark.anyio, pytest.mark.server("valkey")]


class Failing(AsyncStore):
    """A store of which a read can be held until it is let go: then it fails.

    Attributes:
        reads: that have begun.
        let_go: for the next one; None: it is not held.
    """

    reads = 0
    let_go: asyncio.Event | None = None

    async def newer_events(self, after: Sequence[str], block_ms: int) -> dict[int, str]:
        self.reads += 1
        if self.let_go is not None:
            await self.let_go.wait()
            self.let_go = None
            raise StoreUnavailable("away for a moment")
        return await super().newer_events(after, block_ms)


@pytest.fixture
async def store(clean_server: StoreServer) -> AsyncIterator[Failing]:
    made = Failing(clean_server.url)
    yield made
    await made.close()


async def test_who_comes_while_the_store_is_away_hears_when_it_is_back(store: Failing, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reader was about to end, since nobody heard it any more: it stays for the one who has come meanwhile."""

    async def has_read(times: int) -> bool:
        return store.reads >= times

    pulse = Pulse(store, 1, 20)
    async with pulse.hear(5):
        pass
    alone = store.reads + 2  # when that begins, the one before it has found nobody
    await eventually_async(lambda: has_read(alone), what="the reader knows that it is alone")
    let_go, held = asyncio.Event(), store.reads + 1
    store.let_go = let_go
    await eventually_async(lambda: has_read(held), what="a read is held")
    async with pulse.hear(5) as bell:
        bell.take()
        monkeypatch.setattr(module, "LINGER_S", 0.0)  # so long has it been alone
        let_go.set()
        await bell.wait(5)
        heard = bell.take()
    pulse.close()

    assert heard == {0}
