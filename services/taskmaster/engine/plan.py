"""Several calls in a row as one value: a generator that asks for calls and is sent their answers. Either client runs it."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, TypeVar

from taskmaster.store.aio import AsyncStore
from taskmaster.store.call import Call
from taskmaster.store.client import SyncStore

__all__ = ["Plan", "carry_out", "carry_out_async"]

T = TypeVar("T")
Plan = Generator[Call[Any], Any, T]


def carry_out(store: SyncStore, plan: Plan[T], *, within_s: float = 0.0) -> T:
    """Run the calls of *plan*, each resent for *within_s* seconds while nothing answers; what it comes to. Raises what they raise."""
    answer: Any = None
    try:
        while True:
            answer = store.run(plan.send(answer), within_s=within_s)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]


async def carry_out_async(store: AsyncStore, plan: Plan[T]) -> T:
    """As `carry_out`."""
    answer: Any = None
    try:
        while True:
            answer = await store.run(plan.send(answer))
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]
