"""Once a second: end lost attempts, promote what is due, wake somebody for work that nobody was told of, go on with operations over many
jobs, tell who wants to hear of ends. Between the seconds, while there is need: prune what is old, sweep.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from taskmaster.engine.scheduled_jobs import Jobs
from taskmaster.errors import StoreDefect
from taskmaster.maintenance.operations import Operations
from taskmaster.maintenance.sweeper import GAP_S, Sweeper
from taskmaster.maintenance.webhooks import Outbox
from taskmaster.store import calls, upkeep
from taskmaster.store.client import SyncStore
from taskmaster.telemetry import events
from taskmaster.telemetry.logs import get

__all__ = ["GRACE_MS", "LOSSES_MAX", "Upkeep"]

log = get()
#: How long after its expiry a lease is reaped: covers steps of the server's clock at a failover. Safety does not rest on it.
GRACE_MS = 5_000
#: Deliveries that may end with a lost worker before a job is dead.
LOSSES_MAX = 3
#: Rounds of one duty in one tick: each is bounded, and other processes' calls go in between.
_ROUNDS = 50
#: Pages of retention in one step, a gap before each as in a sweep: some 1,500 jobs a second.
PRUNED_PAGES = 6


@dataclass(slots=True)
class Upkeep:
    """The duties of one partition.

    Attributes:
        store: to run them on.
        partition: which one.
        limits: retention and windows.
        jobs_of: see `Operations`.
        partitions: how many there are.
        grace_ms: see GRACE_MS.
        sweep_every_ms: from the end of one sweep to the begin of the next.
    """

    store: SyncStore
    partition: int
    limits: calls.Limits
    jobs_of: Callable[[str], Jobs]
    partitions: int = 1
    grace_ms: int = GRACE_MS
    sweep_every_ms: int = 600_000
    _to_sweep: int = field(default=0, init=False)
    _to_prune: bool = field(default=False, init=False)

    def tick(self) -> list[str]:
        """Do what this second asks for, if no other process has; the ids of attempts that were found lost.

        Raises:
            StoreError: some of it was not done; the next tick will.
        """
        run = self.store.run
        said = run(upkeep.tick(self.partition, grace_ms=self.grace_ms))
        lost: list[str] = []
        self._to_sweep = said.to_sweep
        if not said.mine:
            return lost
        if said.dropped:
            log.warning(events.WEBHOOK_ENDS_DROPPED, partition=self.partition, ends=said.dropped)
        if said.to_reap:
            for _ in range(_ROUNDS):
                more, ids = run(
                    upkeep.reap(self.partition, grace_ms=self.grace_ms, losses=LOSSES_MAX, key_window_ms=self.limits.key_window_ms)
                )
                lost.extend(ids)
                if not more:
                    break
        if said.to_promote:
            for _ in range(_ROUNDS):
                if not run(upkeep.promote(self.partition, key_window_ms=self.limits.key_window_ms)):
                    break
        self._to_prune = self._to_prune or said.to_prune
        self._go_on(said)
        return lost

    def prune(self) -> None:
        """A step of retention, if a tick said that it is due and was this process's.

        Raises:
            StoreError: the next step goes on.
        """
        for _ in range(PRUNED_PAGES):
            if not self._to_prune:
                return
            time.sleep(GAP_S)
            self._to_prune = self.store.run(upkeep.prune(self.partition, self.limits))

    def sweep(self) -> None:
        """A step of the sweep, if the last tick said that one is due and was this process's.

        Raises:
            StoreError: the next step goes on.
        """
        if self._to_sweep:
            sweeper = Sweeper(self.store, self.partition, self.sweep_every_ms, self.limits.key_window_ms)
            if sweeper.step(is_urgent=self._to_sweep > 1):
                self._to_sweep = 0

    def _go_on(self, said: upkeep.Ticked) -> None:
        """What is done a step at a time. A foreign key that one of them meets does not stop the other."""
        steps: list[Callable[[], None]] = []
        if said.operations:
            steps.append(Operations(self.store, self.partition, self.partitions, self.limits.key_window_ms, self.jobs_of).step)
        if said.outbox:
            steps.append(Outbox(self.store, self.partition, self.partitions).step)
        met: StoreDefect | None = None
        for step in steps:
            try:
                step()
            except StoreDefect as error:
                met = error
        if met is not None:
            raise met
