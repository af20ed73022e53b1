"""Work of several calls, written once for threads and for the loop: a generator that yields calls and is sent their answers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from typing import Any, TypeVar

from taskmaster.store.call import Call

__all__ = ["Steps", "walk", "walk_async"]

T = TypeVar("T")
Steps = Generator[Call[Any], Any, T]


def walk(run: Callable[[Call[Any]], Any], steps: Steps[T]) -> T:
    """Run each call and hand its answer back, until *steps* returns. A call that fails ends it; an error of *steps* comes out."""
    answer: Any = None
    while True:
        try:
            call = steps.send(answer)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]
        answer = run(call)


async def walk_async(run: Callable[[Call[Any]], Awaitable[Any]], steps: Steps[T]) -> T:
    """The same on the loop."""
    answer: Any = None
    while True:
        try:
            call = steps.send(answer)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]
        answer = await run(call)
