"""How much a consumer may hold: concurrency, look-ahead for short jobs, groups, and rest after a hand-back."""

from __future__ import annotations

import pytest

from taskmaster.broker.slots import AHEAD_MAX, Slots, halves


def test_a_group_asks_for_what_it_has_free():
    """Claims take slots, ends give them back; a full group does not ask."""
    slots = Slots([(2, ["a"])])

    assert slots.free() == [(2, "a")]
    slots.take("a")
    assert slots.free() == [(1, "a")]
    slots.take("a")
    assert slots.free() == []
    slots.give_back("a")
    assert slots.free() == [(1, "a")]


def test_a_group_can_be_resized_while_it_holds_jobs():
    """More slots are asked for at once; with fewer, what is held runs on and nothing is asked for until it is below."""
    slots = Slots([(2, ["a"])])
    slots.free()
    for _ in range(2):
        slots.take("a")

    assert slots.resize("a", 4)
    assert slots.free() == [(2, "a")]
    assert slots.resize("a", 1)
    assert slots.free() == [(0, "a")]
    slots.give_back("a")
    assert slots.free() == []
    slots.give_back("a")
    assert slots.free() == [(1, "a")]


def test_a_half_without_slots_never_looks_ahead():
    """Of one slot the second consumer has none, however short the jobs are."""
    slots = Slots([(1, ["a"])])
    slots.ran("a", 0.000_01)

    assert slots.resize("a", 0)
    assert slots.free() == []
    assert not slots.resize("a", 0)
    assert not slots.resize("elsewhere", 5)


def test_queues_of_one_group_share_its_slots_and_take_turns():
    """The first queue of a call is another one the next time."""
    slots = Slots([(2, ["a", "b"])])

    assert [slots.free()[0] for _ in range(3)] == [(2, "a", "b"), (2, "b", "a"), (2, "a", "b")]
    slots.take("a")
    slots.take("b")
    assert slots.free() == []


def test_a_busy_group_leaves_the_others_alone():
    """A queue of its own cannot be starved by a neighbour."""
    slots = Slots([(1, ["busy"]), (3, ["calm"])])
    slots.take("busy")

    assert slots.free() == [(3, "calm")]


@pytest.mark.parametrize(
    ("seconds", "budget"),
    [(1e-9, AHEAD_MAX), (0.00007, AHEAD_MAX), (0.0001, 100), (0.001, 10), (0.002, 5), (0.005, 4), (0.1, 4), (60.0, 4)],
)
def test_short_jobs_are_held_ahead(seconds, budget):
    """As many as one thread does in 10 ms, at most 128, never less than the concurrency."""
    slots = Slots([(4, ["a"])])
    slots.ran("a", seconds)

    assert slots.free() == [(budget, "a")]
    assert slots.is_short("a") == (budget > 4)


def test_look_ahead_can_be_off_and_is_off_for_wide_groups():
    """One job at a time where jobs are suspect; two hundred coroutines need nothing ahead."""
    alone, wide = Slots([(1, ["a"])], look_ahead=False), Slots([(200, ["a"])])
    for slots in (alone, wide):
        slots.ran("a", 1e-6)

    assert alone.free() == [(1, "a")]
    assert wide.free() == [(200, "a")]


def test_a_few_long_jobs_end_the_look_ahead():
    """The budget follows what jobs take now, not what they took an hour ago."""
    slots = Slots([(4, ["a"])])
    for _ in range(100):
        slots.ran("a", 0.0001)
    assert slots.is_short("a")
    slots.ran("a", 0.5)

    assert not slots.is_short("a")


def test_a_group_that_shrank_says_once_that_it_does_not_sleep():
    """The store counts on a sleeper with free slots: one that has none any more must take its name off the list."""
    slots = Slots([(2, ["a"])])
    slots.ran("a", 0.00001)
    assert slots.free() == [(AHEAD_MAX, "a")]
    for _ in range(3):
        slots.take("a")
    slots.ran("a", 5.0)

    assert slots.free() == [(0, "a")]
    assert slots.free() == []


def test_a_resting_group_asks_for_nothing_until_it_is_resumed():
    """What had to be handed back would come straight back."""
    slots = Slots([(2, ["a", "b"]), (1, ["c"])])
    slots.free()
    slots.rest("b")

    assert slots.free() == [(0, "a", "b"), (1, "c")] or slots.free() == [(1, "c")]
    assert slots.resume("a")
    assert not slots.resume("a")
    assert {row[0] for row in slots.free()} == {2, 1}


@pytest.mark.parametrize(
    ("groups", "shares"),
    [
        ([(8, ["a"])], [[(4, ["a"])], [(4, ["a"])]]),
        ([(3, ["a"]), (1, ["b"])], [[(2, ["a"]), (1, ["b"])], [(1, ["a"])]]),
        ([(1, ["a"])], [[(1, ["a"])]]),
        ([], [[]]),
    ],
)
def test_halves_share_out_every_slot_once(groups, shares):
    """Two consumers together hold what one would; none where there is nothing to share."""
    assert halves(groups) == shares
