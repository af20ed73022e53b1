"""What an attempt's end means, by table; and that no exception is too hostile to be described."""

from __future__ import annotations

import asyncio
import sys

import msgspec
import pytest

from taskmaster.model.outcome import FRAMES_MAX, MESSAGE_MAX, TRACE_MAX, Decision, Interrupted, Policy, Rejected, decide, describe
from taskmaster.model.retry import DEFAULT, LONGEST_MS, Backoff
from taskmaster_sdk import Cancelled, Discard, EffectUnknown, Fatal, Retry


class BrokeError(Exception):
    """A plugin's own error."""


class BrokeBadlyError(BrokeError):
    """A kind of it."""


@pytest.mark.parametrize(
    ("error", "failures", "decision"),
    [
        (None, 0, Decision("c")),
        (None, 4, Decision("c")),
        (ValueError("x"), 0, Decision("r", 1_000)),
        (ValueError("x"), 3, Decision("r", 8_000)),
        (TimeoutError(), 1, Decision("r", 2_000)),
        (SystemExit(0), 0, Decision("r", 1_000)),
        (KeyboardInterrupt(), 0, Decision("r", 1_000)),
        (GeneratorExit(), 0, Decision("r", 1_000)),
        (asyncio.CancelledError(), 0, Decision("r", 1_000)),
        (Interrupted(), 0, Decision("r", 1_000)),
        (Retry("later"), 2, Decision("r", 4_000)),
        (Retry(after_s=0), 2, Decision("r", 0)),
        (Retry(after_s=1.5), 0, Decision("r", 1_500)),
        (Retry(after_s=-3), 0, Decision("r", 0)),
        (Retry(after_s=1e12), 0, Decision("r", LONGEST_MS)),
        (Fatal("no"), 0, Decision("f", reason="fatal")),
        (EffectUnknown("who knows"), 0, Decision("f", reason="effect_unknown")),
        (Discard("gone"), 0, Decision("x")),
        (Cancelled("asked"), 0, Decision("x")),
        (Rejected("result_rejected", "no JSON"), 0, Decision("f", reason="result_rejected")),
        (Rejected("payload_rejected", "no fit"), 0, Decision("f", reason="payload_rejected")),
    ],
)
def test_decisions(error, failures, decision):
    """Each way to end has one meaning, and the wait follows the failures before it."""
    assert decide(error, failures=failures, backoff=DEFAULT, policy=Policy()) == decision


@pytest.mark.parametrize(("error", "outcome"), [(BrokeError(), "f"), (BrokeBadlyError(), "f"), (ValueError(), "r"), (Discard(), "x")])
def test_classes_that_a_type_calls_fatal_are(error, outcome):
    """Declared classes and their children go to the dead letters at once; words of the SDK keep their meaning."""
    assert decide(error, failures=0, backoff=DEFAULT, policy=Policy(fatal=(BrokeError,))).outcome == outcome


def test_a_retry_follows_the_backoff_of_the_job():
    """The job's own policy decides how long, not the default."""
    backoff = Backoff(kind="list", delays_ms=(7, 70))

    assert [decide(ValueError(), failures=n, backoff=backoff, policy=Policy()).delay_ms for n in (0, 1, 2)] == [7, 70, 70]


def raised(error: BaseException) -> BaseException:
    try:
        raise error
    except BaseException as caught:
        return caught


def failure_of(error: BaseException):
    found = describe(error, job_type="t", plugin="p==1")
    msgspec.json.encode(found)  # what cannot be encoded cannot be stored
    return found


def test_a_failure_names_class_message_place_and_plugin():
    """A reader learns what broke, where, and whose code it was."""
    found = failure_of(raised(BrokeError("no\nway")))

    assert found.error.endswith("test_outcome.BrokeError")
    assert found.message == "no\\nway"
    assert "in raised" in found.trace
    assert found.plugin == "p==1"
    assert failure_of(ValueError("x")).error == "ValueError"


def test_an_exception_that_was_never_raised_has_no_trace():
    """No traceback is no obstacle."""
    assert failure_of(ValueError("x")).trace == ""


