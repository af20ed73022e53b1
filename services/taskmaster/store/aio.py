"""The asyncio client, for the API: runs the same calls as `client.SyncStore`, each bounded in time."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

import redis
import redis.asyncio as aredis
from hiredis import pack_command

from taskmaster.errors import StoreUnavailable
from taskmaster.store.call import Call, meta_key
from taskmaster.store.client import connection_options
from taskmaster.store.faults import Action, classify, translate
from taskmaster.store.keys import key

__all__ = ["AsyncStore", "Channel"]

T = TypeVar("T")
_CONNECTIONS = 16
#: First wait before a resend, seconds; each next one is longer. When the last of them is over, the store counts as down.
_FIRST_WAIT_S, _WAIT_GROWTH, _LAST_WAIT_S = 0.02, 2.5, 0.3


class AsyncStore:
    """Runs calls on a pool of connections of the running loop. Waits for a free connection count towards the time-out.

    Args:
        url: redis://, rediss:// or unix://.
        timeout_s: how long one call may take, resends included.
    """

    def __init__(self, url: str, *, timeout_s: float = 5.0) -> None:
        self.url = url
        self.timeout_s = timeout_s
        pool = aredis.BlockingConnectionPool.from_url(url, max_connections=_CONNECTIONS, timeout=timeout_s, **connection_options(timeout_s))
        self._redis = aredis.Redis(connection_pool=pool)
        self._skew_ms: int | None = None

    async def run(self, call: Call[T]) -> T:
        """Run *call*, sending the same operation again after a broken connection while the time-out allows, and decode its answer.

        Raises:
            StoreUnavailable: no answer in time; it may have taken effect.
            StoreRefused: the store takes no writes; it did not take effect.
            StoreDefect: the request or the keys are wrong.
        """
        return call.decode(await _resending(call.script.name, self.timeout_s, lambda: self._send(call)))

    async def _send(self, call: Call[Any]) -> Any:
        meta = meta_key(call.partition)
        try:
            return await self._redis.execute_command("EVALSHA", call.script.sha, 1, meta, *call.args, "")
        except redis.exceptions.NoScriptError:
            return await self._redis.execute_command("EVAL", call.script.text, 1, meta, *call.args, "")

    def channel(self) -> Channel:
        """A connection of its own for one caller at a time, at a third of the pool's cost a call."""
        pool = self._redis.connection_pool
        return Channel(lambda: pool.connection_class(**{**pool.connection_kwargs, "socket_timeout": None}), self.timeout_s)

    async def now_ms(self) -> int:
        """The store's clock as well as we know it: ours plus the skew measured once."""
        if self._skew_ms is None:
            await self.align()
        assert self._skew_ms is not None
        return time.time_ns() // 1_000_000 + self._skew_ms

    async def align(self) -> None:
        """Measure the skew between the store's clock and ours (again)."""
        before = time.time()
        async with _bounded("time", self.timeout_s):
            seconds, micros = await self._redis.time()
        self._skew_ms = int(seconds * 1_000 + micros // 1_000 - (before + time.time()) / 2 * 1_000)

    async def newest_event(self, partition: int) -> str:
        """Id of the newest entry of the partition's event stream, `0-0` if there is none: where `events` may begin."""
        async with _bounded("events", self.timeout_s):
            found = await self._redis.xrevrange(key(partition, "ev"), count=1)
        return str(found[0][0].decode()) if found else "0-0"

    async def events(self, partition: int, after: str, block_ms: int) -> list[tuple[str, bytes]]:
        """Entries of the partition's event stream after id *after* ("$": from now on), at most 200; empty when none came in *block_ms*.

        *block_ms* must stay below the time-out of a reply.
        """
        async with _bounded("events", block_ms / 1_000 + self.timeout_s):
            found = await self._redis.xread({key(partition, "ev"): after}, count=200, block=block_ms)
        return [(entry_id.decode(), fields.get(b"e", b"")) for _, entries in found or [] for entry_id, fields in entries]

    async def ping(self) -> float:
        """Round trip to a store that takes commands, seconds.

        Raises:
            StoreError: it does not.
        """
        started = time.monotonic()
        async with _bounded("ping", self.timeout_s):
            await self._redis.ping()
        return time.monotonic() - started

    async def close(self) -> None:
        """Close all connections of the pool."""
        await self._redis.aclose()
        await self._redis.connection_pool.disconnect()


class Channel:
    """One connection, one caller at a time: what is paid for a pool, and for a timer at each step, is saved.

    Args:
        connect: makes the library's connection object, not yet connected.
        timeout_s: how long one call may take, resends included, unless `run` says otherwise.
    """

    def __init__(self, connect: Callable[[], Any], timeout_s: float) -> None:
        self._make = connect
        self._connection: Any = None
        self.timeout_s = timeout_s

    async def run(self, call: Call[T], *, within_s: float | None = None) -> T:
        """As `AsyncStore.run`, in *within_s* seconds at most."""
        return call.decode(await _resending(call.script.name, self.timeout_s if within_s is None else within_s, lambda: self._send(call)))

    async def _send(self, call: Call[Any]) -> Any:
        args = (1, meta_key(call.partition), *call.args, "")
        try:
            return await self._ask(("EVALSHA", call.script.sha, *args))
        except redis.exceptions.NoScriptError:
            return await self._ask(("EVAL", call.script.text, *args))

    async def _ask(self, command: tuple[Any, ...]) -> Any:
        connection = self._connection
        if connection is None:
            connection = self._make()
            await connection.connect()
            self._connection = connection
        whole = False
        try:
            await connection.send_packed_command(pack_command(command), check_health=False)
            answer = await connection.read_response(timeout=math.inf)
            whole = True
        except redis.ResponseError:
            whole = True
            raise
        finally:
            if not whole:  # also when cancelled: a late reply must not answer the next question
                self._connection = None
                await connection.disconnect(nowait=True)
        return answer

    async def close(self) -> None:
        """Drop the connection. May be called twice; a later `run` connects again."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.disconnect(nowait=True)


async def _resending(name: str, within_s: float, send: Callable[[], Awaitable[Any]]) -> Any:
    try:
        async with asyncio.timeout(within_s):
            wait_s = _FIRST_WAIT_S
            while True:
                try:
                    return await send()
                except (redis.RedisError, OSError) as error:
                    if classify(error) in (Action.BUG, Action.REJECT) or wait_s > _LAST_WAIT_S:
                        raise translate(error, name) from error
                await asyncio.sleep(wait_s)
                wait_s *= _WAIT_GROWTH
    except TimeoutError as error:
        raise StoreUnavailable(f"{name}: no answer within {within_s:g} s; repeat the request", timeout_s=within_s) from error


@contextlib.asynccontextmanager
async def _bounded(name: str, within_s: float) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(within_s):
            yield
    except TimeoutError as error:
        raise StoreUnavailable(f"{name}: no answer within {within_s:g} s", timeout_s=within_s) from error
    except (redis.RedisError, OSError) as error:
        raise translate(error, name) from error
