"""What exceptions mean for a job and its dependency, by table."""

from __future__ import annotations

import time
from email.utils import formatdate
from types import SimpleNamespace

import pytest

from taskmaster.model.meaning import meaning_of, retry_after_s, status_of
from taskmaster.model.outcome import PATIENCE_MS, Decision, HandlerCrashed, MemoryLimit, Policy, decide, policy_of
from taskmaster.model.retry import DEFAULT, LONGEST_MS
from taskmaster_sdk import Cancelled, DependencyDown, Discard, EffectUnknown, Fatal, RateLimited, Retry, job


class ProviderError(Exception):
    """A client library's."""


class CardDeclinedError(ProviderError):
    """A kind of it."""


class HttpError(Exception):
    """With a response, as httpx and requests have it."""

    def __init__(self, status: object, **headers: str) -> None:
        super().__init__(str(status))
        self.response = SimpleNamespace(status_code=status, headers={name.replace("_", "-"): value for name, value in headers.items()})


class AioError(Exception):
    """With a status of its own, as aiohttp has it."""

    def __init__(self, status: object) -> None:
        super().__init__(str(status))
        self.status = status


class HostileError(Exception):
    """Looking at it raises."""

    @property
    def response(self):
        raise RuntimeError("do not look")


NAME = f"{__name__}.CardDeclinedError"
DOWN, COUNTED = Decision("d", 1_000, "dependency_down"), Decision("r", 1_000, "dependency_down")
PLAIN, FATAL, DISCARD = Decision("r", 1_000), Decision("f", reason="fatal"), Decision("x")


@pytest.mark.parametrize(
    ("error", "errors", "decision"),
    [
        # nothing said: what is usual
        (DependencyDown("no answer"), {}, DOWN),
        (ConnectionError(), {}, DOWN),
        (ConnectionResetError(), {}, DOWN),
        (HttpError(503), {}, DOWN),
        (AioError(502), {}, DOWN),
        (HttpError(429), {}, Decision("l", 1_000, "rate_limited")),
        (HttpError(404), {}, COUNTED),
        (TimeoutError(), {}, COUNTED),
        (ValueError(), {}, COUNTED),
        (HostileError(), {}, COUNTED),
        # words keep their meaning, whatever the table says
        (Retry("later"), {}, PLAIN),
        (Retry("later"), {Exception: "fatal"}, PLAIN),
        (Fatal("no"), {Exception: "retry"}, FATAL),
        (Discard(), {Exception: "retry"}, DISCARD),
        (Cancelled(), {Exception: "retry"}, DISCARD),
        (EffectUnknown(), {Exception: "retry"}, Decision("f", reason="effect_unknown")),
        (DependencyDown(), {Exception: "fatal"}, DOWN),
        # not the dependency's fault, as far as anybody knows
        (HandlerCrashed(), {}, PLAIN),
        (MemoryLimit(), {}, PLAIN),
        (ValueError(), {ValueError: "retry"}, PLAIN),
        (UnicodeError(), {"ValueError": "retry"}, PLAIN),
        # by class, by name; the nearest wins
        (ProviderError(), {ProviderError: "dependency_down"}, DOWN),
        (CardDeclinedError(), {ProviderError: "dependency_down"}, DOWN),
        (CardDeclinedError(), {ProviderError: "dependency_down", NAME: "fatal"}, FATAL),
        (CardDeclinedError(), {Exception: "dependency_down", NAME: "discard"}, DISCARD),
        (CardDeclinedError(), {"CardDeclinedError": "discard"}, COUNTED),  # a bare name is a builtin's
        # by status; before classes, exact before its hundred
        (HttpError(402), {402: "fatal"}, FATAL),
        (HttpError(402), {"4xx": "fatal", 402: "discard"}, DISCARD),
        (HttpError(404), {"4xx": "fatal", HttpError: "retry"}, FATAL),
        (HttpError(503), {"5xx": "retry"}, PLAIN),
        (HttpError(503), {HttpError: "retry"}, PLAIN),
        (HttpError(429), {429: "dependency_down"}, DOWN),
        (HttpError("503"), {}, COUNTED),
        (HttpError(True), {}, COUNTED),
    ],
)
def test_meanings_with_a_dependency(error, errors, decision):
    """The type's table first, then what is usual; words of the SDK before both."""
    assert decide(error, failures=0, backoff=DEFAULT, policy=Policy(errors=errors, dependency=True)) == decision


