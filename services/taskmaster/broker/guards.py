"""Effect guards of the attempts that run in this process: licences from the store, and facts told to it."""

from __future__ import annotations

import itertools
import threading
import time
from collections import deque
from typing import NamedTuple

from taskmaster.broker.message import JobMessage
from taskmaster.errors import StoreError
from taskmaster.failpoints import hit
from taskmaster.store import calls, effects
from taskmaster.store.client import SyncStore
from taskmaster.store.status import Status
from taskmaster.telemetry import events
from taskmaster.telemetry.logs import get
from taskmaster_sdk import Fatal, JobContext, LeaseLost
from taskmaster_sdk.effects import Guards, Reservation

__all__ = ["GuardDesk"]

log = get()
#: How long a request for a licence, or a fact, is sent again while the store does not answer.
PATIENCE_S = 10.0


class _Fact(NamedTuple):
    partition: int
    root_id: str
    effect: str
    token: str
    call: int
    happened: bool
    result: bytes


class GuardDesk:
    """One for a worker process. Thread-safe.

    Args:
        store: that is asked.
        lease_ms: of each claim. Two thirds of it is what a confirmed lease is trusted for: a process that was stopped in between does
            not begin an effect when it wakes.
    """

    def __init__(self, store: SyncStore, lease_ms: int) -> None:
        self._store = store
        self._trusted_s = lease_ms / 1_000 * 2 / 3
        self._owed: deque[_Fact] = deque()
        self._lock = threading.Lock()

    def of(self, context: JobContext) -> Guards:
        """The guards of one attempt, as its context hands them to effects."""
        message: JobMessage = context.host
        with self._lock:
            if message.guards is None:
                message.guards = AttemptGuards(self, message)
        return message.guards

    def trusts(self, message: JobMessage) -> bool:
        """Whether the lease was confirmed lately enough to begin something that cannot be undone."""
        return time.monotonic() - message.confirmed_at <= self._trusted_s

    def is_current(self, message: JobMessage) -> bool:
        """Whether the store says that the job is this attempt's."""
        call = calls.progress(message.consumer.partition, [calls.Word(message.claim.id, message.token)])  # a word that says nothing
        return self._store.run(call, within_s=PATIENCE_S) == (Status.OK,)

    def ask(self, message: JobMessage, call: int, effect: str, name: str, key: str, again: bool) -> effects.Reserved:
        """Send the request. When no answer comes the licence was not used, whatever the store made of it: that is said later."""
        claim, partition = message.claim, message.consumer.partition
        try:
            return self._store.run(
                effects.reserve(partition, claim.id, message.token, call, effect, name=name, key=key, again=again),
                within_s=PATIENCE_S,
            )
        except StoreError:
            self._owed.append(_Fact(partition, _root(message), effect, message.token, call, False, b""))
            raise

    def tell(self, message: JobMessage, effect: str, call: int, happened: bool, result: bytes) -> Status:
        """Tell a fact; one that cannot be told is owed."""
        fact = _Fact(message.consumer.partition, _root(message), effect, message.token, call, happened, result)
        try:
            return self._send(fact, PATIENCE_S)
        except StoreError:
            self._owed.append(fact)
            raise

    def _send(self, fact: _Fact, within_s: float) -> Status:
        call = effects.done(fact.partition, fact.root_id, fact.effect, fact.token, fact.call, happened=fact.happened, result=fact.result)
        return self._store.run(call, within_s=within_s)

    def settle_debts(self) -> None:
        """Tell what is owed, in order. For the chores of the process.

        Raises:
            StoreError: the store still does not answer.
        """
        while self._owed:
            status = self._send(self._owed[0], 0.0)
            fact = self._owed.popleft()
            log.info(events.JOB_SIDE_EFFECT_TOLD, effect=fact.effect, happened=fact.happened, code=status.name.lower())


class AttemptGuards:
    """`taskmaster_sdk.effects.Guards` of one attempt."""

    def __init__(self, desk: GuardDesk, message: JobMessage) -> None:
        self._desk = desk
        self._message = message
        self._calls = itertools.count(1)
        self._done: set[str] = set()

    def reserve(self, effect: str, name: str, key: str, again: bool) -> Reservation:
        """As the SDK says.

        Raises:
            LeaseLost: the job is not this attempt's, or was not confirmed to be lately enough.
            Fatal: more effects than a lineage may have.
            StoreError: the store does not answer.
        """
        hit("effect.before_reserve")
        message = self._message
        if not self._desk.trusts(message):
            raise LeaseLost("the lease was not confirmed lately")
        call = next(self._calls)
        answer = self._desk.ask(message, call, effect, name, key, again)
        if answer.status is Status.STALE:
            raise LeaseLost("another attempt has the job")
        if answer.status is Status.REJECTED:
            raise Fatal("the job and its replays have more effects than can be guarded")
        if answer.status is Status.DONE:
            message.is_recovered = message.is_recovered or effect not in self._done
            return Reservation("done", result=answer.result)
        if answer.status is Status.UNKNOWN:
            return Reservation("unknown")
        if not self._desk.trusts(message):  # the answer was long on its way
            self._desk.tell(message, effect, call, False, b"")
            raise LeaseLost("the lease was not confirmed lately")
        log.info(events.JOB_SIDE_EFFECT_STARTED, **message.facts, effect=name)
        hit("effect.reserved")
        return Reservation("ok", str(call))

    def permit(self) -> None:
        """As the SDK says.

        Raises:
            LeaseLost: the job is not this attempt's, or not any more.
            StoreError: the store does not answer.
        """
        if not self._message.is_running or not self._desk.is_current(self._message):
            raise LeaseLost("the attempt has ended, or another one has the job")

    def settle(self, effect: str, licence: str, happened: bool, result: bytes) -> None:
        """As the SDK says.

        Raises:
            StoreError: the store does not answer; it is told later, if this process lives.
        """
        hit("effect.before_done")
        status = self._desk.tell(self._message, effect, int(licence), happened, result)
        if status > Status.ALREADY:
            log.warning(events.JOB_SIDE_EFFECT_REFUSED, **self._message.facts, effect=effect, happened=happened, code=status.name.lower())
        elif happened:
            self._done.add(effect)
        hit("effect.done")


def _root(message: JobMessage) -> str:
    return message.envelope.root_id or message.claim.id
