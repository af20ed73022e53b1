"""The rounds of one partition: ask what is due, carry it out step by step, say when to come again."""

from __future__ import annotations

import time
from typing import Final

from taskmaster import failpoints
from taskmaster.engine.firing import Prepared, prepare_steps
from taskmaster.engine.scheduled_types import Types
from taskmaster.errors import StoreDefect, StoreError
from taskmaster.settings import Settings
from taskmaster.store import schedules
from taskmaster.store.client import SyncStore
from taskmaster.store.schedules import DueRow, Fired, Step
from taskmaster.store.status import Status
from taskmaster.telemetry import events
from taskmaster.telemetry.logs import get
from taskmaster.telemetry.meters import SchedulerMeter

__all__ = ["LEASE_MS", "Rounds"]

log = get()
#: How long a leader that went silent is waited for.
LEASE_MS: Final = 6_000
#: How long what a round was told is acted upon, by the monotonic clock. No step depends on that: each compares before it writes.
TRUST_S: Final = 4.0
#: A schedule that was changed is looked at so soon, and so is a lease that ends.
LOOK_S: Final = 0.5
ROWS: Final = 500
#: Schedules whose steps are sent at once: the store does nothing else meanwhile, about 5 ms.
TOGETHER: Final = 50
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
        meter: counts what becomes of instants.
    """

    def __init__(self, store: SyncStore, partition: int, wid: str, settings: Settings, types: Types, meter: SchedulerMeter) -> None:
        self._channel = store.channel()
        self._partition = partition
        self._wid = wid
        self._window_ms = settings.idempotency_window_ms
        self._types = types
        self._meter = meter
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
            self._meter.led(int(heard.is_leading) - int(self._is_leading or False))
            self._is_leading = heard.is_leading
            log.info(events.SCHEDULER_LEADING if heard.is_leading else events.SCHEDULER_STANDING_BY, partition=self._partition)
        if heard.is_leading:
            rows = [row for row in heard.rows if not self._is_shunned(row)]
            for first in range(0, len(rows), TOGETHER):
                self._bring_up([_Progress(row, heard.now_ms, self._types, self._meter) for row in rows[first : first + TOGETHER]], until)
            if rows:
                return 0.0  # there may be more, and what was caught up may be due again
        return LOOK_S if heard.wait_ms < 0 else min(LOOK_S, heard.wait_ms / 1_000 + 0.001)

    def _bring_up(self, under_way: list[_Progress], until: float) -> None:
        """Carry out the steps of several schedules: the next one of each at a time, together."""
        while under_way:
            calls, goes_on = [], []
            for progress in under_way:
                if self._advance(progress):
                    step, jobs = progress.prepared
                    row, window = progress.row, self._window_ms
                    calls.append(schedules.fire(self._partition, row.id, row.definition, step, jobs, key_window_ms=window))
                    goes_on.append(progress)
            if time.monotonic() > until or not calls:
                return
            failpoints.hit("schedule.before_fire")
            answers = self._channel.run_together(calls, within_s=1.0)
            failpoints.hit("schedule.fired")
            under_way = [progress for progress, answer in zip(goes_on, answers, strict=True) if progress.told(answer)]

    def _advance(self, progress: _Progress) -> bool:
        """Whether the schedule has another step. One that cannot be read, or that fails, does not stop the others."""
        try:
            return progress.advance()
        except StoreDefect as error:
            self._shun(progress.row, error)
        except StoreError:
            raise
        except Exception as error:  # noqa: BLE001, RUF100 - the border of one schedule
            self._shun(progress.row, error)
        return False

    def _is_shunned(self, row: DueRow) -> bool:
        if time.monotonic() < self._shunned.get(row.id, 0.0):
            return True
        self._shunned.pop(row.id, None)
        return False

    def _shun(self, row: DueRow, error: Exception) -> None:
        self._shunned[row.id] = time.monotonic() + SHUNNED_S
        log.error(events.SCHEDULE_FAILED, schedule=row.id, retryS=SHUNNED_S, exc_info=error)


class _Progress:
    """A schedule that is brought up to the present, step by step."""

    def __init__(self, row: DueRow, now_ms: int, types: Types, meter: SchedulerMeter) -> None:
        self.row = row
        self._now_ms = now_ms
        self._meter = meter
        self.prepared: Prepared
        self._steps = prepare_steps(row, now_ms, types.of)

    def advance(self) -> bool:
        """Prepare the next step, if there is one."""
        prepared = next(self._steps, None)
        if prepared is not None:
            self.prepared = prepared
        return prepared is not None

    def told(self, answer: Fired) -> bool:
        """Whether it goes on from here."""
        if answer.status in (Status.OK, Status.ALREADY):
            self._tell(self.prepared[0], answer)
            return True
        # Edited, paused, deleted, or fired by another: what stands there now is told by the next round.
        log.info(events.SCHEDULE_CHANGED, schedule=self.row.id, instantMs=self.row.instant_ms, answer=answer.status.name)
        return False

    def _tell(self, step: Step, answer: Fired) -> None:
        schedule_id, at_ms = self.row.id, int(step.at or 0)
        count, first_ms, last_ms = step.missed
        if count:
            log.warning(events.SCHEDULE_MISSED, schedule=schedule_id, count=count, firstMs=first_ms, lastMs=last_ms)
            self._meter.missed(count)
        facts = {"schedule": schedule_id, "instantMs": at_ms, "outcome": answer.outcome}
        self._meter.fired(answer.outcome, (self._now_ms - at_ms) / 1_000)
        if answer.outcome == "refused":
            log.warning(events.SCHEDULE_REFUSED, **facts, why=step.why)
        elif answer.outcome in ("skipped", "queued"):
            log.info(events.SCHEDULE_SKIPPED, **facts)
        elif answer.outcome in ("fired", "duplicate"):
            log.info(events.SCHEDULE_FIRED, **facts, jobId=answer.job_id)
