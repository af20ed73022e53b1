"""What an attempt's end counts as: outcome, how long it ran, and how long its job had waited."""

from __future__ import annotations

import time
from typing import Any

from dramatiq import Broker
from dramatiq.broker import MessageProxy
from dramatiq.middleware import Middleware

from taskmaster.broker.message import JobMessage
from taskmaster.model.ids import created_ms
from taskmaster.telemetry.meters import WorkerMeter

__all__ = ["Measure"]


class Measure(Middleware):
    """Tells *meter* of each attempt that has begun and ended. Stands first, so that it sees what the others made of it."""

    def __init__(self, meter: WorkerMeter) -> None:
        self._meter = meter

    def after_process_message(
        self,
        broker: Broker,  # noqa: ARG002
        message: MessageProxy,
        *,
        result: Any = None,  # noqa: ARG002
        exception: BaseException | None = None,  # noqa: ARG002
    ) -> None:
        """Count it. A job that comes back has waited for another reason than its turn: only first deliveries are timed."""
        assert isinstance(message, JobMessage)
        finish, claim = message.finish, message.claim
        if finish is None:
            return
        waited_s = None
        if claim.epoch == 1:
            waited_s = max(0, message.claimed_ms - max(created_ms(claim.id), claim.due_ms)) / 1_000
        self._meter.ended(message.envelope.type, claim.queue, finish.outcome, time.monotonic() - message.began_at, waited_s)
