"""The blocking client."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

from taskmaster.client import core
from taskmaster.client.core import Changes, Item, Mode, Options, Outcome
from taskmaster.engine import control, queries
from taskmaster.engine.catalogue import BlockingCatalogue
from taskmaster.engine.change import change_job
from taskmaster.engine.enqueue import Enqueuer, Storing
from taskmaster.engine.feed import Feed, FeedEvent, beginning_of, follow_feed_blocking, wanted_of
from taskmaster.engine.following import Follower, JobEvent, follow_blocking
from taskmaster.engine.lines import read_lines
from taskmaster.engine.pressure import BlockingPressureGauge
from taskmaster.engine.producing import Sending, sending
from taskmaster.engine.receipts import Checked, SubmittedJob, check_all, receipt
from taskmaster.engine.submit import Submission, prepare
from taskmaster.engine.waiting import wait_until
from taskmaster.errors import StoreError, StoreUnavailable, TaskMasterError
from taskmaster.model.ids import partition_of
from taskmaster.model.job import JobRecord, LogLine
from taskmaster.model.states import State
from taskmaster.model.trace import accepted
from taskmaster.settings import Settings
from taskmaster.store import calls, reads
from taskmaster.store.address import store_url
from taskmaster.store.call import Call
from taskmaster.store.client import SyncStore
from taskmaster.store.events import Place

__all__ = ["Client"]

T = TypeVar("T")


class _Parts:
    """What belongs to one process: connections, and what was read over them."""

    def __init__(self, settings: Settings) -> None:
        # Half of the time is for a reply, half for asking again.
        self.within_s = settings.store_timeout_ms / 2_000
        self.pid = os.getpid()
        self.store = SyncStore(store_url(settings), timeout_s=self.within_s)
        self.enqueuer = Enqueuer(self.store, self.within_s)
        self.catalogue = BlockingCatalogue(self.store)
        self.pressure = BlockingPressureGauge(self.store, settings, self.within_s / 2)

    def run(self, call: Call[T]) -> T:
        """Ask, and ask again."""
        return self.store.run(call, within_s=self.within_s)


class Client:
    """Submits jobs, looks at them and waits for them. Thread-safe; a process forked from this one opens connections of its own.

    Nothing is opened before the first call. A call that the store does not answer raises `StoreUnavailable` within `store_timeout_ms`
    (5 s), `submit_many` after 10 s of trying; the first of a process, which also ask for clock and job types, may take that twice more.

    Args:
        where: address of the store, the other settings being the defaults; or settings; or None: those of this process, as the commands
            find them (environment, `.env`, `taskmaster.toml`). Those that count here must be the service's: `partitions`, `idempotency`,
            `max_body_bytes`, `idempotency_window_ms`, `shed_…`.
        origin: how jobs are marked: client, cli.

    Raises:
        ConfigurationError: a setting of this process is wrong.
    """

    def __init__(self, where: str | Settings | None = None, *, origin: str = "client") -> None:
        self._settings = core.settings_of(where)
        self._origin = origin
        self._parts: _Parts | None = None

    def submit(
        self,
        job_type: str,
        payload: Any,
        *,
        key: str | None = None,
        traceparent: str = "",
        **options: Unpack[Options],
    ) -> SubmittedJob:
        """Store one job; when this returns, it is in the store.

        Args:
            job_type: one that a worker has published.
            payload: a dict, dataclass or msgspec struct that fits the type's schema.
            key: idempotency key, 1..255 characters: equal keys of one type name one job, so that a repeat is safe. Without one (where
                settings and type allow that) a repeat is another job.
            traceparent: W3C trace context; one that is malformed counts as none. Without one it is what runs here: the current span of an
                application that traces with OpenTelemetry, or the job whose handler this is.
            options: see `Options`.

        Raises:
            InvalidRequest: it cannot be accepted; `UnknownJobType`, `InvalidPayload`, `KeyMissing` and `KeyReused` are such.
            Overloaded, StoreFilling: not now, at this priority; fact `retryAfterS`. Figures that decide it are a second old at most.
            StoreUnavailable: no answer; it may have been stored. Repeat it with the same key.
            StoreRefused: the store takes no writes; it was not stored.
        """
        parts, submission = self._here(), core.submission_of(job_type, payload, key, options)
        entry, validator = parts.catalogue.need((submission.type,)).find(submission.type)
        now_ms = parts.store.now_ms()
        with sending(accepted(traceparent)) as span:
            prepared = prepare(submission, entry, validator, self._settings, now_ms, self._origin, traceparent=span.traceparent)
            job, answer = parts.enqueuer.one(core.admitted(parts.pressure.sift([prepared])))
            span.stored(job.queue, job.type, job.id)
            return receipt(job, answer)

    def submit_many(self, items: Iterable[Item], *, mode: Mode = "independent", traceparent: str = "") -> Iterator[Outcome]:
        """Store many jobs; what became of each comes in order. Nothing is sent before the first is asked for.

        Independent: 500 a call, while the next 500 are checked. At most 1,000 items are taken beyond those whose outcome has been told.
        An item that cannot be accepted comes back as the error that says why, and spoils no other. A call is sent again for 10 s at most,
        and not while the caller is busy with something else.

        Atomic: at most 1,000, all or none: if one cannot be accepted, this raises and nothing is stored. Under pressure items come back as,
        or this raises, `Overloaded` or `StoreFilling`.

        Args:
            items: `Submission`s, or mappings with the names that POST /jobs takes.
            mode: independent or atomic.
            traceparent: W3C trace context of all of them.

        Raises:
            StoreError: the store did not take a call; fact `index` is the number of the first item that was not told of, which may have
                been stored, as may those behind it. With keys it is safe to repeat all: what is stored is found again.
            InvalidRequest: atomic: fact `items` says which cannot be accepted, and why.
        """
        with sending(accepted(traceparent)) as span:
            yield from self._submit_many(items, mode, span)

    def _submit_many(self, items: Iterable[Item], mode: Mode, span: Sending) -> Iterator[Outcome]:
        parts, trace = self._here(), span.traceparent
        if mode == "atomic":
            checked = parts.pressure.sift(self._check(parts, core.batch_of(items), trace))
            span.many(len(checked))
            yield from core.all_or_none(parts.enqueuer.atomic(checked))
            return
        under_way: Storing | None = None
        first = 0
        try:
            for chunk in core.chunks(items):
                checked = parts.pressure.sift(self._check(parts, chunk, trace))  # meanwhile the store takes the chunk before
                sent, under_way = under_way, None
                results = sent.results() if sent else []
                if not core.is_lost(results):
                    under_way = parts.enqueuer.begin(checked)
                yield from core.one_by_one(results, first)
                first += len(results)
            sent, under_way = under_way, None
            results = sent.results() if sent else []
            span.many(first + len(results))
            yield from core.one_by_one(results, first)
        except StoreError as error:
            error.facts.setdefault("index", first)
            raise
        finally:
            if under_way is not None:  # the caller went away, or raised: what was sent is sent, if need be again
                under_way.results()

    def check_many(self, items: Iterable[Item]) -> Iterator[TaskMasterError | None]:
        """What of *items*, as `submit_many` takes them, could not be accepted, and why; None for one that could. Nothing is stored.

        Whether a key belongs to another request shows only when it is submitted.

        Raises:
            StoreError: the job types cannot be read.
        """
        parts = self._here()
        for chunk in core.chunks(items):
            for one in self._check(parts, chunk, ""):
                yield one if isinstance(one, TaskMasterError) else None

    def get(self, job_id: str) -> JobRecord:
        """The job as it is now, with payload and result or failure.

        Raises:
            NotFound: there is none, or no longer.
            StoreError: the store cannot be asked.
        """
        return self._look(job_id, "br")

    def status(self, job_id: str) -> JobRecord:
        """As `get`, without payload and result."""
        return self._look(job_id, "e")

    def wait(self, job_id: str, timeout_s: float) -> JobRecord:
        """The job, as `get` has it, as soon as it has ended: completed, failed or cancelled. A store that is away meanwhile is waited for.

        Raises:
            NotEnded: it has not after *timeout_s* seconds. Also a `TimeoutError`.
            NotFound: there is no such job, or no longer.
            StoreUnavailable: the store does not answer when the time is over.
        """
        parts, known = self._here(), queries.id_of(job_id)

        def look() -> JobRecord | StoreUnavailable:
            try:
                return self._look(known, "br")
            except StoreUnavailable as error:
                return error

        block_ms = min(1_000, self._settings.store_timeout_ms // 4)
        partition = partition_of(known, self._settings.partitions)
        seen = wait_until(parts.store, partition, known, look=look, is_enough=core.has_ended, within_s=timeout_s, block_ms=block_ms)
        return core.ended(seen, timeout_s)

    def logs(self, job_id: str, *, after: int = 0) -> list[LogLine]:
        """What the job's handler has logged, in order: those lines behind number *after* that are kept, at most 1,000.

        Raises:
            NotFound: there is no such job, or no longer.
            StoreError: the store cannot be asked.
        """
        parts, known = self._here(), queries.id_of(job_id)
        return parts.store.converse(read_lines(partition_of(known, self._settings.partitions), known, after), within_s=parts.within_s)

    def stream(self, job_id: str, *, after: str = "") -> Iterator[JobEvent]:
        """What is new of the job, as it comes: state, progress, log; first how it is now, last its terminal state. Blocks between events.

        A store that is away meanwhile is waited for.

        Args:
            job_id: of the job.
            after: `id` of the last event that is known: goes on behind it.

        Raises:
            NotFound: there is no such job, or no longer.
            StoreError: the store cannot be asked when this begins.
        """
        parts, known = self._here(), queries.id_of(job_id)
        partition = partition_of(known, self._settings.partitions)
        block_ms = min(1_000, self._settings.store_timeout_ms // 4)
        return follow_blocking(parts.store, partition, Follower(known, after), known, parts.run, block_ms=block_ms)

    def events(
        self,
        *,
        types: Sequence[str] = (),
        queues: Sequence[str] = (),
        jobs: Sequence[str] = (),
        kinds: Sequence[str] = (),
        fairness_key: str = "",
        after: str = "",
        goes_on: bool = True,
    ) -> Iterator[FeedEvent]:
        """What happens to all jobs, as it comes, oldest first: from now on, or behind an event. Blocks between events.

        An event of kind `gap` says that the store does not keep what came behind *after*, or that this was read too slowly. A store that is
        away meanwhile is waited for. Of one filter any must fit, of different ones all.

        Args:
            types, queues, jobs: ids of jobs.
            kinds: what happened, such as `failed`.
            fairness_key: of the jobs.
            after: `id` of the last event that is known; `oldest`: everything that is kept, about 10,000 events a partition.
            goes_on: wait for more; else it ends with what there is.

        Raises:
            InvalidRequest: a filter or *after* makes no sense.
            StoreError: the store cannot be asked when this begins.
        """
        parts, partitions = self._here(), self._settings.partitions
        wanted = wanted_of(types=types, queues=queues, jobs=jobs, kinds=kinds, fairness_key=fairness_key)
        places = beginning_of(after, partitions) or [Place(parts.store.newest_event(partition)) for partition in range(partitions)]
        block_ms = min(1_000, self._settings.store_timeout_ms // 4)
        return follow_feed_blocking(parts.store, Feed(places, wanted), parts.run, block_ms=block_ms, goes_on=goes_on)

    def result(self, job_id: str, timeout_s: float) -> Any:
        """What the job's handler answered, decoded from JSON, as soon as it has. Raises as `wait`, and:

        Raises:
            NotCompleted: the job failed or was cancelled.
        """
        return core.result_of(self.wait(job_id, timeout_s))

    def cancel(self, job_id: str) -> State:
        """End a job that has not: `cancelled`, or `active` while its worker is asked to stop. Safe to repeat.

        Raises:
            NotFound: there is no such job.
            Conflict: it has ended otherwise.
            StoreError: the store cannot be asked.
        """
        parts, known, settings = self._here(), queries.id_of(job_id), self._settings
        partition = partition_of(known, settings.partitions)
        call = calls.cancel(partition, known, who=self._origin, key_window_ms=settings.idempotency_window_ms)
        return control.cancelled(known, parts.run(call))

    def change(self, job_id: str, **changes: Unpack[Changes]) -> JobRecord:
        """Change a job that waits or is delayed; answers the job as it is then.

        Raises:
            NotFound: there is no such job.
            Conflict: it runs or has ended; or (`RevisionMismatch`) it has another revision than the one given.
            InvalidRequest: the change cannot be, or there is none.
            StoreError: the store cannot be asked.
        """
        wanted, parts, settings = core.change_of(changes), self._here(), self._settings
        find, now_ms = parts.catalogue.need(()).find, parts.store.now_ms()
        talk = change_job(
            queries.id_of(job_id), wanted, partitions=settings.partitions, find=find, max_bytes=settings.max_body_bytes, now_ms=now_ms
        )
        return parts.store.converse(talk, within_s=parts.within_s)

    def run_now(self, job_id: str) -> JobRecord:
        """Make a delayed job due now, also one that waits for its next attempt. Raises as `change`."""
        return self.change(job_id, delay_ms=0)

    def replay(
        self, job_id: str, *, request_id: str = "", reason: str = "", traceparent: str = "", accept_unknown: bool = False
    ) -> SubmittedJob:
        """Run a job that has ended again, as a new job with its payload; the old one stays as it is.

        Args:
            job_id: of the job, or of its dead letter, which may outlive it.
            request_id: at most 255 characters; equal ones make one replay of this job, so that a repeat is safe. Empty: each makes another.
            reason: for people, at most 150 characters.
            traceparent: W3C trace context.
            accept_unknown: also while an effect of the job is not settled.

        Raises:
            NotFound: there is no such job, or no longer.
            Conflict: it has not ended.
            EffectUnsettled: nobody knows whether an effect of it happened.
            StoreError: as `submit`.
        """
        parts, known = self._here(), queries.id_of(job_id)
        partition = partition_of(known, self._settings.partitions)
        with sending(accepted(traceparent)) as span:
            request = core.replay_request(request_id, reason, span.traceparent, accept_unknown)
            shown = parts.run(reads.show(partition, known, "b"))
            dead = parts.run(reads.dead(partition, known)) if shown is None else None
            prepared = core.replay_of(known, shown, dead, request, partitions=self._settings.partitions, now_ms=parts.store.now_ms())
            job, answer = parts.enqueuer.one(core.admitted(parts.pressure.sift([prepared])))
            span.stored(job.queue, job.type, job.id)
            return receipt(job, answer)

    def close(self) -> None:
        """Close the connections. A later call opens them again."""
        parts, self._parts = self._parts, None
        if parts is not None and parts.pid == os.getpid():
            parts.store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _here(self) -> _Parts:
        """This process's parts. Threads that come first together may each make them; all but one are dropped unused."""
        parts = self._parts
        if parts is None or parts.pid != os.getpid():
            self._parts = parts = _Parts(self._settings)
        return parts

    def _look(self, job_id: str, what: str) -> JobRecord:
        parts, known = self._here(), queries.id_of(job_id)
        shown = parts.run(reads.show(partition_of(known, self._settings.partitions), known, what))
        return queries.job_of(known, queries.found(known, shown))

    def _check(self, parts: _Parts, submissions: Sequence[Submission | TaskMasterError], traceparent: str) -> list[Checked]:
        types = parts.catalogue.need(core.names_in(submissions))
        return check_all(submissions, types, self._settings, parts.store.now_ms(), self._origin, traceparent)
