"""How many jobs of each queue this process may hold. One object a process, shared by its partitions' consumers."""

from __future__ import annotations

import threading
from collections.abc import Sequence

__all__ = ["Slots"]

#: A process may hold this many jobs of a queue beyond its threads, as long as they are so short that they are done within AHEAD_S.
AHEAD_MAX = 64
AHEAD_S = 0.010


class Slots:
    """Budgets of claims, by group of queues. Thread-safe.

    A group's budget is its concurrency. Where its jobs are very short (run time, a moving mean over about 30) it is as many as
    one thread finishes in 10 ms, at most 64: a round trip then brings work for a while. A job that waits is never more than that
    behind, and what waits longer is handed back.

    Args:
        groups: (concurrency, queues): jobs of those queues that run at once. By default each queue is a group of its own, so that
            a busy one cannot take another's threads.
        look_ahead: False holds the budgets at the concurrency.
    """

    def __init__(self, groups: Sequence[tuple[int, Sequence[str]]], *, look_ahead: bool = True) -> None:
        self._lock = threading.Lock()
        self._concurrency = [most for most, _ in groups]
        self._queues = [tuple(queues) for _, queues in groups]
        self._group = {queue: number for number, (_, queues) in enumerate(groups) for queue in queues}
        self._held = [0] * len(groups)
        self._typical_s = [0.0] * len(groups)
        self._look_ahead = look_ahead

    @property
    def threads(self) -> dict[str, int]:
        """The most jobs of each queue that can run at once."""
        return {queue: self._concurrency[number] for queue, number in self._group.items()}

    def _budget(self, number: int) -> int:
        most, typical_s = self._concurrency[number], self._typical_s[number]
        if not typical_s or not self._look_ahead or most > AHEAD_MAX:
            return most
        return max(most, min(AHEAD_MAX, int(AHEAD_S / typical_s)))

    def take(self) -> list[tuple[int | str, ...]]:
        """Reserve every free slot: groups (slots, queue, queue …) as `store.calls.cycle` takes them, the queues of a group in turn.

        What is not used must be given back.
        """
        with self._lock:
            wants: list[tuple[int | str, ...]] = []
            for number, held in enumerate(self._held):
                free = self._budget(number) - held
                if free > 0:
                    queues = self._queues[number]
                    self._held[number] = held + free
                    self._queues[number] = queues[1:] + queues[:1]
                    wants.append((free, *queues))
            return wants

    def give_back(self, queue: str, slots: int = 1) -> None:
        """Free slots of *queue*'s group: unused ones, or those of ended attempts."""
        with self._lock:
            self._held[self._group[queue]] -= slots

    def ran(self, queue: str, seconds: float) -> None:
        """Note how long a job took, so that the budget can follow. A lost update does not matter: no lock."""
        number = self._group[queue]
        typical_s = self._typical_s[number]
        if not typical_s:
            self._typical_s[number] = max(seconds, 1e-6)
        else:
            self._typical_s[number] = typical_s + (seconds - typical_s) / 32

    def is_short(self, queue: str) -> bool:
        """Whether jobs of *queue* are so short that more are held than can run at once."""
        number = self._group[queue]
        return self._budget(number) > self._concurrency[number]

    @property
    def held(self) -> int:
        """Slots reserved now."""
        with self._lock:
            return sum(self._held)
