"""The table of states is closed, and terminal states absorb."""

from __future__ import annotations

import pytest

from taskmaster.model.states import ALLOWED, CODE, PRIORITIES, STATES, TERMINAL, state_of


def test_every_state_has_a_letter_of_its_own():
    """Letters and states stand for each other."""
    assert set(CODE) == set(STATES)
    assert len(set(CODE.values())) == len(STATES)
    assert [state_of(CODE[state]) for state in STATES] == list(STATES)


def test_terminal_states_absorb():
    """Nothing follows completed, failed or cancelled, and something follows every other state."""
    assert {state for state in STATES if not ALLOWED[state]} == TERMINAL


def test_steps_lead_to_known_states_and_never_to_oneself():
    """The table names no state that there is not, and no step that is none."""
    assert set(ALLOWED) == set(STATES)
    for state, targets in ALLOWED.items():
        assert targets <= set(STATES)
        assert state not in targets


def test_only_what_runs_can_complete_or_fail():
    """A job that was never handed to a worker cannot have an outcome but cancelled."""
    for end in ("completed", "failed"):
        assert {state for state in STATES if end in ALLOWED[state]} == {"active"}


def test_an_unknown_letter_is_an_error():
    """A letter that no state has is not guessed at."""
    with pytest.raises(KeyError):
        state_of("?")


def test_priorities_are_named_from_the_most_urgent():
    """Their place is their number in the store."""
    assert PRIORITIES == ("critical", "high", "normal", "low")
