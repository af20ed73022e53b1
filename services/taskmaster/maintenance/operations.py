"""Carrying out operations over many jobs: a step each second, by whichever worker process has that second.

Nothing depends on who it is. What a step has done is noted by compare and set on the operation's place, so two processes at once, or one
that dies between the deed and the note, cost a repeated step; and a repeated step makes no duplicates, since a replay is keyed by the
operation, and a job of a schedule by its instant.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from taskmaster import failpoints
from taskmaster.engine import backfills
from taskmaster.engine.enqueue import store_jobs
from taskmaster.engine.operations import replays_of, tally
from taskmaster.engine.scheduled_jobs import Jobs
from taskmaster.errors import StoreDefect
from taskmaster.store import operations
from taskmaster.store.client import SyncStore
from taskmaster.store.operations import OperationRow, Page, Step
from taskmaster.store.status import Status
from taskmaster.telemetry import events
from taskmaster.telemetry.logs import get

__all__ = ["Operations"]

log = get()
#: One operation's share of a second.
STEP_S = 0.5
#: Looks at an operation's jobs in one second: all that may be without an end.
_LOOKS = 10
_OPEN = 50


@dataclass(frozen=True, slots=True)
class Operations:
    """The operations of one partition.

    Attributes:
        store: where they are.
        partition: which one.
        partitions: how many there are: an operation that is to stop after some failures counts those of all.
        key_window_ms: how long the key of a job that has ended is remembered.
        jobs_of: what jobs of a type are made with; raises InvalidRequest where there is no such type.
    """

    store: SyncStore
    partition: int
    partitions: int
    key_window_ms: int
    jobs_of: Callable[[str], Jobs]

    def step(self) -> None:
        """Go on with each operation that is open, as far as its rate allows. A foreign key that one of them meets stops no other.

        Raises:
            StoreError: the next second goes on.
        """
        met: StoreDefect | None = None
        for row in self.store.run(operations.find(self.partition, "ops", limit=_OPEN)).rows:
            try:
                if self._may_go_on(row):
                    self._go_on(row)
            except StoreDefect as error:
                met = error
        if met is not None:
            raise met

    def _may_go_on(self, row: OperationRow) -> bool:
        """Look at what became of its jobs first: they may stop it."""
        looked, n = self.store.run(operations.look(self.partition, row.id)), 1
        while looked is not None and n < _LOOKS and looked.pending > n * operations.LOOK_MAX:
            looked, n = self.store.run(operations.look(self.partition, row.id)), n + 1
        if looked is None or looked.state != "running":
            self._tell(row, looked.state if looked else "forgotten")
            return False
        limit = row.fields.get("so")
        if not limit or self.partitions == 1:
            return True
        others = (p for p in range(self.partitions) if p != self.partition)
        rows = [found for p in others for found in self.store.run(operations.find(p, row.id)).rows]
        failed = looked.failed + sum(found.counts.get("failed", 0) for found in rows)
        if failed < int(limit):
            return True
        self._stop(row, f"{failed} of its jobs have failed")
        return False

    def _go_on(self, row: OperationRow) -> None:
        deadline = time.monotonic() + STEP_S
        while time.monotonic() < deadline:
            page = self.store.run(operations.page(self.partition, row.id))
            if page is None or (page.behind == page.before and not page.is_end):
                return  # it has ended, or its rate is used up
            step = Step(row.id, page.before, page.behind, page.is_end)
            if self._carry_out(row, page, step) is Status.STALE:
                return
            if page.is_end:
                self._tell(row, "completed")
                return

    def _carry_out(self, row: OperationRow, page: Page, step: Step) -> Status:
        action, ids = row.fields.get("ac"), [entry.id for entry in page.rows]
        if action == "discard":
            return self.store.run(operations.discard(self.partition, step, ids))
        if action == "cancel":
            return self.store.run(operations.cancel(self.partition, step, ids, key_window_ms=self.key_window_ms))
        if action == "backfill":
            return self._fill(row, page, step)
        jobs, counts = replays_of(page.rows, row, partitions=self.partitions, now_ms=self.store.now_ms())
        made: list[str] = []
        if jobs:
            stored = store_jobs(self.store, self.partition, jobs, within_s=0)
            made, more = tally([answer for _, answer in stored])
            counts += more
        failpoints.hit("operation.step")
        counts["done"] = len(ids)
        return self.store.run(operations.note(self.partition, step, spent=len(ids), counts=counts, made=made))

    def _fill(self, row: OperationRow, page: Page, step: Step) -> Status:
        instants = [entry.id for entry in page.rows]
        talk = backfills.carry_out(
            row, instants, self.jobs_of, self.store.now_ms(), partitions=self.partitions, key_window_ms=self.key_window_ms
        )
        filled = self.store.converse(talk)
        failpoints.hit("operation.step")
        if filled.done < len(instants):
            step = step._replace(behind=str(int(step.before or 0) + filled.done), is_end=False)
        counts = {**filled.counts, "done": filled.done}
        status = self.store.run(operations.note(self.partition, step, spent=filled.done, counts=counts, made=filled.made))
        if filled.why and status is not Status.STALE:
            self._stop(row, filled.why)
            return Status.STALE
        return status

    def _stop(self, row: OperationRow, why: str) -> None:
        f = row.fields
        self.store.run(operations.end(self.partition, row.id, "stopped", who=f.get("by", ""), reason=f.get("rs", ""), why=why))
        self._tell(row, "stopped")

    def _tell(self, row: OperationRow, state: str) -> None:
        if row.fields.get("st") == "running":
            log.info(events.OPERATION_ENDED, operationId=row.id, action=row.fields.get("ac"), state=state, partition=self.partition)
