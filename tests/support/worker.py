"""A worker inside the test's own process, whole: plugins, consumers, threads, heartbeat and chores; and hands to submit and look with.

with Worker(server.url, [job("double")(double)]) as worker:
job_id = worker.submit("double", {"n": 2})
assert worker.ended(job_id).state == "completed"
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec
from dramatiq.middleware import Middleware

from support.eventually import eventually
from taskmaster.model.ids import new_job_id, partition_of
from taskmaster.model.job import Envelope, Failure
from taskmaster.model.retry import DEFAULT, Backoff
from taskmaster.model.states import TERMINAL, state_of
from taskmaster.plugins.marks import has_marks
from taskmaster.plugins.registry import Handler, Registry
from taskmaster.plugins.schema import describe
from taskmaster.settings import Settings
from taskmaster.store import calls, reads
from taskmaster.store.call import Talk
from taskmaster.store.client import SyncStore
from taskmaster.worker.process import Part, WorkerProcess, nursery_for, undertake
from taskmaster_sdk import Job

__all__ = ["Hands", "Seen", "Worker", "registry_of"]


def registry_of(jobs: Iterable[Job]) -> Registry:
    """What discovery would make of a plugin with these jobs."""
    return Registry({job.name: _handler(job) for job in jobs})


def _handler(job: Job) -> Handler:
    schema = describe(job).schema
    return Handler(job, "tests", "1", msgspec.json.Decoder(job.payload).decode, job.is_async, schema if has_marks(schema) else None)


@dataclass(frozen=True)
class Seen:
    """One job as the store shows it now."""

    state: str
    reason: str
    deliveries: int
    failures: int
    losses: int
    handed_back: int
    body: bytes
    rows: list[dict[str, Any]]
    hold: str
    fields: dict[str, str] = field(repr=False)

    @property
    def result(self) -> Any:
        return json.loads(self.body) if self.body else None

    @property
    def failure(self) -> Failure:
        return msgspec.json.decode(self.body, type=Failure)


class Hands:
    """Submit and look, over a connection of its own."""

    def __init__(self, url: str, partitions: int = 1) -> None:
        self.store = SyncStore(url)
        self.partitions = partitions

    def submit(self, type_: str, payload: Any = None, **options: Any) -> str:
        """One job; the id."""
        return self.submit_many(type_, [payload], **options)[0]

    def submit_many(
        self,
        type_: str,
        payloads: Sequence[Any],
        *,
        queue: str = "default",
        attempts: int = 5,
        timeout_s: float = 60.0,
        backoff: Backoff = DEFAULT,
        delay_ms: int = 0,
        partition: int | None = None,
        **place: Any,
    ) -> list[str]:
        """Many jobs of one type; their ids, in order. *place*: more fields of `NewJob`."""
        new: dict[int, list[calls.NewJob]] = {}
        ids = []
        for payload in payloads:
            body = msgspec.Raw(json.dumps({} if payload is None else payload).encode())
            envelope = Envelope(type_, body, "", "api", attempts, int(timeout_s * 1_000), backoff)
            job_id = new_job_id(self.store.now_ms(), partition)
            blob = msgspec.json.encode(envelope).decode()
            item = calls.NewJob(job_id, queue, type_, 2, 0, delay_ms, attempts, "", "", blob, **place)
            new.setdefault(partition_of(job_id, self.partitions), []).append(item)
            ids.append(job_id)
        for where, items in new.items():
            for batch in itertools.batched(items, 500) if hasattr(itertools, "batched") else [items]:
                said = self.store.run(calls.submit(where, batch), within_s=10)
                assert all(row.status == 0 for row in said), said
        return ids

    def look(self, job_id: str) -> Seen:
        """The job now; it must be there."""
        seen = self.find(job_id)
        assert seen is not None, f"there is no job {job_id}"
        return seen

    def find(self, job_id: str) -> Seen | None:
        """The job now; None when there is none."""
        shown = self.store.run(reads.show(partition_of(job_id, self.partitions), job_id), within_s=10)
        if shown is None:
            return None
        f = shown.fields
        number = lambda name: int(f.get(name) or 0)  # noqa: E731
        rows = [dict(zip(("epoch", "outcome", "started", "ended", "by", "error"), json.loads(row), strict=False)) for row in shown.rows]
        return Seen(
            state_of(f["st"]),
            f.get("rs", ""),
            number("ep"),
            number("fl"),
            number("ls"),
            number("hb"),
            shown.body,
            rows,
            shown.hold,
            f,
        )

    def state(self, job_id: str) -> str:
        seen = self.find(job_id)
        return seen.state if seen else "gone"

    def until(self, job_id: str, state: str | Callable[[Seen], Any], within_s: float = 10.0) -> Seen:
        """Wait until the job is in *state*, or as a function of it says."""
        last: list[Seen | None] = [None]

        def is_so() -> Seen | None:
            last[0] = seen = self.find(job_id)
            return seen if seen and (seen.state == state if isinstance(state, str) else state(seen)) else None

        return eventually(is_so, within_s, lambda: f"{job_id} {state}; it is {last[0]!r}")  # type: ignore[return-value]

    def ended(self, job_id: str, within_s: float = 10.0) -> Seen:
        """Wait until the job is in a terminal state."""
        return self.until(job_id, lambda seen: seen.state in TERMINAL, within_s)

    def all_ended(self, ids: Iterable[str], within_s: float = 20.0) -> list[Seen]:
        """The same of many."""
        return [self.ended(job_id, within_s) for job_id in ids]

    def order(self, steps: Talk[Any]) -> Any:
        """Carry out what an operator wants."""
        return self.store.converse(steps)

    def cancel(self, job_id: str) -> Any:
        return self.store.run(calls.cancel(partition_of(job_id, self.partitions), job_id, who="test", key_window_ms=1_000))

    def dead(self, job_id: str) -> dict[str, bytes]:
        """The dead letter's fields; none when there is none."""
        return self.store.run(reads.dead(partition_of(job_id, self.partitions), job_id)) or {}

    def counters(self) -> dict[str, int]:
        """The first partition's."""
        rows: Any = self.store.raw().hgetall("tm:{0}:n")
        return {name.decode(): int(n) for name, n in rows.items()}

    def close(self) -> None:
        self.store.close()


