"""What is told of the store itself: its losses, its sweeps and what they found."""

from __future__ import annotations

from typing import Any

from taskmaster.api.shapes import Shape, instant
from taskmaster.engine.checklist.findings import Finding
from taskmaster.store.reads import Integrity

__all__ = ["Doctor", "partition_state"]


class Loss(Shape, kw_only=True):
    """The store lost what it had answered: rewound (the same one, earlier), emptied, or replaced by another."""

    at: str
    how: str
    sign: str
    is_checked: bool


class LastSweep(Shape, kw_only=True):
    """The last sweep over records and indexes that came to its end."""

    ended_at: str
    took_ms: int
    looked_at: int
    mended: int
    unmended: int


class Repair(Shape, kw_only=True):
    """One thing that a sweep found; `mended` false: it needs a person."""

    at: str
    what: str
    id: str
    where: str
    mended: bool


class PartitionState(Shape, kw_only=True):
    """How far one partition's data can be trusted."""

    partition: int
    generation: str | None
    arrivals: int
    sweeping: bool
    last_sweep: LastSweep | None
    loss: Loss | None
    repairs: list[Repair] | None = None


class Doctor(Shape, kw_only=True):
    """The production checklist, and the store: server, sweeps and their newest repairs. `ok`: no check is an error."""

    ok: bool
    checks: list[Finding]
    durability: str
    server: dict[str, Any] | None
    partitions: list[PartitionState]


def partition_state(number: int, seen: Integrity, *, with_repairs: bool = False) -> PartitionState:
    """One partition, for /health; with the rows of its report, for /doctor."""
    last = (
        None
        if seen.last is None
        else LastSweep(
            ended_at=instant(seen.last.ended),
            took_ms=seen.last.ended - seen.last.since,
            looked_at=seen.last.looked,
            mended=seen.last.mended,
            unmended=seen.last.found,
        )
    )
    loss = Loss(at=instant(seen.lost_at), how=seen.how, sign=seen.sign, is_checked=seen.is_checked) if seen.lost_at else None
    repairs = [Repair(at=instant(one.at), what=one.what, id=one.id, where=one.where, mended=one.mended) for one in seen.repairs]
    return PartitionState(
        partition=number,
        generation=seen.gen or None,
        arrivals=seen.seq,
        sweeping=seen.is_sweeping,
        last_sweep=last,
        loss=loss,
        repairs=repairs if with_repairs else None,
    )
