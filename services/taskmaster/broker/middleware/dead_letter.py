"""Routing to the dead-letter queue: a terminal failure leaves with a reason and a fingerprint that its record is found by."""

from __future__ import annotations

from typing import Any

import msgspec
from dramatiq import Broker
from dramatiq.broker import MessageProxy
from dramatiq.middleware import Middleware

from taskmaster.broker.message import JobMessage

__all__ = ["DeadLetter"]


class DeadLetter(Middleware):
    """Marks Dramatiq's message as failed when the job is at its end, and makes sure that its record can be found by cause.

    The record itself is written by the finish script in the same step as the state, so there is exactly one.
    """

    def after_process_message(self, broker: Broker, message: MessageProxy, **_: Any) -> None:  # noqa: ARG002
        """Look at what the outcome says."""
        assert isinstance(message, JobMessage)
        finish = message.finish
        if finish is None or finish.outcome not in ("r", "f"):
            return
        if finish.outcome == "f" or message.claim.failures + 1 >= message.envelope.attempts:
            message.fail()
            reason = finish.reason or "attempts_exhausted"
            fingerprint = finish.fingerprint or f"{reason}:{message.envelope.type}"
            message.finish = msgspec.structs.replace(finish, reason=reason, fingerprint=fingerprint)
