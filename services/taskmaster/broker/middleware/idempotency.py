"""The guard before an attempt: it begins only under a lease that is surely ours, and only once in this process."""

from __future__ import annotations

import time
from typing import Any

from dramatiq import Broker
from dramatiq.broker import MessageProxy
from dramatiq.middleware import Middleware

from taskmaster.broker.broker import NotRun
from taskmaster.broker.message import JobMessage

__all__ = ["Idempotency"]


class Idempotency(Middleware):
    """Refuses an attempt whose lease may have run out while it waited for a thread, and one that this process already runs.

    The store makes one job of one key and hands a job to one consumer; this closes what is left between the answer and the handler's
    first line. Times are monotonic: no clock of another machine comes into it.

    Stands last: no other hook can keep an attempt from the end that it is noted for.

    Args:
        lease_ms: of each claim. Two thirds of it is what a confirmed lease is trusted for.
    """

    def __init__(self, lease_ms: int) -> None:
        self._trusted_s = lease_ms / 1_000 * 2 / 3
        self._running: set[tuple[str, str]] = set()

    def before_process_message(self, broker: Broker, message: MessageProxy) -> None:  # noqa: ARG002
        """Let it begin, or raise.

        Raises:
            NotRun: `lease_uncertain` or `already_running`.
        """
        assert isinstance(message, JobMessage)
        if time.monotonic() - message.confirmed_at > self._trusted_s:
            raise NotRun("lease_uncertain")
        if message.key in self._running:
            raise NotRun("already_running")
        self._running.add(message.key)

    def after_process_message(
        self,
        broker: Broker,  # noqa: ARG002
        message: MessageProxy,
        *,
        result: Any = None,  # noqa: ARG002
        exception: BaseException | None = None,  # noqa: ARG002
    ) -> None:
        """It has ended."""
        assert isinstance(message, JobMessage)
        self._running.discard(message.key)