def test_a_huge_message_is_cut():
    """Ten megabytes become two thousand characters and a note."""
    found = failure_of(ValueError("x" * 10_000_000))

    assert len(found.message) < MESSAGE_MAX + 50
    assert "characters more" in found.message


def test_control_characters_are_escaped():
    """Nothing that a terminal or a log obeys is left in a message, and half a surrogate pair does not stop it from being stored."""
    found = failure_of(ValueError("a\x00b\x1b[31mc\rd\u2028e\ud800f\x9bg\x7f"))

    assert found.message.isprintable()
    assert "\\x1b[31m" in found.message


class SilentError(Exception):
    def __str__(self) -> str:
        raise ValueError("no words")


class NumberError(Exception):
    def __str__(self) -> str:
        return 7  # type: ignore[return-value]  # noqa: PLE0307


class UnpicklableError(Exception):
    def __init__(self) -> None:
        super().__init__(lambda: None, object())


@pytest.mark.parametrize(
    "error", [SilentError(), NumberError(), UnpicklableError(), ValueError(b"\xff"), UnicodeDecodeError("utf-8", b"\xff", 0, 1, "x")]
)
def test_a_message_that_cannot_be_made_does_not_matter(error):
    """An exception whose own methods raise is described all the same."""
    assert failure_of(raised(error)).error


class ExitsInStrError(Exception):
    def __str__(self) -> str:
        raise SystemExit(3)


class MisnamedError(Exception):
    """Its qualified name is set below to what cannot be encoded."""


MisnamedError.__qualname__ = "Mis\ud800named\x1b" + "x" * 100_000


@pytest.mark.parametrize("error", [ExitsInStrError(), MisnamedError("x")])
def test_a_hostile_class_is_described(error):
    """Neither what `__str__` raises nor what a class calls itself stops the description."""
    found = failure_of(raised(error))

    assert len(found.error) < 1_000


@pytest.mark.parametrize("after_s", [float("nan"), float("inf"), "soon"])
def test_a_senseless_retry_falls_back_on_the_backoff(after_s):
    """A wait that is no number of seconds still leads to a decision."""
    assert decide(Retry(after_s=after_s), failures=0, backoff=DEFAULT, policy=Policy()).outcome == "r"


def test_a_deep_traceback_is_cut_to_its_innermost_frames():
    """A recursion that went too deep keeps the frames where it broke, within the limit."""

    def down(n: int) -> None:
        down(n + 1)

    try:
        down(0)
    except RecursionError as error:
        found = failure_of(error)

    assert len(found.trace) <= TRACE_MAX + 50
    assert found.trace.count("in down") <= FRAMES_MAX


def test_a_long_chain_of_causes_is_not_followed():
    """Ten thousand chained exceptions cost no more than one."""
    error: BaseException = ValueError("root")
    for n in range(10_000):
        last, error = error, BrokeError(str(n))
        error.__cause__ = last

    assert failure_of(raised(error)).message == "9999"


def test_a_cycle_of_causes_is_harmless():
    """An exception that is its own cause is described like any other."""
    error = ValueError("loop")
    error.__cause__ = error

    assert failure_of(raised(error)).message == "loop"


def test_fingerprints_ignore_numbers_and_heed_cause():
    """Failures alike but for ids share a fingerprint; another class, place or type has its own."""
    one = failure_of(raised(ValueError("order 17 at 0xdeadbeef of 0190a5b2-1111-7abc-8def-000000000001")))
    two = failure_of(raised(ValueError("order 18 at 0xfeedface of 0190a5b2-2222-7abc-8def-000000000002")))

    assert one.fingerprint == two.fingerprint
    assert one.fingerprint != failure_of(raised(KeyError("order 17"))).fingerprint
    assert one.fingerprint != failure_of(ValueError("order 17 at 0xdeadbeef of 0190a5b2-1111-7abc-8def-000000000001")).fingerprint
    assert one.fingerprint != describe(raised(ValueError("order 17")), job_type="u", plugin="p==1").fingerprint


def test_a_description_leaves_no_reference_to_the_failed_frames():
    """What the handler held is not kept alive by its failure."""
    error = raised(ValueError("x"))
    before = sys.getrefcount(error)

    describe(error, job_type="t", plugin="p==1")

    assert sys.getrefcount(error) == before
