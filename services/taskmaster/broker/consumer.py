"""One consumer of one partition: sends what ended, fetches what there is room for, and sleeps until there is a reason to do either.

All its calls are numbered; one is in flight at a time. A call whose answer is lost is sent again unchanged until it is answered, so nothing
that ended is forgotten while the store is away, and no claim is stranded (store/PROTOCOL.md, "Repeats").
"""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

import msgspec
from dramatiq.broker import Consumer, MessageProxy

from taskmaster.broker.broker import TaskMasterBroker, partition_queue
from taskmaster.broker.identity import Identity
from taskmaster.broker.journal import Journal
from taskmaster.broker.message import JobMessage, Left, open_envelope
from taskmaster.broker.slots import Slots
from taskmaster.broker.waker import Waker
from taskmaster.errors import StoreError, StoreUnavailable
from taskmaster.failpoints import hit
from taskmaster.model.job import Failure
from taskmaster.store import calls, upkeep
from taskmaster.store.call import Call
from taskmaster.store.client import SyncStore
from taskmaster.store.keys import consumer_id
from taskmaster.store.status import Status
from taskmaster.telemetry import events
from taskmaster.telemetry.logs import get
from taskmaster.telemetry.meters import WorkerMeter

__all__ = ["PartitionConsumer"]

log = get()
#: A sleep ends by itself after this, give or take a fifth: the cover for wake-ups that died with somebody else.
SLEEP_S = 5.0
#: So long two answers to rounds are apart at most in a consumer that is well, give or take the load.
ROUND_EVERY_S = 2 * SLEEP_S
#: While the store is away: how long one series of resends goes on before it is said again in the log.
PATIENCE_S = 10.0
FINISHES_A_CALL = calls.FINISH_MAX
#: The store keeps a consumer's record for ten minutes after each beat: one that it does not know sooner was lost.
KNOWN_FOR_S = 300.0


