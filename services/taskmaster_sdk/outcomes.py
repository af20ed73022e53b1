"""What a handler may say besides returning a value: raise one of these.

Any other exception is a failure that is retried by the job's policy.
"""

from __future__ import annotations

__all__ = ["Cancelled", "DependencyDown", "Discard", "EffectUnknown", "Fatal", "LeaseLost", "Outcome", "RateLimited", "Retry"]


class Outcome(Exception):
    """Root of the words a handler may say."""

    def __init__(self, reason: str = "") -> None:
        super().__init__(reason)
        self.reason = reason


class Retry(Outcome):
    """The attempt failed; try again *after_s* seconds from now. Counts as a failure: the limit on attempts holds.

    Args:
        reason: shown to people.
        after_s: seconds, 0 to 31 days; None takes the job's backoff.
    """

    def __init__(self, reason: str = "", *, after_s: float | None = None) -> None:
        super().__init__(reason)
        self.after_s = after_s


class Fatal(Outcome):
    """The attempt failed and no other can succeed: dead-letter the job now."""


class DependencyDown(Outcome):
    """What the job depends on does not work, and that is not the job's fault: it waits, and no attempt is burned.

    The breaker of the type's dependency counts it, and once it opens nobody calls any more (`@job(dependency=…)`). While it stays closed,
    the dependency being well for others, a job is spared 20 times; then each counts as a failed attempt.
    """


class RateLimited(Outcome):
    """The provider asks for patience: nobody calls the type's dependency before *retry_after_s*, and no attempt is burned.

    Args:
        retry_after_s: seconds from now, 1 to 31 days; None takes the job's backoff.
    """

    def __init__(self, retry_after_s: float | None = None, reason: str = "") -> None:
        super().__init__(reason)
        self.retry_after_s = retry_after_s


class Discard(Outcome):
    """The work is no longer wanted: end the job as cancelled, without a dead letter."""


class Cancelled(Outcome):
    """Somebody cancelled the job; raised by `JobContext.check` and thrown into coroutine handlers."""


class EffectUnknown(Outcome):
    """Nobody knows whether an effect happened: an earlier attempt had its licence and was not heard of since.

    Let it pass: the job is dead-lettered with reason `effect_unknown`, and the effect is listed for a person to settle.
    """


class LeaseLost(Outcome):
    """The job is not this attempt's any more. Let it pass: whatever the attempt says is refused."""
