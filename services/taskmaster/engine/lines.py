"""What a job's handler logged, as it is kept with the job."""

from __future__ import annotations

import msgspec

from taskmaster.engine.queries import found
from taskmaster.errors import StoreDefect
from taskmaster.model.job import Line, LogLine
from taskmaster.store import reads
from taskmaster.store.call import Talk
from taskmaster.store.reads import Shown

__all__ = ["last_line", "lines_of", "read_lines"]

_line = msgspec.json.Decoder(Line).decode


def lines_of(job_id: str, shown: Shown) -> list[LogLine]:
    """Those that were asked for, in order.

    Raises:
        StoreDefect: what is stored is not what this version writes.
    """
    try:
        rows = (row.partition(b" ") for row in shown.lines)
        return [LogLine(int(number), _line(row)) for number, _, row in rows]
    except (ValueError, msgspec.MsgspecError) as error:
        raise StoreDefect(f"job {job_id}: its log cannot be read: {error}") from error


def last_line(shown: Shown) -> int:
    """Number of the newest line that there is; 0: none."""
    number = shown.fields.get("lg", "").partition(" ")[0]
    return int(number) if number.isascii() and number.isdigit() else 0


def read_lines(partition: int, job_id: str, after: int = 0) -> Talk[list[LogLine]]:
    """All that are kept of those behind number *after*.

    Raises:
        NotFound: there is no such job.
    """
    lines: list[LogLine] = []
    while True:
        shown = found(job_id, (yield reads.show(partition, job_id, "l", after)))
        page = lines_of(job_id, shown)
        lines += page
        if not page or page[-1].number >= last_line(shown):
            return lines
        after = page[-1].number
