"""A claimed job as Dramatiq's threads and middleware see it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import dramatiq
import msgspec

from taskmaster.model.ids import created_ms
from taskmaster.model.job import Envelope, Failure
from taskmaster.model.outcome import Rejected
from taskmaster.model.trace import trace_id_of
from taskmaster.store.calls import Claim, Finish
from taskmaster.telemetry.logs import facts_of

if TYPE_CHECKING:
    from dramatiq.broker import MessageProxy
    from opentelemetry.trace import Span

    from taskmaster.broker.broker import HandlerActor
    from taskmaster.broker.consumer import PartitionConsumer
    from taskmaster.broker.guards import AttemptGuards
    from taskmaster_sdk import JobContext
else:
    #: What Dramatiq's own does by `__getattr__` is written out below: the attributes of a class that has one are slow, 3 us an attempt.
    MessageProxy = object

__all__ = ["JobMessage", "Left", "open_envelope"]

#: The blob of a claim -> what was submitted.
open_envelope = msgspec.json.Decoder(Envelope).decode

_encode = msgspec.json.encode


class JobMessage(MessageProxy):
    """One attempt. Dramatiq's own `Message` is built only when something asks for it: that would be a third of its cost.

    Attributes:
        claim: what the store handed over.
        key: (job id, token), which tells attempts apart.
        envelope: what was submitted.
        actor: of the job's type.
        consumer: that claimed it, and that its end is told to.
        token: what fences every write of this attempt.
        claimed_ms: when, by the store's clock.
        context: what the handler gets, from the first middleware to the last.
        finish: what to tell the store, set by the outcome middleware; None: nothing, the attempt is not acknowledged.
        claimed_at: monotonic seconds of the answer that brought it.
        confirmed_at: monotonic seconds of the last call that kept its lease.
        failure: of the attempt, once it has failed.
        began_at, deadline: monotonic seconds; 0 before the attempt has begun.
        thread_id, task: who runs the handler now.
        struck_at: monotonic seconds when its handler was made to stop, for outliving its time or for a cancellation; 0 before that.
        cancelled_at: monotonic seconds when somebody's wish to cancel the job arrived here; 0 before that.
        is_lease_lost: the store said so.
        is_over: its end was decided without its handler, which goes on: what that says is not heard any more.
        signal_cancel: passes a cancellation on to the process that runs the handler, if it is not this one.
        guards: of its effects, once it has asked for one.
        is_fallback: the breaker of its dependency is open, and it runs the fallback of its type.
        has_said: `Journal` has heard of it.
        is_recovered: it found an effect done by an earlier attempt.
        traceparent: context of what this attempt does: its span's, or its submission's where there is none; or empty.
        span: that records it; None where it is not recorded.
        told: its facts as its lines in the log have them, once there was one.
    """

    failed = False
    exception: BaseException | None = None
    context: JobContext | None = None
    finish: Finish | None = None
    failure: Failure | None = None
    began_at = 0.0
    deadline = 0.0
    thread_id: int | None = None
    task: asyncio.Task[None] | None = None
    struck_at = 0.0
    cancelled_at = 0.0
    is_lease_lost = False
    is_over = False
    signal_cancel: Callable[[], None] | None = None
    guards: AttemptGuards | None = None
    is_recovered = False
    is_fallback = False
    span: Span | None = None
    has_said = False
    told: Any = None

    def __init__(
        self, claim: Claim, envelope: Envelope, actor: HandlerActor, consumer: PartitionConsumer, token: str, now_ms: int, now: float
    ) -> None:
        self.claim = claim
        self.envelope = envelope
        self.actor = actor
        self.consumer = consumer
        self.token = token
        self.key = (claim.id, token)
        self.claimed_ms = now_ms
        self.claimed_at = self.confirmed_at = now
        self.traceparent = envelope.traceparent

    @property
    def facts(self) -> dict[str, Any]:
        """What every log line about this attempt says."""
        return facts_of(*self.about)

    @property
    def about(self) -> tuple[str, str, str, int, str, str]:
        """The values of `telemetry.logs.FACTS`."""
        claim = self.claim
        return claim.id, self.envelope.type, claim.queue, claim.attempt, self.actor.plugin, trace_id_of(self.traceparent)

    @property
    def handler(self) -> Callable[..., Any]:
        """What this attempt calls with (payload, context)."""
        return self.actor.fallback if self.is_fallback and self.actor.fallback is not None else self.actor.call

    @property
    def is_cancelled(self) -> bool:
        """Whether somebody asked to cancel the job."""
        return self.cancelled_at > 0

    @property
    def is_running(self) -> bool:
        """Whether its handler has begun, and its end is not decided."""
        return self.context is not None and self.finish is None and not self.is_over

    @property
    def queue_name(self) -> str:  # type: ignore[override]
        """Dramatiq's queue: the consumer that it came from."""
        return self.consumer.queue_name

    @property
    def message_id(self) -> str:  # type: ignore[override]
        """The job's id."""
        return self.claim.id

    @property
    def actor_name(self) -> str:  # type: ignore[override]
        """The job's type."""
        return self.envelope.type

    @property
    def options(self) -> dict[str, Any]:  # type: ignore[override]
        """None of Dramatiq's options apply."""
        return {}

    @property
    def payload(self) -> Any:
        """As the handler's annotation asks for it.

        Raises:
            Rejected: it does not fit the type that is loaded here.
        """
        try:
            return self.actor.decode(self.envelope.payload)
        except msgspec.DecodeError as error:
            raise Rejected("payload_rejected", f"the payload does not fit {self.actor.plugin}: {error}") from error

    @property
    def args(self) -> tuple[Any, ...]:  # type: ignore[override]
        """The payload, as Dramatiq passes it."""
        return self.message.args

    @property
    def kwargs(self) -> dict[str, Any]:  # type: ignore[override]
        """None."""
        return {}

    @property
    def message_timestamp(self) -> int:  # type: ignore[override]
        """When the job was made, ms."""
        return created_ms(self.claim.id)

    def stuff_exception(self, exception: BaseException) -> None:
        """Dramatiq's way to note why it failed."""
        self.exception = exception

    def clear_exception(self) -> None:
        """Forget it."""
        self.exception = None

    def fail(self) -> None:
        """Mark it for rejection."""
        self.failed = True

    def __repr__(self) -> str:
        return f"<JobMessage {self.claim.id} {self.envelope.type}>"

    @property
    def message(self) -> dramatiq.Message[Any]:
        """Dramatiq's own.

        Raises:
            msgspec.DecodeError: the payload is no JSON.
        """
        payload = msgspec.json.decode(self.envelope.payload)
        return dramatiq.Message(self.queue_name, self.envelope.type, (payload,), {}, {}, self.claim.id, created_ms(self.claim.id))

    def row(self, outcome: str) -> str:
        """This attempt as a line of the job's history, JSON; empty for a first attempt that completed: its facts are in the job, but for
        the trace of one that is recorded.
        """
        if outcome == "completed" and self.claim.epoch == 1 and self.span is None:
            return ""
        ended_ms = self.claimed_ms + int((time.monotonic() - self.claimed_at) * 1_000)
        error, message = (self.failure.error, self.failure.message[:200]) if self.failure else ("", "")
        row = (self.claim.epoch, outcome, self.claimed_ms, ended_ms, self.token.partition(".")[0], error, message, self.actor.plugin)
        return _encode(row if self.span is None else (*row, trace_id_of(self.traceparent))).decode()


class Left(msgspec.Struct, frozen=True, array_like=True):
    """Attempts whose handlers would not end, and how to hand them back in their consumer's name.

    Attributes:
        seq: of the consumer's next call.
        attempts: (job id, token).
    """

    partition: int
    gen: str
    wid: str
    seq: int
    attempts: tuple[tuple[str, str], ...]
