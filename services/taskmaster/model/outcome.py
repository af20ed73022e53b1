"""What the end of an attempt means: pure decisions, tested by table."""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import msgspec

from taskmaster.model.fingerprint import fingerprint_of
from taskmaster.model.job import Failure
from taskmaster.model.meaning import meaning_of, retry_after_s
from taskmaster.model.retry import LONGEST_MS, Backoff, delay_ms
from taskmaster_sdk import Cancelled, DependencyDown, Discard, EffectUnknown, Fatal, RateLimited, Retry
from taskmaster_sdk.jobs import ErrorKey, Job, Meaning

__all__ = [
    "RESULT_MAX",
    "Decision",
    "HandlerCrashed",
    "Interrupted",
    "MemoryLimit",
    "Policy",
    "Rejected",
    "Reported",
    "decide",
    "describe",
    "encode_result",
    "policy_of",
    "printable",
]

#: Classes from here are called by their bare names.
_OURS = ("builtins", "taskmaster_sdk.outcomes", __name__)
#: A larger result becomes an artifact; where none can be written the attempt fails for good (`result_rejected`).
RESULT_MAX = 262_144
#: No job whose provider asks for patience comes back sooner, whatever it says.
PATIENCE_MS = 1_000
NAME_MAX, MESSAGE_MAX, TRACE_MAX, FRAMES_MAX = 200, 2_000, 8_000, 40
_encode = msgspec.json.encode
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


class Interrupted(BaseException):
    """Raised inside a handler that outlived its time. Not an `Exception`, so that a handler's own catch-all lets it pass."""


class Rejected(Exception):
    """The payload cannot be read, or the result cannot be stored: repeating the attempt cannot mend it.

    Args:
        reason: `payload_rejected` or `result_rejected`.
    """

    def __init__(self, reason: Literal["payload_rejected", "result_rejected"], message: str) -> None:
        super().__init__(message)
        self.reason = reason


class HandlerCrashed(Exception):
    """The child process of an isolated handler ended in the middle of its attempt."""


class MemoryLimit(Exception):
    """An isolated handler took more memory than its type may."""


class Decision(NamedTuple):
    """What to ask of the store: the letter of a `store.calls.Finish` outcome, a delay for r, d, l, a reason for f, d, l.

    The reason `dependency_down` of an r: a failure of the type's dependency as well.
    """

    outcome: Literal["c", "r", "f", "x", "d", "l"]
    delay_ms: int = 0
    reason: str = ""


class Reported(Exception):
    """An attempt in a child process failed, and the child has said all there is to say about it."""

    def __init__(self, decision: Decision, failure: Failure) -> None:
        super().__init__(failure.error)
        self.decision = decision
        self.failure = failure


class Policy(NamedTuple):
    """What a job type says about errors.

    Attributes:
        fatal: classes that are beyond retry.
        errors: what others mean, by class, qualified name or HTTP status.
        dependency: whether it has one, whose health each call tells of.
    """

    fatal: tuple[type[BaseException], ...] = ()
    errors: Mapping[ErrorKey, Meaning] = {}
    dependency: bool = False


def policy_of(job: Job) -> Policy:
    """As the type was declared."""
    return Policy(job.fatal, job.errors, bool(job.dependency))


def decide(error: BaseException | None, *, failures: int, backoff: Backoff, policy: Policy, spared: int = 0) -> Decision:
    """What follows from an attempt that ended with *error*, or well.

    Args:
        failures: those before this attempt.
        policy: of the job type.
        spared: deliveries before this one that burned no attempt.
    """
    if error is None:
        return Decision("c")
    if isinstance(error, Reported):
        return error.decision
    if isinstance(error, Discard | Cancelled):
        return Decision("x")
    if isinstance(error, Rejected):
        return Decision("f", reason=error.reason)
    if isinstance(error, EffectUnknown):
        return Decision("f", reason="effect_unknown")
    if isinstance(error, Fatal):
        return Decision("f", reason="fatal")
    after_ms = delay_ms(backoff, failures + 1)
    if isinstance(error, Retry):
        asked = _asked_ms(error.after_s)
        return Decision("r", after_ms if asked is None else asked)
    meaning = _meaning(error, policy)
    if meaning == "fatal":
        return Decision("f", reason="fatal")
    if meaning == "discard":
        return Decision("x")
    if meaning == "dependency_down":
        return Decision("d", delay_ms(backoff, failures + spared + 1), "dependency_down")
    if meaning == "rate_limited":
        asked = _asked_ms(retry_after_s(error))
        return Decision("l", max(PATIENCE_MS, after_ms if asked is None else asked), "rate_limited")
    is_of_dependency = policy.dependency and meaning is None and not isinstance(error, HandlerCrashed | MemoryLimit)
    return Decision("r", after_ms, "dependency_down" if is_of_dependency else "")


def _meaning(error: BaseException, policy: Policy) -> Meaning | None:
    if isinstance(error, DependencyDown):
        return "dependency_down"
    if isinstance(error, RateLimited):
        return "rate_limited"
    meaning = meaning_of(error, policy.errors, has_dependency=policy.dependency)
    return "fatal" if policy.fatal and isinstance(error, policy.fatal) else meaning


def _asked_ms(after_s: object) -> int | None:
    """The delay that a handler asks for, within its limits; None when it asks for none, or for what cannot be."""
    try:
        return min(LONGEST_MS, max(0, int(float(after_s) * 1_000)))  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return None


def printable(text: str, limit: int) -> str:
    """Truncated, with control characters escaped: one line stays one line wherever it is shown, line ends of a trace aside."""
    cut = text if len(text) <= limit else f"{text[:limit]}… ({len(text) - limit} characters more)"
    return _UNPRINTABLE.sub(lambda found: f"\\x{ord(found[0]):02x}", cut)


def describe(error: BaseException, *, job_type: str, plugin: str, hide: Callable[[str], str] | None = None) -> Failure:
    """*error* as it is kept. Never raises, whatever the exception's own methods do.

    The fingerprint is alike for failures with one cause: `model.fingerprint`. *hide* takes out of a text what nobody is to see.
    """
    if isinstance(error, Reported):
        return error.failure
    cls = type(error)
    name = cls.__qualname__ if cls.__module__ in _OURS else f"{cls.__module__}.{cls.__qualname__}"
    try:
        message = str(error)
    except BaseException:
        message = "(its message could not be made)"
    name = printable(name, NAME_MAX).replace("\n", "\\n")
    frames = traceback.extract_tb(error.__traceback__, limit=-FRAMES_MAX)
    trace = "".join(traceback.format_list(frames))
    if hide is not None:
        message, trace = hide(message), hide(trace)
    place = [f"{frame.filename.rsplit('/', 1)[-1]}:{frame.name}" for frame in frames[-3:]]
    message = printable(message, MESSAGE_MAX).replace("\n", "\\n")
    fingerprint = fingerprint_of(job_type, error, name, message, place)
    return Failure(name, message, fingerprint, printable(trace[-TRACE_MAX:], TRACE_MAX), plugin)


def encode_result(result: Any) -> str:
    """What a handler returned, as JSON.

    Raises:
        Rejected: it is not JSON.
    """
    try:
        return _encode(result).decode()
    except Exception as error:  # whatever a foreign object's own methods raise
        raise Rejected("result_rejected", f"the result is not JSON: {type(error).__name__}: {error}") from error
