"""The two clocks: wall time for people and ids, monotonic time for durations. Passed in, so that tests can turn the hands."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["SYSTEM", "Clock"]


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000


@dataclass(frozen=True, slots=True)
class Clock:
    """Where the time comes from.

    Attributes:
        wall_ms: Unix time, integer milliseconds. May step.
        monotonic: seconds, never steps; the only one to measure durations with.
    """

    wall_ms: Callable[[], int] = _wall_ms
    monotonic: Callable[[], float] = time.monotonic


SYSTEM = Clock()
