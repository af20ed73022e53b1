"""The lean connection of the submission path."""

from __future__ import annotations

import asyncio

import pytest

from support.servers import StoreServer
from taskmaster.errors import StoreDefect, StoreUnavailable
from taskmaster.store import reads, upkeep
from taskmaster.store.aio import AsyncStore
from taskmaster.store.call import Call
from taskmaster.store.scripts import Script

pytestmark = [pytest.mark.anyio, pytest.mark.server("valkey", "redis")]


def lua(text: str) -> Call[object]:
    import hashlib

    raw = f"#!lua\n{text}".encode()
    return Call(Script("test", raw, hashlib.sha1(raw, usedforsecurity=False).hexdigest()), 0, (), lambda found: found)


async def test_unknown_script_is_sent_whole(clean_server: StoreServer) -> None:
    clean_server.call("SCRIPT", "FLUSH")
    store = AsyncStore(clean_server.url, timeout_s=2)
    channel = store.channel()

    assert await channel.run(upkeep.promote(0)) is False
    assert await channel.run(reads.catalogue(0)) == {}
    await channel.close()
    await store.close()


async def test_broken_connection_is_made_anew(clean_server: StoreServer) -> None:
    """The same operation is sent again, and the caller does not notice."""
    store = AsyncStore(clean_server.url, timeout_s=2)
    channel = store.channel()
    await channel.run(upkeep.promote(0))
    clean_server.call("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")

    assert await channel.run(upkeep.promote(0)) is False
    await channel.close()
    await channel.close()
    await store.close()


async def test_late_reply_answers_no_other_question(clean_server: StoreServer) -> None:
    """After a time-out, and after a caller went away, the connection is dropped with its reply."""
    store = AsyncStore(clean_server.url, timeout_s=2)
    channel = store.channel()
    await channel.run(lua("return 'warm'"))
    clean_server.pause()
    with pytest.raises(StoreUnavailable):
        await channel.run(lua("return 'late'"), within_s=0.2)
    gone = asyncio.create_task(channel.run(lua("return 'gone'")))
    await asyncio.wait({gone}, timeout=0.1)
    gone.cancel()
    clean_server.resume()

    assert await channel.run(lua("return 'mine'")) == b"mine"
    await channel.close()
    await store.close()


async def test_error_of_a_script_is_a_defect(clean_server: StoreServer) -> None:
    store = AsyncStore(clean_server.url, timeout_s=2)
    channel = store.channel()

    with pytest.raises(StoreDefect):
        await channel.run(lua("return redis.call('NOSUCH')"))
    assert await channel.run(lua("return 7")) == 7
    await channel.close()
    await store.close()


async def test_large_replies_arrive_whole(clean_server: StoreServer) -> None:
    store = AsyncStore(clean_server.url, timeout_s=5)
    channel = store.channel()

    assert await channel.run(lua("return string.rep('x', 3000000)")) == b"x" * 3_000_000
    await channel.close()
    await store.close()


async def test_a_cancelled_caller_of_the_store_ends(clean_server: StoreServer) -> None:
    """At whatever step of a question the cancellation comes, it is not lost: background work must end when it is told to."""
    store = AsyncStore(clean_server.url, timeout_s=2)

    async def ask_and_stay() -> None:
        await store.vitals()
        await asyncio.Event().wait()

    for steps in range(80):
        caller = asyncio.create_task(ask_and_stay())
        for _ in range(steps):
            await asyncio.sleep(0)
        caller.cancel()
        await asyncio.wait({caller}, timeout=1)
        is_cancelled = caller.cancelled()
        caller.cancel()

        assert is_cancelled, f"lost after {steps} steps"
    await store.close()
