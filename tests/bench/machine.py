"""How quiet and how fast the machine is: without that, no figure of a shared machine means anything."""

from __future__ import annotations

import os
import time

import psutil

__all__ = ["Meter", "python_speed", "wait_for_quiet"]

_QUIET_PERCENT = 15.0


def python_speed() -> float:
    """Million turns a second of an empty loop, now."""
    start = time.perf_counter()
    for _ in range(2_000_000):
        pass
    return 2 / (time.perf_counter() - start)


def wait_for_quiet(patience_s: float) -> None:
    """Return when all processors together were nearly idle for a second, or when patience ends."""
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline and psutil.cpu_percent(interval=1.0) > _QUIET_PERCENT:
        pass


class Meter:
    """What processes that are not ours use, from its making on."""

    def __init__(self) -> None:
        self._start, self._all, self._own = time.monotonic(), _all_s(), _own_s()

    def others(self) -> float:
        """Processors in use by others, on average. Ours must have ended: children count when they are reaped."""
        used = (_all_s() - self._all) - (_own_s() - self._own)
        return max(0.0, used / (time.monotonic() - self._start))


def _all_s() -> float:
    times = psutil.cpu_times()
    return float(times.user + times.system + times.nice + getattr(times, "irq", 0) + getattr(times, "softirq", 0))


def _own_s() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system