class PartitionConsumer(Consumer):
    """Dramatiq's consumer interface over `cycle`. `__next__` and `close` run on the consumer thread; all else is thread-safe.

    Args:
        broker: whose actors run the jobs.
        store: of its own, not shared with other consumers.
        partition: which one.
        half: which of its consumers in this process.
        identity: of this process.
        slots: of this consumer alone.
        limits: retention and windows.
        announce: told every wid this consumer takes, before it claims anything under it.
        meter: counts leases that were lost and outcomes that were refused.
    """

    def __init__(
        self,
        broker: TaskMasterBroker,
        store: SyncStore,
        partition: int,
        half: int,
        identity: Identity,
        slots: Slots,
        limits: calls.Limits,
        announce: Callable[[str, int], None],
        meter: WorkerMeter,
        journal: Journal,
    ) -> None:
        self.partition = partition
        self.half = half
        self.store = store
        self.identity = identity
        self.held: dict[tuple[str, str], JobMessage] = {}  # by job id and token: a zombie and its successor may both be here
        self.slots = slots
        self.queue_name = partition_queue(partition, half)
        self.draining = threading.Event()
        self.giving_up = threading.Event()
        self._broker = broker
        self._limits = limits
        self._announce = announce
        self._meter = meter
        self._journal = journal
        self._channel = store.channel()
        self.ready: deque[JobMessage] = deque()
        self._done: deque[JobMessage] = deque()
        self._unsent: list[calls.Finish] = []
        self._waker = Waker(self._heard)
        self._was_woken = False
        self._is_waiting = False
        self._is_in_round = False
        self._has_withdrawn = False
        self._look = True
        self._due_at: float | None = None
        self._gen = ""
        self.wid = ""
        self._seq = 0
        self.told = 0  # ends of attempts that the store has heard of from here
        self._must_register = True
        self._known_at = -KNOWN_FOR_S
        self.answered_at = time.monotonic()
        self._loss = ""

    # ------------------------------------------------------------ Dramatiq's interface
    def __next__(self) -> MessageProxy | None:
        """The next attempt to start; None after a while without one."""
        if not self.ready:
            if not self._has_to_ask:
                self._sleep()
            if self._has_to_ask:
                self._round()
        return self.ready.popleft() if self.ready else None

    @property
    def _has_to_ask(self) -> bool:
        return self._look or bool(self._done) or bool(self._unsent)

    def ack(self, message: MessageProxy) -> None:
        """The attempt ended as `message.finish` says: told to the store with the next round."""
        assert isinstance(message, JobMessage)
        self._done.append(message)
        if self._is_waiting:
            self.ring()

    nack = ack

    def requeue(self, messages: Iterable[MessageProxy]) -> None:
        """Hand back attempts that have not begun; they burn nothing."""
        for message in messages:
            assert isinstance(message, JobMessage)
            message.finish = calls.Finish(message.claim.id, message.token, "h")
            self.ack(message)

    def left(self) -> Left | None:
        """What still runs here, once the consumer's thread has ended: to be handed back when this process is gone, not earlier."""
        running = [message for message in self.held.values() if message.is_running]
        if not running or not self.wid:
            return None
        for message in running:
            message.is_over = True
        attempts = tuple(message.key for message in running)
        return Left(self.partition, self._gen, self.wid, self._seq + 1, attempts)

    def close(self) -> None:
        """Tell the store what is left to tell, within a few seconds, and sign off, unless something still runs here."""
        self._waker.listen(None)
        self.draining.set()
        try:
            self._sign_off()
        finally:
            self._waker.close()
            self._channel.close()
            self.store.close()

    def _sign_off(self) -> None:
        if not self.wid:
            return
        try:
            while self._done or self._unsent:
                self._round()
            if not any(message.is_running for message in self.held.values()):
                self.store.run(calls.unregister(self.partition, self.wid), within_s=2.0)
        except StoreError as error:
            log.warning(events.STORE_LOST, partition=self.partition, error=str(error), unsent=len(self._done) + len(self._unsent))

    # ------------------------------------------------------------ a round
    def _round(self) -> None:
        """One call: ends what is done, claims what there is room for."""
        if not self._was_woken:  # else nothing before what the marker asks for
            self._waker.wait(0)  # who does not come to sleep hears here of jobs to be cancelled
        self._was_woken = False
        self._look = False  # whoever wants another look from here on sets it again
        if self._must_register:
            self._register()
        self._is_in_round = True  # before `draining` is looked at: see `is_quiet`
        try:
            self._collect()
            self._seq += 1
            sent_at = time.monotonic()
            answer = self._until_answered(
                calls.cycle(
                    self.partition,
                    gen=self._gen,
                    wid=self.wid,
                    seq=self._seq,
                    lease_ms=self.identity.lease_ms,
                    finishes=self._unsent,
                    wants=self._wants(),
                    limits=self._limits,
                )
            )
            hit("cycle.sent")
            self.answered_at = time.monotonic()
            if answer.status is not Status.OK:
                log.warning(events.STORE_REGISTERED, partition=self.partition, reason=answer.status.name.lower(), wid=self.wid)
                self._forgotten(answer.status)
                self._look = True
                return
            told, self._unsent = self._unsent, []
            self.told += len(told)
            for finish, code in zip(told, answer.codes, strict=True):
                self._told(finish, code)
            self._admit(answer, sent_at)
            hit("cycle.answered")
            self._due_at = time.monotonic() + answer.next_ms / 1_000 if answer.next_ms >= 0 else None
            if answer.more:
                self._look = True
        finally:
            self._is_in_round = False

    def _wants(self) -> list[tuple[int | str, ...]]:
        if not self.draining.is_set():
            return self.slots.free()
        if self._has_withdrawn:
            return []
        self._has_withdrawn = True
        return self.slots.none()  # a wake-up that was meant for us goes to somebody else

    @property
    def is_stalled(self) -> bool:
        """Whether the store has been answering heartbeats for long since it last answered a round: something is wrong here, not there."""
        return self._known_at - self.answered_at > ROUND_EVERY_S + self.identity.stalled_s

    @property
    def is_quiet(self) -> bool:
        """Once `draining` is set: nothing is held, and no call is on its way that may bring something."""
        return not self._is_in_round and not self.held

    def _collect(self) -> None:
        """What has ended since the last round: its slots are free. What is not acknowledged is forgotten; its lease runs out."""
        done, unsent, spoken = self._done, self._unsent, []
        while done and len(unsent) < FINISHES_A_CALL:
            message = done.popleft()
            if message.has_said:
                spoken.append(message)
            self.slots.give_back(message.claim.queue)
            if message.finish is None:
                self.held.pop(message.key, None)
            else:
                unsent.append(message.finish)
        if spoken:
            self._journal.settle(spoken, self._say)

    def _say(self, call: Call[Any]) -> None:
        self._channel.run(call, within_s=PATIENCE_S, give_up=self.giving_up)

    def _told(self, finish: calls.Finish, code: int) -> None:
        message = self.held.pop((finish.id, finish.token), None)
        if code > Status.ALREADY:
            self._meter.refused()
            facts = message.facts if message is not None else {"jobId": finish.id}
            log.warning(events.JOB_OUTCOME_REFUSED, **facts, outcome=finish.outcome, code=Status(code).name.lower())
        elif message is not None and message.failure is not None:
            self._tell_failure(message, finish, message.failure)

    def _admit(self, answer: calls.Cycle, sent_at: float) -> None:
        token, now, actors, fallbacks = calls.token_of(self.wid, self._seq), time.monotonic(), self._broker.actors, answer.fallbacks
        for claim in answer.claims:
            try:
                envelope = open_envelope(claim.blob)
                actor: Any = actors[envelope.type]
            except (KeyError, msgspec.DecodeError) as error:  # a blob that cannot be read, or a type that went: looked at again later
                log.error(events.JOB_NOT_RUN, jobId=claim.id, error=f"{type(error).__name__}: {error}")
                self._unsent.append(calls.Finish(claim.id, token, "s", delay_ms=30_000, reason="unreadable"))
                continue
            is_fallback = bool(fallbacks) and claim.id in fallbacks
            if is_fallback and actor.fallback is None:  # another version of its plugin has one
                self._unsent.append(calls.Finish(claim.id, token, "s", delay_ms=30_000, reason="no_fallback"))
                continue
            self.slots.take(claim.queue)
            message = JobMessage(claim, envelope, actor, self, token, answer.now_ms, now)
            message.is_fallback = is_fallback
            message.confirmed_at = sent_at  # the lease began when the store first heard of the call, however late its answer came
            self.held[message.key] = message
            self.ready.append(message)

    def _tell_failure(self, message: JobMessage, finish: calls.Finish, failure: Failure) -> None:
        is_spared = finish.outcome in ("d", "l")
        final = finish.outcome == "f" or (not is_spared and message.claim.failures + 1 >= message.envelope.attempts)
        log.warning(
            events.JOB_DEAD_LETTERED if final else events.JOB_SPARED if is_spared else events.JOB_FAILED,
            **message.facts,
            error=failure.error,
            fingerprint=failure.fingerprint,
            reason=finish.reason or ("attempts_exhausted" if final else "retrying"),
            **({} if final else {"delayMs": finish.delay_ms}),
        )

    def _until_answered(self, call: Any) -> Any:
        """Send the same call until the store answers: its content is its own operation id."""
        away_since: float | None = None
        while True:
            try:
                answer = self._channel.run(call, within_s=PATIENCE_S, give_up=self.giving_up)
            except Exception as error:  # also what cannot be: the call may have brought claims, so nothing but its answer ends the loop
                if self.giving_up.is_set():
                    raise
                if away_since is None:
                    away_since = time.monotonic()
                log.error(events.STORE_LOST, partition=self.partition, error=str(error), away_s=round(time.monotonic() - away_since, 1))
                if not isinstance(error, StoreUnavailable):
                    self.giving_up.wait(1.0)
            else:
                if away_since is not None:
                    log.info(events.STORE_REGAINED, partition=self.partition, away_s=round(time.monotonic() - away_since, 1))
                return answer

    def _forgotten(self, status: Status) -> None:
        """The store does not know this consumer as it should: begin a new life, and say first if something was lost."""
        is_loss = status in (Status.GENERATION, Status.REWOUND)
        if is_loss or (status is Status.UNREGISTERED and time.monotonic() - self._known_at < KNOWN_FOR_S):
            self._loss = status.name.lower()
        self._must_register = True

    def _tell_loss(self) -> None:
        """What the store had answered is not there any more: a new generation, so that everybody notices, and a sweep."""
        sign, self._loss = self._loss, ""
        call = upkeep.store_rewound(self.partition, known=self._gen, fresh=consumer_id(), sign=sign)
        loss = self._until_answered(call)
        if loss.how:
            log.error(events.STORE_REWOUND, partition=self.partition, how=loss.how, sign=sign)

    def _register(self) -> None:
        """Begin a new life: fresh wid, calls counted from 1."""
        if self._loss:
            self._tell_loss()
        self._waker.listen(None)
        self.wid, self._seq = consumer_id(), 0
        self._announce(self.wid, self.partition)
        who = self.identity
        registered = self._until_answered(
            calls.register(
                self.partition,
                wid=self.wid,
                cap=who.cap,
                info=who.info,
                plugin_set=who.plugin_set,
                types=who.types,
                catalogue=who.catalogue,
                dependencies=who.dependencies,
                alive_ms=who.alive_ms,
                gen=consumer_id(),
            )
        )
        self._gen = registered.gen
        self._known_at = time.monotonic()
        self._must_register = False
        self._waker.listen(self.store.inbox(self.partition, self.wid))

    # ------------------------------------------------------------ sleep and wake
    def _sleep(self) -> None:
        """Until something ends, somebody rings, or the next due time."""
        now = time.monotonic()
        limit = SLEEP_S * random.uniform(0.8, 1.2)  # noqa: S311 - jitter, so that sleepers do not come back together
        if self._due_at is not None:
            limit = min(limit, max(0.0, self._due_at - now))
        self._is_waiting = True
        if not self._done and not self._waker.wait(limit):
            self._look = True
        self._is_waiting = False

    def _heard(self, marker: str) -> None:
        """A marker came to the inbox: somebody asks to cancel a job, or there is work."""
        if marker.startswith("c/"):
            self.cancel(marker[2:])
        else:
            self._look = self._was_woken = True

    def ring(self) -> None:
        """End the sleep."""
        self._is_waiting = False
        self._waker.ring()

    def wake(self) -> None:
        """Look for work now."""
        self._look = True
        self.ring()

    def lose(self) -> None:
        """The store does not know this consumer any more: begin a new life."""
        self._forgotten(Status.UNREGISTERED)
        self.wake()

    def cancel(self, job_id: str) -> None:
        """Somebody asked to cancel this job: raise its flag; a coroutine is interrupted."""
        for message in [m for m in list(self.held.values()) if m.claim.id == job_id and not m.is_cancelled]:
            message.cancelled_at = time.monotonic()  # one that has no context yet does not begin: `AttemptContext` looks at this
            context = message.context  # its thread may take it away at any moment, as it may the signal
            if context is not None:
                context.request_cancel()
                signal_cancel = message.signal_cancel
                if signal_cancel is not None:
                    signal_cancel()
                if message.task is not None:
                    with contextlib.suppress(RuntimeError):  # the loop has ended
                        message.task.get_loop().call_soon_threadsafe(message.task.cancel)

    def beat(self) -> None:
        """Keep the leases of everything held, but for handlers that have outlived their time. Runs on the heartbeat thread.

        Raises:
            StoreError: not kept; try again soon.
        """
        if not self.wid or self._must_register:
            return
        now = time.monotonic()
        kept = [m for m in list(self.held.values()) if m.finish is not None or not m.deadline or now < m.deadline + self.identity.overdue_s]
        who = self.identity
        codes = self.store.run(calls.extend(self.partition, self.wid, [m.key for m in kept], lease_ms=who.lease_ms, alive_ms=who.alive_ms))
        if codes is None:
            self.lose()
            return
        self._known_at = now
        for message, code in zip(kept, codes, strict=True):
            if code is Status.STALE:
                if not message.is_lease_lost:
                    message.is_lease_lost = True
                    self._meter.lease_lost()
                context = message.context
                if context is not None and message.finish is None:
                    context.request_cancel()  # its outcome would be refused: no use in going on
            else:
                message.confirmed_at = now
                if code is Status.CANCEL:
                    self.cancel(message.claim.id)
