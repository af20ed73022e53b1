"""What an error of the client library means for the request that met it.

One table, because the classes overlap in surprising ways: in redis-py read-only, out-of-memory and time-out are no connection errors, but
loading is.
"""

from __future__ import annotations

from enum import Enum

import redis
from redis import exceptions as rx

from taskmaster.errors import StoreDefect, StoreError, StoreRefused, StoreUnavailable

__all__ = ["Action", "classify", "is_denied", "is_refused_function", "is_unloaded", "translate"]


class Action(Enum):
    """What to do with the request."""

    RESEND = "resend the same operation"
    RECONNECT = "drop the connection, find the primary again, resend the same operation"
    REJECT = "the store takes no writes now; nothing was done"
    BUG = "the request or the keys are wrong; repeating it cannot help"


#: First word of an error reply -> what it means. Replies of other kinds are BUG.
_BY_WORD: dict[str, Action] = {
    "LOADING": Action.RESEND,
    "BUSY": Action.RESEND,
    "TRYAGAIN": Action.RESEND,
    "MASTERDOWN": Action.RECONNECT,
    "READONLY": Action.RECONNECT,
    "CLUSTERDOWN": Action.RECONNECT,
    "MOVED": Action.RECONNECT,
    "ASK": Action.RECONNECT,
    "UNBLOCKED": Action.RECONNECT,
    "OOM": Action.REJECT,
    "MISCONF": Action.REJECT,
    "NOREPLICAS": Action.REJECT,
    "NOAUTH": Action.REJECT,
    "WRONGPASS": Action.REJECT,
    "NOPERM": Action.REJECT,
    "DENIED": Action.REJECT,
}
#: redis-py cuts the first word off some replies and says it by the class.
_BY_CLASS: tuple[tuple[type[Exception], Action], ...] = (
    (rx.BusyLoadingError, Action.RESEND),
    (rx.ReadOnlyError, Action.RECONNECT),
    (rx.MasterDownError, Action.RECONNECT),
    (rx.ClusterDownError, Action.RECONNECT),
    (rx.AskError, Action.RECONNECT),  # and MovedError
    (rx.TryAgainError, Action.RESEND),
    (rx.OutOfMemoryError, Action.REJECT),
    (rx.AuthenticationError, Action.REJECT),
    (rx.AuthenticationWrongNumberOfArgsError, Action.REJECT),
    (rx.AuthorizationError, Action.REJECT),
    (rx.NoPermissionError, Action.REJECT),
    (rx.MaxConnectionsError, Action.RESEND),
    (rx.InvalidResponse, Action.RECONNECT),
    (redis.TimeoutError, Action.RECONNECT),
    (redis.ConnectionError, Action.RECONNECT),
    (TimeoutError, Action.RECONNECT),
    (OSError, Action.RECONNECT),
    (EOFError, Action.RECONNECT),
)


def classify(error: BaseException) -> Action:
    """What *error*, raised by redis-py or a socket, means for the request that met it."""
    words = str(error).split(" ", 1)
    if words[0] in _BY_WORD:
        return _BY_WORD[words[0]]
    for kind, action in _BY_CLASS:
        if isinstance(error, kind):
            return action
    return Action.BUG


def is_denied(error: BaseException) -> bool:
    """Whether the server refuses this command to us, or has taken it away; it would not help to ask again."""
    return isinstance(error, rx.NoPermissionError) or str(error).lower().startswith(("noperm", "unknown command", "err unknown command"))


def is_unloaded(error: BaseException) -> bool:
    """Whether the server does not have the function that was called: nothing ran."""
    return str(error).removeprefix("ERR ") == "Function not found"


def is_refused_function(error: BaseException) -> bool:
    """Whether the server did not begin the function that was called: it has none of that name, or does not take the command from us."""
    return is_unloaded(error) or is_denied(error) or "fcall" in str(error).lower()


def translate(error: BaseException, what: str) -> StoreError:
    """The error of ours that says the same; *what* names the request."""
    action = classify(error)
    text = f"{what}: {type(error).__name__}: {error}"
    if action is Action.BUG:
        return StoreDefect(f"{text}. A defect, or foreign keys in the store: see `taskmaster doctor`")
    if action is Action.REJECT:
        return StoreRefused(f"{text}. The store refuses; nothing was done. Check its memory, disk and access rules")
    return StoreUnavailable(f"{text}. The store did not answer; the request may have taken effect and may be repeated")
