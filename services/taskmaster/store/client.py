"""The blocking client: runs calls on connections of its own. For workers, the CLI and scripts."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, TypeVar, cast

import redis
from hiredis import pack_command
from redis.backoff import NoBackoff
from redis.retry import Retry

from taskmaster.errors import StoreError, StoreUnavailable
from taskmaster.store.asking import Asking, Ways, asking
from taskmaster.store.call import Call, Meter, Talk
from taskmaster.store.faults import Action, classify, is_denied, translate
from taskmaster.store.keys import key
from taskmaster.store.safety import PARAMETERS, SECTIONS, Vitals, vitals

__all__ = ["Begun", "Channel", "Inbox", "SyncStore", "clocks_apart_s", "connection_options", "last_entries", "was_set_since"]

T = TypeVar("T")
#: Waits between resends, seconds: short at first, for a failover; then patient.
_RESEND_WAITS_S = (0.02, 0.05, 0.1, 0.2, 0.5)
#: An inbox answers so much later than its block at most, or it is lost: what came just after one gave up would be a marker lost.
_OVERDUE_S = 5.0
#: For each step of connecting an inbox.
_CONNECT_S = 1.0
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


class Channel:
    """Runs calls on one connection of its own. One thread uses it."""

    def __init__(
        self,
        pool: redis.ConnectionPool,
        ways: Ways,
        forget: Callable[[], None],
        now_ms: Callable[[], int] | None,
        meter: Meter | None = None,
    ) -> None:
        self._pool = pool
        self._ways = ways
        self._forget = forget
        self._now_ms = now_ms
        self._meter = meter
        self._connection: Any = None

    def run(self, call: Call[T], *, within_s: float = 0.0, give_up: threading.Event | None = None) -> T:
        """As `SyncStore.run`."""
        return call.decode(_resending(call, self._ways, self._ask, self._drop, self._now_ms, self._meter, within_s, give_up))

    def begin(self, calls: Sequence[Call[T]], done: Callable[[], None] | None = None) -> Begun[T]:
        """As `SyncStore.begin`; *done* is called when they have been answered. Nothing else may be run here before."""
        return Begun(self, calls, done)

    def run_together(self, calls: Sequence[Call[T]], *, within_s: float = 0.0) -> list[T]:
        """Answers in order of calls that do not depend on one another: sent at once, so that one way there and back serves all.

        What is not answered is sent again by itself. Raises what `run` raises; some may have taken effect then.
        """
        answers: list[T] = []
        for answer in self.begin(calls).answers(within_s=within_s):
            if isinstance(answer, StoreError):
                raise answer
            answers.append(answer)
        return answers

    def send(self, calls: Sequence[Call[Any]]) -> Exception | None:
        """Put calls on the wire, or why that failed. `replies` reads what comes back."""
        now: str | int = "" if self._now_ms is None else self._now_ms()
        try:
            connection = self._connected()
            connection.send_packed_command([pack_command(next(asking(call, now, self._ways))) for call in calls], check_health=False)
        except (redis.RedisError, OSError) as error:
            self._drop()
            return error
        except BaseException:
            self.close()
            raise
        return None

    def replies(self, calls: Sequence[Call[Any]]) -> list[Any]:
        """What the server said to each of the calls that were sent: raw, or an error where it said that or nothing."""
        raws: list[Any] = []
        connection, meter, began_at = self._connection, self._meter, time.perf_counter()
        try:
            if connection is None:
                raise redis.ConnectionError("it was closed")
            for call in calls:
                try:
                    raws.append(connection.read_response())
                    if meter is not None:
                        meter.called(call.script.name, time.perf_counter() - began_at)
                except redis.exceptions.ResponseError as error:
                    raws.append(error)
        except (redis.RedisError, OSError) as error:
            self._drop()
            raws += [error] * (len(calls) - len(raws))
        except BaseException:
            self.close()
            raise
        return raws

    def _connected(self) -> Any:
        connection = self._connection
        if connection is None:
            connection = self._pool.connection_class(**self._pool.connection_kwargs)
            connection.connect()
            self._connection = connection
        return connection

    def _ask(self, *command: Any) -> Any:
        connection = self._connected()
        try:
            connection.send_packed_command((pack_command(command),), check_health=False)
            return connection.read_response()
        except redis.exceptions.ResponseError:
            raise  # a whole answer was read: the connection is in step
        except BaseException:
            self.close()
            raise

    def _drop(self) -> None:
        self.close()
        self._forget()

    def renew(self) -> None:
        """Drop a connection that the server has closed, or said something on that nobody asked for."""
        connection = self._connection
        if connection is not None:
            try:
                is_silent = not connection.can_read()
            except (redis.RedisError, OSError):
                is_silent = False
            if not is_silent:
                self.close()

    def close(self) -> None:
        """Drop the connection; the next call makes another."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.disconnect()


