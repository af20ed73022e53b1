"""One worker process, from fork to exit: plugins up, consumer and threads, heartbeat, drain."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
from setproctitle import setproctitle

from taskmaster.broker.broker import TaskMasterBroker
from taskmaster.broker.consumer import Identity, PartitionConsumer
from taskmaster.broker.message import JobMessage
from taskmaster.broker.middleware import AttemptContext, DeadLetter, Idempotency, Outcome
from taskmaster.broker.slots import Slots
from taskmaster.broker.threads import JobWorker
from taskmaster.errors import StoreError
from taskmaster.maintenance.upkeep import Upkeep
from taskmaster.plugins import catalogue, lifecycle
from taskmaster.plugins.registry import Registry
from taskmaster.settings import Settings
from taskmaster.store import calls
from taskmaster.store.client import SyncStore
from taskmaster.store.keys import LOST_BAND
from taskmaster.telemetry import events
from taskmaster.telemetry.logs import get

__all__ = ["Part", "run"]

log = get()
TICK_S = 1.0
PROGRESS_S = 0.25


@dataclass(frozen=True, slots=True)
class Part:
    """What one child is for.

    Attributes:
        name: shown in its title: `1`, `2` …, or `suspects`.
        suspects: it runs jobs that lost a worker, alone, one at a time.
        dead: consumers whose process is known to be dead: (wid, partition). Their leases need not run out.
        announce: told of every consumer id this process takes.
        ready: called once everything is up.
    """

    name: str
    suspects: bool
    dead: Sequence[tuple[str, int]]
    announce: Callable[[str, int], None]
    ready: Callable[[], None]


class Progress:
    """The last word of each attempt, sent a few times a second. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._words: dict[str, tuple[JobMessage, str]] = {}

    def report(self, message: JobMessage, fraction: float, note: str) -> None:
        """Remember it; cheap."""
        text = f"{fraction:.4g} {note}".encode()[:60].decode(errors="ignore")
        with self._lock:
            self._words[message.claim.id] = (message, text)

    def flush(self, store: SyncStore, partition_of: Callable[[JobMessage], int]) -> None:
        """Send what there is; what cannot be sent is dropped: the next word is newer."""
        with self._lock:
            words, self._words = self._words, {}
        by_partition: dict[int, list[tuple[str, str, str]]] = {}
        for message, text in words.values():
            by_partition.setdefault(partition_of(message), []).append((message.claim.id, message.token, text))
        for partition, rows in by_partition.items():
            try:
                store.run(calls.progress(partition, rows[:256]))
            except StoreError as error:
                log.debug(events.UPKEEP_FAILED, duty="progress", error=str(error))


def slots_of(settings: Settings, registry: Registry, *, suspects: bool) -> Slots:
    """Slots for the queues that the loaded types go to by default, and those that the settings name.

    Where suspects run there is one slot over all queues: what runs there may take the process along.
    """
    queues = {handler.job.queue for handler in registry.handlers.values()} | set(settings.queue_concurrency)
    if settings.queues:
        queues &= set(settings.queues)
    if suspects:
        return Slots([(1, sorted(queues))], look_ahead=False)
    return Slots([(settings.queue_concurrency.get(queue, settings.concurrency), [queue]) for queue in sorted(queues)])


def limits_of(settings: Settings) -> calls.Limits:
    """Retention and windows as scripts take them."""
    return calls.Limits(settings.idempotency_window_ms, settings.keep_completed, settings.keep_failed, settings.keep_cancelled)


def identity_of(settings: Settings, registry: Registry, part: Part) -> Identity:
    """How this process registers."""
    encode = msgspec.json.encode
    plugin_set = {name: f"{handler.plugin}=={handler.version}" for name, handler in registry.handlers.items()}
    info = {"host": socket.gethostname(), "pid": os.getpid(), "name": part.name, "suspects": part.suspects}
    types = tuple(f"{name}{LOST_BAND}" for name in registry.types) if part.suspects else registry.types
    published = () if part.suspects else tuple((entry.type, catalogue.encode(entry).decode()) for entry in catalogue.entries(registry))
    return Identity(
        cap=registry.fingerprint() + (LOST_BAND if part.suspects else ""),
        info=encode(info).decode(),
        plugin_set=encode(plugin_set).decode(),
        types=types,
        catalogue=published,
        lease_ms=settings.lease_ms,
        alive_ms=max(settings.lease_ms, 3_000),
    )


