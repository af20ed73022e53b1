"""How a call is put to the server: as a function that it keeps, else as a script. Written once for threads and event loops; no I/O here."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from redis.exceptions import NoScriptError, ResponseError

from taskmaster.store.call import Call, meta_key
from taskmaster.store.faults import Action, classify, is_denied, is_unloaded
from taskmaster.store.scripts import Function

__all__ = ["Asking", "Ways", "asking"]

#: Yields commands, is sent the reply to each or thrown the error reply, and returns what the call answered.
Asking = Generator[tuple[Any, ...], Any, Any]
#: Functions of one verb that other releases may have left, before they are cleared away. Who still wants one loads it again.
OTHERS_KEPT = 4


class Ways:
    """What a server was found to take.

    Attributes:
        keeps_functions: false once it has refused them, by its access rules or for want of the command.
    """

    __slots__ = ("keeps_functions",)

    def __init__(self) -> None:
        self.keeps_functions = True


def asking(call: Call[Any], now: int | str, ways: Ways) -> Asking:
    """The commands that run *call*, once: one after the other until one has.

    A function is loaded by whoever misses it. A server that takes none gets the script, which does the same and costs it more: it makes
    all that the script declares anew for each call.
    """
    script = call.script
    tail = (1, meta_key(call.partition), *call.args, now)
    function = script.function
    if function is not None and ways.keeps_functions:
        try:
            return (yield ("FCALL", function.name, *tail))
        except ResponseError as error:  # by these two, nothing ran
            ways.keeps_functions = not is_denied(error)
            if ways.keeps_functions and not is_unloaded(error):
                raise
        if ways.keeps_functions and (yield from _load(function, ways)):
            return (yield ("FCALL", function.name, *tail))
    try:
        return (yield ("EVALSHA", script.sha, *tail))
    except NoScriptError:
        return (yield ("EVAL", script.text, *tail))  # nothing ran: safe to send whole


def _load(function: Function, ways: Ways) -> Generator[tuple[Any, ...], Any, bool]:
    """Whether the server has *function* now."""
    try:
        yield ("FUNCTION", "LOAD", "REPLACE", function.code)
    except ResponseError as error:
        action = classify(error)
        if action in (Action.RESEND, Action.RECONNECT):
            raise
        # Short of memory or disk, it may take it another time.
        ways.keeps_functions = action is Action.REJECT and not is_denied(error)
        return False
    verb = function.name.rpartition("_")[0]
    try:
        found = yield ("FUNCTION", "LIST", "LIBRARYNAME", f"{verb}_*")
        others = [row[1] for row in found if row[1] != function.name.encode()]
        for other in others if len(others) > OTHERS_KEPT else ():
            yield ("FUNCTION", "DELETE", other)
    except ResponseError:
        pass  # it may not, or somebody else does
    return True
