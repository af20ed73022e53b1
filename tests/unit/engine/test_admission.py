"""What is shed under pressure: low first, critical never, each from its own threshold on."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskmaster.engine.admission import Pressure, Thresholds, is_calm, is_filling, shed
from taskmaster.errors import Overloaded, StoreFilling

RULES = Thresholds(memory_percent=70, waiting=100, age_ms=1_000)
RANKS = {"critical": 0, "high": 1, "normal": 2, "low": 3}


def refused(pressure: Pressure, thresholds: Thresholds = RULES, queue: str = "q") -> set[str]:
    return {name for name, rank in RANKS.items() if shed(rank, queue, pressure, thresholds) is not None}


@pytest.mark.parametrize(
    ("pressure", "names"),
    [
        (Pressure(), set()),
        (Pressure(0.69), set()),
        (Pressure(0.70), {"low"}),
        (Pressure(0.79), {"low"}),
        (Pressure(0.80), {"low", "normal"}),
        (Pressure(0.90), {"low", "normal", "high"}),
        (Pressure(1.0), {"low", "normal", "high"}),
        (Pressure(None, {"q": 99}), set()),
        (Pressure(None, {"q": 100}), {"low"}),
        (Pressure(None, {"q": 200}), {"low", "normal"}),
        (Pressure(None, {"q": 400}), {"low", "normal", "high"}),
        (Pressure(None, {"other": 400}), set()),
        (Pressure(None, {}, {"q": 1_000}), {"low"}),
        (Pressure(None, {}, {"q": 10**9}), {"low", "normal", "high"}),
    ],
)
def test_who_is_shed(pressure: Pressure, names: set[str]) -> None:
    """By memory in thirds of what is left, by length and age of the own queue at once, twice, four times the threshold."""
    assert refused(pressure) == names


def test_rules_can_be_off() -> None:
    """0: never by that rule, however bad it is."""
    assert refused(Pressure(1.0, {"q": 10**9}, {"q": 10**9}), Thresholds(0, 0, 0)) == set()


def test_the_refusal_says_what_was_seen() -> None:
    """Rule, figures, and when to come back; the store's own trouble is told apart from a queue's."""
    memory, length = shed(3, "q", Pressure(0.75), RULES), shed(2, "q", Pressure(None, {"q": 250}), RULES)

    assert isinstance(memory, StoreFilling)
    assert memory.facts == {"rule": "memory", "observed": 0.75, "limit": 0.7, "retryAfterS": 5, "queue": "q", "priority": "low"}
    assert isinstance(length, Overloaded)
    assert length.facts == {"rule": "waiting", "observed": 250, "limit": 200, "retryAfterS": 10, "queue": "q", "priority": "normal"}


pressures = st.builds(
    Pressure,
    st.none() | st.floats(0, 1.5),
    st.dictionaries(st.sampled_from("qr"), st.integers(0, 10**7)),
    st.dictionaries(st.sampled_from("qr"), st.integers(0, 10**9)),
)
thresholds = st.builds(Thresholds, st.integers(0, 99), st.integers(0, 10**7), st.integers(0, 10**9))


@given(pressures, thresholds, st.sampled_from("qr"))
def test_shedding_is_monotone_in_priority(pressure: Pressure, rules: Thresholds, queue: str) -> None:
    """Whoever is shed, everybody below is shed too; critical never is."""
    is_shed = [shed(rank, queue, pressure, rules) is not None for rank in range(4)]

    assert is_shed == sorted(is_shed)
    assert not is_shed[0]


@given(pressures, thresholds, st.floats(0, 0.5), st.integers(0, 10**6))
def test_shedding_is_monotone_in_pressure(pressure: Pressure, rules: Thresholds, more: float, jobs: int) -> None:
    """More pressure never lets in what less of it kept out."""
    share = None if pressure.memory_share is None else pressure.memory_share + more
    worse = Pressure(share, {q: pressure.waiting.get(q, 0) + jobs for q in "qr"}, {q: pressure.oldest_ms.get(q, 0) + jobs for q in "qr"})

    assert refused(pressure, rules) <= refused(worse, rules)


@given(pressures, thresholds)
def test_it_is_calm_when_nothing_is_shed(pressure: Pressure, rules: Thresholds) -> None:
    """Whatever queue it is in."""
    assert is_calm(pressure, rules) == (not any(refused(pressure, rules, queue) for queue in "qr"))


@given(st.floats(0, 1.5), thresholds)
def test_readiness_turns_when_only_critical_is_left_and_before_the_store_refuses(share: float, rules: Thresholds) -> None:
    """Not while high priority is taken; surely when the memory is full."""
    turned = is_filling(Pressure(share), rules)

    if turned and rules.memory_percent:
        assert shed(1, "q", Pressure(share), rules) is not None
    if share >= 1:
        assert turned
