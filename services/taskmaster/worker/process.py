"""One worker process, from fork to exit: plugins up, consumer and threads, heartbeat, drain."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue

from dramatiq.middleware import Middleware
from setproctitle import setproctitle

from taskmaster import failpoints
from taskmaster.broker.broker import TaskMasterBroker
from taskmaster.broker.consumer import PartitionConsumer
from taskmaster.broker.deadlines import Deadlines
from taskmaster.broker.guards import GuardDesk
from taskmaster.broker.isolation import runner
from taskmaster.broker.isolation.frames import SpanRecord
from taskmaster.broker.isolation.nursery import Nursery
from taskmaster.broker.isolation.pool import ATTEMPTS_MAX, RESIDENT_MAX_MB, RunnerPool
from taskmaster.broker.journal import Journal
from taskmaster.broker.message import Left
from taskmaster.broker.middleware import AttemptContext, AttemptFinished, AttemptStarted, DeadLetter, Idempotency, Measure, Outcome
from taskmaster.broker.slots import Slots, halves
from taskmaster.broker.threads import JobWorker
from taskmaster.engine.artifacts import artifacts_of
from taskmaster.engine.retention import limits_of
from taskmaster.engine.scheduled_types import Types
from taskmaster.engine.webhooks import align_endpoints
from taskmaster.errors import StoreError
from taskmaster.maintenance import artifacts, audit_heads, policy, sweeper
from taskmaster.maintenance.alarms import EVERY_S, Alarms
from taskmaster.maintenance.artifacts import ArtifactSweep
from taskmaster.maintenance.declarations import Declarations
from taskmaster.maintenance.upkeep import Upkeep
from taskmaster.plugins import lifecycle
from taskmaster.plugins.registry import Registry
from taskmaster.settings import PLUGIN_PREFIX, PREFIX, Settings
from taskmaster.store import calls, flow, upkeep
from taskmaster.store.client import SyncStore
from taskmaster.store.flow import Rules
from taskmaster.telemetry import events, tracing
from taskmaster.telemetry.logs import LEVELS, get
from taskmaster.telemetry.meters import WorkerMeter
from taskmaster.worker.heart import Duty, Rounds
from taskmaster.worker.identity import groups_of, identity_of

__all__ = ["Part", "WorkerProcess", "run", "undertake"]

log = get()
TICK_S, IDLE_LOOK_S, ORDERS_S = 1.0, 10.0, 2.0
#: Whoever has waited so long for the interpreter gets it: the next claims wait for it while a handler computes. Python's own is 5 ms.
SWITCH_S = 0.001
#: A consumer is taken for stalled when it was found so that many times, a second apart: after a pause of the whole machine it has its time.
STALLED_LOOKS = 5


@dataclass(frozen=True, slots=True)
class Part:
    """What one child is for.

    Attributes:
        name: shown in its title: `1`, `2` …, or `suspects`.
        suspects: it runs jobs that lost a worker, alone, one at a time.
        dead: consumers whose process is known to be dead: (wid, partition). Their leases need not run out.
        supervisor: process id of the parent, whose end is the end of this one.
        announce: told of every consumer id this process takes.
        ready: called once everything is up.
        retiring: called when this process claims no more and another is to take its place.
        hand_back: told of each attempt that still runs when this process ends.
        meter: counts what happens in this process; what it has counted outlives it where the memory is shared.
        beat: called a few times a second for as long as the interpreter turns, with the time since which all rounds were answered.
        pipe: the file descriptor by which it speaks to its parent, or -1.
    """

    name: str
    suspects: bool
    dead: Sequence[tuple[str, int]]
    supervisor: int
    announce: Callable[[str, int], None]
    ready: Callable[[], None]
    retiring: Callable[[], None] = lambda: None
    hand_back: Callable[[Left], None] = lambda _: None
    meter: WorkerMeter = field(default_factory=WorkerMeter)
    beat: Callable[[float], None] = lambda _: None
    pipe: int = -1


class Stop:
    """What SIGTERM said, for the main thread. Not an event: its lock may be taken when the handler of a signal runs."""

    def __init__(self) -> None:
        self.asked = 0
        self._bell: SimpleQueue[None] = SimpleQueue()

    def ask(self, *_: object) -> None:
        """The signal handler: the first asks to drain, the second to force."""
        self.asked += 1
        self._bell.put(None)

    def ring(self) -> None:
        """End a wait early."""
        self._bell.put(None)

    def wait(self, timeout_s: float) -> bool:
        """Whether it was asked, at the latest after *timeout_s* seconds."""
        if not self.asked:
            with contextlib.suppress(Empty):
                self._bell.get(timeout=timeout_s)
        return self.asked > 0


class WorkerProcess:
    """Everything that runs in one worker process but its signals.

    Args:
        settings: of the service.
        registry: what was discovered; `start` takes out what cannot be initialised.
        url: of the store.
        part: what this process is for.
        middleware: more of Dramatiq's, behind ours but for the guard, which stands last.
        nursery: forks child processes for isolated types; `nursery_for` makes it.
    """

    def __init__(
        self,
        settings: Settings,
        registry: Registry,
        url: str,
        part: Part,
        middleware: Sequence[Middleware] = (),
        nursery: Nursery | None = None,
    ) -> None:
        self.settings = settings
        self.part = part
        self.stop_asked = False
        self._registry = registry
        self._url = url
        self._limits = limits_of(settings)
        self._running: lifecycle.Running | None = None
        self.store = SyncStore(url, timeout_s=settings.store_timeout_ms / 1_000, meter=part.meter)
        self.journal = Journal()
        self.artifacts = artifacts_of(settings)
        self.guards = GuardDesk(self.store, settings.lease_ms)
        groups = groups_of(settings, registry, suspects=part.suspects)
        self._shares = halves(groups)
        self.concurrency = {queue: most for most, queues in groups for queue in queues}
        self._alone = {queue: most for most, [queue, *others] in groups if not others}
        keep_from = LEVELS.get(settings.job_log_level)
        ours: list[Middleware] = [
            Measure(part.meter),
            AttemptContext(self.journal.report, self.guards.of, self.artifacts, self.journal.keep, keep_from),
            DeadLetter(),
            Outcome(),
        ]
        self._tracing = tracing.start(settings, "worker")
        if self._tracing is not None:
            from taskmaster.broker.middleware.span import AttemptSpan  # with it comes OpenTelemetry

            ours.insert(0, AttemptSpan(self._tracing.tracer(), settings.trace_ratio))
        ours += [*middleware, Idempotency(settings.lease_ms)]
        self.broker = TaskMasterBroker(
            registry,
            partitions=settings.partitions,
            halves=len(self._shares),
            make_consumer=self._make_consumer,
            middleware=[AttemptFinished(), *ours, AttemptStarted()] if failpoints.is_on else ours,
        )
        self.worker = JobWorker(self.broker, self.concurrency)
        self.deadlines = Deadlines(self.worker, settings.timeout_grace_ms / 1_000, settings.cancel_grace_ms / 1_000)
        if nursery is not None:
            self.worker.runners = RunnerPool(
                nursery,
                self.deadlines,
                self.journal,
                keep_from,
                attempts_max=settings.recycle_jobs or ATTEMPTS_MAX,
                resident_max_mb=settings.recycle_mb or RESIDENT_MAX_MB,
                spans=self._take_spans if self._tracing is not None else None,
            )
        self._declarations: Declarations | None = None
        self._heart = Rounds("heart", self._lease_duties())
        self._chores = Rounds("chores", self._chore_duties())

    def _make_consumer(self, broker: TaskMasterBroker, partition: int, half: int) -> PartitionConsumer:
        meter = self.part.meter
        own = SyncStore(self._url, timeout_s=self.settings.store_timeout_ms / 1_000, meter=meter)
        slots = Slots(self._shares[half], look_ahead=not self.part.suspects)
        return PartitionConsumer(broker, own, partition, half, self._identity, slots, self._limits, self.part.announce, meter, self.journal)

    def start(self, environ: Mapping[str, str]) -> None:
        """Plugins up, then consumers, then what goes by the clock."""
        _abandon(self.store, self.part.dead)
        self.worker.loop.start()
        self._running = lifecycle.start(self._registry, Path(self.settings.data_dir).absolute(), environ, self.worker.loop.run_async)
        started = self._running.registry
        for report in started.reports:
            if report.state == "failed":
                log.error(events.PLUGIN_FAILED, plugin=report.name, error=report.error)
                self.part.meter.plugin_failed(report.name)
        for name in set(self._registry.handlers) - set(started.handlers):
            del self.broker.actors[name]
        self._identity = identity_of(self.settings, started, name=self.part.name, suspects=self.part.suspects)
        if self.part.name == "1":  # one process of a service will do
            self._declarations = Declarations(self.store, self.settings, started.plugins)
        self.part.beat(0.0)  # from here on a handler may hold the interpreter
        self.worker.start()
        self._heart.start()
        self._chores.start()
        self.part.ready()
        log.info(events.WORKER_READY, worker=self.part.name, pid=os.getpid(), queues=self.concurrency, types=len(started.types))

    def _take_spans(self, records: Sequence[SpanRecord]) -> None:
        """What an isolated handler traced goes out with the rest."""
        if self._tracing is not None:
            from taskmaster.broker.isolation.spans import restored

            for record in records:
                self._tracing.outbox.on_end(restored(record, self._tracing.provider.resource))

    def _declare(self) -> None:
        if self._declarations is not None and not self.stop_asked:
            self._declarations.tick()

    @property
    def is_whole(self) -> bool:
        """Whether every thread that others rely on is there."""
        return self.worker.is_whole and self._heart.is_alive() and self._chores.is_alive()

    def drain(self, is_forced: Callable[[], bool] = lambda: False) -> bool:
        """Let what runs end, in the time that the settings give or until forced. True when the store was told of all of it."""
        self.stop_asked = True
        log.info(events.WORKER_DRAINING, worker=self.part.name, held=self.worker.held)
        deadline = time.monotonic() + self.settings.drain_ms / 1_000
        while True:
            left = deadline - time.monotonic()
            if self.worker.drain(min(0.2, max(0.0, left))):
                return True
            if left <= 0 or is_forced():
                log.warning(events.WORKER_FORCED, held=self.worker.held, forced=left > 0)
                return False

    def finish(self, is_asked: Callable[[], bool]) -> bool:
        """Let what runs end after `JobWorker.retire`, each attempt in its own time; True when all has, False when asked to drain."""
        while not self.worker.drain(0.2):
            if is_asked():
                return False
        return True

    def recycle(self) -> None:
        """Retire when this process has ended as many jobs, or takes as much memory, as the settings allow."""
        jobs, megabytes = self.settings.recycle_jobs, self.settings.recycle_mb
        if jobs and sum(consumer.told for consumer in self.worker.partition_consumers()) >= jobs:
            self.worker.retire(f"{jobs} jobs")
        elif megabytes and runner.resident_mb() >= megabytes:
            self.worker.retire(f"{megabytes} MB")

    def follow_orders(self) -> None:
        """Take over how many jobs of each queue are to run at once, as operators have it now, or else the settings.

        Not of those that share slots: how many their group has is a setting, and who gets them is decided in the store.
        """
        rules: Rules = self.store.run(flow.rules(0, sorted(self._alone)))
        for queue, usual in self._alone.items():
            ordered = rules.queues.get(queue, {}).get("conc")
            self.worker.resize(queue, int(ordered) if ordered else usual)

    def stop(self) -> None:
        """End everything, after `drain`."""
        self._heart.stop()
        self._chores.stop()
        self.journal.flush(self.store.run)  # of what is about to be handed back
        self.worker.stop()
        if self.worker.runners is not None:
            self.worker.runners.stop()
        if self._running is not None:
            lifecycle.stop(self._running, self.worker.loop.run_async, within_s=5.0)
        self.worker.loop.stop()
        self.store.close()
        if self._tracing is not None:
            self._tracing.stop()

    def _lease_duties(self) -> list[Duty]:
        """Deadlines and leases. They go on while the process drains."""
        worker = self.worker
        return [
            Duty("alive", 0.0, lambda: self.part.beat(worker.answered_at)),
            Duty("late", 0.0, self.deadlines.enforce),
            Duty("unstarted", 0.0, worker.hand_back_unstarted),
            Duty("beat", self.settings.lease_ms / 3_000, worker.beat),
        ]

    def _chore_duties(self) -> list[Duty]:
        """Handlers' progress and lines, and the upkeep of each partition while the process does not drain."""

        def tick(upkeep: Upkeep) -> None:
            for job_id in upkeep.tick() if not self.stop_asked else ():
                log.warning(events.JOB_LOST, jobId=job_id)

        grace_ms, types = min(5_000, self.settings.lease_ms // 2), Types(self.store, self.settings)
        upkeeps = [
            Upkeep(
                self.store,
                partition,
                self._limits,
                types.of,
                self.settings.partitions,
                grace_ms=grace_ms,
                sweep_every_ms=self.settings.sweep_every_ms,
            )
            for partition in range(self.settings.partitions)
        ]
        flush = partial(self.journal.flush, self.store.run)
        watch = policy.PolicyWatch(self.store, self.settings.durability == "strict")
        recycling = [Duty("recycle", TICK_S, self.recycle)] if self.settings.recycle_jobs or self.settings.recycle_mb else []
        if not self.part.suspects and self.concurrency:
            recycling.append(Duty("orders", ORDERS_S, self.follow_orders))
        if self.worker.runners is not None:
            recycling.append(Duty("runners", IDLE_LOOK_S, self.worker.runners.dismiss_idle))
        if self.part.name == "1":  # one process of a service will do
            sweep = ArtifactSweep(self.store, self.artifacts, self.settings.partitions)
            recycling.append(Duty("artifacts", artifacts.EVERY_S, sweep.step))
            alarms = Alarms(self.store, self.settings.partitions, is_strict=self.settings.durability == "strict")
            recycling.append(Duty("alarms", EVERY_S, alarms.look))
            if self.settings.partitions > 1:
                recycling.append(Duty("webhooks", EVERY_S, lambda: self.store.converse(align_endpoints(self.settings.partitions))))
            heads = audit_heads.AuditHeads(self.store, self.settings.partitions)
            recycling.append(Duty("audit", audit_heads.EVERY_S, heads.look))
        return [
            Duty("progress", 0.0, flush),
            Duty("effects", 0.0, self.guards.settle_debts),
            *recycling,
            *(Duty("tick", TICK_S, partial(tick, upkeep)) for upkeep in upkeeps),
            *(Duty("prune", sweeper.STEP_S, upkeep.prune) for upkeep in upkeeps),
            *(Duty("sweep", sweeper.STEP_S, upkeep.sweep) for upkeep in upkeeps),
            Duty("policy", policy.EVERY_S, watch.look),
            Duty("schedules", TICK_S, self._declare),
        ]


def nursery_for(settings: Settings, registry: Registry, environ: Mapping[str, str], close: Sequence[int] = ()) -> Nursery | None:
    """A nursery for the isolated types among *registry*; None when there are none. Call it before any thread or connection is there.

    Its processes see the environment without what is the service's own: the store's address above all.
    """
    if not any(handler.job.isolation == "process" for handler in registry.handlers.values()):
        return None
    seen = {name: value for name, value in environ.items() if is_for_runners(name)}
    data_dir = Path(settings.data_dir).absolute()
    run_runner = partial(runner.run, registry, data_dir, artifacts_of(settings), seen, tracing.is_on(settings))
    return Nursery(run_runner, close, is_for_runners)


def is_for_runners(name: str) -> bool:
    """Whether isolated handlers see this environment variable."""
    return name != "REDIS_URL" and (not name.startswith(PREFIX) or name.startswith(PLUGIN_PREFIX))


def run(settings: Settings, registry: Registry, url: str, part: Part, environ: Mapping[str, str]) -> int:
    """Run this process until it is told to stop. SIGTERM drains, a second one forces.

    Returns:
        0 when everything it held was told to the store, 1 when something was left or a thread was lost.
    """
    setproctitle(f"taskmaster: worker {part.name}")
    sys.setswitchinterval(SWITCH_S)
    nursery = nursery_for(settings, registry, environ, [part.pipe] if part.pipe >= 0 else [])  # before the first thread
    stop = Stop()
    signal.signal(signal.SIGTERM, stop.ask)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal's Ctrl-C reaches the supervisor, which passes it on
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.pthread_sigmask(
        signal.SIG_UNBLOCK, {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
    )  # blocked over the fork, so that none was missed
    process = WorkerProcess(settings, registry, url, part, nursery=nursery)
    process.worker.on_retire = stop.ring
    process.start(environ)
    stalled = 0
    while not stop.wait(1.0):
        if process.worker.retiring:
            log.warning(events.WORKER_RETIRING, worker=part.name, why=process.worker.retiring, held=process.worker.held)
            part.retiring()
            if process.finish(lambda: stop.asked > 0):
                break
            continue
        if os.getppid() != part.supervisor:  # it is gone, and the system did not tell
            break
        if not process.is_whole:
            log.error(events.WORKER_CHILD_DIED, worker=part.name, how="a thread that everything stands on has ended")
            return 1  # the supervisor starts another, which knows that this one is dead
        stalled = stalled + 1 if process.worker.is_stalled else 0
        if stalled >= STALLED_LOOKS:
            log.error(events.WORKER_CHILD_DIED, worker=part.name, how="a consumer does not consume any more, although the store answers")
            return 1
    drained = process.drain(lambda: stop.asked > 1)
    process.stop()
    for left in process.worker.left:
        part.hand_back(left)
    log.info(events.WORKER_STOPPED, worker=part.name, drained=drained)
    return 0 if drained else 1


def undertake(settings: Settings, url: str, dead: Sequence[tuple[str, int]], left: Sequence[Left]) -> None:
    """Close the books of processes that are gone: hand back what still ran when they forced themselves to end, and expire other leases."""
    store = SyncStore(url, timeout_s=settings.store_timeout_ms / 1_000)
    for it in left:
        for n in range(0, len(it.attempts), calls.FINISH_MAX):
            finishes = [calls.Finish(job_id, token, "h") for job_id, token in it.attempts[n : n + calls.FINISH_MAX]]
            seq = it.seq + n // calls.FINISH_MAX
            call = calls.cycle(
                it.partition, gen=it.gen, wid=it.wid, seq=seq, lease_ms=1_000, finishes=finishes, wants=[], limits=limits_of(settings)
            )
            try:
                store.run(call, within_s=2.0)
            except StoreError as error:  # then their leases run out
                log.warning(events.UPKEEP_FAILED, duty="hand back", error=str(error))
    _abandon(store, dead)
    store.close()


def _abandon(store: SyncStore, dead: Sequence[tuple[str, int]]) -> None:
    """Expire what dead predecessors held: the supervisor has waited for their processes."""
    for wid, partition in dead:
        rank = 0
        try:
            while rank >= 0:
                rank = store.run(upkeep.abandon(partition, wid, rank), within_s=2.0)
        except StoreError as error:  # then their leases run out by themselves
            log.warning(events.UPKEEP_FAILED, duty="abandon", error=str(error))
