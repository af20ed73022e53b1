"""What a worker process does by the clock, on threads of their own: leases and deadlines; and, apart from them, chores."""

from __future__ import annotations

import mmap
import os
import struct
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from taskmaster.errors import StoreError
from taskmaster.telemetry import events
from taskmaster.telemetry.logs import get

__all__ = ["Beat", "Duty", "Hearts", "Rounds"]

log = get()
STEP_S = 0.25
#: A duty that failed is tried again after this, if its own turn is not earlier.
AGAIN_S = 1.0


@dataclass(slots=True)
class Duty:
    """Something to do every *every_s* seconds.

    Attributes:
        name: for the log.
        every_s: from one begin to the next.
        do: may raise; it is logged, and the other duties go on.
        due_at: monotonic seconds.
    """

    name: str
    every_s: float
    do: Callable[[], object]
    due_at: float = 0.0

    def perform(self, now: float) -> None:
        """Do it if it is due."""
        if now < self.due_at:
            return
        self.due_at = now + self.every_s
        try:
            self.do()
        except Exception as error:
            self.due_at = now + min(self.every_s, AGAIN_S)
            is_known = isinstance(error, StoreError)
            log.log(30 if is_known else 40, events.UPKEEP_FAILED, duty=self.name, error=str(error), exc_info=None if is_known else error)


class Beat(NamedTuple):
    """What a child last said. Monotonic seconds, which count alike in all processes.

    Attributes:
        beat_at: its heartbeat thread had its turn.
        answered_at: since then all its consumers' rounds were answered; 0: it has none yet, or none any more.
    """

    pid: int
    beat_at: float
    answered_at: float


class Hearts:
    """When each child's heartbeat thread last had its turn, in memory that supervisor and children share: no system call, no lock.

    Args:
        places: for so many children.
    """

    _ROW = struct.Struct("=qdd")

    def __init__(self, places: int) -> None:
        self.places = places
        self._memory = mmap.mmap(-1, places * self._ROW.size)

    def beat(self, place: int, answered_at: float = 0.0) -> None:
        """In a child: alive."""
        self._ROW.pack_into(self._memory, place * self._ROW.size, os.getpid(), time.monotonic(), answered_at)

    def last(self, place: int, pid: int) -> float:
        """When the child *pid* last said so; 0 when it never has."""
        seen = self._of(place)
        return seen.beat_at if seen.pid == pid else 0.0

    def clear(self, place: int) -> None:
        """Its child is gone."""
        self._ROW.pack_into(self._memory, place * self._ROW.size, 0, 0.0, 0.0)

    def seen(self) -> list[Beat]:
        """What all children have said."""
        return [seen for seen in map(self._of, range(self.places)) if seen.pid]

    def _of(self, place: int) -> Beat:
        return Beat(*self._ROW.unpack_from(self._memory, place * self._ROW.size))

    def free_place(self, taken: Iterable[int]) -> int:
        """One that no child has."""
        return min(set(range(self.places)) - set(taken))


class Rounds(threading.Thread):
    """Performs duties one after the other, until stopped. One that blocks holds up the others of its thread, so leases have their own."""

    def __init__(self, name: str, duties: Sequence[Duty]) -> None:
        super().__init__(name=f"taskmaster-{name}", daemon=True)
        self._duties = duties
        self._stopping = threading.Event()

    def run(self) -> None:
        """Until stopped."""
        while not self._stopping.wait(STEP_S):
            for duty in self._duties:
                duty.perform(time.monotonic())

    def stop(self, within_s: float = 1.0) -> None:
        """End the thread, if it ends in time. Works before `start`, and twice."""
        self._stopping.set()
        if self.is_alive():
            self.join(within_s)
