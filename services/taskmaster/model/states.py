"""The states of a job and which of them may follow which."""

from __future__ import annotations

from typing import Final, Literal, get_args

__all__ = ["ALLOWED", "CODE", "PRIORITIES", "STATES", "TERMINAL", "Priority", "State", "state_of"]

State = Literal["waiting", "delayed", "active", "completed", "failed", "cancelled", "blocked"]
Priority = Literal["critical", "high", "normal", "low"]

STATES: Final[tuple[State, ...]] = get_args(State)
TERMINAL: Final[frozenset[State]] = frozenset({"completed", "failed", "cancelled"})
PRIORITIES: Final[tuple[Priority, ...]] = get_args(Priority)

#: As the store writes them: one letter.
CODE: Final[dict[State, str]] = {
    "waiting": "w",
    "delayed": "d",
    "active": "a",
    "completed": "c",
    "failed": "f",
    "cancelled": "x",
    "blocked": "b",
}
_STATE: Final[dict[str, State]] = {code: state for state, code in CODE.items()}

#: Every step a job may take. Terminal states absorb.
ALLOWED: Final[dict[State, frozenset[State]]] = {
    "waiting": frozenset({"active", "cancelled"}),
    "delayed": frozenset({"waiting", "cancelled"}),
    "active": frozenset({"completed", "failed", "cancelled", "delayed", "waiting"}),
    "blocked": frozenset({"waiting", "delayed", "cancelled"}),
    "completed": frozenset(),
    "failed": frozenset(),
    "cancelled": frozenset(),
}


def state_of(code: str) -> State:
    """The state that the store's letter stands for.

    Raises:
        KeyError: no such letter.
    """
    return _STATE[code]
