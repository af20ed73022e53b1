"""Operations over many jobs as typed calls (store/PROTOCOL.md, "Operations"). Building a call does no I/O; a client runs it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import msgspec

from taskmaster.store.call import Call
from taskmaster.store.scripts import load
from taskmaster.store.status import Status

__all__ = ["LOOK_MAX", "PAGE_MAX", "Ended", "Looked", "OperationRow", "Page", "PageRow", "Rows", "Step"]
__all__ += ["cancel", "discard", "end", "find", "look", "note", "open_", "page"]

_pack = msgspec.msgpack.Encoder().encode
#: Entries that one step acts on, and jobs that one look looks at.
PAGE_MAX, LOOK_MAX = 200, 500


def open_(
    partition: int, operation_id: str, request: str, fields: Mapping[str, str], *, who: str, reason: str, detail: str
) -> Call[Status]:
    """Record an operation: OK, ALREADY, REUSED (the id is that of another request) or REJECTED (50 are open).

    Args:
        request: digest of what was asked for.
        fields: of the record, beside those that scripts keep: `ac` action, `fl` filter or `ids`, `ra` entries a second, `so` failures that
            stop it, `au` accept unknown effects, `sc` the schedule of a backfill, `tot` and `tx` how much is meant and whether that
            is exact.
        detail: what it is about, for the audit.
    """
    flat = [part for pair in fields.items() for part in pair]
    return Call(load("operation_open"), partition, (operation_id, request, _pack(flat), who, reason, detail), Status)


class PageRow(NamedTuple):
    """One entry: for a replay with the level of its job, '' if that is gone, and the dead letter's fields, none if that is."""

    id: str
    level: str = ""
    letter: Mapping[str, bytes] = MappingProxyType({})


class Page(NamedTuple):
    """What an operation is to act on next. `waits_for`: jobs, when too many of its jobs have not ended."""

    before: str
    behind: str
    is_end: bool
    waits_for: str
    rows: tuple[PageRow, ...]


def _row(raw: list[bytes]) -> PageRow:
    letter = {raw[i].decode(): raw[i + 1] for i in range(2, len(raw), 2)}
    return PageRow(raw[0].decode(), raw[1].decode() if len(raw) > 1 else "", letter)


def page(partition: int, operation_id: str, most: int = PAGE_MAX) -> Call[Page | None]:
    """The next entries, as far as the rate allows; None when the operation does not run. At most 1,000 are looked at."""

    def decode(raw: list[Any]) -> Page | None:
        return Page(raw[0].decode(), raw[1].decode(), raw[2] == 1, raw[3].decode(), tuple(map(_row, raw[4:]))) if raw else None

    return Call(load("operation_page"), partition, (operation_id, most), decode)


class Step(NamedTuple):
    """Where a step began, and where the next one goes on."""

    operation_id: str
    before: str
    behind: str
    is_end: bool

    def args(self) -> tuple[str, str, str, str]:
        """As scripts take them."""
        return self.operation_id, self.before, self.behind, "1" if self.is_end else ""


def note(partition: int, step: Step, *, spent: int, counts: Mapping[str, int], made: Sequence[str]) -> Call[Status]:
    """A step was carried out: OK, or STALE when another process was first.

    Args:
        spent: entries that it acted on.
        counts: what became of them, by the names of `OperationRow.counts`.
        made: ids of new jobs.
    """
    flat = [part for name, n in counts.items() for part in (f"n/{name}", n)]
    return Call(load("operation_note"), partition, (*step.args(), spent, _pack(flat), _pack(made)), Status)


def discard(partition: int, step: Step, ids: Sequence[str]) -> Call[Status]:
    """Discard these dead letters and go on, in one: OK, or STALE when nothing was done."""
    return Call(load("operation_discard"), partition, (*step.args(), _pack(ids)), Status)


def cancel(partition: int, step: Step, ids: Sequence[str], *, key_window_ms: int) -> Call[Status]:
    """Cancel these jobs, if they wait or are delayed, and go on, in one: OK, or STALE when nothing was done."""
    return Call(load("operation_cancel"), partition, (*step.args(), _pack(ids), key_window_ms), Status)


class Looked(NamedTuple):
    """How an operation stands: its state, how many of its jobs have failed, how many are not known to have ended."""

    state: str
    failed: int
    pending: int


def look(partition: int, operation_id: str, most: int = LOOK_MAX) -> Call[Looked | None]:
    """Look at jobs that an operation made, those first that nobody has looked at for longest; stops it when too many have failed."""

    def decode(raw: list[Any]) -> Looked | None:
        return Looked(raw[0].decode(), raw[1], raw[2]) if raw else None

    return Call(load("operation_look"), partition, (operation_id, most), decode)


class Ended(NamedTuple):
    """OK, ALREADY, GONE, or CONFLICT: it has ended otherwise, `state` says how."""

    status: Status
    state: str = ""


def end(partition: int, operation_id: str, state: str, *, who: str, reason: str, why: str = "") -> Call[Ended]:
    """An operation is to do no more. *state*: cancelled, or stopped and why."""

    def decode(raw: list[Any]) -> Ended:
        return Ended(Status(raw[0]), raw[1].decode() if len(raw) > 1 else "")

    return Call(load("operation_end"), partition, (operation_id, state, who, reason, why), decode)


class OperationRow(NamedTuple):
    """One operation in one partition; fields as the store keeps them."""

    id: str
    made_ms: int
    pending: int
    fields: dict[str, str]

    @property
    def counts(self) -> dict[str, int]:
        """done, replayed, made, duplicates, discarded, cancelled, gone, succeeded, failed, otherwise, forgotten; skipped/<why>."""
        return {name[2:]: int(value) for name, value in self.fields.items() if name.startswith("n/")}


class Rows(NamedTuple):
    """A page of operations, newest first."""

    has_more: bool
    rows: tuple[OperationRow, ...]


def find(partition: int, which: str, *, after: tuple[str, str] = ("", ""), limit: int = 50) -> Call[Rows]:
    """Operations: `ops` those that somebody must look after, `oplog` all that are kept, else the one with that id."""

    def decode(raw: list[Any]) -> Rows:
        rows = []
        for row in raw[1:]:
            fields = {row[i].decode(): row[i + 1].decode("utf-8", "replace") for i in range(3, len(row), 2)}
            rows.append(OperationRow(row[0].decode(), int(float(row[1])), row[2], fields))
        return Rows(raw[0] == 1, tuple(rows))

    return Call(load("operations"), partition, (which, *after, limit), decode)