def run(settings: Settings, registry: Registry, url: str, part: Part, environ: Mapping[str, str]) -> int:
    """Run this process until it is told to stop. SIGTERM drains, a second one forces.

    Returns:
        0 when everything it held was told to the store, 1 when something was left.
    """
    setproctitle(f"taskmaster: worker {part.name}")
    stop = threading.Event()
    forced = threading.Event()

    def on_signal(*_: object) -> None:
        if stop.is_set():
            forced.set()
        stop.set()

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal's Ctrl-C reaches the supervisor, which passes it on

    limits = limits_of(settings)
    store = SyncStore(url, timeout_s=settings.store_timeout_ms / 1_000)
    progress = Progress()
    middleware = [AttemptContext(progress.report), Idempotency(settings.lease_ms), DeadLetter(), Outcome()]
    worker: JobWorker | None = None

    def make_consumer(broker: TaskMasterBroker, partition: int) -> PartitionConsumer:
        own = SyncStore(url, timeout_s=settings.store_timeout_ms / 1_000)
        return PartitionConsumer(broker, own, partition, identity, slots, limits, part.announce)

    _abandon(store, part.dead)
    boot = TaskMasterBroker(registry, partitions=settings.partitions, make_consumer=make_consumer, middleware=middleware)
    slots = slots_of(settings, registry, suspects=part.suspects)
    worker = JobWorker(boot, slots)
    worker.loop.start()
    running = lifecycle.start(registry, Path(settings.data_dir).absolute(), environ, worker.loop.run_async)
    for report in running.registry.reports:
        if report.state == "failed":
            log.error(events.PLUGIN_FAILED, plugin=report.name, error=report.error)
    for name in set(registry.handlers) - set(running.registry.handlers):
        del boot.actors[name]
    identity = identity_of(settings, running.registry, part)
    worker.start()
    heart = threading.Thread(target=_heart, args=(settings, store, worker, progress, stop, limits), name="taskmaster-heart", daemon=True)
    heart.start()
    part.ready()
    log.info(events.WORKER_READY, worker=part.name, pid=os.getpid(), queues=slots.threads, types=len(running.registry.types))
    while not stop.wait(1.0):
        if os.getppid() == 1:  # the supervisor is gone, and the system did not tell
            break
    log.info(events.WORKER_DRAINING, worker=part.name, held=slots.held)
    drained = _drain(worker, settings.drain_ms / 1_000, forced)
    worker.stop()
    lifecycle.stop(running, worker.loop.run_async, within_s=5.0)
    worker.loop.stop()
    store.close()
    log.info(events.WORKER_STOPPED, worker=part.name, drained=drained)
    return 0 if drained else 1


def _abandon(store: SyncStore, dead: Sequence[tuple[str, int]]) -> None:
    """Expire what dead predecessors held: the supervisor has waited for their processes."""
    for wid, partition in dead:
        rank = 0
        try:
            while rank >= 0:
                rank = store.run(calls.abandon(partition, wid, rank), within_s=2.0)
        except StoreError as error:  # then their leases run out by themselves
            log.warning(events.UPKEEP_FAILED, duty="abandon", error=str(error))


def _drain(worker: JobWorker, within_s: float, forced: threading.Event) -> bool:
    """Drain in the time given, or until forced."""
    deadline = time.monotonic() + within_s
    while not forced.is_set() and time.monotonic() < deadline:
        if worker.drain(min(0.2, max(0.0, deadline - time.monotonic()))):
            return True
    log.warning(events.WORKER_FORCED, held=worker.slots.held, forced=forced.is_set())
    return False


def _heart(settings: Settings, store: SyncStore, worker: JobWorker, progress: Progress, stop: threading.Event, limits: calls.Limits) -> None:
    """Leases, progress, deadlines and the second's duties. Goes on while the process drains; ends with it."""
    grace_ms = min(5_000, settings.lease_ms // 2)
    duties = [Upkeep(store, partition, limits, grace_ms=grace_ms) for partition in range(settings.partitions)]
    beat_s = settings.lease_ms / 3_000
    next_beat = next_tick = time.monotonic()
    while True:
        now = time.monotonic()
        if now >= next_beat:
            next_beat = now + beat_s
            for consumer in worker.partition_consumers():
                try:
                    consumer.beat()
                except StoreError as error:
                    log.warning(events.UPKEEP_FAILED, duty="beat", error=str(error))
                    next_beat = now + min(beat_s, 1.0)
        if now >= next_tick and not stop.is_set():
            next_tick = now + TICK_S
            for duty in duties:
                try:
                    for job_id in duty.tick():
                        log.warning(events.JOB_LOST, jobId=job_id)
                except StoreError as error:
                    log.warning(events.UPKEEP_FAILED, duty="tick", error=str(error))
        try:
            progress.flush(store, lambda message: int(message.queue_name.rpartition(".")[2]))
            worker.interrupt_late()
            worker.hand_back_unstarted()
        except Exception as error:
            log.error(events.UPKEEP_FAILED, duty="threads", exc_info=error)
        time.sleep(PROGRESS_S)

