"""What a run writes down while it goes on: one JSON object a line, in the order in which it happened."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

__all__ = ["History"]


class History:
    """Append-only. Thread-safe. Rows have `t`, seconds since the beginning, and `what`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open("a", buffering=1)
        self._lock = threading.Lock()
        self._began = time.monotonic()

    def note(self, what: str, **facts: Any) -> None:
        """One row."""
        row = {"t": round(time.monotonic() - self._began, 3), "what": what, **facts}
        with self._lock:
            self._file.write(json.dumps(row) + "\n")

    def rows(self) -> list[dict[str, Any]]:
        """All so far."""
        return [json.loads(line) for line in self.path.read_text().splitlines()]

    def close(self) -> None:
        self._file.close()
