"""Effects: what a handler does to the world outside, under a guard that outlives attempts, crashes and replays.

    with ctx.once("smtp", key=payload.email) as effect:
        if effect.is_new:
            effect.result = send(mail, message_id=effect.key)

Leaving the block normally says that the effect happened. Leaving it by an exception says that nobody knows, unless the exception is one of
`unless`: those say that it surely did not. What the next attempt, or a replay, then meets is decided by the mode.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from hashlib import sha256
from types import TracebackType
from typing import Any, Literal, NamedTuple, Protocol, Self

from taskmaster_sdk.outcomes import EffectUnknown

__all__ = ["Effect", "Guards", "Mode", "Reservation", "effect_key"]

Mode = Literal["at_most_once", "at_least_once", "verify"]
MODES = ("at_most_once", "at_least_once", "verify")
#: A result is kept for later attempts up to this many bytes of JSON.
RESULT_MAX = 65_536
NAME_MAX, KEY_MAX = 64, 1_000


class Reservation(NamedTuple):
    """The host's answer to a request for an effect.

    Attributes:
        status: ok: licensed; done: it has happened; unknown: an attempt that is not this one asked before, and was not heard of since.
        licence: what `Guards.settle` takes; only with ok.
        result: what was kept when it happened, JSON; only with done.
    """

    status: Literal["ok", "done", "unknown"]
    licence: str = ""
    result: bytes = b""


class Guards(Protocol):
    """The host's side. Plain data in and out, so that it works over a pipe. Blocking; usable from any thread.

    All raise `LeaseLost` when the attempt is no longer the job's, and an error of the host's own when the store cannot be asked.
    """

    def reserve(self, effect: str, name: str, key: str, again: bool) -> Reservation:
        """Ask for the licence to do *effect* (`effect_key`). *again*: take it over from an attempt that was not heard of since."""

    def permit(self) -> None:
        """Answer if the job is this attempt's now."""

    def settle(self, effect: str, licence: str, happened: bool, result: bytes) -> None:
        """Say that it happened, and what came of it (JSON); or that it surely did not."""


def effect_key(root_id: str, name: str, key: str) -> str:
    """The effect's name for the outside world, 32 hexadecimal digits: the same over all attempts and replays of one job.

    Made for providers' own idempotency keys, Message-IDs and webhook ids.
    """
    return sha256(json.dumps([root_id, name, key]).encode()).hexdigest()[:32]


class Effect:
    """One effect of one attempt: a context manager, for `with` and `async with`.

    Attributes:
        name: which effect of the handler, `smtp`.
        key: stable over attempts and replays; hand it to the provider as its idempotency key.
        is_new: inside the block: whether it is this attempt's to do. False: it has happened, `result` is what came of it.
        result: JSON-serialisable. Set it inside the block.
    """

    __slots__ = ("_guards", "_licence", "_mode", "_raw_key", "_unless", "_verify", "is_new", "key", "name", "result")

    def __init__(
        self,
        guards: Guards,
        root_id: str,
        name: str,
        key: str,
        mode: Mode,
        verify: Callable[[Effect], bool | None] | None,
        unless: tuple[type[BaseException], ...],
    ) -> None:
        if not name or len(name) > NAME_MAX or len(key) > KEY_MAX:
            raise ValueError(f"an effect's name has 1 to {NAME_MAX} characters and its key at most {KEY_MAX}")
        if mode not in MODES:
            raise ValueError(f"effect {name}: mode {mode!r}: use one of {', '.join(MODES)}")
        if (mode == "verify") != (verify is not None):
            raise ValueError(f"effect {name}: a `verify` callback goes with mode 'verify', and only with it")
        self.name = name
        self.key = effect_key(root_id, name, key)
        self.is_new = False
        self.result: Any = None
        self._guards = guards
        self._raw_key = key
        self._mode = mode
        self._verify = verify
        self._unless = unless
        self._licence = ""

    # ------------------------------------------------------------ in a thread
    def __enter__(self) -> Self:
        """Ask for it.

        Raises:
            EffectUnknown: nobody knows whether it has happened, and the mode does not say what to do then.
            LeaseLost: the job is not this attempt's any more.
        """
        found = self._guards.reserve(self.key, self.name, self._raw_key, self._mode == "at_least_once")
        if found.status == "unknown" and self._verify is not None:
            found = self._verified()
        self._take(found)
        return self

    def __exit__(self, cls: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Say how it went."""
        if self.is_new and (error is None or isinstance(error, self._unless)):
            self._guards.settle(self.key, self._licence, error is None, self._body() if error is None else b"")

    # ------------------------------------------------------------ in a coroutine
    async def __aenter__(self) -> Self:
        """As `with`, without holding up the event loop. A `verify` callback runs on a thread."""
        import asyncio  # here, so that a plugin's import stays light

        return await asyncio.to_thread(self.__enter__)

    async def __aexit__(self, cls: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """As `with`. Cancellation does not keep the word from being said."""
        import asyncio

        await asyncio.shield(asyncio.to_thread(self.__exit__, cls, error, trace))

    # ------------------------------------------------------------
    def _take(self, found: Reservation) -> None:
        if found.status == "unknown":
            raise EffectUnknown(f"an earlier attempt asked for the effect {self.name!r} and was not heard of since: did it happen?")
        self.is_new = found.status == "ok"
        self._licence = found.licence
        if found.result:
            self.result = json.loads(found.result)

    def _verified(self) -> Reservation:
        """Ask the provider. What it says is recorded under a licence of this attempt."""
        assert self._verify is not None
        happened = self._verify(self)
        if happened is None:
            return Reservation("unknown")
        taken = self._guards.reserve(self.key, self.name, self._raw_key, True)
        if taken.status != "ok" or not happened:
            return taken
        body = self._body()
        self._guards.settle(self.key, taken.licence, True, body)
        return Reservation("done", result=body)

    def _body(self) -> bytes:
        """The result as it is kept; nothing when it is not JSON or too large: the effect has happened all the same."""
        if self.result is None:
            return b""
        try:
            body = json.dumps(self.result, allow_nan=False, separators=(",", ":")).encode()
        except (TypeError, ValueError, RecursionError):
            return b""
        return body if len(body) <= RESULT_MAX else b""
