"""The asyncio client, for the API: runs the same calls as `client.SyncStore`, each bounded in time."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, TypeVar, cast

import redis
import redis.asyncio as aredis
from hiredis import ProtocolError, Reader, ReplyError, pack_command

from taskmaster.errors import StoreUnavailable
from taskmaster.store.asking import Asking, Ways, asking
from taskmaster.store.call import Call, Meter, Talk
from taskmaster.store.client import clocks_apart_s, connection_options, last_entries, was_set_since
from taskmaster.store.faults import Action, classify, is_denied, translate
from taskmaster.store.keys import key
from taskmaster.store.safety import PARAMETERS, SECTIONS, Vitals, vitals

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
        meter: told of the calls that it and its channels make.
    """

    def __init__(self, url: str, *, timeout_s: float = 5.0, meter: Meter | None = None) -> None:
        self.url = url
        self._meter = meter
        self.timeout_s = timeout_s
        # No time-out of the library's own: ours bound every call, and its `wait_for` loses cancellations on Python 3.11.
        options = connection_options(timeout_s) | {"socket_timeout": None}
        pool = aredis.BlockingConnectionPool.from_url(url, max_connections=_CONNECTIONS, timeout=timeout_s, **options)
        self._redis = aredis.Redis(connection_pool=pool)
        self._ask: Callable[..., Awaitable[Any]] = self._redis.execute_command
        self._ways = Ways()
        self._skew_ms: int | None = None
        self._apart_s = clocks_apart_s()
        self._aligning: asyncio.Task[None] | None = None

    async def run(self, call: Call[T]) -> T:
        """Run *call*, sending the same operation again after a broken connection while the time-out allows, and decode its answer.

        Raises:
            StoreUnavailable: no answer in time; it may have taken effect.
            StoreRefused: the store takes no writes; it did not take effect.
            StoreDefect: the request or the keys are wrong.
        """
        return call.decode(await _resending(call.script.name, self.timeout_s, lambda: self._send(call), self._drop, self._meter))

    async def converse(self, talk: Talk[T]) -> T:
        """Carry out *talk*, call by call. Raises what `run` raises, and what the talk does."""
        try:
            call = next(talk)
            while True:
                call = talk.send(await self.run(call))
        except StopIteration as end:
            return cast("T", end.value)

    async def _drop(self) -> None:
        await self._redis.connection_pool.disconnect(inuse_connections=False)

    async def _send(self, call: Call[Any]) -> Any:
        return await _carried(asking(call, "", self._ways), self._ask)

    def channel(self) -> Channel:
        """A connection of its own for one caller at a time, at a third of the pool's cost a call."""
        pool = self._redis.connection_pool
        return Channel(lambda: pool.connection_class(**pool.connection_kwargs), self._ways, self.timeout_s, self._meter)

    async def now_ms(self) -> int:
        """As `SyncStore.now_ms`."""
        if self._skew_ms is None or was_set_since(self._apart_s):
            if self._aligning is None or self._aligning.done():  # those who come first together share the question
                self._aligning = asyncio.create_task(self.align(), name="store-clock")
            await asyncio.shield(self._aligning)
        return time.time_ns() // 1_000_000 + (self._skew_ms or 0)

    async def align(self) -> None:
        """Measure the skew between the store's clock and ours (again)."""
        before = time.time()
        async with _bounded("time", self.timeout_s):
            seconds, micros = await self._redis.time()
        self._skew_ms = int(seconds * 1_000 + micros // 1_000 - (before + time.time()) / 2 * 1_000)
        self._apart_s = clocks_apart_s()

    async def newest_event(self, partition: int) -> str:
        """Id of the newest entry of the partition's event stream, `0-0` if there is none: where `events` may begin."""
        async with _bounded("events", self.timeout_s):
            found = await self._ask("XREVRANGE", key(partition, "ev"), "+", "-", "COUNT", 1)
        return str(found[0][0].decode()) if found else "0-0"

    async def events(self, partition: int, after: str, block_ms: int) -> list[tuple[str, bytes]]:
        """Entries of the partition's event stream after id *after* ("$": from now on), at most 200; empty when none came in *block_ms*.

        *block_ms* must stay below the time-out of a reply.
        """
        async with _bounded("events", block_ms / 1_000 + self.timeout_s):
            found: Any = await self._redis.xread({key(partition, "ev"): after}, count=200, block=block_ms)
        return [(entry_id.decode(), fields.get(b"e", b"")) for _, entries in found or [] for entry_id, fields in entries]

    async def newer_events(self, after: Sequence[str], block_ms: int) -> dict[int, str]:
        """The partitions whose event streams go on behind ids *after*, one a partition, each with the id of the last entry that was read
        there, at most 200. Empty when nothing came in *block_ms*, which must stay below the time-out of a reply.
        """
        streams: Any = {key(partition, "ev"): entry for partition, entry in enumerate(after)}
        async with _bounded("events", block_ms / 1_000 + self.timeout_s):
            found: Any = await self._redis.xread(streams, count=200, block=block_ms)
        return last_entries(found, list(streams))

    async def ping(self) -> float:
        """Round trip to a store that takes commands, seconds.

        Raises:
            StoreError: it does not.
        """
        started = time.monotonic()
        async with _bounded("ping", self.timeout_s):
            await self._redis.ping()
        return time.monotonic() - started

    async def configuration(self) -> dict[str, str] | None:
        """As `SyncStore.configuration`."""
        try:
            async with asyncio.timeout(self.timeout_s):
                found = await self._redis.config_get(*PARAMETERS)
        except (redis.RedisError, OSError) as error:
            if is_denied(error):
                return None
            raise translate(error, "config get") from error
        return {_text(name): _text(value) for name, value in found.items()}

    async def vitals(self, *sections: str) -> Vitals | None:
        """As `SyncStore.vitals`."""
        try:
            async with asyncio.timeout(self.timeout_s):
                return vitals(await self._redis.info(*sections or SECTIONS))
        except (redis.RedisError, OSError) as error:
            if is_denied(error):
                return None
            raise translate(error, "info") from error

    async def close(self) -> None:
        """Close all connections of the pool."""
        await self._redis.aclose()
        await self._redis.connection_pool.disconnect()


class Channel:
    """One connection, one caller at a time. A call costs a quarter of what it does over the library's pool and streams.

    The library opens the connection, with its URL rules, TLS and log-in; from then on its transport speaks to `_Wire`.

    Args:
        connect: makes the library's connection object, not yet connected.
        ways: what the server takes; of the store.
        timeout_s: how long one call may take, resends included, unless `run` says otherwise.
        meter: told of its calls.
    """

    def __init__(self, connect: Callable[[], Any], ways: Ways, timeout_s: float, meter: Meter | None = None) -> None:
        self._make = connect
        self._ways = ways
        self._meter = meter
        self._connection: Any = None
        self._wire: _Wire | None = None
        self.timeout_s = timeout_s

    async def run(self, call: Call[T], *, within_s: float | None = None) -> T:
        """As `AsyncStore.run`, in *within_s* seconds at most."""
        name = call.script.name
        loop = asyncio.get_running_loop()
        within_s = self.timeout_s if within_s is None else within_s
        deadline, wait_s = loop.time() + within_s, _FIRST_WAIT_S
        while True:
            began_at = time.perf_counter()
            try:
                wire = self._wire
                if wire is None or wire.is_lost:
                    async with asyncio.timeout_at(deadline):
                        wire = await self._connect()
                raw = await _carried(asking(call, "", self._ways), functools.partial(wire.ask, deadline))
                if self._meter is not None:
                    self._meter.called(name, time.perf_counter() - began_at)
                return call.decode(raw)
            except (redis.RedisError, OSError) as error:
                if self._meter is not None:
                    self._meter.failed(name)
                if loop.time() >= deadline:
                    raise StoreUnavailable(f"{name}: no answer within {within_s:g} s; repeat the request", timeout_s=within_s) from error
                action = classify(error)
                if action is Action.RECONNECT:  # also one that answers, but as a replica: who is asked is found anew
                    await self.close()
                if action in (Action.BUG, Action.REJECT) or wait_s > _LAST_WAIT_S or loop.time() + wait_s > deadline:
                    raise translate(error, name) from error
            await asyncio.sleep(wait_s)
            wait_s *= _WAIT_GROWTH

    async def _connect(self) -> _Wire:
        await self.close()
        self._connection = connection = self._make()
        await connection.connect()
        transport: asyncio.Transport = connection._writer.transport  # noqa: SLF001 - a test holds the pinned library to it
        self._wire = wire = _Wire(transport, asyncio.get_running_loop())
        transport.set_protocol(wire)
        return wire

    async def close(self) -> None:
        """Drop the connection. May be called twice; a later `run` connects again."""
        connection, self._connection = self._connection, None
        wire, self._wire = self._wire, None
        if wire is not None:
            wire.drop(redis.ConnectionError("closed"))
        if connection is not None:
            await connection.disconnect(nowait=True)


def _text(value: bytes | str | None) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


_NOT_YET = object()


class _Wire(asyncio.Protocol):
    """Questions and answers over a transport, one at a time."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._reader = Reader(notEnoughData=_NOT_YET)
        self._answer: asyncio.Future[Any] | None = None
        self.is_lost = False

    async def ask(self, deadline: float, *command: Any) -> Any:
        """The reply to *command*.

        Raises:
            redis.ResponseError: an error reply.
            redis.ConnectionError: the connection broke.
            redis.TimeoutError: no reply before *deadline*, in the loop's time. The connection is dropped, so that a late reply cannot
                answer the next question; the same when the caller is cancelled.
        """
        if self.is_lost:
            raise redis.ConnectionError("the connection is lost")
        self._answer = answer = self._loop.create_future()
        timer = self._loop.call_at(deadline, self.drop, redis.TimeoutError("no reply in time"))
        try:
            self._transport.write(pack_command(command))
            reply = await answer
        except asyncio.CancelledError:
            self.drop(redis.ConnectionError("cancelled"))
            raise
        finally:
            timer.cancel()
            self._answer = None
        if isinstance(reply, ReplyError):
            text = str(reply)
            raise redis.exceptions.NoScriptError(text) if text.startswith("NOSCRIPT") else redis.ResponseError(text)
        return reply

    def data_received(self, data: bytes) -> None:
        """Bytes came in."""
        try:
            self._reader.feed(data)
            reply = self._reader.gets()
        except (ProtocolError, ValueError) as error:
            self.drop(redis.ConnectionError(f"not the protocol: {error}"))
            return
        if reply is not _NOT_YET and self._answer is not None and not self._answer.done():
            self._answer.set_result(reply)

    def eof_received(self) -> bool:
        """The server closed its side."""
        self.drop(redis.ConnectionError("the server closed the connection"))
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """The transport is gone."""
        self.drop(redis.ConnectionError(f"connection lost: {exc}"))

    def drop(self, error: Exception) -> None:
        """Close, and tell whoever waits."""
        self.is_lost = True
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error)
        self._transport.abort()


async def _carried(talk: Asking, ask: Callable[..., Awaitable[Any]]) -> Any:
    """What *talk* comes to, its commands put by *ask*."""
    try:
        command = next(talk)
        while True:
            try:
                reply = await ask(*command)
            except redis.ResponseError as error:
                command = talk.throw(error)
            else:
                command = talk.send(reply)
    except StopIteration as end:
        return end.value


async def _resending(
    name: str, within_s: float, send: Callable[[], Awaitable[Any]], drop: Callable[[], Awaitable[None]], meter: Meter | None
) -> Any:
    try:
        async with asyncio.timeout(within_s):
            wait_s = _FIRST_WAIT_S
            while True:
                began_at = time.perf_counter()
                try:
                    raw = await send()
                    if meter is not None:
                        meter.called(name, time.perf_counter() - began_at)
                    return raw
                except (redis.RedisError, OSError) as error:
                    if meter is not None:
                        meter.failed(name)
                    action = classify(error)
                    if action is Action.RECONNECT:
                        await drop()
                    if action in (Action.BUG, Action.REJECT) or wait_s > _LAST_WAIT_S:
                        raise translate(error, name) from error
                await asyncio.sleep(wait_s)
                wait_s *= _WAIT_GROWTH
    except TimeoutError as error:
        if meter is not None:
            meter.failed(name)
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
