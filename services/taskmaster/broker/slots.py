"""How many jobs of each queue this process may hold. One object a process, shared by its partitions' consumers."""

from __future__ import annotations

import threading
from collections.abc import Mapping

__all__ = ["Slots"]

#: A process may hold this many jobs of a queue beyond its threads, as long as they are so short that they are done within AHEAD_S.
AHEAD_MAX = 64
AHEAD_S = 0.010


class Slots:
    """Budgets of claims, by queue. Thread-safe.

    A queue's budget is its concurrency. Where its jobs are very short (median run time, tracked by a multiplicative step) it is as many as
    one thread finishes in 10 ms, at most 64: a round trip then brings work for a while. A job that waits is never more than that
    behind, and what waits longer is handed back.

    Args:
        concurrency: jobs of each queue that run at once.
        look_ahead: False holds the budget at the concurrency.
    """

    def __init__(self, concurrency: Mapping[str, int], *, look_ahead: bool = True) -> None:
        self._lock = threading.Lock()
        self._concurrency = dict(concurrency)
        self._held = dict.fromkeys(concurrency, 0)
        self._typical_s: dict[str, float] = {}
        self._look_ahead = look_ahead

    @property
    def concurrency(self) -> dict[str, int]:
        """As configured."""
        return dict(self._concurrency)

    def budget(self, queue: str) -> int:
        """Claims that may be held of *queue* now."""
        most = self._concurrency[queue]
        typical = self._typical_s.get(queue)
        if typical is None or not self._look_ahead or most > AHEAD_MAX:
            return most
        return max(most, min(AHEAD_MAX, int(AHEAD_S / typical)))

    def take(self) -> list[tuple[str, int]]:
        """Reserve every free slot: (queue, slots) where there are any. What is not used must be given back."""
        with self._lock:
            wants = []
            for queue, held in self._held.items():
                free = self.budget(queue) - held
                if free > 0:
                    self._held[queue] = held + free
                    wants.append((queue, free))
            return wants

    def give_back(self, queue: str, slots: int) -> None:
        """Free slots of *queue*: unused ones, or those of ended attempts."""
        with self._lock:
            self._held[queue] -= slots

    def ran(self, queue: str, seconds: float) -> None:
        """Note how long a job took, so that the budget can follow. A lost update does not matter: no lock."""
        typical = self._typical_s.get(queue)
        if typical is None:
            self._typical_s[queue] = max(seconds, 1e-6)
        else:
            self._typical_s[queue] = typical * 1.05 if seconds > typical else max(typical / 1.05, 1e-6)

    @property
    def held(self) -> int:
        """Slots reserved now, over all queues."""
        with self._lock:
            return sum(self._held.values())