class Worker(Hands):
    """A worker process's inside. It sees the store through *url*; its `Hands` through *direct*, if that is given.

    Args:
        url: of the store, or of a proxy before it.
        jobs: what it can run.
        middleware: more, behind the usual.
        direct: the store's own address.
        suspects: takes jobs that lost a worker.
        options: settings; short leases are the usual here.
    """

    def __init__(
        self,
        url: str,
        jobs: Iterable[Job],
        *,
        middleware: Sequence[Middleware] = (),
        direct: str = "",
        suspects: bool = False,
        **options: Any,
    ) -> None:
        usual: dict[str, Any] = {"lease_ms": 30_000, "drain_ms": 5_000, "data_dir": Path("/dev/null/none"), "store_timeout_ms": 5_000}
        settings = Settings(**usual | options)
        super().__init__(direct or url, settings.partitions)
        self.url = direct or url
        self.wids: list[str] = []
        part = Part("test", suspects, (), os.getppid(), lambda wid, partition: self.wids.append(wid), lambda: None)
        registry = registry_of(jobs)
        nursery = nursery_for(settings, registry, dict(os.environ))  # forked while this process has other threads: the test's own
        self.process = WorkerProcess(settings, registry, url, part, middleware, nursery)
        self._is_up = False

    def __enter__(self) -> Self:
        self.process.start({})
        self._is_up = True
        eventually(lambda: len(self.consumers) == len(self.process.worker.consumers), what="consumers are up")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.end()
        self.close()

    def drain(self) -> bool:
        return self.process.drain()

    def end(self) -> None:
        """Stop without draining, and do what the supervisor does for what still runs. Works twice."""
        if self._is_up:
            self._is_up = False
            self.process.stop()
            undertake(self.process.settings, self.url, (), self.process.worker.left)

    @property
    def consumers(self) -> list[Any]:
        return self.process.worker.partition_consumers()

    @property
    def held(self) -> list[Any]:
        return [message for consumer in self.consumers for message in list(consumer.held.values())]
