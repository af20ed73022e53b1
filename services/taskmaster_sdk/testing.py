"""Running a handler in a test, without a store, a worker or the host. Import it in tests only.

result = run(welcome_email, {"email": "albert@example.com", "name": "Albert"})
assert result.outcome is None
assert result.value["delivered"] == "outbox"
"""

from __future__ import annotations

import asyncio
import dataclasses
import enum
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, time
from time import monotonic
from typing import Any, Literal, Union
from uuid import UUID

from taskmaster_sdk.artifacts import Shelf
from taskmaster_sdk.context import JobContext
from taskmaster_sdk.effects import Reservation
from taskmaster_sdk.jobs import Job
from taskmaster_sdk.outcomes import Outcome

__all__ = ["Ledger", "Result", "Shelf", "convert", "run"]


@dataclass(frozen=True, slots=True)
class Result:
    """How one attempt ended.

    Attributes:
        value: what the handler returned.
        outcome: the word that it raised (`Retry`, `Fatal`, `Discard`, `Cancelled`), or None. Other exceptions pass through `run`.
        progress: every (fraction, note) it reported, in order.
        lines: every (level, text) it logged, in order, whatever the level.
    """

    value: Any = None
    outcome: Outcome | None = None
    progress: list[tuple[float, str]] = field(default_factory=list)
    lines: list[tuple[int, str]] = field(default_factory=list)


class Ledger:
    """Effects kept in memory, by the host's rules. Hand the same one to several `run`s to see what a second attempt or a replay does.

    Attributes:
        effects: effect key -> (`reserved` or `done`, licence, result as JSON).
    """

    def __init__(self) -> None:
        self.effects: dict[str, tuple[Literal["reserved", "done"], str, bytes]] = {}
        self._calls = 0

    def reserve(self, effect: str, name: str, key: str, again: bool) -> Reservation:  # noqa: ARG002
        """As `Guards.reserve`."""
        held = self.effects.get(effect)
        if held is not None and held[0] == "done":
            return Reservation("done", result=held[2])
        if held is not None and not again:
            return Reservation("unknown")
        self._calls += 1
        licence = str(self._calls)
        self.effects[effect] = ("reserved", licence, b"")
        return Reservation("ok", licence)

    def permit(self) -> None:
        """As `Guards.permit`."""

    def settle(self, effect: str, licence: str, happened: bool, result: bytes) -> None:
        """As `Guards.settle`."""
        if happened:
            self.effects[effect] = ("done", licence, result)
        else:
            del self.effects[effect]


def run(
    job: Job,
    payload: Any,
    *,
    attempt: int = 1,
    max_attempts: int | None = None,
    job_id: str = "00000000-0000-7000-8000-000000000001",
    root_id: str | None = None,
    timeout_s: float | None = None,
    cancelled: bool = False,
    on_progress: Callable[[JobContext, float, str], None] | None = None,
    ledger: Ledger | None = None,
    fallback: bool = False,
    shelf: Shelf | None = None,
) -> Result:
    """Run one attempt of *job* and say how it ended. An `async def` handler runs on an event loop of its own.

    Args:
        job: what `@job` made.
        payload: JSON data, which becomes what the handler's annotation asks for; or that already.
        attempt: 1 for the first.
        max_attempts: executions at most; None takes the job's.
        job_id: as the handler sees it.
        root_id: the same for a replayed job as for its first; None is *job_id*.
        timeout_s: seconds to the deadline in the context, which is not enforced; None takes the job's.
        cancelled: whether somebody has asked to cancel before the handler begins.
        on_progress: called at each report of progress, say to cancel half-way.
        ledger: of effects; None is a new one.
        shelf: of artifacts; None is a new one.
        fallback: whether the breaker of its dependency is open: the job's fallback runs, if it has one.

    Raises:
        TypeError, ValueError: the payload does not fit its annotation.
        Exception: whatever the handler raises besides the SDK's words.
    """
    reports: list[tuple[float, str]] = []

    def report(context: JobContext, fraction: float, note: str) -> None:
        reports.append((fraction, note))
        if on_progress is not None:
            on_progress(context, fraction, note)

    lines: list[tuple[int, str]] = []
    effects = Ledger() if ledger is None else ledger
    context = JobContext(
        job_id=job_id,
        type=job.name,
        queue=job.queue,
        attempt=attempt,
        max_attempts=job.attempts if max_attempts is None else max_attempts,
        root_id=job_id if root_id is None else root_id,
        deadline=monotonic() + (job.timeout_s if timeout_s is None else timeout_s),
        report=report,
        guards=lambda _: effects,
        artifacts=Shelf() if shelf is None else shelf,
        keep=lambda _, level, text: lines.append((level, text)),
        keep_from=0,
    )
    if cancelled:
        context.request_cancel()
    argument = convert(payload, job.payload)
    fn = job.fallback if fallback and job.fallback is not None else job.fn
    try:
        value = asyncio.run(fn(argument, context)) if job.is_async else fn(argument, context)
    except Outcome as outcome:
        return Result(None, outcome, reports, lines)
    return Result(value, None, reports, lines)


