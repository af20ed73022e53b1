"""What every measurement gets, and the small calculations they share."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.peers.base import STAMPS, Load, Peer, Workers
from bench.processes import Running, wait_until
from bench.store import Store, fresh_store
from support.servers import Kind

__all__ = ["Bench", "Figures", "Part", "Stage", "quantile"]

Figures = dict[str, float]


@dataclass(frozen=True, slots=True)
class Stage:
    """One run of one measurement: an empty store and an empty folder."""

    store: Store
    folder: Path

    @property
    def stamps_path(self) -> Path:
        return self.folder / "stamps"

    def workers(self, *, processes: int = 1, slots: int | None = None) -> Workers:
        """Workers that write their stamps into this stage's folder."""
        return Workers(self.folder, processes, slots, {STAMPS: str(self.stamps_path)})

    def stamps(self) -> list[tuple[int, int]]:
        """(sent, started) of every `stamp` job so far, nanoseconds."""
        if not self.stamps_path.exists():
            return []
        lines = self.stamps_path.read_text().splitlines()
        return [(int(sent), int(started)) for sent, started in (line.split() for line in lines)]

    def wait_for_stamps(self, count: int, *, within_s: float, process: Running) -> None:
        """Return when so many `stamp` jobs have started."""
        wait_until(lambda: len(self.stamps()) >= count, what=f"{count} stamps", within_s=within_s, every_s=0.1, process=process)

    def warm_up(self, peer: Peer, process: Running) -> None:
        """Return when a worker takes jobs and has taken a few; their stamps are thrown away."""
        peer.submit(self.store, Load("stamp", 3, chunk=1))
        self.wait_for_stamps(3, within_s=30, process=process)
        self.stamps_path.write_text("")


@dataclass(frozen=True, slots=True)
class Bench:
    """How to measure.

    Attributes:
        kind: server that all systems run on.
        aof: whether it keeps an append-only file.
        is_quick: a fraction of the jobs: to see that everything works, not to quote.
        peers: by name.
    """

    kind: Kind
    aof: bool
    is_quick: bool
    peers: Mapping[str, Peer]

    def count(self, full: int) -> int:
        """How many jobs to use where *full* is enough for a figure to quote."""
        return full // 5 if self.is_quick else full

    @contextmanager
    def stage(self) -> Iterator[Stage]:
        """A fresh server and folder, gone at the end."""
        with fresh_store(self.kind, aof=self.aof) as store, tempfile.TemporaryDirectory(prefix="tm-bench-") as folder:
            yield Stage(store, Path(folder))

    @contextmanager
    def peer_stage(self, subject: str) -> Iterator[tuple[Stage, Peer]]:
        """The same, ready for the first job of this peer."""
        peer = self.peers[subject]
        with self.stage() as stage:
            peer.prepare(stage.store, stage.folder)
            yield stage, peer


@dataclass(frozen=True, slots=True)
class Part:
    """One measurement: `run(bench, subject)` does it once and returns figures by name."""

    name: str
    subjects: tuple[str, ...]
    run: Callable[[Bench, str], Figures]
    title: str


def quantile(values: Sequence[float], share: float) -> float:
    """Nearest-rank quantile."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]
