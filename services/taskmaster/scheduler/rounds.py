"""The rounds of one partition: ask what is due, carry it out step by step, say when to come again."""

from __future__ import annotations

import time
from typing import Final

from taskmaster import failpoints
from taskmaster.engine.firing import Prepared, prepare_steps
from taskmaster.errors import StoreDefect, StoreError
from taskmaster.scheduler.types import Types
from taskmaster.settings import Settings
from taskmaster.store import schedules
from taskmaster.store.client import SyncStore
from taskmaster.store.schedules import DueRow, Fired, Step
from taskmaster.store.status import Status
from taskmaster.telemetry import events
from taskmaster.telemetry.logs import get

__all__ = ["LEASE_MS", "Rounds"]

log = get()
#: How long a leader that went silent is waited for.
LEASE_MS: Final = 6_000
#: How long what a round was told is acted upon, by the monotonic clock. No step depends on that: each compares before it writes.
TRUST_S: Final = 4.0
#: A schedule that was changed is looked at so soon, and so is a lease that ends.
LOOK_S: Final = 0.5
ROWS: Final = 500
#: What cannot even be read is left alone for so long.
SHUNNED_S: Final = 60.0


class Rounds:
    """One thread uses it.

    Args:
        store: to run them on.
        partition: which one.
        wid: of this process, random.
        settings: of the service.
        types: for the jobs.
    """

    def __init__(self, store: SyncStore, partition: int, wid: str, settings: Settings, types: Types) -> None:
        self._channel = store.channel()
        self._partition = partition
        self._wid = wid
        self._window_ms = settings.idempotency_window_ms
        self._types = types
        self._is_leading: bool | None = None
        self._is_cut_off = False
        self._shunned: dict[str, float] = {}

    def turn(self) -> float:
        """One round; seconds until the next."""
        try:
            rest_s = self._turn()
        except StoreError as error:
            if not self._is_cut_off:
                log.warning(events.STORE_LOST, partition=self._partition, error=error.message)
            self._is_cut_off = True
            return LOOK_S
        if self._is_cut_off:
            log.info(events.STORE_REGAINED, partition=self._partition)
            self._is_cut_off = False
        return rest_s

    def leave(self) -> None:
        """Give the lease back, so that another need not wait for its end, and close the connection."""
        try:
            self._channel.run(schedules.round_(self._partition, self._wid, lease_ms=0))
        except StoreError as error:
            log.warning(events.STORE_LOST, partition=self._partition, error=error.message)
        self._channel.close()

    def _turn(self) -> float:
        until = time.monotonic() + TRUST_S
        heard = self._channel.run(schedules.round_(self._partition, self._wid, lease_ms=LEASE_MS, limit=ROWS))
        if heard.is_leading is not self._is_leading:
            self._is_leading = heard.is_leading
            log.info(events.SCHEDULER_LEADING if heard.is_leading else events.SCHEDULER_STANDING_BY, partition=self._partition)
        if heard.is_leading:
            for row in heard.rows:
                if time.monotonic() > until:
                    return 0.0
                self._bring_up(row, heard.now_ms, until)
            if sum(row.id not in self._shunned for row in heard.rows):
                return 0.0  # there may be more, and what was caught up may be due again
        return LOOK_S if heard.wait_ms < 0 else min(LOOK_S, heard.wait_ms / 1_000 + 0.001)

    def _bring_up(self, row: DueRow, now_ms: int, until: float) -> None:
        if time.monotonic() < self._shunned.get(row.id, 0.0):
            return
        self._shunned.pop(row.id, None)
        try:
            for prepared in prepare_steps(row, now_ms, self._types.of):
                if time.monotonic() > until or not self._step(row, prepared):
                    return
        except StoreDefect as error:
            self._shun(row, error)
        except StoreError:
            raise
        except Exception as error:  # noqa: BLE001, RUF100 - one schedule must not stop the others
            self._shun(row, error)

    def _step(self, row: DueRow, prepared: Prepared) -> bool:
        """Whether the schedule goes on from there."""
        step, jobs = prepared
        failpoints.hit("schedule.before_fire")
        call = schedules.fire(self._partition, row.id, row.definition, step, jobs, key_window_ms=self._window_ms)
        answer = self._channel.run(call, within_s=1.0)
        failpoints.hit("schedule.fired")
        if answer.status not in (Status.OK, Status.ALREADY):
            # Edited, paused, deleted, or fired by another: what stands there now is told by the next round.
            log.info(events.SCHEDULE_CHANGED, schedule=row.id, instantMs=row.instant_ms, answer=answer.status.name)
            return False
        _tell(row.id, step, answer)
        return True

    def _shun(self, row: DueRow, error: Exception) -> None:
        self._shunned[row.id] = time.monotonic() + SHUNNED_S
        log.error(events.SCHEDULE_FAILED, schedule=row.id, retryS=SHUNNED_S, exc_info=error)


def _tell(schedule_id: str, step: Step, answer: Fired) -> None:
    count, first_ms, last_ms = step.missed
    if count:
        log.warning(events.SCHEDULE_MISSED, schedule=schedule_id, count=count, firstMs=first_ms, lastMs=last_ms)
    facts = {"schedule": schedule_id, "instantMs": int(step.at or 0), "outcome": answer.outcome}
    if answer.outcome == "refused":
        log.warning(events.SCHEDULE_REFUSED, **facts, why=step.why)
    elif answer.outcome in ("skipped", "queued"):
        log.info(events.SCHEDULE_SKIPPED, **facts)
    elif answer.outcome in ("fired", "duplicate"):
        log.info(events.SCHEDULE_FIRED, **facts, jobId=answer.job_id)
