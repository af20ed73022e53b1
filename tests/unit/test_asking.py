"""How a call is put to servers of all kinds: which commands, in which order, and what is remembered."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from redis.exceptions import NoPermissionError, NoScriptError, OutOfMemoryError, ReadOnlyError, ResponseError

from taskmaster.store import upkeep
from taskmaster.store.asking import OTHERS_KEPT, REST_S, Ways, asking
from taskmaster.store.call import Call
from taskmaster.store.scripts import Function, Script

OURS = "taskmaster_cycle_aaaaaaaaaaaa"
CALL = Call(Script("cycle", b"text", "sha", Function(OURS, b"code")), 0, ("x",), lambda raw: raw)


def carry(ways: Ways, said: Callable[[tuple[Any, ...]], Any], call: Call[Any] = CALL) -> tuple[Any, list[str]]:
    """What the call answered, and the commands, when a server says *said*."""
    talk, commands = asking(call, 7, ways), []
    try:
        command = next(talk)
        while True:
            commands.append(" ".join(str(word) for word in command[:2]))
            try:
                reply = said(command)
            except ResponseError as error:
                command = talk.throw(error)
            else:
                command = talk.send(reply)
    except StopIteration as end:
        return end.value, commands


def test_a_function_that_is_there_is_called() -> None:
    def said(command: tuple[Any, ...]) -> Any:
        assert command == ("FCALL", OURS, 1, "tm:{0}:meta", "x", 7)
        return "done"

    assert carry(Ways(), said) == ("done", [f"FCALL {OURS}"])


def test_a_function_that_is_not_there_is_loaded() -> None:
    """It is put into the place of one of its name, which somebody may have loaded a moment ago."""
    there = []

    def said(command: tuple[Any, ...]) -> Any:
        if command[0] == "FCALL" and not there:
            raise ResponseError("Function not found")
        if command[:2] == ("FUNCTION", "LOAD"):
            there.append(command[2:])
        return [] if command[:2] == ("FUNCTION", "LIST") else "done"

    assert carry(Ways(), said) == ("done", [f"FCALL {OURS}", "FUNCTION LOAD", "FUNCTION LIST", f"FCALL {OURS}"])
    assert there == [("REPLACE", b"code")]


@pytest.mark.parametrize(("others", "is_cleared"), [(OTHERS_KEPT, False), (OTHERS_KEPT + 1, True)])
def test_whoever_loads_one_clears_many_others_away(others: int, is_cleared: bool) -> None:
    """Those of the same verb that other releases left. That one of them went meanwhile is no matter."""
    names = [f"taskmaster_cycle_{n:012}".encode() for n in range(others)]
    deleted, is_loaded = [], []

    def said(command: tuple[Any, ...]) -> Any:
        if command[0] == "FCALL" and not is_loaded:
            raise ResponseError("ERR Function not found")
        if command[:2] == ("FUNCTION", "LOAD"):
            is_loaded.append(True)
        if command[:2] == ("FUNCTION", "LIST"):
            assert command[2:] == ("LIBRARYNAME", "taskmaster_cycle_*")
            return [[b"library_name", name, b"engine", b"LUA", b"functions", []] for name in [OURS.encode(), *names]]
        if command[:2] == ("FUNCTION", "DELETE"):
            deleted.append(command[2])
            if len(deleted) == others:
                raise ResponseError("Library not found")
        return "done"

    assert carry(Ways(), said)[0] == "done"
    assert deleted == (names if is_cleared else [])


REFUSALS = [
    NoPermissionError("no permissions to run the 'fcall' command"),
    ResponseError("unknown command 'FCALL', with args beginning with: "),
    ResponseError("command FCALL is not supported here"),
]


@pytest.mark.parametrize("refusal", REFUSALS)
def test_a_server_that_takes_no_functions_gets_scripts_for_a_while(refusal: ResponseError, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is asked again later: access rules change, and stores are replaced."""
    ways = Ways()

    def said(command: tuple[Any, ...]) -> Any:
        if command[0] == "FCALL":
            raise refusal
        if command[0] == "EVALSHA":
            raise NoScriptError("No matching script")
        assert command == ("EVAL", b"text", 1, "tm:{0}:meta", "x", 7)
        return "done"

    assert carry(ways, said) == ("done", [f"FCALL {OURS}", "EVALSHA sha", "EVAL b'text'"])
    assert carry(ways, said) == ("done", ["EVALSHA sha", "EVAL b'text'"])

    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + REST_S)
    assert carry(ways, said)[1][0] == f"FCALL {OURS}"


@pytest.mark.parametrize(
    "refusal",
    [
        NoPermissionError("no permissions to run the 'function|load' command"),
        ResponseError("Error compiling function"),
        OutOfMemoryError("command not allowed when used memory > 'maxmemory'."),
        ResponseError("MISCONF Errors writing to the AOF file"),
    ],
)
def test_what_cannot_be_loaded_runs_as_a_script(refusal: ResponseError) -> None:
    """A full server is not sent the whole text with each call."""
    ways = Ways()

    def said(command: tuple[Any, ...]) -> Any:
        if command[0] == "FCALL":
            raise ResponseError("Function not found")
        if command[0] == "FUNCTION":
            raise refusal
        return "done"

    assert carry(ways, said) == ("done", [f"FCALL {OURS}", "FUNCTION LOAD", "EVALSHA sha"])
    assert carry(ways, said) == ("done", ["EVALSHA sha"])


def test_a_function_that_is_gone_as_soon_as_it_is_there_runs_as_a_script() -> None:
    """Somebody flushes them just then: nothing ran, and the call must not fail for that."""

    def said(command: tuple[Any, ...]) -> Any:
        if command[0] == "FCALL":
            raise ResponseError("Function not found")
        return [] if command[:2] == ("FUNCTION", "LIST") else "done"

    assert carry(Ways(), said) == ("done", [f"FCALL {OURS}", "FUNCTION LOAD", "FUNCTION LIST", f"FCALL {OURS}", "EVALSHA sha"])


@pytest.mark.parametrize("when", ["FCALL", "FUNCTION"])
def test_a_trouble_that_passes_is_the_callers(when: str) -> None:
    """It goes on with the same call on another connection: nothing is decided by it."""
    ways = Ways()

    def said(command: tuple[Any, ...]) -> Any:
        raise ReadOnlyError("You can't write against a read only replica.") if command[0] == when else ResponseError("Function not found")

    with pytest.raises(ReadOnlyError):
        carry(ways, said)
    assert ways.are_open


def test_a_function_that_fails_is_not_run_again() -> None:
    """As a script it would do all again."""
    asked = []

    def said(command: tuple[Any, ...]) -> Any:
        asked.append(command[0])
        raise ResponseError("WRONGTYPE Operation against a key holding the wrong kind of value")

    with pytest.raises(ResponseError, match="WRONGTYPE"):
        carry(Ways(), said)
    assert asked == ["FCALL"]


def test_other_scripts_are_never_functions() -> None:
    assert carry(Ways(), lambda _: "done", upkeep.promote(0))[1][0].startswith("EVALSHA ")
