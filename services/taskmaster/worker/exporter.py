"""The one port of a worker: a child of the supervisor that serves `/metrics` and `/livez` for all its processes.

A child of its own, since the supervisor forks and so must not have threads. It reads memory that the others write, asks nobody and holds no
connection: whatever becomes of it, no job is touched.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Final

from setproctitle import setproctitle

from taskmaster.plugins.registry import Registry
from taskmaster.settings import Settings
from taskmaster.telemetry import events, logs, metrics, port
from taskmaster.telemetry.logs import get
from taskmaster.telemetry.meters import WorkerMeter
from taskmaster.telemetry.metrics import Facts, Metric, Shown
from taskmaster.telemetry.sheet import Sheet, share
from taskmaster.worker.heart import Hearts

__all__ = ["Exporter"]

log = get()
#: A process whose heart was silent for longer is not well (one that waits for a store that does not answer beats more slowly), and one that
#: no round was answered for longer does not get on.
SILENT_S: Final = 20.0
CUT_OFF_S: Final = 15.0
#: One that has died is started again after that.
AGAIN_S: Final = 1.0


class Exporter:
    """Belongs to the supervisor: binds the port, has the memory, forks the child and starts another when it dies.

    Args:
        settings: of the service.
        registry: what was discovered.
        hearts: of all children.
    """

    def __init__(self, settings: Settings, registry: Registry, hearts: Hearts) -> None:
        self._registry = registry
        self._hearts = hearts
        self._pid = 0
        self._start_at = 0.0
        self._sheets: list[Sheet] = []
        self._shown: Shown = {}
        self._listening = None
        if settings.worker_metrics_port:
            try:
                self._sheets = share(metrics.WORKER, hearts.places + 1)
            except (OSError, ValueError) as error:
                log.warning(events.METRICS_OFF, error=str(error), hint="the system has no memory for them; jobs run as ever")
            else:
                self._listening = port.bind(settings.metrics_host, settings.worker_metrics_port, "TASKMASTER_WORKER_METRICS_PORT")
        self.meter = self.meter_of(hearts.places)  # the supervisor's own

    def meter_of(self, place: int) -> WorkerMeter:
        """What the child in this place counts with. It goes on where the one before it ended."""
        return WorkerMeter(self._sheets[place] if self._sheets else None)

    def keep(self, leave_parent: Callable[[int], None]) -> None:
        """Fork it if it does not run. *leave_parent*, told the parent's id: makes the child a process of its own."""
        if self._listening is None or self._pid or time.monotonic() < self._start_at:
            return
        sys.stdout.flush()
        sys.stderr.flush()
        parent = os.getpid()
        self._pid = os.fork()
        if self._pid == 0:
            try:
                leave_parent(parent)
                self._serve()
            finally:
                logs.flush()
                os._exit(70)

    def _serve(self) -> None:
        from taskmaster.telemetry import exporter  # neither the supervisor nor the other children need an HTTP server

        assert self._listening is not None
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        for number in (signal.SIGINT, signal.SIGHUP):  # a terminal's reach all; the supervisor says when it is over
            signal.signal(number, signal.SIG_IGN)
        setproctitle("taskmaster: worker metrics")
        exporter.serve(self._listening, self.page, self.trouble)

    def reap(self) -> None:
        """Take note of its end."""
        if self._pid and os.waitpid(self._pid, os.WNOHANG)[0]:
            self._pid, self._start_at = 0, time.monotonic() + AGAIN_S

    def forget(self) -> None:
        """In another child: the port is none of its business."""
        if self._listening is not None:
            self._listening.close()

    def stop(self) -> None:
        """End it."""
        if self._pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)
            self._pid = 0

    # ------------------------------------------------------------ in the child
    def page(self, accept: str) -> tuple[bytes, str]:
        """All there is, as Prometheus reads it."""
        from taskmaster.telemetry import exposition

        known: dict[Metric, Facts] = {
            metrics.BUILD: exposition.build_facts(),
            metrics.PLUGIN_LOADED: {(report.name,): float(report.state != "failed") for report in self._registry.reports},
            metrics.WORKER_PROCESSES: {(): float(sum(self._is_beating(seen.beat_at) for seen in self._hearts.seen()))},
            metrics.WORKER_CUT_OFF: {(): self._cut_off_s()},
        }
        return exposition.render(accept, exposition.families_of(self._sheets, metrics.WORKER, known, self._shown))

    def trouble(self) -> str:
        """Why this worker does not get on; empty while it does."""
        seen = self._hearts.seen()
        if not any(self._is_beating(one.beat_at) for one in seen):
            return "no process of this worker has a heartbeat"
        cut_off_s = self._cut_off_s()
        return f"a process of this worker has had no answer to a fetch for {cut_off_s:.0f} s" if cut_off_s > CUT_OFF_S else ""

    def _cut_off_s(self) -> float:
        since = [one.answered_at for one in self._hearts.seen() if self._is_beating(one.beat_at) and one.answered_at]
        return max(0.0, time.monotonic() - min(since)) if since else 0.0

    @staticmethod
    def _is_beating(beat_at: float) -> bool:
        return time.monotonic() - beat_at < SILENT_S
