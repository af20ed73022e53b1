"""The asyncio client, for the API: runs the same calls as `client.SyncStore`, each bounded in time."""

from __future__ import annotations

import asyncio
import time
from typing import Any, TypeVar

import redis
import redis.asyncio as aredis

from taskmaster.errors import StoreUnavailable
from taskmaster.store.call import Call, meta_key
from taskmaster.store.client import connection_options
from taskmaster.store.faults import Action, classify, translate

__all__ = ["AsyncStore"]

T = TypeVar("T")
_CONNECTIONS = 16


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
        name = call.script.name
        try:
            async with asyncio.timeout(self.timeout_s):
                wait_s = 0.02
                while True:
                    try:
                        return call.decode(await self._send(call))
                    except (redis.RedisError, OSError) as error:
                        if classify(error) in (Action.BUG, Action.REJECT):
                            raise translate(error, name) from error
                        last = translate(error, name)
                        if wait_s > 0.3:
                            raise last from error
                    await asyncio.sleep(wait_s)
                    wait_s *= 2.5
        except TimeoutError as error:
            raise StoreUnavailable(f"{name}: no answer within {self.timeout_s:g} s; repeat the request", timeout_s=self.timeout_s) from error

    async def _send(self, call: Call[Any]) -> Any:
        key = meta_key(call.partition)
        try:
            return await self._redis.execute_command("EVALSHA", call.script.sha, 1, key, *call.args, "")
        except redis.exceptions.NoScriptError:
            return await self._redis.execute_command("EVAL", call.script.text, 1, key, *call.args, "")

    async def now_ms(self) -> int:
        """The store's clock as well as we know it: ours plus the skew measured once."""
        if self._skew_ms is None:
            before = time.time()
            try:
                async with asyncio.timeout(self.timeout_s):
                    seconds, micros = await self._redis.time()
            except TimeoutError as error:
                raise StoreUnavailable(f"time: no answer within {self.timeout_s:g} s", timeout_s=self.timeout_s) from error
            except (redis.RedisError, OSError) as error:
                raise translate(error, "time") from error
            self._skew_ms = int(seconds * 1_000 + micros // 1_000 - (before + time.time()) / 2 * 1_000)
        return time.time_ns() // 1_000_000 + self._skew_ms

    async def events(self, partition: int, after: str, block_ms: int) -> list[tuple[str, bytes]]:
        """Entries of the partition's event stream after id *after* ("$": from now on), at most 200; empty when none came in *block_ms*."""
        key = f"tm:{{{partition}}}:ev"
        try:
            async with asyncio.timeout(block_ms / 1_000 + self.timeout_s):
                found = await self._redis.xread({key: after}, count=200, block=block_ms)
        except TimeoutError as error:
            raise StoreUnavailable("events: no answer in time") from error
        except (redis.RedisError, OSError) as error:
            raise translate(error, "events") from error
        return [(entry_id.decode(), fields.get(b"e", b"")) for _, entries in found or [] for entry_id, fields in entries]

    async def ping(self) -> float:
        """Round trip to a store that takes commands, seconds.

        Raises:
            StoreError: it does not.
        """
        started = time.monotonic()
        try:
            async with asyncio.timeout(self.timeout_s):
                await self._redis.ping()
        except TimeoutError as error:
            raise StoreUnavailable(f"ping: no answer within {self.timeout_s:g} s") from error
        except (redis.RedisError, OSError) as error:
            raise translate(error, "ping") from error
        return time.monotonic() - started

    async def close(self) -> None:
        """Close all connections."""
        await self._redis.aclose()
        await self._redis.connection_pool.disconnect()
