"""The stream of events of a partition as a typed call: what has happened behind a place, as far as it is wanted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from taskmaster.store.call import Call
from taskmaster.store.scripts import load

__all__ = ["NOTHING", "OLDEST", "Happened", "Happening", "Place", "Wanted", "events"]

_pack = msgspec.msgpack.Encoder().encode


class Place(NamedTuple):
    """Where a hearer stands in one stream.

    Attributes:
        entry: id of the entry that was told last.
        told: transitions of it that were told; -1: all of it.
    """

    entry: str
    told: int = -1


#: Nothing had happened yet; and before the oldest entry that is kept, whatever went before.
NOTHING, OLDEST = Place("0-0"), Place("")


class Wanted(NamedTuple):
    """Which events: all that is given must hold.

    Attributes:
        ids: of jobs.
        letters: what happened (`model.happenings`).
        fairness_key: as `model.lanes.key_name` spells it.
    """

    ids: Sequence[str] = ()
    types: Sequence[str] = ()
    queues: Sequence[str] = ()
    letters: Sequence[str] = ()
    fairness_key: str = ""


class Happening(NamedTuple):
    """One transition of a job. `place`: behind it. Type and queue are empty when neither job nor dead letter is kept any more."""

    place: Place
    letter: str
    job_id: str
    type: str
    queue: str

    @property
    def at_ms(self) -> int:
        """When, by the server's clock."""
        return int(self.place.entry.partition("-")[0])


class Happened(NamedTuple):
    """What one call has found. `is_lost`: entries behind the place that was asked for are not kept any more; `place`: behind the answer."""

    is_lost: bool
    place: Place
    has_more: bool
    rows: tuple[Happening, ...]


def _place(entry: bytes, told: bytes) -> Place:
    return Place(entry.decode(), int(told) if told else -1)


def events(partition: int, place: Place, wanted: Wanted) -> Call[Happened]:
    """What has happened behind *place*: at most 200 entries and 1,000 transitions are looked at."""
    given: Mapping[str, Any] = {
        "ids": dict.fromkeys(wanted.ids, 1),
        "types": dict.fromkeys(wanted.types, 1),
        "queues": dict.fromkeys(wanted.queues, 1),
        "letters": dict.fromkeys(wanted.letters, 1),
        "key": wanted.fairness_key,
    }

    def decode(raw: list[Any]) -> Happened:
        rows = (Happening(_place(row[0], row[1]), *(part.decode("utf-8", "replace") for part in row[2:])) for row in raw[4:])
        return Happened(raw[0] == 1, _place(raw[1], raw[2]), raw[3] == 1, tuple(rows))

    told = "" if place.told < 0 else place.told
    return Call(load("events"), partition, (place.entry, told, _pack({name: value for name, value in given.items() if value})), decode)
