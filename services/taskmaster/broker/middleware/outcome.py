"""What an attempt's end means for its job: completed, retried, discarded or dead, by policy and by the class of the error."""

from __future__ import annotations

from typing import Any

import msgspec
from dramatiq import Broker
from dramatiq.broker import MessageProxy
from dramatiq.middleware import Middleware

from taskmaster.broker.message import JobMessage
from taskmaster.broker.results import kept_result
from taskmaster.model.outcome import Rejected, decide, describe
from taskmaster.store.calls import Finish

__all__ = ["Outcome"]

_encode = msgspec.json.encode
_WORD = {"r": "failed", "f": "failed", "x": "discarded", "d": "dependency_down", "l": "rate_limited"}


class Outcome(Middleware):
    """Sets `message.finish`. The store carries it out with the next round, atomically, and refuses it if the lease was lost.

    A result that cannot be kept makes the attempt fail for good (`result_rejected`): its effects are not repeated. One that is too large
    becomes an artifact: the one thing that is written here, and only then.
    """

    def after_process_message(
        self,
        broker: Broker,  # noqa: ARG002
        message: MessageProxy,
        *,
        result: Any = None,
        exception: BaseException | None = None,
    ) -> None:
        """Decide. An exception whose own methods make that impossible counts as a plain failure."""
        assert isinstance(message, JobMessage)
        try:
            message.finish = self._finish(message, result, exception)
        except BaseException as hostile:
            text = f"{type(exception).__name__!a} could not be described: {type(hostile).__name__!a}"
            message.finish = self._finish(message, None, RuntimeError(text))

    def _finish(self, message: JobMessage, result: Any, exception: BaseException | None) -> Finish:
        claim, body = message.claim, ""
        if exception is None and result is not None:
            try:
                assert message.context is not None
                body = kept_result(result, claim.id, message.context.artifacts)
            except Rejected as rejected:
                exception = rejected
        backoff, policy = message.envelope.backoff, message.actor.policy
        if exception is None:
            return Finish(claim.id, message.token, "c", body, message.row("completed"))
        decision = decide(exception, failures=claim.failures, backoff=backoff, policy=policy, spared=claim.spared)
        hide = message.actor.handler.hide(bytes(message.envelope.payload))
        failure = describe(exception, job_type=message.envelope.type, plugin=message.actor.plugin, hide=hide)
        message.failure, body = failure, _encode(failure).decode()
        row = message.row(_WORD[decision.outcome])
        if decision.outcome == "x":
            message.failure = None
            return Finish(claim.id, message.token, "x", body, row)
        return Finish(claim.id, message.token, decision.outcome, body, row, decision.delay_ms, decision.reason, failure.fingerprint)
