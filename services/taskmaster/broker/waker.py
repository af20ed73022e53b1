"""Where a consumer sleeps: until somebody here rings, a marker comes to its inbox in the store, or its time is over.

All of it in one place, so that no thread stands between a marker and the round that it asks for.
"""

from __future__ import annotations

import ctypes
import math
import os
import random
import select
import threading
import time
from collections.abc import Callable

from taskmaster.errors import StoreError
from taskmaster.store.inbox import Inbox

__all__ = ["Waker"]

#: Keeps the interpreter, as `os.write` does not: whoever rings goes on, and the consumer tells the store of more than one end at once.
_write = ctypes.PyDLL(None).write
#: How long the store holds a request for a marker before it says that there is none.
BLOCK_S = 5.0
#: So long after a loss only who sleeps anyway connects again.
PATIENT_S = 5.0
#: So long what was just claimed may take to begin before another marker is asked for: both want the interpreter.
SETTLE_S = 0.001


class Waker:
    """For the consumer's thread; `ring` and `close` may come from any.

    Args:
        heard: told every marker. An inbox that was lost is told as an empty one a moment later: a marker may have been lost with it.
    """

    def __init__(self, heard: Callable[[str], None]) -> None:
        self._heard = heard
        self._bell, self._rope = os.pipe()
        for end in (self._bell, self._rope):
            os.set_blocking(end, False)
        self._lock = threading.Lock()  # once closed, the number of the rope may be another file's
        self._is_closed = False
        self._inbox: Inbox | None = None
        self._deaf_until = 0.0
        self._patient_until = 0.0
        self._losses = 0  # one after the other
        self._poll = select.poll()
        self._poll.register(self._bell, select.POLLIN)
        self._watched = -1
        self._has_come = False

    def ring(self) -> None:
        """End the sleep, or if there is none the next one."""
        with self._lock:
            if not self._is_closed:
                _write(self._rope, b"!", 1)  # one that is full rings already

    def listen(self, inbox: Inbox | None) -> None:
        """From now on to this inbox; the one before is closed."""
        self._watch(-1)
        if self._inbox is not None:
            self._inbox.close()
        self._inbox, self._deaf_until, self._patient_until = inbox, 0.0, 0.0

    def wait(self, within_s: float) -> bool:
        """Sleep for *within_s* seconds at most, 0: just look. False when nothing came; markers are told before it returns."""
        self._has_come = False
        now = time.monotonic()
        settled, until = now + min(within_s, SETTLE_S), now + within_s
        while not self._is_closed:
            ends = min(until, self._asked_until(now, settled, may_connect=within_s > 0))
            for number, _ in self._poll.poll(max(0.0, ends - now) * 1_000):
                if number == self._bell:
                    os.read(self._bell, 4_096)
                    self._has_come = True
                else:
                    self._take()
            now = time.monotonic()
            if self._inbox is not None and self._inbox.is_overdue(now):
                self._inbox.close()
                self._lose()
            if self._has_come:
                return True
            if now >= until:
                return False
        return False

    def close(self) -> None:
        """For good. Nobody may wait here then."""
        self.listen(None)
        with self._lock:
            if not self._is_closed:
                self._is_closed = True
                os.close(self._bell)
                os.close(self._rope)

    def _asked_until(self, now: float, settled: float, *, may_connect: bool) -> float:
        """Ask for a marker, unless that was done or it is too early; when to look after it again."""
        inbox = self._inbox
        if inbox is None:
            return math.inf
        if inbox.answers_by:
            return inbox.answers_by
        if now < settled:
            return settled
        if self._deaf_until:
            if now < self._deaf_until:
                return self._deaf_until
            self._deaf_until = 0.0
            self._tell("")
            return now
        if not (may_connect or inbox.is_connected or now >= self._patient_until):  # it may take a second, and somebody has a round to make
            return math.inf
        try:
            inbox.ask(BLOCK_S)
        except StoreError:
            return self._lose()
        self._watch(inbox.fileno())
        return inbox.answers_by

    def _take(self) -> None:
        assert self._inbox is not None
        try:
            marker = self._inbox.take()
        except StoreError:
            self._lose()
        else:
            self._losses = 0
            if marker is not None:
                self._tell(marker)

    def _tell(self, marker: str) -> None:
        self._has_come = True
        self._heard(marker)

    def _lose(self) -> float:
        """The inbox does not answer: leave it alone for a moment, each consumer for another one, and longer when it goes on."""
        self._watch(-1)
        rest_s = random.uniform(0.1, 0.5) * 2 ** min(self._losses, 2)  # noqa: S311 - jitter
        self._losses += 1
        now = time.monotonic()
        self._deaf_until, self._patient_until = now + rest_s, now + PATIENT_S
        return self._deaf_until

    def _watch(self, number: int) -> None:
        if number != self._watched:
            if self._watched >= 0:
                self._poll.unregister(self._watched)
            if number >= 0:
                self._poll.register(number, select.POLLIN)
            self._watched = number
