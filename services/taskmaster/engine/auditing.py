"""The audit over all partitions: pages of it, and whether its rows still are what was written.

The rows of a partition are a chain: each holds the hash of the row before it, and the store that of the newest, the head. So a row that is
edited, removed or moved is noticed. Who can write to the store can make all of it anew: that is noticed where a head was noted elsewhere.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import msgspec

from taskmaster.engine.lens import Lens
from taskmaster.engine.queries import merge_pages
from taskmaster.model.chain import FIELDS, hash_of, number_of
from taskmaster.store.audit import ANY, NEWEST, AuditFilter, AuditPage, AuditRow, audit
from taskmaster.store.call import Talk
from taskmaster.store.reads import Found, Page

__all__ = ["BEGINNING", "FAULTS_MAX", "Entry", "Fault", "Head", "Verdict", "detail_of", "newest", "verify"]

Place = tuple[str, str]
BEGINNING: Place = ("", "")
#: Faults of one partition that are told: the oldest.
FAULTS_MAX = 100
_PAGE = 1_000


class Head(NamedTuple):
    """Where a partition's chain stands: number and hash of its newest row, 0 and empty when it has none."""

    partition: int
    number: int
    hash: str


class Entry(NamedTuple):
    """A row of the audit, and where it stands."""

    partition: int
    row: AuditRow

    @property
    def number(self) -> int:
        """In the chain of its partition; 0: it was written before there was one."""
        return number_of(self.row.fields)


def newest(
    partitions: int, wanted: AuditFilter, *, after: Place = BEGINNING, limit: int
) -> Talk[tuple[list[Entry], Place | None, list[Head]]]:
    """One page of all partitions, newest first, behind the place *after*; where the next page begins (None: nowhere); and all heads."""
    pages, heads, rows = [], [], {}
    for partition in range(partitions):
        page: AuditPage = yield audit(partition, wanted, begin=_begin(after, partition), limit=limit)
        heads.append(Head(partition, page.number, page.hash))
        found = []
        for row in page.rows:
            score, member = _place(partition, row.entry)
            rows[score, member] = Entry(partition, row)
            found.append(Found(member, score, {}))
        pages.append(Page(page.has_more, _place(partition, page.last) if page.last else BEGINNING, tuple(found)))
    shown, place = merge_pages(pages, limit)
    return [rows[one.score, one.id] for one in shown], place, heads


def _place(partition: int, entry: str) -> Place:
    """(ms, `<partition>.<number>`): members of one millisecond are in order as text."""
    ms, _, number = entry.partition("-")
    return ms, f"{partition:04d}.{int(number):020d}"


def _begin(after: Place, partition: int) -> str:
    """Where a page of *partition* begins, as XREVRANGE takes it: behind the place *after*, which is of any partition."""
    if not after[0]:
        return NEWEST
    ms, (of, number) = int(float(after[0])), map(int, after[1].split("."))
    if partition == of:
        return f"({ms}-{number}"
    return str(ms) if partition < of else f"({max(1, ms)}-0"


def detail_of(row: AuditRow, lens: Lens) -> Any:
    """What a row tells beside its reason, as it may be shown: JSON as data, payloads through the lens; None when there is nothing."""
    text = row.text("detail")
    if not text.startswith("{"):
        return text or None
    try:
        detail = msgspec.json.decode(text)
    except msgspec.DecodeError:
        return text
    if isinstance(detail, dict) and "payload" in detail:
        detail["payload"] = lens.value(str(detail.get("type", "")), detail["payload"])
    return detail


class Fault(NamedTuple):
    """What does not fit.

    Attributes:
        kind: changed (a row, or what the next one says of it), missing (rows from *number* on), moved, unchained (a row without a hash
            among those that have one), head (the newest rows, or the head itself, are gone), removed (rows at the old end, not by
            trimming), noted (the chain is not the one whose head was noted).
        number: of the row; 0: it has none.
        entry: id of its entry in the stream; empty: it is not there.
    """

    kind: Literal["changed", "missing", "moved", "unchained", "head", "removed", "noted"]
    number: int
    entry: str
    at_ms: int
    message: str


class Verdict(NamedTuple):
    """What became of one partition's chain.

    Attributes:
        rows: in the chain, that are kept.
        unchained: older rows, from before there was a chain: nothing can be said of them.
        trimmed: rows of the chain that are not kept any more.
        faults: oldest first, at most FAULTS_MAX, then those of noted heads; empty: it is whole.
    """

    head: Head
    rows: int
    unchained: int
    trimmed: int
    faults: tuple[Fault, ...]


