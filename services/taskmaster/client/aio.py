"""The client on an event loop."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable, Sequence
from contextlib import aclosing
from itertools import islice
from types import TracebackType
from typing import Any, Self, Unpack

from taskmaster.client import core
from taskmaster.client.core import Changes, Item, Mode, Options, Outcome
from taskmaster.engine import control, queries
from taskmaster.engine.catalogue import Catalogue
from taskmaster.engine.change import change_job
from taskmaster.engine.enqueue import AsyncEnqueuer, AsyncStoring
from taskmaster.engine.feed import Feed, FeedEvent, beginning_of, follow_feed, wanted_of
from taskmaster.engine.following import Follower, JobEvent, follow
from taskmaster.engine.gather import CHUNK, Gather
from taskmaster.engine.lines import read_lines
from taskmaster.engine.pressure import PressureGauge
from taskmaster.engine.producing import Sending, sending
from taskmaster.engine.receipts import Checked, SubmittedJob, check_all, receipt
from taskmaster.engine.submit import Submission, prepare
from taskmaster.engine.waiting import Waiting
from taskmaster.errors import StoreError, StoreUnavailable, TaskMasterError
from taskmaster.model.ids import partition_of
from taskmaster.model.job import JobRecord, LogLine
from taskmaster.model.states import State
from taskmaster.model.trace import accepted
from taskmaster.settings import Settings
from taskmaster.store import calls, reads
from taskmaster.store.address import store_url
from taskmaster.store.aio import AsyncStore
from taskmaster.store.events import Place

__all__ = ["AsyncClient"]


class _Parts:
    """What belongs to one loop of one process."""

    def __init__(self, settings: Settings) -> None:
        timeout_s = settings.store_timeout_ms / 1_000
        self.pid, self.loop = os.getpid(), asyncio.get_running_loop()
        self.store = AsyncStore(store_url(settings), timeout_s=timeout_s)
        self.gather = Gather(self.store.channel, settings.partitions, timeout_s)
        self.enqueuer = AsyncEnqueuer(self.gather, self.store)
        self.catalogue = Catalogue(self.store)
        self.pressure = PressureGauge(self.store, settings)
        self.waiting = Waiting(self.store, settings.partitions, block_ms=min(1_000, settings.store_timeout_ms // 2))

    @property
    def is_ours(self) -> bool:
        return self.pid == os.getpid() and self.loop is asyncio.get_running_loop()

    async def close(self) -> None:
        self.waiting.close()
        await self.catalogue.stop()
        await self.pressure.stop()
        await self.gather.close()
        await self.store.close()


class AsyncClient:
    """`Client`, as coroutines: the same arguments, answers and errors. Tasks may share one; those that submit together share calls.

    A loop, and a process forked from this one, has connections of its own: a client made before the fork, or at import, may be used in it.
    """

    def __init__(self, where: str | Settings | None = None, *, origin: str = "client") -> None:
        self._settings = core.settings_of(where)
        self._origin = origin
        self._parts: _Parts | None = None
        #: Of the process that we were forked from: dropping them here would take its loop's sockets out of a selector that both share.
        self._inherited: list[_Parts] = []

    async def submit(
        self,
        job_type: str,
        payload: Any,
        *,
        key: str | None = None,
        traceparent: str = "",
        **options: Unpack[Options],
    ) -> SubmittedJob:
        """As `Client.submit`."""
        parts, submission = self._here(), core.submission_of(job_type, payload, key, options)
        entry, validator = (await parts.catalogue.need((submission.type,))).find(submission.type)
        now_ms = await parts.store.now_ms()
        with sending(accepted(traceparent)) as span:
            prepared = prepare(submission, entry, validator, self._settings, now_ms, self._origin, traceparent=span.traceparent)
            job, answer = await parts.enqueuer.one(core.admitted(await parts.pressure.sift([prepared])))
            span.stored(job.queue, job.type, job.id)
            return receipt(job, answer)

    async def submit_many(
        self, items: Iterable[Item] | AsyncIterable[Item], *, mode: Mode = "independent", traceparent: str = ""
    ) -> AsyncIterator[Outcome]:
        """As `Client.submit_many`. Checking 500 items holds the loop for some 5 ms."""
        with sending(accepted(traceparent)) as span:
            async with aclosing(self._submit_many(items, mode, span)) as outcomes:
                async for outcome in outcomes:
                    yield outcome

    async def _submit_many(self, items: Iterable[Item] | AsyncIterable[Item], mode: Mode, span: Sending) -> AsyncGenerator[Outcome]:
        parts, trace = self._here(), span.traceparent
        if mode == "atomic":
            checked = await parts.pressure.sift(await self._check(parts, core.batch_of(await _taken(items, core.ATOMIC_MAX + 1)), trace))
            span.many(len(checked))
            for job in core.all_or_none(await parts.enqueuer.atomic(checked)):
                yield job
            return
        under_way: AsyncStoring | None = None
        first = 0
        try:
            async for chunk in _chunks(items):
                checked = await parts.pressure.sift(await self._check(parts, chunk, trace))  # meanwhile the store takes the chunk before
                sent, under_way = under_way, None
                results = await sent.results() if sent else []
                if not core.is_lost(results):
                    under_way = parts.enqueuer.begin(checked)
                    await asyncio.sleep(0)  # now it is on its way
                for outcome in core.one_by_one(results, first):
                    yield outcome
                first += len(results)
            sent, under_way = under_way, None
            results = await sent.results() if sent else []
            span.many(first + len(results))
            for outcome in core.one_by_one(results, first):
                yield outcome
        except StoreError as error:
            error.facts.setdefault("index", first)
            raise
        finally:
            if under_way is not None:  # the caller went away, or raised: what was sent is sent, if need be again
                await under_way.over()

    async def get(self, job_id: str) -> JobRecord:
        """As `Client.get`."""
        return await self._look(job_id, "br")

    async def status(self, job_id: str) -> JobRecord:
        """As `Client.status`."""
        return await self._look(job_id, "e")

    async def wait(self, job_id: str, timeout_s: float) -> JobRecord:
        """As `Client.wait`; all who wait share one reader of the store's events."""
        parts, known = self._here(), queries.id_of(job_id)

        async def look() -> JobRecord | StoreUnavailable:
            try:
                return await self._look(known, "br")
            except StoreUnavailable as error:
                return error

        partition = partition_of(known, self._settings.partitions)
        seen = await parts.waiting.until(partition, known, look=look, is_enough=core.has_ended, within_s=timeout_s)
        return core.ended(seen, timeout_s)

    async def logs(self, job_id: str, *, after: int = 0) -> list[LogLine]:
        """As `Client.logs`."""
        parts, known = self._here(), queries.id_of(job_id)
        return await parts.store.converse(read_lines(partition_of(known, self._settings.partitions), known, after))

    async def stream(self, job_id: str, *, after: str = "") -> AsyncIterator[JobEvent]:
        """As `Client.stream`; all who follow share one reader of the store's events. Ends when this client is closed."""
        parts, known = self._here(), queries.id_of(job_id)
        partition, follower = partition_of(known, self._settings.partitions), Follower(known, after)
        for event in follower.news(await parts.store.run(follower.look(partition))):
            yield event
        if follower.is_over:
            return
        async with contextlib.aclosing(follow(parts.waiting, partition, follower, known, parts.store.run, idle_s=60)) as news:
            async for events in news:
                for event in events:
                    yield event

    async def events(
        self,
        *,
        types: Sequence[str] = (),
        queues: Sequence[str] = (),
        jobs: Sequence[str] = (),
        kinds: Sequence[str] = (),
        fairness_key: str = "",
        after: str = "",
    ) -> AsyncIterator[FeedEvent]:
        """As `Client.events`, which goes on; all who hear share one reader of the store's events. Ends when this client is closed."""
        parts, partitions = self._here(), self._settings.partitions
        wanted = wanted_of(types=types, queues=queues, jobs=jobs, kinds=kinds, fairness_key=fairness_key)
        places = beginning_of(after, partitions) or [Place(await parts.store.newest_event(partition)) for partition in range(partitions)]
        async with contextlib.aclosing(follow_feed(parts.waiting, Feed(places, wanted), parts.store.run, idle_s=60)) as news:
            async for events in news:
                for event in events:
                    yield event

    async def result(self, job_id: str, timeout_s: float) -> Any:
        """As `Client.result`."""
        return core.result_of(await self.wait(job_id, timeout_s))

    async def cancel(self, job_id: str) -> State:
        """As `Client.cancel`."""
        parts, known, settings = self._here(), queries.id_of(job_id), self._settings
        partition = partition_of(known, settings.partitions)
        call = calls.cancel(partition, known, who=self._origin, key_window_ms=settings.idempotency_window_ms)
        return control.cancelled(known, await parts.store.run(call))

    async def change(self, job_id: str, **changes: Unpack[Changes]) -> JobRecord:
        """As `Client.change`."""
        wanted, parts, settings = core.change_of(changes), self._here(), self._settings
        find, now_ms = (await parts.catalogue.need(())).find, await parts.store.now_ms()
        talk = change_job(
            queries.id_of(job_id), wanted, partitions=settings.partitions, find=find, max_bytes=settings.max_body_bytes, now_ms=now_ms
        )
        return await parts.store.converse(talk)

    async def run_now(self, job_id: str) -> JobRecord:
        """As `Client.run_now`."""
        return await self.change(job_id, delay_ms=0)

    async def replay(
        self, job_id: str, *, request_id: str = "", reason: str = "", traceparent: str = "", accept_unknown: bool = False
    ) -> SubmittedJob:
        """As `Client.replay`."""
        parts, known = self._here(), queries.id_of(job_id)
        partition = partition_of(known, self._settings.partitions)
        with sending(accepted(traceparent)) as span:
            request = core.replay_request(request_id, reason, span.traceparent, accept_unknown)
            shown = await parts.store.run(reads.show(partition, known, "b"))
            dead = await parts.store.run(reads.dead(partition, known)) if shown is None else None
            now_ms = await parts.store.now_ms()
            prepared = core.replay_of(known, shown, dead, request, partitions=self._settings.partitions, now_ms=now_ms)
            job, answer = await parts.enqueuer.one(core.admitted(await parts.pressure.sift([prepared])))
            span.stored(job.queue, job.type, job.id)
            return receipt(job, answer)

    async def close(self) -> None:
        """As `Client.close`; who waits gets an answer now."""
        parts, self._parts = self._parts, None
        if parts is not None and parts.is_ours:
            await parts.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()

    def _here(self) -> _Parts:
        parts = self._parts
        if parts is None or not parts.is_ours:
            if parts is not None and parts.pid != os.getpid():
                self._inherited.append(parts)
            self._parts = parts = _Parts(self._settings)
        return parts

    async def _look(self, job_id: str, what: str) -> JobRecord:
        parts, known = self._here(), queries.id_of(job_id)
        shown = await parts.store.run(reads.show(partition_of(known, self._settings.partitions), known, what))
        return queries.job_of(known, queries.found(known, shown))

    async def _check(self, parts: _Parts, submissions: Sequence[Submission | TaskMasterError], traceparent: str) -> list[Checked]:
        types = await parts.catalogue.need(core.names_in(submissions))
        return check_all(submissions, types, self._settings, await parts.store.now_ms(), self._origin, traceparent)


async def _chunks(items: Iterable[Item] | AsyncIterable[Item]) -> AsyncIterator[list[Submission | TaskMasterError]]:
    if isinstance(items, Iterable):
        for chunk in core.chunks(items):
            yield chunk
        return
    iterator = aiter(items)
    while taken := await _taken(iterator, CHUNK):
        yield core.submissions_of(taken)


async def _taken(items: Iterable[Item] | AsyncIterable[Item], count: int) -> list[Item]:
    """The first *count* of them."""
    if isinstance(items, Iterable):
        return list(islice(items, count))
    taken: list[Item] = []
    async for item in items:
        taken.append(item)
        if len(taken) == count:
            break
    return taken
