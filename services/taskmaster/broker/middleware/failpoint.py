"""The failpoints around an attempt. Only there where failpoints are on: it would be two calls a job."""

from __future__ import annotations

from typing import Any

from dramatiq import Broker
from dramatiq.broker import MessageProxy
from dramatiq.middleware import Middleware

from taskmaster.failpoints import hit

__all__ = ["AttemptFinished", "AttemptStarted"]


class AttemptStarted(Middleware):
    """The last of the middleware: nothing stands between its hook and the handler."""

    def before_process_message(self, broker: Broker, message: MessageProxy) -> None:  # noqa: ARG002
        """Just before the handler."""
        hit("attempt.started")


class AttemptFinished(Middleware):
    """The first of the middleware: its hook after an attempt is the last."""

    def after_process_message(self, broker: Broker, message: MessageProxy, **_: Any) -> None:  # noqa: ARG002
        """The outcome is decided; it is not acknowledged yet."""
        hit("attempt.finished")
