"""Group commit: submissions that come while a call is out share the next one.

An alone call costs the store 60 us a job, one of sixteen 15 us; and the loop pays for a call once, not for each job.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

from taskmaster import failpoints
from taskmaster.errors import StoreDefect, StoreError, StoreUnavailable
from taskmaster.store import calls
from taskmaster.store.call import Call
from taskmaster.store.calls import NewJob, Submitted

__all__ = ["Gather", "Runner"]

#: Jobs in one call: the store does nothing else meanwhile.
CHUNK = 500
#: Submissions that wait for one partition at most; more are refused, so that a slow store cannot fill the memory.
WAITING_MAX = 20_000
#: What is left for a call at least, however long its oldest item has waited already.
LEAST_S = 0.05

Item = tuple[NewJob, "asyncio.Future[Submitted]", float]


class Runner(Protocol):
    """What runs calls: a `store.aio.Channel`."""

    async def run(self, call: Call[Any], *, within_s: float | None = None) -> Any:
        """Run *call* in *within_s* seconds at most."""

    async def close(self) -> None:
        """Drop the connection."""


class Gather:
    """One lane for each partition. All methods belong to the running loop.

    Args:
        channel: makes a connection; each lane has its own.
        partitions: how many lanes.
        timeout_s: how long one submission may wait for its answer.
    """

    def __init__(self, channel: Callable[[], Runner], partitions: int, timeout_s: float) -> None:
        self._lanes = [_Lane(channel(), partition, timeout_s) for partition in range(partitions)]

    def submit(self, partition: int, job: NewJob) -> asyncio.Future[Submitted]:
        """Ask for *job* to be stored; the future has the store's answer.

        Raises (the future):
            StoreUnavailable: no answer in time; it may have been stored, and the same request may be repeated.
            StoreRefused: the store takes no writes; it was not stored.
        """
        return self._lanes[partition].add(job)

    async def run(self, partition: int, jobs: Sequence[NewJob], *, atomic: bool) -> list[Submitted]:
        """Store a batch in one call of its own, after those that are under way.

        Raises:
            StoreError: as `submit`.
        """
        return await self._lanes[partition].run(jobs, atomic=atomic)

    async def close(self) -> None:
        """End: what still waits fails as unavailable."""
        for lane in self._lanes:
            await lane.close()


class _Lane:
    def __init__(self, runner: Runner, partition: int, timeout_s: float) -> None:
        self._runner = _Failing(runner) if failpoints.is_on else runner
        self._partition = partition
        self._timeout_s = timeout_s
        self._waiting: deque[Item] = deque()
        self._task: asyncio.Task[None] | None = None
        self._free = asyncio.Lock()

    def add(self, job: NewJob) -> asyncio.Future[Submitted]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Submitted] = loop.create_future()
        if len(self._waiting) >= WAITING_MAX:
            future.set_exception(StoreUnavailable("too many submissions wait for the store; repeat the request later"))
            return future
        self._waiting.append((job, future, time.monotonic()))
        if self._task is None or self._task.done():
            self._task = loop.create_task(self._flush(), name=f"gather-{self._partition}")
        return future

    async def _flush(self) -> None:
        """Calls, one after the other, until nothing waits."""
        while self._waiting:
            async with self._free:
                batch = [self._waiting.popleft() for _ in range(min(CHUNK, len(self._waiting)))]
                within_s = max(LEAST_S, self._timeout_s - (time.monotonic() - batch[0][2]))
                try:
                    answers = await self._runner.run(calls.submit(self._partition, [job for job, _, _ in batch]), within_s=within_s)
                except StoreUnavailable as error:
                    # Whoever came meanwhile has waited as long as the store was silent: do not begin anew for them.
                    self._fail([*batch, *self._waiting], error)
                    self._waiting.clear()
                    continue
                except StoreError as error:
                    self._fail(batch, error)
                    continue
                except asyncio.CancelledError:
                    self._waiting.extendleft(reversed(batch))  # `close` tells them
                    raise
                except Exception as error:
                    self._fail(batch, StoreDefect(f"submit: {type(error).__name__}: {error}"))
                    continue
            for (_, future, _), answer in zip(batch, answers, strict=True):
                if not future.done():
                    future.set_result(answer)

    @staticmethod
    def _fail(items: Iterable[Item], error: StoreError) -> None:
        for _, future, _ in items:
            if not future.done():
                future.set_exception(error)
                future.exception()  # seen: a caller that went away is no reason to log

    async def run(self, jobs: Sequence[NewJob], *, atomic: bool) -> list[Submitted]:
        started = time.monotonic()
        try:
            async with asyncio.timeout(self._timeout_s), self._free:
                left_s = max(LEAST_S, self._timeout_s - (time.monotonic() - started))
                answers: list[Submitted] = await self._runner.run(calls.submit(self._partition, jobs, atomic=atomic), within_s=left_s)
                return answers
        except TimeoutError as error:
            raise StoreUnavailable(f"submit: no answer within {self._timeout_s:g} s; repeat the request") from error

    async def close(self) -> None:
        if self._task is not None and not self._task.done():
            self._task.cancel()
            await asyncio.wait([self._task], timeout=1.0)
        self._fail(self._waiting, StoreUnavailable("the server is going down; repeat the request"))
        self._waiting.clear()
        await self._runner.close()


class _Failing:
    """A runner with a failpoint on both sides. Only where failpoints are on."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self.close = runner.close

    async def run(self, call: Call[Any], *, within_s: float | None = None) -> Any:
        failpoints.hit("submit.before_store")
        answer = await self._runner.run(call, within_s=within_s)
        failpoints.hit("submit.stored")
        return answer