class Begun(Generic[T]):
    """Calls that were sent at once over one channel, whose answers are still to be read: once, by whoever began them."""

    def __init__(self, channel: Channel, calls: Sequence[Call[T]], done: Callable[[], None] | None) -> None:
        self._channel = channel
        self._calls = calls
        self._done = done
        self._pid = os.getpid()
        self._began_at = time.monotonic()
        self._failure = channel.send(calls)

    def answers(self, *, within_s: float = 0.0) -> list[T | StoreError]:
        """The answer to each, in order, or why there is none.

        What is not answered is sent again by itself, unchanged, until *within_s* seconds after all were begun, and not behind that: the
        store may have forgotten by then that it took it.
        """
        channel, calls, answers = self._channel, self._calls, list[T | StoreError]()
        if self._pid != os.getpid():  # the connection and its answers are the parent's
            channel.close()
            return [StoreUnavailable(f"{call.script.name}: begun by another process, which has the answer") for call in calls]
        try:
            raws: Sequence[Any] = channel.replies(calls) if self._failure is None else [self._failure] * len(calls)
            for call, raw in zip(calls, raws, strict=True):
                try:
                    answers.append(self._again(call, raw, within_s) if isinstance(raw, Exception) else call.decode(raw))
                except StoreError as error:
                    answers.append(error)
        finally:
            if self._done is not None:
                self._done()
        return answers

    def _again(self, call: Call[T], error: Exception, within_s: float) -> T:
        left_s = self._began_at + within_s - time.monotonic()
        if left_s > 0 or isinstance(error, redis.ResponseError):  # such an answer says that nothing was done
            return self._channel.run(call, within_s=max(0.0, left_s))
        raise translate(error, call.script.name) from error


class Inbox:
    """Asks for the members of `in:<wid>`, one by one. One thread uses it.

    Between `ask` and `take` it is for the caller to wait until `fileno` can be read.

    Attributes:
        answers_by: monotonic seconds by which what was asked is answered, or the inbox is lost; 0: nothing is asked.
    """

    def __init__(self, client: redis.Redis, partition: int, wid: str) -> None:
        self._pool = client.connection_pool
        self._key = f"tm:{{{partition}}}:in:{wid}"
        self._connection: Any = None
        self.answers_by = 0.0

    @property
    def is_connected(self) -> bool:
        """Whether the next request needs no new connection."""
        return self._connection is not None

    def is_overdue(self, now: float) -> bool:
        """Whether what was asked should have been answered: a marker may be lost with it, and the caller must look for work."""
        return 0 < self.answers_by <= now

    def ask(self, block_s: float) -> None:
        """Ask for the next marker, which may take the store *block_s* seconds. Not before what was asked is answered.

        Raises:
            StoreError: the connection broke. A marker may be lost with it.
        """
        try:
            if self._connection is None:
                # Whoever waits here has a round to make: it does not wait for long.
                patience_s = {
                    name: min(_CONNECT_S, self._pool.connection_kwargs[name]) for name in ("socket_timeout", "socket_connect_timeout")
                }
                connection = self._pool.connection_class(**self._pool.connection_kwargs | patience_s)
                connection.connect()
                self._connection = connection
            command: tuple[Any, ...] = ("BZPOPMIN", self._key, block_s)
            self._connection.send_packed_command((pack_command(command),), check_health=False)
        except (redis.RedisError, OSError) as error:
            self.close()
            raise translate(error, "inbox") from error
        self.answers_by = time.monotonic() + block_s + _OVERDUE_S

    def fileno(self) -> int:
        """Of the socket on which the answer comes, once it was asked for."""
        number: int = self._connection._sock.fileno()  # noqa: SLF001 - the library has no other name for it
        return number

    def take(self) -> str | None:
        """The marker, or None: there is none yet, or none came while the store waited for one.

        Raises:
            StoreError: as `ask`.
        """
        try:
            reply = self._connection.read_response(timeout=0, disconnect_on_error=False)
        except redis.TimeoutError:  # not a whole answer yet
            return None
        except (redis.RedisError, OSError) as error:
            self.close()
            raise translate(error, "inbox") from error
        self.answers_by = 0.0
        return None if reply is None else _text(reply[1])

    def close(self) -> None:
        """Drop the connection; the next request makes another."""
        connection, self._connection, self.answers_by = self._connection, None, 0.0
        if connection is not None:
            connection.disconnect()


def _resending(
    call: Call[Any],
    ways: Ways,
    ask: Callable[..., Any],
    drop: Callable[[], None],
    now_ms: Callable[[], int] | None,
    meter: Meter | None,
    within_s: float,
    give_up: threading.Event | None,
) -> Any:
    """The raw answer of *call*, sent again unchanged while that can help and the time allows."""
    deadline = time.monotonic() + within_s
    attempt = 0
    while True:
        now: str | int = "" if now_ms is None else now_ms()
        began_at = time.perf_counter()
        try:
            raw = _carried(asking(call, now, ways), ask)
            if meter is not None:
                meter.called(call.script.name, time.perf_counter() - began_at)
            return raw
        except (redis.RedisError, OSError) as error:
            if meter is not None:
                meter.failed(call.script.name)
            action = classify(error)
            wait_s = _RESEND_WAITS_S[min(attempt, len(_RESEND_WAITS_S) - 1)]
            out_of_time = time.monotonic() + wait_s > deadline or (give_up is not None and give_up.is_set())
            if action is Action.RECONNECT:  # whoever asks next finds the primary anew, be it another call
                drop()
            if action in (Action.BUG, Action.REJECT) or out_of_time:
                raise translate(error, call.script.name) from error
        time.sleep(wait_s)
        attempt += 1


def _carried(talk: Asking, ask: Callable[..., Any]) -> Any:
    """What *talk* comes to, its commands put by *ask*."""
    try:
        command = next(talk)
        while True:
            try:
                reply = ask(*command)
            except redis.ResponseError as error:
                command = talk.throw(error)
            else:
                command = talk.send(reply)
    except StopIteration as end:
        return end.value


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
