"""One scheduler process, from start to SIGTERM."""

from __future__ import annotations

import os
import secrets
import signal
import sys
from collections.abc import Callable
from typing import Final

from setproctitle import setproctitle

from taskmaster.engine.scheduled_types import Types
from taskmaster.scheduler.loop import Loop
from taskmaster.scheduler.rounds import Rounds
from taskmaster.settings import Settings
from taskmaster.store.client import SyncStore
from taskmaster.telemetry import events, metrics, tracing
from taskmaster.telemetry import port as metrics_port
from taskmaster.telemetry.logs import get
from taskmaster.telemetry.meters import SchedulerMeter

__all__ = ["run"]

#: A round ends in half a second, or when the store has not answered in its time.
QUIET_S: Final = 30.0
_STOPS = (signal.SIGTERM, signal.SIGINT)


def run(settings: Settings, url: str) -> int:
    """Fire schedules until SIGTERM or SIGINT; the exit code. A second signal ends the process now. Main thread only."""
    log = get()
    setproctitle("taskmaster: scheduler")
    signal.pthread_sigmask(signal.SIG_BLOCK, _STOPS)  # before any thread is there: they are waited for below
    traced, meter = tracing.start(settings, "scheduler"), SchedulerMeter()
    store = SyncStore(url, timeout_s=settings.store_timeout_ms / 1_000, meter=meter)
    types, wid = Types(store, settings), secrets.token_hex(8)
    partitions = [Rounds(store, partition, wid, settings, types, meter) for partition in range(settings.partitions)]
    loop = Loop(lambda: min(rounds.turn() for rounds in partitions))
    stop_metrics = _serve_metrics(settings, meter, loop)
    loop.start()
    log.info(events.SCHEDULER_STARTED, pid=os.getpid(), id=wid)
    signal.sigwait(_STOPS)
    for number in _STOPS:
        signal.signal(number, lambda *_: os._exit(1))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPS)
    loop.stop()
    for rounds in partitions:
        rounds.leave()
    store.close()
    stop_metrics()
    if traced is not None:
        traced.stop()
    log.info(events.SCHEDULER_STOPPED, pid=os.getpid())
    sys.stdout.flush()
    return 0


def _serve_metrics(settings: Settings, meter: SchedulerMeter, loop: Loop) -> Callable[[], None]:
    """Serve `/metrics` and `/livez` on a thread, if there is to be a port; what ends that."""
    port = settings.scheduler_metrics_port
    listening = metrics_port.bind(settings.metrics_host, port, "TASKMASTER_SCHEDULER_METRICS_PORT") if port else None
    if listening is None:
        return lambda: None
    from taskmaster.telemetry import exporter, exposition

    library = exposition.process_registry()

    def page(accept: str) -> tuple[bytes, str]:
        known = {metrics.BUILD: exposition.build_facts()}
        return exposition.render(accept, exposition.families_of([meter.sheet], metrics.SCHEDULER, known, {}), library)

    def trouble() -> str:
        quiet_s = loop.quiet_s
        return f"no round has ended for {quiet_s:.0f} s" if quiet_s > QUIET_S else ""

    return exporter.serve_in_background(listening, page, trouble)
