"""Artifacts go when their job does: a sweep over this machine's folder, a few at a time."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from itertools import islice

from taskmaster.engine.artifacts import ArtifactStore
from taskmaster.model.ids import partition_of
from taskmaster.store import reads
from taskmaster.store.client import SyncStore
from taskmaster.telemetry import events
from taskmaster.telemetry.logs import get

__all__ = ["EVERY_S", "ArtifactSweep"]

log = get()
#: Between two steps; jobs looked at in one; how long a job's artifacts are left alone after the last was written.
EVERY_S, A_STEP, GRACE_S = 10.0, 200, 3_600.0


class ArtifactSweep:
    """Goes round and round. One thread of one process uses it.

    Args:
        store: that knows the jobs.
        artifacts: to be swept.
        partitions: how many there are.
        grace_s: jobs whose artifacts changed later than that are passed over.
    """

    def __init__(self, store: SyncStore, artifacts: ArtifactStore, partitions: int, grace_s: float = GRACE_S) -> None:
        self._store = store
        self._artifacts = artifacts
        self._partitions = partitions
        self._grace_s = grace_s
        self._round: Iterator[str] = iter(())
        self._is_told = False

    def step(self) -> int:
        """Look at the next jobs; how many had gone, so that their artifacts went.

        Raises:
            StoreError: the store cannot be asked; those jobs' turn comes in the next round.
        """
        batch = list(islice(self._round, A_STEP))
        if not batch:
            if not self._is_home():
                return 0
            self._round = self._artifacts.jobs(self._grace_s, time.time())
            batch = list(islice(self._round, A_STEP))
        by_partition: dict[int, list[str]] = defaultdict(list)
        for job_id in batch:
            by_partition[partition_of(job_id, self._partitions)].append(job_id)
        gone = 0
        for partition, ids in by_partition.items():
            known = self._store.run(reads.known(partition, ids))
            for job_id, is_known in zip(ids, known, strict=True):
                if not is_known:
                    self._artifacts.remove(job_id)
                    gone += 1
        return gone

    def _is_home(self) -> bool:
        """Whether the artifacts are of this store's jobs. Any other knows none of them, and would have them all removed."""
        state, owner = self._store.run(reads.integrity(0)), self._artifacts.owner()
        if state.gen and (not owner or owner in state.lost):
            self._artifacts.own(state.gen)
        elif owner != state.gen:
            if not self._is_told:
                hint = "they are left alone; set another data folder, or remove artifacts/store if they are of this store's jobs after all"
                log.error(events.ARTIFACTS_FOREIGN, owner=owner, store=state.gen, hint=hint)
            self._is_told = True
            return False
        return bool(state.gen)