@pytest.mark.parametrize(
    ("error", "errors", "decision"),
    [
        (ConnectionError(), {}, PLAIN),
        (HttpError(503), {}, PLAIN),
        (HttpError(429), {}, PLAIN),
        (DependencyDown(), {}, DOWN),
        (RateLimited(7), {}, Decision("l", 7_000, "rate_limited")),
        (HttpError(503), {503: "dependency_down"}, DOWN),
    ],
)
def test_meanings_without_a_dependency(error, errors, decision):
    """Nothing is assumed: plain retries, as ever. What is said holds."""
    assert decide(error, failures=0, backoff=DEFAULT, policy=Policy(errors=errors)) == decision


def test_classes_called_fatal_beat_the_table():
    """`fatal` is the stronger word."""
    policy = Policy(fatal=(ProviderError,), errors={CardDeclinedError: "retry"}, dependency=True)

    assert decide(CardDeclinedError(), failures=0, backoff=DEFAULT, policy=policy) == FATAL


@pytest.mark.parametrize(
    ("after", "ms"),
    [(None, 1_000), (30, 30_000), (0, PATIENCE_MS), (-5, PATIENCE_MS), (1e12, LONGEST_MS), ("x", 1_000), (float("nan"), 1_000)],
)
def test_patience_has_limits(after, ms):
    """As long as the provider asks, at least a second, at most 31 days; without a word the job's backoff."""
    assert decide(RateLimited(after), failures=0, backoff=DEFAULT, policy=Policy()) == Decision("l", ms, "rate_limited")


def test_the_wait_grows_with_what_was_spared():
    """A dependency that stays down is asked less and less, although no attempt is burned."""
    waits = [decide(DependencyDown(), failures=1, backoff=DEFAULT, policy=Policy(), spared=n).delay_ms for n in (0, 1, 5)]

    assert waits == [2_000, 4_000, 64_000]


def test_retry_after_is_read_as_seconds_or_date():
    """From the error itself or its response's header."""
    date = formatdate(time.time() + 100, usegmt=True)

    assert retry_after_s(HttpError(429, Retry_After="12")) == 12
    assert retry_after_s(HttpError(429, retry_after="1.5")) == 1.5
    assert 90 < retry_after_s(HttpError(429, Retry_After=date)) <= 101
    assert retry_after_s(HttpError(429, Retry_After="soon")) is None
    assert retry_after_s(HttpError(429)) is None
    assert retry_after_s(SimpleNamespace(retry_after=3)) == 3
    assert retry_after_s(HostileError()) is None


def test_only_a_status_is_a_status():
    """100 to 599, as a number."""
    assert [status_of(HttpError(value)) for value in (503, 99, 600, None, "503")] == [503, None, None, None, None]
    assert status_of(AioError(404)) == 404


def test_a_type_that_says_nothing_costs_nothing():
    """No table, no dependency: the exception is not even looked at."""
    assert meaning_of(HostileError(), {}, has_dependency=False) is None


async def _coroutine(payload, ctx):
    return None


def test_declarations_are_checked():
    """What could never apply is refused where its author sees it."""
    for wrong in ({"": "retry"}, {"6xx": "fatal"}, {99: "fatal"}, {int: "fatal"}, {ValueError: "ignore"}, {True: "fatal"}, {None: "retry"}):
        with pytest.raises(ValueError, match="errors"):
            job("t", errors=wrong)(lambda payload, ctx: None)
    with pytest.raises(ValueError, match="dependency"):
        job("t", dependency="Stripe!")(lambda payload, ctx: None)

    for wrong in (lambda payload: None, _coroutine):
        with pytest.raises(ValueError, match=r"payload, ctx|coroutine"):
            job("t", dependency="stripe", fallback=wrong)(lambda payload, ctx: None)
    with pytest.raises(ValueError, match="a fallback needs a dependency"):
        job("t", fallback=lambda payload, ctx: None)

    declared = job("t", dependency="stripe", errors={503: "retry"}, fatal=(KeyError,))(lambda payload, ctx: None)

    assert policy_of(declared) == Policy((KeyError,), {503: "retry"}, dependency=True)
