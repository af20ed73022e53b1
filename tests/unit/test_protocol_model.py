"""The protocol model: its small configurations have no fault, and it sees the faults that are put into it."""

from __future__ import annotations

import pytest

from support.protocol import model

#: Larger configurations are for `python -m support.protocol.model`.
ROOM = 12_000
SMALL = [
    "longest wait",
    "two plugin sets",
    "two queues",
    "several limiters",
    "all together",
    "woken worker dies",
    "no key, purge",
    "same key twice, purge",
    "pause, resume",
    "small writes",
    "limiter",
    "sign off",
    "hand back",
    "snooze, discard",
    "rewind, noticed",
]
QUICK = [
    (mutant, world)
    for world in (
        "no key, purge",
        "same key twice, purge",
        "pause, resume",
        "small writes",
        "limiter",
        "two queues",
        "two plugin sets",
        "rewind, noticed",
    )
    for mutant in model.MUTANTS.get(world, ())
]


@pytest.mark.parametrize("name", SMALL)
def test_a_configuration_has_no_fault(name: str) -> None:
    """Every state keeps the invariants, and from each of them the end can be reached."""
    found = list(model.runs(set(), ROOM, only=name))

    assert found
    assert [wrong for _, _, wrong in found if wrong] == []


@pytest.mark.parametrize(("mutant", "world"), QUICK)
def test_a_broken_rule_is_seen(mutant: str, world: str) -> None:
    """A protocol without this rule breaks an invariant in a small world."""
    caught = model.catch(mutant, world)

    assert caught is not None
