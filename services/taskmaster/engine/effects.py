"""Effects for people: what became of each, and whose word settles one that nobody was heard of since. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, NamedTuple

from taskmaster.errors import Conflict, NotFound
from taskmaster.store.effects import EffectRow, Ledger, Settled, Unsettled
from taskmaster.store.status import Status

__all__ = ["EffectView", "merge", "of_ledger", "settled"]

State = Literal["running", "unknown", "done", "not_done"]


class EffectView(NamedTuple):
    """One effect. Times in Unix ms by the store's clock, 0 when unset.

    Attributes:
        state: running: its attempt is at it; unknown: an attempt had the licence and was not heard of since; done; not_done: it surely
            did not happen and may be tried again.
        how: who settled it: own (its attempt), late (the same, after it lost its lease), person.
        result: JSON, empty when none was kept.
    """

    root_id: str
    effect: str
    state: State
    name: str
    key: str
    job_id: str
    reserved_ms: int
    settled_ms: int
    how: str
    who: str
    reason: str
    result: bytes = b""


def _view(root_id: str, effect: str, row: EffectRow, is_running: bool, result: bytes = b"") -> EffectView:
    state: State = "done" if row.state == "d" else "not_done" if row.state == "f" else "running" if is_running else "unknown"
    times = int(row.reserved_ms), int(row.settled_ms)
    return EffectView(root_id, effect, state, row.name, row.key, row.job_id, *times, row.how, row.who, row.reason, result)


def of_ledger(ledger: Ledger) -> list[EffectView]:
    """The effects of one lineage, oldest first."""
    views = [_view(ledger.root_id, *row) for row in ledger.effects]
    return sorted(views, key=lambda view: (view.reserved_ms, view.effect))


def merge(pages: Iterable[tuple[Unsettled, ...]], limit: int) -> tuple[list[EffectView], tuple[str, str] | None]:
    """One page, oldest first, from those of all partitions, and the place where the next one goes on: None at the end."""
    pages = list(pages)
    rows = sorted((row for page in pages for row in page), key=lambda row: (float(row.place[0]), row.place[1]))[:limit]
    has_more = sum(map(len, pages)) > len(rows) or any(len(page) == limit for page in pages)
    return [_view(row.root_id, row.effect, row.row, row.is_running) for row in rows], rows[-1].place if rows and has_more else None


_WHY = {
    "running": "its attempt is running",
    "recent": "the attempt that had its licence lost its lease and may still be at it; try again in a minute",
    "settled": "it was settled otherwise",
}


def settled(root_id: str, effect: str, answer: Settled) -> None:
    """What a person is told.

    Raises:
        NotFound: there is no such effect.
        Conflict: it cannot be settled so; fact `why`: running, recent or settled.
    """
    if answer.status is Status.GONE:
        raise NotFound(f"there is no effect {effect} of job {root_id}", effectId=f"{root_id}.{effect}")
    if answer.status is Status.CONFLICT:
        raise Conflict(f"the effect cannot be settled: {_WHY[answer.why]}", effectId=f"{root_id}.{effect}", why=answer.why)
