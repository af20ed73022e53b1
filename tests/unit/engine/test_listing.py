"""Lists over several partitions: each thing once, in one order, whatever the pages' bounds."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from taskmaster.engine import listing
from taskmaster.engine.groups import merge
from taskmaster.engine.listing import Place
from taskmaster.store.letters import Group, Sampled

Parts = list[dict[str, int]]  # by partition: name -> ms


def part_page(part: dict[str, int], after: Place, limit: int) -> tuple[bool, list[Place]]:
    """As a script answers: newest first, behind the place."""
    places = sorted(((ms, name) for name, ms in part.items()), reverse=True)
    behind = [place for place in places if not after[0] or place < (float(after[0]), after[1])]
    return len(behind) > limit, [(str(ms), name) for ms, name in behind[:limit]]


def walk(parts: Parts, limit: int) -> list[str]:
    """All names, page by page."""
    seen: list[str] = []
    place: Place | None = listing.BEGINNING
    for _ in range(200):
        if place is None:
            return seen
        names, frontier = listing.candidates([part_page(part, place, limit) for part in parts])
        latest: dict[str, int] = {name: max(part[name] for part in parts if name in part) for name in names}
        things, place = listing.page(list(latest.items()), lambda thing: (str(thing[1]), thing[0]), frontier, after=place, limit=limit)
        assert len(things) <= limit
        seen += [name for name, _ in things]
    raise AssertionError("the list has no end")


@pytest.mark.parametrize("seed", range(40))
def test_each_thing_is_listed_once_in_order(seed: int) -> None:
    """By its latest time in any partition; equal times by name."""
    dice = Random(seed)
    names = [f"n{n}" for n in range(dice.randint(0, 12))]
    parts: Parts = [{name: dice.randint(1, 6) for name in names if dice.random() < 0.6} for _ in range(dice.randint(1, 4))]
    known = {name for part in parts for name in part}
    latest = sorted(((max(part.get(name, 0) for part in parts), name) for name in known), reverse=True)

    assert walk(parts, dice.randint(1, 5)) == [name for _, name in latest]


def group(**fields: Any) -> Group:
    usual: dict[str, Any] = {"fingerprint": "f", "size": 1, "first_ms": 5, "last_ms": 5, "failure": b"", "sample": ()}
    return Group(**(usual | fields))


def test_a_group_over_partitions_is_one() -> None:
    """Sizes add up; the newest record speaks for all."""
    old = group(size=3, first_ms=1, last_ms=4, failure=b'["A","old"]', sample=(Sampled("i1", "t", "q1", "fatal", "p==1"),))
    new = group(size=2, first_ms=2, last_ms=9, failure=b'["B","new"]', sample=(Sampled("i2", "t", "q2", "worker_lost", "p==2"),))

    (view,) = merge([old, new])

    assert (view.size, view.first_ms, view.last_ms, view.sample_id, view.reason) == (5, 1, 9, "i2", "worker_lost")
    assert view.failure is not None
    assert (view.failure.error, view.queues, view.reasons) == ("B", ("q1", "q2"), ("fatal", "worker_lost"))
    assert (view.plugins, view.sampled) == ({"p==1": 1, "p==2": 1}, 2)
