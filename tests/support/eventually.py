"""Wait for what another process does, without guessing how long it takes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

__all__ = ["eventually", "eventually_async"]

T = TypeVar("T")


def eventually(fn: Callable[[], T], within_s: float = 10.0, what: str | Callable[[], str] = "the condition", *, every_s: float = 0.02) -> T:
    """Call *fn* until its answer is true, and return that answer.

    An exception counts as "not yet", except those that end a test run. The last try begins after the deadline, so a machine that was
    asleep does not fail the test.

    Args:
        fn: cheap and safe to repeat.
        within_s: how long to keep trying.
        what: for the message; a callable is asked at the end, to tell what was seen instead.
        every_s: pause between two tries, at most 0.1 s.

    Raises:
        AssertionError: the time is up; says what the last answer or exception was.
    """
    deadline = time.monotonic() + within_s
    while True:
        is_last = time.monotonic() >= deadline
        cause: Exception | None = None
        seen = ""
        try:
            answer = fn()
            if answer:
                return answer
            seen = f"last answer {answer!r}"
        except Exception as error:
            cause = error
            seen = f"last error {error!r}"
        if is_last:
            text = what() if callable(what) else what
            raise AssertionError(f"not within {within_s:g} s: {text} ({seen})") from cause
        time.sleep(min(every_s, 0.1))


async def eventually_async(
    ask: Callable[[], Awaitable[T | None]], within_s: float = 10.0, what: str | Callable[[], str] = "the condition"
) -> T:
    """The same for a coroutine function, so that what else is on the loop goes on. Exceptions are not waited out.

    Raises:
        AssertionError: the time is up; says what the last answer was.
    """
    deadline = time.monotonic() + within_s
    while True:
        is_last = time.monotonic() >= deadline
        answer = await ask()
        if answer:
            return answer
        assert not is_last, f"not within {within_s:g} s: {what() if callable(what) else what} (last answer {answer!r})"
        await asyncio.sleep(0.02)
