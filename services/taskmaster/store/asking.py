"""How a call is put to the server: as a function that it keeps, else as a script. Written once for threads and event loops; no I/O here."""

from __future__ import annotations

import time
from collections.abc import Generator
from typing import Any

from redis.exceptions import NoScriptError, ResponseError

from taskmaster.store.call import Call, meta_key
from taskmaster.store.faults import Action, classify, is_refused_function, is_unloaded
from taskmaster.store.scripts import Function

__all__ = ["Asking", "Ways", "asking"]

#: Yields commands, is sent the reply to each or thrown the error reply, and returns what the call answered.
Asking = Generator[tuple[Any, ...], Any, Any]
#: Functions of one verb that other releases may have left, before they are cleared away. Who still wants one loads it again.
OTHERS_KEPT = 32
#: So long a server that would not take a function gets scripts.
REST_S = 60.0


class Ways:
    """Whether a server takes functions, as far as we know; for all connections to it, and any thread."""

    __slots__ = ("_rests_until",)

    def __init__(self) -> None:
        self._rests_until = 0.0

    @property
    def are_open(self) -> bool:
        """Whether a function may be tried."""
        return time.monotonic() >= self._rests_until

    def rest(self) -> None:
        """It would not take one: by its access rules, for want of the command or of memory, or it lost it at once. Ask later."""
        self._rests_until = time.monotonic() + REST_S


def asking(call: Call[Any], now: int | str, ways: Ways) -> Asking:
    """The commands that run *call*, once: one after the other until one has.

    A function is loaded by whoever misses it. A server that does not take it gets the script, which does the same and costs it more: it
    makes all that the script declares anew for each call.
    """
    script = call.script
    tail = (1, meta_key(call.partition), *call.args, now)
    if script.function is not None and ways.are_open:
        try:
            return (yield ("FCALL", script.function.name, *tail))
        except ResponseError as error:
            if not is_refused_function(error):
                raise
            is_missing = is_unloaded(error)
        if is_missing and (yield from _load(script.function)):
            try:
                return (yield ("FCALL", script.function.name, *tail))
            except ResponseError as error:
                if not is_refused_function(error):
                    raise
        ways.rest()  # nothing ran
    try:
        return (yield ("EVALSHA", script.sha, *tail))
    except NoScriptError:
        return (yield ("EVAL", script.text, *tail))  # nothing ran: safe to send whole


def _load(function: Function) -> Generator[tuple[Any, ...], Any, bool]:
    """Whether the server took *function*."""
    try:
        yield ("FUNCTION", "LOAD", "REPLACE", function.code)
    except ResponseError as error:
        if classify(error) in (Action.RESEND, Action.RECONNECT):
            raise
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