def verify(partition: int, noted: Sequence[Head] = (), *, since_ms: int = 0) -> Talk[Verdict]:
    """Walk the chain back from its head to the oldest row that is kept, or that is not older than *since_ms*.

    Rows that are written meanwhile are not looked at.

    Args:
        partition: whose.
        noted: heads that were noted earlier; those of other partitions are passed over.
        since_ms: rows from then on; 0: all.
    """
    first: AuditPage = yield audit(partition, ANY, limit=_PAGE)
    walk = _Walk(Head(partition, first.number, first.hash), [one for one in noted if one.partition == partition])
    page = first
    while True:
        for row in page.rows:
            if _newest_ms(row) < since_ms:
                return walk.end(is_short=False, is_whole=False)
            walk.meet(row)
        if not page.has_more:
            return walk.end(is_short=first.is_short and not since_ms, is_whole=not since_ms)
        page = yield audit(partition, ANY, begin=f"({page.last}", limit=_PAGE)


def _newest_ms(row: AuditRow) -> int:
    """What the row tells goes back when the store's clock does; its entry never does."""
    return max(row.at_ms, int(row.entry.partition("-")[0]))


class _Walk:
    """From row to older row. `_number`, `_hash`: of the row that must come next, as the newer one says."""

    def __init__(self, head: Head, noted: Sequence[Head]) -> None:
        self._head = head
        self._number, self._hash = head.number, head.hash
        self._noted = set(noted)
        self._rows = self._unchained = 0
        self._oldest: AuditRow | None = None
        self._faults: deque[Fault] = deque(maxlen=FAULTS_MAX)
        self._of_noted: list[Fault] = []

    def meet(self, row: AuditRow) -> None:
        number = number_of(row.fields)
        if not number and "p" not in row.fields:
            if self._number > 0:
                self._fault("unchained", row, "a row without a hash among those that have one: by an older version, or a foreign hand")
            else:
                self._unchained += 1
            return
        self._rows += 1
        found = hash_of(row.entry, row.fields)
        if found != self._hash or number != self._number or not row.fields.keys() <= FIELDS:
            self._judge(row, number)
        self._compare(number, found)
        self._number, self._hash, self._oldest = max(0, number - 1), row.text("p"), row

    def _judge(self, row: AuditRow, number: int) -> None:
        if number == self._number:
            self._fault("changed", row, f"row {number}, or what the row behind it says of it, is not what was written")
        elif number > self._number:
            self._fault(
                "moved", row, f"row {number} stands where row {self._number} was" if self._number else f"row {number} is out of place"
            )
        elif self._oldest is None:
            text = f"the newest row is {number}, the head says {self._number}: the rows behind it are gone"
            self._faults.append(Fault("head", self._number, "", 0, text))
        else:
            first = number + 1
            text = f"rows {first} to {self._number} are not there" if first < self._number else f"row {first} is not there"
            self._faults.append(Fault("missing", first, "", 0, text))

    def _compare(self, number: int, found: str) -> None:
        of_it = {noted for noted in self._noted if noted.number == number}
        self._noted -= of_it
        if any(noted.hash != found for noted in of_it):
            self._of_noted.append(Fault("noted", number, "", 0, f"row {number} has another hash than was noted: the chain was made anew"))

    def _fault(self, kind: Literal["changed", "moved", "unchained"], row: AuditRow, message: str) -> None:
        self._faults.append(Fault(kind, number_of(row.fields), row.entry, row.at_ms, message))

    def end(self, *, is_short: bool, is_whole: bool) -> Verdict:
        """Where the walk came to the oldest row. *is_whole*: it is the oldest that is kept; *is_short*: that cannot be by trimming."""
        if self._oldest is None and self._number > 0 and is_whole:
            self._faults.append(Fault("head", self._number, "", 0, f"the head says that there are {self._number} rows, and none is there"))
        self._compare(self._number, self._hash)  # what the oldest row says of the one before it
        trimmed = self._number if self._oldest is not None else 0
        if is_short:
            self._faults.append(
                Fault("removed", trimmed, "", 0, f"rows up to {trimmed} are gone, although so few are left that none is trimmed")
            )
        for noted in sorted(self._noted):
            if noted.number > self._head.number:
                text = f"row {noted.number} was noted, and the chain ends with row {self._head.number}: it was cut off, or made anew"
            elif noted.number == 0:
                continue
            else:
                text = f"row {noted.number}, which was noted, is not kept any more: nothing can be said; note heads more often"
            self._of_noted.append(Fault("noted", noted.number, "", 0, text))
        return Verdict(self._head, self._rows, self._unchained, trimmed if is_whole else 0, (*reversed(self._faults), *self._of_noted))
