"""What the end of an attempt means: pure decisions, tested by table."""

from __future__ import annotations

import re
import traceback
from typing import Any, Literal, NamedTuple

import msgspec

from taskmaster.model.fingerprint import fingerprint_of
from taskmaster.model.job import Failure
from taskmaster.model.retry import LONGEST_MS, Backoff, delay_ms
from taskmaster_sdk import Cancelled, Discard, EffectUnknown, Fatal, Retry

__all__ = [
    "RESULT_MAX",
    "Decision",
    "HandlerCrashed",
    "Interrupted",
    "MemoryLimit",
    "Rejected",
    "Reported",
    "decide",
    "describe",
    "encode_result",
]

#: Classes from here are called by their bare names.
_OURS = ("builtins", "taskmaster_sdk.outcomes", __name__)
#: A larger result makes the attempt fail for good (`result_rejected`): its effects are not repeated.
RESULT_MAX = 262_144
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
    """What to ask of the store: the letter of a `store.calls.Finish` outcome, a delay for r, a reason for f."""

    outcome: Literal["c", "r", "f", "x"]
    delay_ms: int = 0
    reason: str = ""


class Reported(Exception):
    """An attempt in a child process failed, and the child has said all there is to say about it."""

    def __init__(self, decision: Decision, failure: Failure) -> None:
        super().__init__(failure.error)
        self.decision = decision
        self.failure = failure


def decide(error: BaseException | None, *, failures: int, backoff: Backoff, fatal: tuple[type[BaseException], ...]) -> Decision:
    """What follows from an attempt that ended with *error*, or well.

    Args:
        failures: those before this attempt.
        fatal: classes that the job type declares as beyond retry.
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
    if isinstance(error, Fatal) or (fatal and isinstance(error, fatal)):
        return Decision("f", reason="fatal")
    asked = _asked_ms(error.after_s) if isinstance(error, Retry) else None
    return Decision("r", delay_ms(backoff, failures + 1) if asked is None else asked)


def _asked_ms(after_s: object) -> int | None:
    """The delay that a handler asks for, within its limits; None when it asks for none, or for what cannot be."""
    try:
        return min(LONGEST_MS, max(0, int(float(after_s) * 1_000)))  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return None


def _clean(text: str, limit: int) -> str:
    """Truncated, with control characters escaped: one line stays one line wherever it is shown, line ends of a trace aside."""
    cut = text if len(text) <= limit else f"{text[:limit]}… ({len(text) - limit} characters more)"
    return _UNPRINTABLE.sub(lambda found: f"\\x{ord(found[0]):02x}", cut)


def describe(error: BaseException, *, job_type: str, plugin: str) -> Failure:
    """*error* as it is kept. Never raises, whatever the exception's own methods do.

    The fingerprint is alike for failures with one cause: `model.fingerprint`.
    """
    if isinstance(error, Reported):
        return error.failure
    cls = type(error)
    name = cls.__qualname__ if cls.__module__ in _OURS else f"{cls.__module__}.{cls.__qualname__}"
    try:
        message = str(error)
    except BaseException:
        message = "(its message could not be made)"
    name = _clean(name, NAME_MAX).replace("\n", "\\n")
    frames = traceback.extract_tb(error.__traceback__, limit=-FRAMES_MAX)
    trace = "".join(traceback.format_list(frames))
    place = [f"{frame.filename.rsplit('/', 1)[-1]}:{frame.name}" for frame in frames[-3:]]
    message = _clean(message, MESSAGE_MAX).replace("\n", "\\n")
    fingerprint = fingerprint_of(job_type, error, name, message, place)
    return Failure(name, message, fingerprint, _clean(trace[-TRACE_MAX:], TRACE_MAX), plugin)


def encode_result(result: Any, limit: int = RESULT_MAX) -> str:
    """What a handler returned, as JSON.

    Raises:
        Rejected: it is not JSON, or longer than *limit* bytes.
    """
    try:
        body = _encode(result)
        text = body.decode()
    except Exception as error:  # whatever a foreign object's own methods raise
        raise Rejected("result_rejected", f"the result is not JSON: {type(error).__name__}: {error}") from error
    if len(body) > limit:
        raise Rejected("result_rejected", f"the result is {len(body)} bytes, at most {limit} are kept")
    return text
