"""The scripts that go by the clock, as typed calls: lost attempts, due jobs, retention, the sweep, and what to do next."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from taskmaster.store.call import Call
from taskmaster.store.calls import Limits
from taskmaster.store.scripts import load

__all__ = ["Loss", "Repair", "Swept", "Ticked", "abandon", "mend", "promote", "prune", "reap", "store_rewound", "sweep", "tick"]

_pack = msgspec.msgpack.Encoder().encode


def promote(partition: int, *, key_window_ms: int = 86_400_000) -> Call[bool]:
    """Put due jobs into their lanes, cancel expired ones, look at limiters whose time has come; True when more jobs are due."""
    return Call(load("promote"), partition, (key_window_ms,), bool)


def reap(partition: int, *, grace_ms: int, losses: int, key_window_ms: int) -> Call[tuple[bool, tuple[str, ...]]]:
    """End attempts whose lease ran out *grace_ms* ago; (more are left, ids that were ended)."""
    return Call(load("reap"), partition, (grace_ms, losses, key_window_ms), lambda raw: (raw[0] == 1, tuple(x.decode() for x in raw[1:])))


def abandon(partition: int, wid: str, rank: int = 0) -> Call[int]:
    """Expire the leases of a dead consumer; the rank to go on at, -1 when done."""
    return Call(load("abandon"), partition, (wid, rank), int)


def prune(partition: int, limits: Limits) -> Call[bool]:
    """Retention of all queues; True when more is left."""
    return Call(load("prune"), partition, (_pack(limits),), bool)


#: Settings of a breaker that a registration makes, field and value in turn.


class Ticked(NamedTuple):
    """Whether this process has the second, and what there is to do."""

    mine: bool
    to_reap: int = 0
    to_promote: int = 0
    to_prune: bool = False
    to_sweep: int = 0  # 1 a sweep is due or under way, 2 at once: the store lost something
    operations: int = 0  # to look after
    outbox: int = 0  # ends that somebody is to be told of
    dropped: int = 0  # ends that went from there untold, since this was last said


def tick(partition: int, *, grace_ms: int) -> Call[Ticked]:
    """Once a second, by whichever process comes first."""
    return Call(load("tick"), partition, (grace_ms,), _ticked)


def _ticked(raw: list[Any]) -> Ticked:
    return Ticked(True, raw[1], raw[2], raw[3] == 1, raw[4], raw[5], raw[6], raw[7]) if raw[0] else Ticked(False)


class Repair(msgspec.Struct, frozen=True):
    """One thing that a sweep found.

    Attributes:
        at: ms.
        what: the kind of damage, a word of PROTOCOL.md, "Repair".
        id: of the job, else the key or the counter.
        where: the index or key concerned, or what was there.
        mended: it was put right; else it needs a person.
    """

    at: int
    what: str
    id: str
    where: str = ""
    mended: bool = False


class Swept(NamedTuple):
    """One page of a sweep. Not due: nothing was looked at."""

    is_due: bool
    is_done: bool = True
    repairs: tuple[Repair, ...] = ()


_repair = msgspec.json.Decoder(Repair).decode


def sweep(partition: int, *, every_ms: int, key_window_ms: int, now: bool = False) -> Call[Swept]:
    """The next page of the sweep: 40 rows of indexes held against their jobs, or jobs against the indexes.

    Args:
        every_ms: from the end of one sweep to the begin of the next.
        now: begin one although none is due, unless one is under way.
    """

    def decode(raw: list[Any]) -> Swept:
        return Swept(True, raw[0] == 1, tuple(map(_repair, raw[1:]))) if raw else Swept(False)

    return Call(load("sweep"), partition, ("now" if now else "", every_ms, key_window_ms), decode)


def mend(partition: int, names: Sequence[str], *, key_window_ms: int) -> Call[tuple[Repair, ...]]:
    """Hold keys that a walk has found, at most 200, against what they belong to; foreign ones are told, remains of lost jobs go."""
    return Call(load("mend"), partition, (_pack(names), key_window_ms), lambda raw: tuple(map(_repair, raw)))


class Loss(NamedTuple):
    """How a store lost what it had answered: rewound (the same one, earlier), emptied, replaced; '' when that loss was known before."""

    gen: str
    how: str


def store_rewound(partition: int, *, known: str, fresh: str, sign: str) -> Call[Loss]:
    """Note that the store lost what it had answered; everybody else notices by the new generation.

    Args:
        known: the generation that the caller worked with, '' if none.
        fresh: to be used from now on.
        sign: what gave it away, a word.
    """
    return Call(load("store_rewound"), partition, (known, fresh, sign), lambda raw: Loss(raw[1].decode(), raw[2].decode()))
