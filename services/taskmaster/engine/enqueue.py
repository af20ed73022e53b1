"""Storing checked submissions, blocking or on the loop: one, many by themselves, or many in one step.

An unanswered call is sent again unchanged while time allows. A job whose id came too late, for our clock had run away, is sent once more
under a fresh id, and the clock is set by the store's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence

from taskmaster.engine.gather import CHUNK, Gather
from taskmaster.engine.receipts import Checked, Stored, renewed, spoiled, together
from taskmaster.engine.submit import Prepared, renew
from taskmaster.errors import StoreError, TaskMasterError
from taskmaster.store import calls
from taskmaster.store.aio import AsyncStore
from taskmaster.store.calls import NewJob, Submitted
from taskmaster.store.client import SyncStore
from taskmaster.store.status import Status

__all__ = ["AsyncEnqueuer", "AsyncStoring", "Enqueuer", "Storing", "store_jobs"]

Result = Stored | TaskMasterError
#: How long many go on being sent again. Less than the store remembers ids for (30 s).
RESEND_WITHIN_S = 10.0


def store_jobs(
    store: SyncStore, partition: int, jobs: Sequence[NewJob], *, atomic: bool = False, within_s: float = RESEND_WITHIN_S
) -> list[Stored]:
    """Store jobs of one partition, and what became of each; those whose ids came too late once more under fresh ones.

    In one call if *atomic*, else at most CHUNK in one, however many they are: a script that makes too many fails half way.

    Raises:
        StoreUnavailable: a call had no answer in *within_s* seconds; they may have been stored, and the same may be asked again.
        StoreRefused: the store takes no writes; those of that call were not stored, nor any behind them.
    """
    if len(jobs) > CHUNK and not atomic:
        parts = (jobs[first : first + CHUNK] for first in range(0, len(jobs), CHUNK))
        return [stored for part in parts for stored in store_jobs(store, partition, part, within_s=within_s)]
    answers: list[Submitted] = store.run(calls.submit(partition, jobs, atomic=atomic), within_s=within_s)
    return _in_time(store, partition, jobs, answers, atomic=atomic, within_s=within_s)


def _in_time(
    store: SyncStore, partition: int, jobs: Sequence[NewJob], answers: Sequence[Submitted], *, atomic: bool, within_s: float
) -> list[Stored]:
    """What became of jobs that had these answers; those that came too late are sent once more."""
    fresh = renewed(jobs, answers, atomic=atomic)
    if fresh is not None:
        store.align()
        again: list[Submitted] = store.run(calls.submit(partition, fresh, atomic=atomic), within_s=within_s)
        return list(zip(fresh, again, strict=True))
    return list(zip(jobs, answers, strict=True))


class Enqueuer:
    """Blocking. Thread-safe.

    Args:
        store: to write to.
        within_s: how long a single submission is sent again.
    """

    def __init__(self, store: SyncStore, within_s: float) -> None:
        self._store = store
        self._within_s = within_s

    def one(self, prepared: Prepared) -> Stored:
        """Store one. Raises as `store_jobs`."""
        partition, job = prepared
        [stored] = store_jobs(self._store, partition, [job], within_s=self._within_s)
        return stored

    def begin(self, checked: Sequence[Checked]) -> Storing:
        """Send those that may be stored, each by itself, and do not wait for the store."""
        return Storing(self._store, checked)

    def atomic(self, checked: Sequence[Checked]) -> list[Result]:
        """Store all or, if any is refused, none; the answers are in order.

        Raises:
            InvalidRequest: they cannot go in one step.
            StoreError: as `store_jobs`.
        """
        partition, jobs = _at_once(checked)
        return list(store_jobs(self._store, partition, jobs, atomic=True)) if jobs else _spoiled(checked)


class Storing:
    """Many that were sent to be stored. For one thread.

    Args:
        store: where to; all partitions are asked at once.
        checked: the items, each by itself.
    """

    def __init__(self, store: SyncStore, checked: Sequence[Checked]) -> None:
        self._store = store
        self._results: list[Result | None] = _refused(checked)
        self._sent = [(partition, places, _jobs(checked, places)) for partition, places in _groups(checked)]
        self._begun = store.begin([calls.submit(partition, jobs) for partition, _, jobs in self._sent])

    def results(self) -> list[Result]:
        """What became of each, in order; to be asked for once.

        The error of a call that the store did not take stands for each of its items.
        """
        for (partition, places, jobs), answer in zip(self._sent, self._begun.answers(within_s=RESEND_WITHIN_S), strict=True):
            try:
                if isinstance(answer, StoreError):
                    raise answer
                found: Sequence[Result] = _in_time(self._store, partition, jobs, answer, atomic=False, within_s=RESEND_WITHIN_S)
            except StoreError as error:
                found = [error] * len(places)
            _fill(self._results, places, found)
        return _complete(self._results)


class AsyncEnqueuer:
    """The same on the running loop; single submissions that come together share a call.

    Args:
        gather: its lanes are written through.
        store: whose clock is set.
    """

    def __init__(self, gather: Gather, store: AsyncStore) -> None:
        self._gather = gather
        self._store = store

    async def one(self, prepared: Prepared) -> Stored:
        """As `Enqueuer.one`."""
        partition, job = prepared
        answer = await self._gather.submit(partition, job)
        if answer.status is Status.TOO_OLD:
            job = renew(job, answer.now_ms)
            await self._store.align()
            answer = await self._gather.submit(partition, job)
        return job, answer

    def begin(self, checked: Sequence[Checked]) -> AsyncStoring:
        """As `Enqueuer.begin`; they are on their way once the loop has had a turn."""
        sent = [(places, asyncio.create_task(self._tried(partition, _jobs(checked, places)))) for partition, places in _groups(checked)]
        return AsyncStoring(checked, sent)

    async def atomic(self, checked: Sequence[Checked]) -> list[Result]:
        """As `Enqueuer.atomic`."""
        partition, jobs = _at_once(checked)
        return list(await self._run(partition, jobs, atomic=True)) if jobs else _spoiled(checked)

    async def _tried(self, partition: int, jobs: Sequence[NewJob]) -> Sequence[Result]:
        try:
            return await self._run(partition, jobs)
        except StoreError as error:
            return [error] * len(jobs)

    async def _run(self, partition: int, jobs: Sequence[NewJob], *, atomic: bool = False) -> list[Stored]:
        answers = await self._gather.run(partition, jobs, atomic=atomic)
        fresh = renewed(jobs, answers, atomic=atomic)
        if fresh is not None:
            await self._store.align()
            jobs, answers = fresh, await self._gather.run(partition, fresh, atomic=atomic)
        return list(zip(jobs, answers, strict=True))


class AsyncStoring:
    """As `Storing`."""

    def __init__(self, checked: Sequence[Checked], sent: Sequence[tuple[Sequence[int], asyncio.Task[Sequence[Result]]]]) -> None:
        self._results: list[Result | None] = _refused(checked)
        self._sent = sent

    async def results(self) -> list[Result]:
        """As `Storing.results`."""
        found = await asyncio.gather(*(task for _, task in self._sent))
        for (places, _), some in zip(self._sent, found, strict=True):
            _fill(self._results, places, some)
        return _complete(self._results)

    async def over(self) -> None:
        """Wait until they are stored or not, whatever becomes of them."""
        if self._sent:
            await asyncio.wait([task for _, task in self._sent])


def _refused(checked: Sequence[Checked]) -> list[Result | None]:
    return [one if isinstance(one, TaskMasterError) else None for one in checked]


def _groups(checked: Sequence[Checked]) -> Iterator[tuple[int, list[int]]]:
    """A partition and the places of those that go there in one call, again and again."""
    by_partition: dict[int, list[int]] = {}
    for place, one in enumerate(checked):
        if not isinstance(one, TaskMasterError):
            by_partition.setdefault(one[0], []).append(place)
    for partition, places in by_partition.items():
        for first in range(0, len(places), CHUNK):
            yield partition, places[first : first + CHUNK]


def _jobs(checked: Sequence[Checked], places: Sequence[int]) -> list[NewJob]:
    return [one[1] for one in map(checked.__getitem__, places) if not isinstance(one, TaskMasterError)]


def _fill(results: list[Result | None], places: Sequence[int], found: Sequence[Result]) -> None:
    for place, result in zip(places, found, strict=True):
        results[place] = result


def _complete(results: Sequence[Result | None]) -> list[Result]:
    return [one for one in results if one is not None]


def _at_once(checked: Sequence[Checked]) -> tuple[int, list[NewJob]]:
    """Where all go in one step, and as what; nothing when one of them may not."""
    ready = [one for one in checked if not isinstance(one, TaskMasterError)]
    return together(ready) if ready and len(ready) == len(checked) else (0, [])


def _spoiled(checked: Sequence[Checked]) -> list[Result]:
    return [one if isinstance(one, TaskMasterError) else spoiled() for one in checked]
