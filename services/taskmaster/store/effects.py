"""The effect ledger as typed calls (store/PROTOCOL.md, "Effects"). Building a call does no I/O; a client runs it."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from taskmaster.store.call import Call
from taskmaster.store.scripts import load
from taskmaster.store.status import Status

__all__ = ["EffectRow", "Ledger", "Reserved", "Settled", "Unsettled", "done", "lineage", "reserve", "settle", "unsettled"]


class Reserved(NamedTuple):
    """OK; DONE with `result`; UNKNOWN; STALE: the lease is not current; REJECTED: too many effects. `job_id`: whose it was."""

    status: Status
    result: bytes = b""
    job_id: str = ""


def reserve(partition: int, job_id: str, token: str, call: int, effect: str, *, name: str, key: str, again: bool) -> Call[Reserved]:
    """Ask for the licence to do *effect*, for one call of one attempt.

    Args:
        call: numbers the requests of this attempt 1, 2, 3 …
        again: take it over from an attempt that was not heard of since.
    """

    def decode(raw: list[Any]) -> Reserved:
        status = Status(raw[0])
        if status is Status.DONE:
            return Reserved(status, raw[1], raw[2].decode())
        return Reserved(status, job_id=raw[1].decode() if status is Status.UNKNOWN else "")

    return Call(load("guard_reserve"), partition, (job_id, token, call, effect, name, key, "1" if again else ""), decode)


def done(partition: int, root_id: str, effect: str, token: str, call: int, *, happened: bool, result: bytes = b"") -> Call[Status]:
    """The holder's word: OK, ALREADY, STALE (it is somebody else's, or settled otherwise) or GONE."""
    return Call(load("guard_done"), partition, (root_id, effect, token, call, "1" if happened else "", result), Status)


class Settled(NamedTuple):
    """OK, ALREADY, GONE, or CONFLICT with why: running, recent, settled."""

    status: Status
    why: str = ""


def settle(partition: int, root_id: str, effect: str, *, happened: bool, who: str, reason: str, at_it_ms: int) -> Call[Settled]:
    """A person's word on an effect that nobody was heard of since.

    Args:
        at_it_ms: how long after its reservation a holder that lost its lease may still be at it: until then "it did not happen" is refused.
    """

    def decode(raw: list[Any]) -> Settled:
        return Settled(Status(raw[0]), raw[1].decode() if len(raw) > 1 else "")

    return Call(load("guard_settle"), partition, (root_id, effect, "1" if happened else "", who, reason, at_it_ms), decode)


class EffectRow(msgspec.Struct, frozen=True, array_like=True):
    """One effect as effects.lua keeps it. Times in Unix ms by the store's clock, 0 when unset.

    Attributes:
        state: r reserved, d done, f given back.
        how: who settled it: own, late (after its lease was lost), person.
    """

    state: str
    token: str
    call: float
    job_id: str
    name: str
    key: str
    reserved_ms: float
    settled_ms: float
    how: str
    who: str
    reason: str


_row = msgspec.json.Decoder(EffectRow).decode


class Unsettled(NamedTuple):
    """One reserved effect; `is_running`: its attempt holds the job now."""

    root_id: str
    effect: str
    place: tuple[str, str]
    row: EffectRow
    is_running: bool


def unsettled(partition: int, *, after: tuple[str, str] = ("", ""), limit: int = 50) -> Call[tuple[Unsettled, ...]]:
    """Effects that are reserved, oldest first, behind *after*: a `place`."""

    def decode(raw: list[Any]) -> tuple[Unsettled, ...]:
        rows = []
        for root, effect, ms, row, running in raw:
            place = (ms.decode(), f"{root.decode()}/{effect.decode()}")
            rows.append(Unsettled(root.decode(), effect.decode(), place, _row(row), running == 1))
        return tuple(rows)

    return Call(load("unsettled"), partition, (*after, limit), decode)


class Ledger(NamedTuple):
    """The effects of a lineage: (effect, row, whether its attempt holds the job now, result as JSON)."""

    root_id: str
    effects: tuple[tuple[str, EffectRow, bool, bytes], ...]


def lineage(partition: int, job_id: str) -> Call[Ledger | None]:
    """The effects of the lineage that a job has a part in; None when nothing is known of it."""

    def decode(raw: list[Any]) -> Ledger | None:
        if not raw:
            return None
        return Ledger(raw[0].decode(), tuple((row[0].decode(), _row(row[1]), row[2] == 1, row[3]) for row in raw[1:]))

    return Call(load("effects"), partition, (job_id,), decode)
