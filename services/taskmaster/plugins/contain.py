"""At the border to foreign code: what it raised becomes text, and what it changed in the process is noticed."""

from __future__ import annotations

import locale
import os
import signal
import threading
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Traces", "reason"]

#: Characters of an error that are kept: a report is read by people in a table.
LONGEST = 500
_WATCHED = (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD, signal.SIGHUP, signal.SIGALRM)


def reason(error: BaseException) -> str:
    """`Class: message` in one printable line of at most 500 characters. Never raises, whatever the exception's `__str__` does."""
    name = type(error).__name__
    try:
        message = str(error)
    except BaseException as second:  # noqa: BLE001, RUF100 - foreign code runs in __str__
        if isinstance(second, KeyboardInterrupt):
            raise
        message = "(its message cannot be shown)"
    message = " ".join("".join(c if c.isprintable() else " " for c in message[: 4 * LONGEST]).split())
    text = f"{name}: {message}" if message else name
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


@dataclass(slots=True)
class Traces:
    """A picture of the process before foreign code runs; `since` tells what is different after it.

    Signal handlers and the working folder are put back: the first decide whether a worker drains, the second where relative paths point.
    """

    threads: set[threading.Thread] = field(default_factory=lambda: set(threading.enumerate()))
    signals: dict[int, Any] = field(default_factory=lambda: {number: signal.getsignal(number) for number in _WATCHED})
    folder: str = field(default_factory=os.getcwd)
    locale: str = field(default_factory=lambda: locale.setlocale(locale.LC_ALL))

    def since(self) -> tuple[str, ...]:
        """One sentence for each kind of change. Call it on the main thread, or signal handlers stay as they are."""
        notes = []
        started = sorted(thread.name for thread in threading.enumerate() if thread not in self.threads)
        if started:
            notes.append(f"left {len(started)} thread(s) running at import: {', '.join(started)[:LONGEST]}; start them in on_init")
        for number, before in self.signals.items():
            if signal.getsignal(number) is not before:
                name = signal.Signals(number).name
                if before is not None and threading.current_thread() is threading.main_thread():
                    signal.signal(number, before)
                    notes.append(f"replaced the handler of {name} at import; it was put back")
                else:
                    notes.append(f"replaced the handler of {name} at import")
        if os.getcwd() != self.folder:
            os.chdir(self.folder)
            notes.append("changed the working folder at import; it was put back")
        if locale.setlocale(locale.LC_ALL) != self.locale:
            notes.append("changed the process locale at import")
        return tuple(notes)