def convert(value: Any, wanted: Any, path: str = "payload") -> Any:
    """JSON data as the annotation *wanted* has it, near enough to the host's own decoder for a test.

    Knows dataclasses, lists, tuples, sets, dicts, unions, `Literal`, `Annotated`, enums, dates, UUIDs and the plain types. Unknown fields
    are ignored, as the host does. Anything else is passed on untouched.

    Raises:
        TypeError, ValueError: it does not fit; the message says where.
    """
    origin, args = typing.get_origin(wanted), typing.get_args(wanted)
    if wanted is Any:
        return value
    if origin is typing.Annotated:
        return convert(value, args[0], path)
    if origin is Literal:
        return _checked(value in args, value, path, f"one of {args}")
    if origin in (Union, types.UnionType):
        return _first_fit(value, args, path)
    if dataclasses.is_dataclass(wanted) and isinstance(wanted, type):
        return _dataclass(value, wanted, path)
    if origin is not None:
        return _container(value, origin, args, path)
    if isinstance(wanted, type):
        return _plain(value, wanted, path)
    return value


def _checked(fits: bool, value: Any, path: str, wanted: str) -> Any:
    if not fits:
        raise TypeError(f"{path}: {wanted} is wanted, not {value!r}")
    return value


def _first_fit(value: Any, choices: tuple[Any, ...], path: str) -> Any:
    for choice in choices:
        try:
            return convert(value, choice, path)
        except (TypeError, ValueError):
            continue
    raise TypeError(f"{path}: one of {choices} is wanted, not {value!r}")


def _dataclass(value: Any, wanted: type, path: str) -> Any:
    if isinstance(value, wanted):
        return value
    _checked(isinstance(value, Mapping), value, path, "an object")
    hints = typing.get_type_hints(wanted, include_extras=True)
    given = {}
    for one in dataclasses.fields(wanted):
        if one.init and one.name in value:
            given[one.name] = convert(value[one.name], hints[one.name], f"{path}.{one.name}")
    return wanted(**given)


def _container(value: Any, origin: Any, args: tuple[Any, ...], path: str) -> Any:
    if origin is tuple and not (len(args) == 2 and args[1] is Ellipsis):
        _checked(isinstance(value, list | tuple) and len(value) == len(args), value, path, f"a list of {len(args)}")
        return tuple(convert(item, arg, f"{path}[{i}]") for i, (item, arg) in enumerate(zip(value, args, strict=True)))
    if isinstance(origin, type) and issubclass(origin, Mapping):
        _checked(isinstance(value, Mapping), value, path, "an object")
        return {convert(name, args[0], path): convert(item, args[1], f"{path}.{name}") for name, item in value.items()}
    if isinstance(origin, type) and issubclass(origin, typing.Collection):
        _checked(isinstance(value, list | tuple | set | frozenset), value, path, "a list")
        items = [convert(item, args[0], f"{path}[{i}]") for i, item in enumerate(value)]
        return origin(items) if origin in (tuple, set, frozenset) else items
    return value


def _plain(value: Any, wanted: type, path: str) -> Any:
    if isinstance(value, wanted) and not (wanted in (int, float) and isinstance(value, bool)):
        return value
    if wanted is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if wanted in (datetime, date, time) and isinstance(value, str):
        return wanted.fromisoformat(value)
    if issubclass(wanted, enum.Enum) or (wanted is UUID and isinstance(value, str)):
        return wanted(value)
    if wanted in (str, int, float, bool, type(None), dict, list, datetime, date, time, UUID):
        return _checked(False, value, path, "null" if wanted is type(None) else wanted.__name__)
    return value
