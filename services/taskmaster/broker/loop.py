"""The event loop of a worker process, on a thread of its own. Coroutine handlers run here and hold no thread while they wait."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

from dramatiq.threading import raise_thread_exception

from taskmaster.broker.message import JobMessage
from taskmaster.model.outcome import Interrupted
from taskmaster.telemetry import events
from taskmaster.telemetry.logs import get

__all__ = ["EventLoop"]

log = get()


class EventLoop:
    """Starts on construction of its thread; `stop` ends it.

    Args:
        run: what one attempt does, from its first hook to its acknowledgement.
    """

    def __init__(self, run: Callable[[JobMessage], Coroutine[Any, Any, None]]) -> None:
        self._run = run
        self._incoming: deque[JobMessage] = deque()
        self._is_scheduled = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._is_stopping = False
        self._pinged_at = 0.0
        self._thread = threading.Thread(target=self._main, name="taskmaster-loop", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def _main(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            while not self._is_stopping:
                try:
                    self._loop.run_forever()
                except Interrupted:  # it came too late for the coroutine that it was meant for
                    continue
                except (SystemExit, KeyboardInterrupt) as error:  # asyncio lets them through when a handler's own task raises them
                    log.error(events.UPKEEP_FAILED, duty="loop", exc_info=error)
        finally:
            self._loop.close()

    def silent_s(self, now: float) -> float | None:
        """How many seconds the loop has not answered this question; None: it has, and is well. For one thread that asks repeatedly."""
        if self._pinged_at < 0:  # answered
            self._pinged_at = 0.0
            return None
        if not self._pinged_at:
            self._pinged_at = now
            with contextlib.suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self._pong)
        return now - self._pinged_at

    def _pong(self) -> None:
        self._pinged_at = -1.0

    def interrupt(self) -> None:
        """Throw `Interrupted` at whatever coroutine holds the loop up. What sits in C code does not feel it."""
        if self._thread.ident is not None:
            raise_thread_exception(self._thread.ident, Interrupted)  # type: ignore[no-untyped-call]

    def put(self, message: JobMessage) -> None:
        """Begin an attempt. From any thread; messages that come together share one wake-up of the loop."""
        self._incoming.append(message)
        if not self._is_scheduled:
            self._is_scheduled = True
            self._loop.call_soon_threadsafe(self._begin)

    def _begin(self) -> None:
        self._is_scheduled = False
        while self._incoming:
            message = self._incoming.popleft()
            task = self._loop.create_task(self._run(message))
            message.task = task
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def run_async(self, coroutine: Coroutine[Any, Any, Any], timeout_s: float, /) -> Any:
        """Run *coroutine* on the loop from another thread and wait for it.

        Raises:
            TimeoutError: it did not end in time; it is cancelled.
        """
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result(timeout_s)
        except TimeoutError:
            future.cancel()
            raise

    def stop(self, timeout_s: float = 5.0) -> None:
        """Cancel what still runs and end the thread. Works before `start`, and twice."""
        self._is_stopping = True
        if not self._thread.is_alive():
            self._loop.close()
            return
        self.cancel_all()
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._loop.call_later, 0.05, self._loop.stop)
        self._thread.join(timeout_s)

    def cancel_all(self) -> None:
        """Cancel every attempt that runs here."""
        with contextlib.suppress(RuntimeError):  # the loop has ended
            for task in list(self._tasks):
                self._loop.call_soon_threadsafe(task.cancel)

    @property
    def is_alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()
