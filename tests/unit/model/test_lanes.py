"""Names of lanes."""

from __future__ import annotations

import re
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from taskmaster.model.lanes import KEY_MAX, key_name, lane_name, split

KEYS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=KEY_MAX)
NAMES = st.from_regex(r"[a-z0-9][a-z0-9._-]{0,63}", fullmatch=True)
LIMITS = st.lists(NAMES, max_size=4)


def test_most_jobs_stand_in_the_default_lane() -> None:
    """A job with neither key nor limiters of its own has no lane's name."""
    assert lane_name(None) == lane_name("") == lane_name(None, ()) == ""


@given(st.none() | KEYS, LIMITS, st.randoms(use_true_random=False))
def test_order_of_limits_makes_no_other_lane(key: str | None, limits: list[str], random: Any) -> None:
    """The same limiters in any order, or one named twice, are one lane."""
    shuffled = [*limits, *limits[:1]]
    random.shuffle(shuffled)

    assert lane_name(key, shuffled) == lane_name(key, limits)


@given(KEYS)
def test_a_key_is_told_apart_and_safe_in_a_name(key: str) -> None:
    """What a key becomes has none of the characters that names of lanes, units and instances are divided by."""
    name = key_name(key)

    assert re.fullmatch(r"[A-Za-z0-9._@-]{1,64}", name)
    assert name != "-"
    assert name == key or len(name) == 22


@given(st.tuples(st.none() | KEYS, LIMITS), st.tuples(st.none() | KEYS, LIMITS))
def test_other_jobs_have_other_lanes(one: Any, other: Any) -> None:
    """Two lanes are the same only for the same key and the same set of limiters."""
    is_same = (one[0], set(one[1])) == (other[0], set(other[1]))

    assert (lane_name(*one) == lane_name(*other)) == is_same


@given(st.none() | KEYS, LIMITS)
def test_a_lane_says_what_it_is_made_of(key: str | None, limits: list[str]) -> None:
    """Key as the store spells it, and limiters, come out of the name again."""
    assert split(lane_name(key, limits)) == (key_name(key) if key else "", tuple(sorted(set(limits))))
