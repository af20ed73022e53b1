"""Dead letters as typed calls: groups, counts, and letters that go for good. One record: `reads.dead`, a page of them: `reads.find`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from taskmaster.model.letters import LetterFilter
from taskmaster.store.call import Call
from taskmaster.store.scripts import load
from taskmaster.store.status import Status

__all__ = ["DISCARD_MAX", "GROUPS_MAX", "Counted", "Group", "Sampled", "count", "discard", "group", "groups"]

_pack = msgspec.msgpack.Encoder().encode
#: Letters that one call discards, groups that one call describes.
DISCARD_MAX, GROUPS_MAX = 200, 20


class Listed(NamedTuple):
    """Fingerprints with the place of each in the list: (ms of its last failure, fingerprint)."""

    has_more: bool
    places: tuple[tuple[str, str], ...]


def groups(partition: int, *, after: tuple[str, str] = ("", ""), limit: int = 50) -> Call[Listed]:
    """Groups of dead letters by their last failure, newest first, behind the place *after*."""

    def decode(raw: list[Any]) -> Listed:
        return Listed(raw[0] == 1, tuple((row[1].decode(), row[0].decode()) for row in raw[1:]))

    return Call(load("groups"), partition, (*after, limit), decode)


class Sampled(NamedTuple):
    """One record of a group. `plugin` is name==version, or empty."""

    id: str
    type: str
    queue: str
    reason: str
    plugin: str


class Group(NamedTuple):
    """One group in one partition. `failure`: JSON, of its newest record; the sample: the newest ten and the oldest two."""

    fingerprint: str
    size: int
    first_ms: int
    last_ms: int
    failure: bytes
    sample: tuple[Sampled, ...]


def group(partition: int, fingerprints: Sequence[str]) -> Call[tuple[Group, ...]]:
    """What is known of these groups, at most GROUPS_MAX; those without records are left out."""

    def decode(raw: list[Any]) -> tuple[Group, ...]:
        return tuple(
            Group(
                row[0].decode(),
                row[1],
                int(float(row[2])),
                int(float(row[3])),
                row[4],
                tuple(Sampled(*(part.decode("utf-8", "replace") for part in one)) for one in row[5]),
            )
            for row in raw
        )

    return Call(load("group"), partition, (_pack(fingerprints),), decode)


class Counted(NamedTuple):
    """How many of the letters that were looked at are meant, some of their ids, and where to go on: None at the end."""

    matched: int
    sample: tuple[str, ...]
    after: tuple[str, str] | None


def count(partition: int, letters: LetterFilter, *, upto_ms: int, after: tuple[str, str] = ("", "")) -> Call[Counted]:
    """Count dead letters, oldest first, of those that had failed by *upto_ms*; at most 1,000 are looked at, unless an index knows."""

    def decode(raw: list[Any]) -> Counted:
        place = (raw[2].decode(), raw[3].decode()) if raw[0] == 1 else None
        return Counted(raw[1], tuple(found.decode() for found in raw[4:]), place)

    return Call(load("letters"), partition, (letters.spelled(), upto_ms, *after), decode)


def discard(partition: int, ids: Sequence[str], *, who: str, reason: str) -> Call[tuple[Status, ...]]:
    """Dead letters go for good, at most DISCARD_MAX, and what is left of their jobs; OK or GONE each. Audited."""
    return Call(load("discard"), partition, (_pack(ids), who, reason), lambda raw: tuple(map(Status, raw)))
