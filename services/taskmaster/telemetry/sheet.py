"""Numbers of metrics in one piece of memory, which may be shared between processes: no file, no lock between them, no system call.

Each process writes to a sheet of its own; who exports them reads all and adds up. What a process has counted stays when it is killed, and
whoever gets its sheet next goes on from there. Memory that is mapped to no file cannot fail for a full disk.
"""

from __future__ import annotations

import mmap
import threading
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from taskmaster.telemetry.metrics import MOST, OTHER, Metric

__all__ = ["Row", "Sheet", "share", "total"]

#: Cells that a row's labels take: 136 bytes, enough for a type and a queue of 64 each.
_KEY_CELLS = 17
_CELL = 8


class Row(NamedTuple):
    """The cells of one set of open labels: as many as the metric has closed values, times what one of them needs."""

    labels: tuple[str, ...]
    cells: tuple[float, ...]


class _Table:
    """Where the rows of one metric are. The first cell counts the rows in use; row 0 is that of label sets for which there was no room."""

    def __init__(self, metric: Metric, start: int) -> None:
        self.metric = metric
        self.most = MOST if metric.open_labels else 0
        self.per_value = len(metric.buckets) + 2 if metric.kind == "histogram" else 1
        self.width = _KEY_CELLS + self.per_value * len(metric.closed)
        self.start = start
        self.rows: dict[tuple[str, ...], int] = {}
        self.is_read = False

    @property
    def end(self) -> int:
        return self.at(self.most + 1)

    def at(self, row: int) -> int:
        """The first cell of a row."""
        return self.start + 1 + row * self.width


def _tables(metrics: Sequence[Metric]) -> list[_Table]:
    found: list[_Table] = []
    for metric in metrics:
        found.append(_Table(metric, found[-1].end if found else 0))
    return found


def share(metrics: Sequence[Metric], count: int) -> list[Sheet]:
    """*count* sheets in memory that this process shares with those it forks. Pages that nobody writes to take no memory.

    Raises:
        OSError: the system does not give so much.
    """
    size = _tables(metrics)[-1].end * _CELL
    memory = memoryview(mmap.mmap(-1, size * count))
    return [Sheet(metrics, memory[n * size : (n + 1) * size]) for n in range(count)]


class Sheet:
    """Counters, gauges and histograms of one process. Thread-safe within it; one process writes at a time.

    Args:
        metrics: which.
        memory: from `share`; without it the sheet is this process's alone.

    Attributes:
        cells, lock: for who has several numbers to change at once.
    """

    def __init__(self, metrics: Sequence[Metric], memory: memoryview | None = None) -> None:
        tables = _tables(metrics)
        self._memory = memory if memory is not None else memoryview(bytearray(tables[-1].end * _CELL))
        self.cells = self._memory.cast("d")
        self._tables = {table.metric.name: table for table in tables}
        self.lock = threading.Lock()

    def place(self, metric: Metric, *labels: str, closed: str = "") -> int:
        """Where the numbers of this label set are, for `add`, `put` and `observe`. Remember it: this takes a microsecond or two."""
        table = self._tables[metric.name]
        with self.lock:
            if not table.is_read:  # whoever had the sheet before has left some
                table.rows, table.is_read = {there: row for row, there in self._labels(table)}, True
            row = table.rows.get(labels)
            if row is None:
                row = self._new_row(table, labels)
        return table.at(row) + _KEY_CELLS + metric.closed.index(closed) * table.per_value

    def add(self, place: int, amount: float = 1.0) -> None:
        """Count."""
        with self.lock:
            self.cells[place] += amount

    def put(self, place: int, value: float) -> None:
        """Set a gauge."""
        self.cells[place] = value

    def observe(self, place: int, buckets: tuple[float, ...], value: float) -> None:
        """One more value of a histogram with these buckets."""
        cells, at = self.cells, place + bisect_left(buckets, value)
        with self.lock:
            cells[at] += 1.0
            cells[place + len(buckets) + 1] += value

    def rows(self, metric: Metric) -> Iterator[Row]:
        """What there is, also of a sheet that another process writes to."""
        table = self._tables[metric.name]
        for row, labels in self._labels(table):
            first = table.at(row) + _KEY_CELLS
            yield Row(labels, tuple(self.cells[first : table.at(row + 1)]))
        spill = table.at(0) + _KEY_CELLS
        cells = tuple(self.cells[spill : table.at(1)])
        if any(cells) or not metric.open_labels:
            yield Row((OTHER,) * len(metric.open_labels), cells)

    def _labels(self, table: _Table) -> Iterator[tuple[int, tuple[str, ...]]]:
        for row in range(1, int(self.cells[table.start]) + 1):
            at = table.at(row) * _CELL
            text = bytes(self._memory[at : at + _KEY_CELLS * _CELL]).rstrip(b"\0").decode()
            yield row, tuple(text.split("\n"))

    def _new_row(self, table: _Table, labels: tuple[str, ...]) -> int:
        key, used = "\n".join(labels).encode(), int(self.cells[table.start])
        if used >= table.most or len(key) > _KEY_CELLS * _CELL or not all(labels):
            return 0
        at = table.at(used + 1) * _CELL
        self._memory[at : at + _KEY_CELLS * _CELL] = key.ljust(_KEY_CELLS * _CELL, b"\0")
        self.cells[table.start] = used + 1  # last: what was not finished is not there
        table.rows[labels] = used + 1
        return used + 1


def total(metric: Metric, sheets: Iterable[Sheet]) -> dict[tuple[str, ...], list[float]]:
    """The numbers of *metric*, added up over *sheets*, by open labels."""
    sums: dict[tuple[str, ...], list[float]] = {}
    for sheet in sheets:
        for row in sheet.rows(metric):
            before = sums.get(row.labels)
            sums[row.labels] = list(row.cells) if before is None else [a + b for a, b in zip(before, row.cells, strict=True)]
    return sums
