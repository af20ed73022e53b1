"""The audit of a partition as typed calls: what people did to jobs, effects and rules, in the very steps that did it."""

from __future__ import annotations

from typing import Any, NamedTuple

from taskmaster.model.chain import number_of
from taskmaster.store.call import Call
from taskmaster.store.scripts import load

__all__ = ["ANY", "NEWEST", "AuditFilter", "AuditPage", "AuditRow", "audit"]

#: Where a list begins.
NEWEST = "+"


class AuditFilter(NamedTuple):
    """All that is given must hold. Times in ms, 0: not bounded. `target`: that, or what is below it (`<target>/…`)."""

    who: str = ""
    action: str = ""
    target: str = ""
    since_ms: int = 0
    before_ms: int = 0


ANY = AuditFilter()


class AuditRow(NamedTuple):
    """One row: the id of its entry, and its fields as they are stored."""

    entry: str
    fields: dict[str, bytes]

    def text(self, name: str) -> str:
        """A field; empty when there is none."""
        return self.fields.get(name, b"").decode("utf-8", "replace")

    @property
    def at_ms(self) -> int:
        """When, as the row says."""
        text = self.text("at")
        return int(text) if text.isascii() and text.isdigit() else 0


class AuditPage(NamedTuple):
    """Rows, newest first.

    Attributes:
        last: entry id of the last one that was looked at, shown or not; empty: there was none.
        number, hash: of the newest row in the chain, 0 and empty when there is none.
        is_short: rows at the old end are gone, although so few are left that nobody trims them.
    """

    has_more: bool
    last: str
    rows: tuple[AuditRow, ...]
    number: int = 0
    hash: str = ""
    is_short: bool = False


def audit(partition: int, wanted: AuditFilter, *, begin: str = NEWEST, limit: int = 200) -> Call[AuditPage]:
    """One page; at most 2,000 rows, or about 1 MB of them, are looked at, so it may be short or empty and still have more.

    Args:
        begin: entry id to begin at; with `(` before it: behind that one.
        limit: rows at most; 0: only where the chain stands.
    """

    def decode(raw: list[Any]) -> AuditPage:
        rows = (AuditRow(row[0].decode(), {row[i].decode(): row[i + 1] for i in range(1, len(row) - 1, 2)}) for row in raw[5:])
        number, digest = number_of({"n": raw[2]}), raw[3].decode("ascii", "replace")
        return AuditPage(raw[0] == 1, raw[1].decode(), tuple(rows), number, digest, raw[4] == 1)

    args = (begin, wanted.since_ms, wanted.before_ms, wanted.who, wanted.action, wanted.target, limit)
    return Call(load("audit"), partition, args, decode)
