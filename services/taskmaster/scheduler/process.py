"""One scheduler process, from start to SIGTERM."""

from __future__ import annotations

import os
import secrets
import signal
import sys

from setproctitle import setproctitle

from taskmaster.engine.scheduled_types import Types
from taskmaster.scheduler.loop import Loop
from taskmaster.scheduler.rounds import Rounds
from taskmaster.settings import Settings
from taskmaster.store.client import SyncStore
from taskmaster.telemetry import events, tracing
from taskmaster.telemetry.logs import get

__all__ = ["run"]

_STOPS = (signal.SIGTERM, signal.SIGINT)


def run(settings: Settings, url: str) -> int:
    """Fire schedules until SIGTERM or SIGINT; the exit code. A second signal ends the process now. Main thread only."""
    log = get()
    setproctitle("taskmaster: scheduler")
    signal.pthread_sigmask(signal.SIG_BLOCK, _STOPS)  # before any thread is there: they are waited for below
    traced = tracing.start(settings, "scheduler")
    store = SyncStore(url, timeout_s=settings.store_timeout_ms / 1_000)
    types, wid = Types(store, settings), secrets.token_hex(8)
    partitions = [Rounds(store, partition, wid, settings, types) for partition in range(settings.partitions)]
    loop = Loop(lambda: min(rounds.turn() for rounds in partitions))
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
    if traced is not None:
        traced.stop()
    log.info(events.SCHEDULER_STOPPED, pid=os.getpid())
    sys.stdout.flush()
    return 0
