"""What running attempts have to tell: how far they are, and the lines that they log. Sent a few times a second, and at an attempt's end."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec

from taskmaster.broker.message import JobMessage
from taskmaster.errors import StoreError
from taskmaster.model.job import Line
from taskmaster.model.outcome import printable
from taskmaster.store import calls
from taskmaster.store.call import Call
from taskmaster.store.calls import Word
from taskmaster.telemetry import events
from taskmaster.telemetry.logs import get

__all__ = ["LINE_MAX", "Journal"]

log = get()
#: Characters kept of a line.
LINE_MAX = 4_000
#: What is kept for an attempt until it is sent: as much as the store keeps of a job.
LINES_MAX, BYTES_MAX = 1_000, 65_536
#: Attempts and bytes in one call.
WORDS_A_CALL, BYTES_A_CALL = 256, 262_144
_encode = msgspec.json.Encoder().encode
_NAMES = ((40, "error"), (30, "warning"), (20, "info"))


class _Said:
    """What one attempt has not told yet; the newest lines when there are too many."""

    __slots__ = ("bytes", "hide", "lines", "message", "number", "progress")

    def __init__(self, message: JobMessage) -> None:
        self.message = message
        self.hide = message.actor.handler.hide(bytes(message.envelope.payload))
        self.progress = ""
        self.lines: deque[str] = deque()
        self.bytes = 0
        self.number = 0  # of the newest line, among all of the attempt

    def add(self, at_ms: int, level: str, text: str) -> None:
        shown = text if self.hide is None else self.hide(text)
        row = _encode(Line(at_ms, self.message.claim.attempt, level, printable(shown, LINE_MAX))).decode()
        self.lines.append(row)
        self.number += 1
        self.bytes += len(row)
        while len(self.lines) > LINES_MAX or self.bytes > BYTES_MAX:
            self.bytes -= len(self.lines.popleft())

    def take(self) -> Word:
        claim, lines = self.message.claim, tuple(self.lines)
        word = Word(claim.id, self.message.token, self.progress, self.number - len(lines) + 1, lines)
        self.progress, self.bytes = "", 0
        self.lines.clear()
        return word


class Journal:
    """Gathers for all attempts of a process. Thread-safe. An attempt that says nothing costs nothing.

    What the store does not take is dropped, never waited for: an attempt's outcome does not depend on its lines.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sending = threading.Lock()
        self._known: dict[tuple[str, str], _Said] = {}  # every attempt that has said something and has not ended
        self._fresh: dict[tuple[str, str], _Said] = {}  # those with something to send

    def report(self, message: JobMessage, fraction: float, note: str) -> None:
        """Remember how far it is; the last word wins."""
        shown = printable(note, LINE_MAX).replace("\n", "\\n")
        text = f"{fraction:.4g} {shown}".encode()[:60].decode(errors="ignore")
        with self._lock:
            said = self._said(message)
            if said is not None:
                said.progress = text

    def keep(self, message: JobMessage, level: int, text: str) -> None:
        """Remember a line, without what is marked secret or pii in the payload."""
        at_ms = message.claimed_ms + int((time.monotonic() - message.claimed_at) * 1_000)
        name = next((name for least, name in _NAMES if level >= least), "debug")
        with self._lock:
            said = self._said(message)
            if said is not None:
                said.add(at_ms, name, text)

    def _said(self, message: JobMessage) -> _Said | None:
        """Where to note it; None: its end is decided, and what it still says is not heard."""
        if not message.is_running:
            return None
        attempt = message.key
        said = self._known.get(attempt)
        if said is None:
            message.has_said = True
            self._known[attempt] = said = _Said(message)
        self._fresh[attempt] = said
        return said

    def flush(self, run: Callable[[Call[Any]], object]) -> None:
        """Send what there is, by *run*."""
        with self._sending:
            self._send(self._take(list(self._fresh)), run)

    def settle(self, ended: Sequence[JobMessage], run: Callable[[Call[Any]], object]) -> None:
        """Send what these attempts have left to tell, before the store hears of their end: from then on it takes nothing of them."""
        spoken = [message.key for message in ended]
        with self._sending:  # what is on its way arrives first
            self._send(self._take(spoken), run)
            with self._lock:
                for attempt in spoken:
                    self._known.pop(attempt, None)

    def _take(self, attempts: Iterable[tuple[str, str]]) -> list[tuple[int, Word]]:
        with self._lock:
            fresh = [said for attempt in attempts if (said := self._fresh.pop(attempt, None)) is not None]
            return [(said.message.consumer.partition, said.take()) for said in fresh]

    @staticmethod
    def _send(words: list[tuple[int, Word]], run: Callable[[Call[Any]], object]) -> None:
        batches: dict[int, list[list[Word]]] = {}
        sizes: dict[int, int] = {}
        for partition, word in words:
            size = sum(map(len, word.lines))
            of = batches.setdefault(partition, [[]])
            sizes[partition] = sizes.get(partition, 0) + size
            if len(of[-1]) == WORDS_A_CALL or sizes[partition] > BYTES_A_CALL:
                of.append([])
                sizes[partition] = size
            of[-1].append(word)
        for partition, of in batches.items():
            for batch in of:
                try:
                    run(calls.progress(partition, batch))
                except StoreError as error:
                    log.debug(events.UPKEEP_FAILED, duty="progress", error=str(error))
