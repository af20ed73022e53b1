"""Groups of dead letters with one cause: what the partitions know of them, as one list. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec

from taskmaster.engine import listing
from taskmaster.engine.listing import Place
from taskmaster.model.job import Failure
from taskmaster.store import letters
from taskmaster.store.call import Talk
from taskmaster.store.letters import Group, Sampled

__all__ = ["GroupView", "described", "merge", "newest"]

_failure = msgspec.json.Decoder(Failure).decode


class GroupView(NamedTuple):
    """Dead letters of one fingerprint. Times in Unix ms.

    Attributes:
        size: how many there are.
        failure: of the newest; None when it left none, as a lost worker does.
        reason: of the newest.
        types, queues, reasons, plugins: as far as the sampled records show: up to ten of the newest and two of the oldest in each
            partition. Plugins are `name==version` with how many of the sample they ran.
        sampled: how many those are.
    """

    fingerprint: str
    size: int
    first_ms: int
    last_ms: int
    reason: str
    failure: Failure | None
    sample_id: str
    types: tuple[str, ...]
    queues: tuple[str, ...]
    reasons: tuple[str, ...]
    plugins: dict[str, int]
    sampled: int


def merge(rows: Iterable[Group]) -> list[GroupView]:
    """One view a fingerprint."""
    by_print: dict[str, list[Group]] = {}
    for row in rows:
        by_print.setdefault(row.fingerprint, []).append(row)
    return list(map(_view, by_print.values()))


def _view(rows: Sequence[Group]) -> GroupView:
    newest = max(rows, key=lambda row: row.last_ms)
    sample: list[Sampled] = [one for row in rows for one in row.sample]
    try:
        failure = _failure(newest.failure) if newest.failure else None
    except msgspec.MsgspecError:
        failure = None
    return GroupView(
        fingerprint=newest.fingerprint,
        size=sum(row.size for row in rows),
        first_ms=min(row.first_ms for row in rows),
        last_ms=newest.last_ms,
        reason=newest.sample[0].reason,
        failure=failure,
        sample_id=newest.sample[0].id,
        types=tuple(sorted({one.type for one in sample})),
        queues=tuple(sorted({one.queue for one in sample})),
        reasons=tuple(sorted({one.reason for one in sample})),
        plugins=dict(Counter(one.plugin for one in sample if one.plugin).most_common()),
        sampled=len(sample),
    )


def described(fingerprints: Sequence[str], partitions: int) -> Talk[list[GroupView]]:
    """These groups, as far as there are records."""
    rows: list[Group] = []
    for partition in range(partitions):
        for n in range(0, len(fingerprints), letters.GROUPS_MAX):
            rows += yield letters.group(partition, fingerprints[n : n + letters.GROUPS_MAX])
    return merge(rows)


def newest(partitions: int, *, after: Place, limit: int) -> Talk[tuple[list[GroupView], Place | None]]:
    """One page of groups, the latest failure first, and where the next one begins."""
    pages = []
    for partition in range(partitions):
        listed = yield letters.groups(partition, after=after, limit=limit)
        pages.append((listed.has_more, listed.places))
    names, frontier = listing.candidates(pages)
    views = yield from described(names, partitions)
    return listing.page(views, lambda view: (str(view.last_ms), view.fingerprint), frontier, after=after, limit=limit)
