"""The blocking client: runs calls on connections of its own. For workers, the CLI and scripts."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar, cast

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from taskmaster.store.asking import Ways
from taskmaster.store.call import Call, Meter, Talk
from taskmaster.store.channel import Begun, Channel
from taskmaster.store.faults import is_denied, translate
from taskmaster.store.inbox import Inbox
from taskmaster.store.keys import key
from taskmaster.store.safety import PARAMETERS, SECTIONS, Vitals, vitals

__all__ = ["SyncStore", "clocks_apart_s", "connection_options", "last_entries", "was_set_since"]

T = TypeVar("T")
#: A clock that moved so much by itself was set.
_STEP_S = 0.5


def connection_options(timeout_s: float) -> dict[str, Any]:
    """What every connection is made with. redis-py's own retries are off: it would resend what it cannot know to be safe."""
    return {
        "socket_timeout": timeout_s,
        "socket_connect_timeout": min(timeout_s, 2.0),
        "retry": Retry(NoBackoff(), 0),
        "decode_responses": False,
        "protocol": 2,  # RESP3 measured slightly slower, and nothing of it is used
    }


class SyncStore:
    """Runs calls, resending the same operation while the store does not answer. Thread-safe.

    Args:
        url: redis://, rediss:// or unix://.
        timeout_s: how long one reply may take.
        now_ms: replaces the server's clock; for tests alone.
        meter: told of the calls that it and its channels make.
    """

    def __init__(self, url: str, *, timeout_s: float = 5.0, now_ms: Callable[[], int] | None = None, meter: Meter | None = None) -> None:
        self.url = url
        self._redis = redis.Redis.from_url(url, **connection_options(timeout_s))
        self._now_ms = now_ms
        self._meter = meter
        self._ways = Ways()
        self._idle: list[Channel] = []
        self._busy: set[Channel] = set()
        self._life = 0  # counts how often it was closed
        self._pid = os.getpid()
        self._skew_ms: int | None = None
        self._apart_s = clocks_apart_s()

    def run(self, call: Call[T], *, within_s: float = 0.0, give_up: threading.Event | None = None) -> T:
        """Run *call* and decode its answer.

        Args:
            call: what to run.
            within_s: how long to go on resending the same operation; 0 sends it once.
            give_up: stop resending when set.

        Raises:
            StoreUnavailable: no answer; it may have taken effect.
            StoreRefused: the store takes no writes; it did not take effect.
            StoreDefect: the request or the keys are wrong.
        """
        channel, life = self._borrowed(), self._life
        try:
            return channel.run(call, within_s=within_s, give_up=give_up)
        finally:
            self._take_back(channel, life)

    def begin(self, calls: Sequence[Call[T]]) -> Begun[T]:
        """Send calls that do not depend on one another, and do not wait: the store does its part while the caller does something else."""
        channel, life = self._borrowed(), self._life
        try:
            return channel.begin(calls, lambda: self._take_back(channel, life))
        except BaseException:
            self._take_back(channel, life)
            raise

    def converse(self, talk: Talk[T], *, within_s: float = 0.0) -> T:
        """Carry out *talk*, call by call, each as `run` does. Raises what `run` raises, and what the talk does."""
        try:
            call = next(talk)
            while True:
                call = talk.send(self.run(call, within_s=within_s))
        except StopIteration as end:
            return cast("T", end.value)

    def _borrowed(self) -> Channel:
        """The channel that was used last, or another: the library's pool costs a third of a call."""
        pid = os.getpid()
        if pid != self._pid:  # the connections are the parent's
            self._idle, self._busy, self._pid = [], set(), pid
        try:
            channel = self._idle.pop()
        except IndexError:
            channel = self.channel()
        else:
            channel.renew()
        self._busy.add(channel)
        return channel

    def _take_back(self, channel: Channel, life: int) -> None:
        """A borrowed channel is free; *life* is when it was borrowed."""
        self._busy.discard(channel)
        if life == self._life:
            self._idle.append(channel)
        else:
            channel.close()

    def _forget(self) -> None:
        """Drop every connection that nobody uses: they may lead to where the primary was."""
        with contextlib.suppress(IndexError):
            while True:
                self._idle.pop().close()
        self._redis.connection_pool.disconnect(inuse_connections=False)

    def channel(self) -> Channel:
        """A connection of its own for one thread that makes many calls: without the pool's share of each."""
        return Channel(self._redis.connection_pool, self._ways, self._forget, self._now_ms, self._meter)

    def now_ms(self) -> int:
        """The store's clock as well as we know it: ours plus the skew, measured when it is first needed and when ours was set."""
        if self._now_ms is not None:
            return self._now_ms()
        if self._skew_ms is None or was_set_since(self._apart_s):
            self.align()
        return time.time_ns() // 1_000_000 + (self._skew_ms or 0)

    def align(self) -> None:
        """Measure the skew between the store's clock and ours (again).

        Raises:
            StoreError: the store does not answer.
        """
        before = time.time()
        try:
            seconds, micros = self._redis.time()
        except (redis.RedisError, OSError) as error:
            raise translate(error, "time") from error
        self._skew_ms = int(seconds * 1_000 + micros // 1_000 - (before + time.time()) / 2 * 1_000)
        self._apart_s = clocks_apart_s()

    def newest_event(self, partition: int) -> str:
        """As `AsyncStore.newest_event`."""
        try:
            found: Any = self._redis.xrevrange(key(partition, "ev"), count=1)
        except (redis.RedisError, OSError) as error:
            raise translate(error, "events") from error
        return _text(found[0][0]) if found else "0-0"

    def events(self, partition: int, after: str, block_ms: int) -> list[tuple[str, bytes]]:
        """As `AsyncStore.events`; occupies a connection meanwhile."""
        try:
            found: Any = self._redis.xread({key(partition, "ev"): after}, count=200, block=block_ms)
        except (redis.RedisError, OSError) as error:
            raise translate(error, "events") from error
        return [(_text(entry_id), fields.get(b"e", b"")) for _, entries in found or [] for entry_id, fields in entries]

    def newer_events(self, after: Sequence[str], block_ms: int) -> dict[int, str]:
        """As `AsyncStore.newer_events`; occupies a connection meanwhile."""
        streams: Any = {key(partition, "ev"): entry for partition, entry in enumerate(after)}
        try:
            found: Any = self._redis.xread(streams, count=200, block=block_ms)
        except (redis.RedisError, OSError) as error:
            raise translate(error, "events") from error
        return last_entries(found, list(streams))

    def configuration(self) -> dict[str, str] | None:
        """The server's settings that `safety.judge` looks at; None when CONFIG is not allowed."""
        try:
            found = self._redis.config_get(*PARAMETERS)
        except (redis.RedisError, OSError) as error:
            if is_denied(error):
                return None
            raise translate(error, "config get") from error
        return {_text(k): _text(v) for k, v in found.items()}

    def vitals(self, *sections: str) -> Vitals | None:
        """How the server is now, as far as these *sections* of INFO say it (none: all that count); None when INFO is not allowed.

        Raises:
            StoreError: it does not answer.
        """
        try:
            return vitals(self._redis.info(*sections or SECTIONS))
        except (redis.RedisError, OSError) as error:
            if is_denied(error):
                return None
            raise translate(error, "info") from error

    def ping(self) -> float:
        """Round trip to a store that takes commands, seconds.

        Raises:
            StoreError: it does not.
        """
        started = time.monotonic()
        try:
            self._redis.ping()
        except (redis.RedisError, OSError) as error:
            raise translate(error, "ping") from error
        return time.monotonic() - started

    def inbox(self, partition: int, wid: str) -> Inbox:
        """A connection of its own to a consumer's inbox."""
        return Inbox(self._redis, partition, wid)

    def names(self, partition: int) -> Iterator[str]:
        """All keys of a partition without its tag, by a walk over the server: slow, for tools alone. Some come twice.

        Raises:
            StoreError: it stopped on the way.
        """
        tag = key(partition, "")
        try:
            for found in self._redis.scan_iter(match=f"{tag.replace('{', '[{]').replace('}', '[}]')}*", count=1_000):
                yield found.decode(errors="replace")[len(tag) :]  # a name that is no text is none of ours
        except (redis.RedisError, OSError) as error:
            raise translate(error, "scan") from error

    def raw(self) -> redis.Redis:
        """The library's client, for tests and tools that look at keys."""
        return self._redis

    def close(self) -> None:
        """Close all connections, also those on which somebody waits for an answer: then there is none. A later call opens another."""
        self._life += 1
        self._forget()
        for channel in list(self._busy):
            channel.close()
        self._redis.close()


def clocks_apart_s() -> float:
    """How far the clock of this machine is from its monotonic one, which nobody can set."""
    return time.time() - time.monotonic()


def was_set_since(apart_s: float) -> bool:
    """Whether the clock of this machine was set, or its time stood still, since they were so far apart."""
    return abs(clocks_apart_s() - apart_s) > _STEP_S


def last_entries(found: Any, streams: Sequence[str]) -> dict[int, str]:
    """Of what XREAD has found in *streams*: the last entry of each, by its place among them."""
    return {streams.index(_text(name)): _text(entries[-1][0]) for name, entries in found or [] if entries}


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
