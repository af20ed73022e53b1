"""What a measurement may ask of a compared system."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from bench.processes import Running
from bench.store import Store

__all__ = ["QUEUE", "STAMPS", "JobName", "Load", "Peer", "Sent", "Workers"]

QUEUE = "bench"
#: Environment variable of the file that `stamp` jobs append "<sent> <started>\n" to: nanoseconds of the clock that all processes share.
STAMPS = "BENCH_STAMPS"

JobName = Literal["noop", "isolated", "sleep", "async", "stamp", "report"]


@dataclass(frozen=True, slots=True)
class Load:
    """Jobs to submit.

    Attributes:
        job: what they do: nothing, block `ms`, await `ms`, append a stamp and then block `ms`, or block `ms` in a queue of their own.
        count: how many.
        payload: the same for all; `stamp` jobs get `sent` besides.
        chunk: jobs in one call; 1: one call a job, one after another.
        delay_ms: how long they are not due.
        offsets_ms: with one entry a job: when to submit each, from the start. Empty: as fast as possible.
        limits, fairness_keys: of TaskMaster alone: limiters that each job names, and how many fairness keys the jobs have in turn.
    """

    job: JobName
    count: int
    payload: Mapping[str, object] = field(default_factory=dict)
    chunk: int = 500
    delay_ms: int = 0
    offsets_ms: tuple[float, ...] = ()
    limits: tuple[str, ...] = ()
    fairness_keys: int = 0


@dataclass(frozen=True, slots=True)
class Sent:
    """How long the submission took, and the CPU time of the submitting process."""

    seconds: float
    cpu_s: float


@dataclass(frozen=True, slots=True)
class Workers:
    """Worker processes to start.

    Attributes:
        slots: jobs one process may hold at once; None: what suits the peer for short jobs.
        output: of TaskMaster alone: the descriptor that they write their log to; None: a file in *folder*.
    """

    folder: Path
    processes: int = 1
    slots: int | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    output: int | None = None


class Peer(Protocol):
    """One system, stateless between calls: what it stores lives in the store it is given."""

    name: str
    has_bulk: bool
    has_record: bool
    drain_count: int

    def prepare(self, store: Store, folder: Path) -> None:
        """Whatever a fresh store needs before the first job. Raises BenchError when this peer cannot run here."""

    def submit(self, store: Store, load: Load) -> Sent:
        """Submit with the system's own client, in process or in a process of its own, whose start-up is not counted."""

    def workers(self, store: Store, workers: Workers) -> AbstractContextManager[Running]:
        """Worker processes with the system's own start command."""

    def done(self, store: Store, submitted: int) -> int:
        """How many of the jobs submitted have ended, by the store's own count."""

    def prune(self, store: Store) -> bool:
        """Forget all finished jobs as retention would; False: this system does not do that in batches of its own."""

    def version(self) -> str:
        """What was measured."""
