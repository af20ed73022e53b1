"""What processes count, in the words of those who do. Each call touches memory alone, and takes a microsecond or two."""

from __future__ import annotations

import time
from bisect import bisect_left

from taskmaster.telemetry import metrics
from taskmaster.telemetry.metrics import Metric
from taskmaster.telemetry.sheet import Sheet

__all__ = ["ApiMeter", "SchedulerMeter", "StoreMeter", "WorkerMeter"]

#: Of all three histograms of attempts.
_BUCKETS = metrics.JOB_DURATION.buckets
_SUM = len(_BUCKETS) + 1
_BY_LETTER = {
    "c": "completed",
    "r": "failed",
    "f": "failed",
    "x": "discarded",
    "d": "dependency_down",
    "l": "rate_limited",
    "s": "not_run",
    "h": "not_run",
}


class StoreMeter:
    """Calls to the store.

    Args:
        sheet: of this process, with the metrics of all processes among its own.
    """

    def __init__(self, sheet: Sheet) -> None:
        self.sheet = sheet
        self._calls: dict[str, int] = {}
        self._failed: dict[str, int] = {}

    def called(self, script: str, seconds: float) -> None:
        """It was answered."""
        place = self._calls.get(script)
        if place is None:
            place = self._calls[script] = self.sheet.place(metrics.STORE_CALLS, script)
        self.sheet.observe(place, metrics.STORE_CALLS.buckets, seconds)

    def failed(self, script: str) -> None:
        """It was not, or with an error."""
        place = self._failed.get(script)
        if place is None:
            place = self._failed[script] = self.sheet.place(metrics.STORE_CALLS_FAILED, script)
        self.sheet.add(place)


class _Pair:
    """The places of one job type in one queue."""

    __slots__ = ("ended", "failed_s", "ran_s", "waited_s")

    def __init__(self, sheet: Sheet, job_type: str, queue: str) -> None:
        def place(metric: Metric, closed: str = "") -> int:
            return sheet.place(metric, job_type, queue, closed=closed)

        self.ended = {letter: place(metrics.ATTEMPTS, outcome) for letter, outcome in _BY_LETTER.items()}
        self.ran_s, self.failed_s, self.waited_s = map(place, (metrics.JOB_DURATION, metrics.JOB_FAILED_DURATION, metrics.JOB_WAIT))


class WorkerMeter(StoreMeter):
    """A worker process, or its supervisor. Without a sheet nobody will read it."""

    def __init__(self, sheet: Sheet | None = None) -> None:
        super().__init__(sheet if sheet is not None else Sheet(metrics.WORKER))
        self._pairs: dict[tuple[str, str], _Pair] = {}
        self._lost = self.sheet.place(metrics.LEASES_LOST)
        self._refused = self.sheet.place(metrics.OUTCOMES_REFUSED)
        self._deaths = self.sheet.place(metrics.WORKER_DEATHS)

    def ended(self, job_type: str, queue: str, letter: str, ran_s: float, waited_s: float | None) -> None:
        """An attempt ended, with this letter of `Finish`. *waited_s*: what its job had waited, of a first delivery."""
        pair = self._pairs.get((job_type, queue))
        if pair is None:
            pair = self._pairs[job_type, queue] = _Pair(self.sheet, job_type, queue)
        cells, ran = self.sheet.cells, pair.ran_s if letter == "c" else pair.failed_s
        in_bucket = ran + bisect_left(_BUCKETS, ran_s)
        with self.sheet.lock:  # once, where three calls of the sheet would take twice the time
            cells[pair.ended[letter]] += 1.0
            cells[in_bucket] += 1.0
            cells[ran + _SUM] += ran_s
            if waited_s is not None:
                cells[pair.waited_s + bisect_left(_BUCKETS, waited_s)] += 1.0
                cells[pair.waited_s + _SUM] += waited_s

    def lease_lost(self) -> None:
        """A running attempt was found to have lost its lease."""
        self.sheet.add(self._lost)

    def refused(self) -> None:
        """The store refused the end of an attempt."""
        self.sheet.add(self._refused)

    def died(self) -> None:
        """A process of this worker ended otherwise than well."""
        self.sheet.add(self._deaths)

    def plugin_failed(self, plugin: str) -> None:
        """It could not be initialised in this process."""
        self.sheet.add(self.sheet.place(metrics.PLUGIN_FAILURES, plugin))


class SchedulerMeter(StoreMeter):
    """A scheduler."""

    def __init__(self, sheet: Sheet | None = None) -> None:
        super().__init__(sheet if sheet is not None else Sheet(metrics.SCHEDULER))
        became = metrics.FIRES.closed
        self._fires = {outcome: self.sheet.place(metrics.FIRES, closed=outcome) for outcome in became}
        self._misses, self._lag = self.sheet.place(metrics.MISSES), self.sheet.place(metrics.LAG)
        self._leading = self.sheet.place(metrics.LEADING)

    def fired(self, became: str | None, lag_s: float) -> None:
        """A step was carried out, and this became of its instant, if it had one."""
        if became in self._fires:
            self.sheet.add(self._fires[became])
        if became == "fired":
            self.sheet.observe(self._lag, metrics.LAG.buckets, max(0.0, lag_s))

    def missed(self, instants: int) -> None:
        """So many were found to be missed."""
        self.sheet.add(self._misses, instants)

    def led(self, by: int) -> None:
        """It leads a partition more, or less."""
        self.sheet.add(self._leading, by)


class ApiMeter(StoreMeter):
    """An API process."""

    def __init__(self) -> None:
        super().__init__(Sheet(metrics.API))
        self._requests: dict[tuple[str, str, int], int] = {}
        self._durations: dict[tuple[str, str], int] = {}

    def answered(self, method: str, route: str, status: int, began_at: float) -> None:
        """A request that began at *began_at* (`time.perf_counter`) was answered. *route*: its template, never its path."""
        kind = status // 100
        place = self._requests.get((method, route, kind))
        if place is None:
            closed = f"{min(5, max(2, kind))}xx"
            place = self._requests[method, route, kind] = self.sheet.place(metrics.REQUESTS, method, route, closed=closed)
            self._durations[method, route] = self.sheet.place(metrics.REQUEST_DURATION, method, route)
        self.sheet.add(place)
        self.sheet.observe(self._durations[method, route], metrics.REQUEST_DURATION.buckets, time.perf_counter() - began_at)
