"""A clock that a test sets, for processes that it starts: libfaketime stands between them and the system's.

    clock = MachineClock(folder)
    server = StoreServer("valkey", environ=clock.environ)
    clock.set("2026-11-01T12:59:50Z")

The monotonic clock goes on as it does, as it would if somebody set the clock of a machine.
"""

from __future__ import annotations

import datetime as dt
import time
from pathlib import Path

import pytest

__all__ = ["MachineClock"]

_LIBRARY = next((str(path) for path in sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))), "")


class MachineClock:
    """What processes that have `environ` take for the time; right at first. Where there is no libfaketime the test is skipped.

    Args:
        folder: for the file that says how far it is off.
    """

    def __init__(self, folder: Path) -> None:
        if not _LIBRARY:
            pytest.skip("there is no libfaketime here: `ops/dev test` brings it, or apt-get install libfaketime")
        self._path = folder / "clock"
        self.offset_s = 0
        self.move(0)
        self.environ = {
            "LD_PRELOAD": _LIBRARY,
            "FAKETIME_TIMESTAMP_FILE": str(self._path),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_DONT_RESET": "1",
        }

    def move(self, seconds: int) -> None:
        """Set it ahead by so much; back if less than 0."""
        self.offset_s += seconds
        fresh = self._path.with_suffix(".new")
        fresh.write_text(f"{self.offset_s:+d}\n")
        fresh.replace(self._path)  # nobody reads half of it

    def set(self, text: str) -> None:
        """Set it to this instant, to the second."""
        self.move(round(dt.datetime.fromisoformat(text).timestamp() - time.time()) - self.offset_s)
