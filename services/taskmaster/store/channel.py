"""Calls over one connection: put, answered, and sent again where that is safe. For one thread at a time."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

import redis
from hiredis import pack_command

from taskmaster.errors import StoreError, StoreUnavailable
from taskmaster.store.asking import Asking, Ways, asking
from taskmaster.store.call import Call, Meter
from taskmaster.store.faults import Action, classify, translate

__all__ = ["Begun", "Channel"]

T = TypeVar("T")
#: Waits between resends, seconds: short at first, for a failover; then patient.
_RESEND_WAITS_S = (0.02, 0.05, 0.1, 0.2, 0.5)


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
