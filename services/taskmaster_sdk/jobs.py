"""Declaring job types: the `@job` decorator and what it makes."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal, get_type_hints

__all__ = ["NAME", "Backoff", "Job", "job"]

#: What a job type or a queue may be called.
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")

#: Limiters that one job type may name.
LIMITS_MAX = 8
_KINDS = ("exponential", "fixed", "linear", "list")
#: 31 days: nothing waits longer between two attempts.
_LONGEST_MS = 31 * 86_400_000


@dataclass(frozen=True, slots=True)
class Backoff:
    """How long to wait before the next attempt.

    After failure n = 1, 2, … the delay is: fixed: d; linear: d*n; exponential: d*2^(n-1); list: delays_ms[n-1], the last one repeating;
    then at most max_ms; then shortened by a random share of at most *jitter*.

    Args:
        kind: which rule.
        delay_ms: d, milliseconds, 0 to 31 days.
        max_ms: cap, milliseconds, 0 to 31 days.
        jitter: 0 (exact) to 1.
        delays_ms: only for kind `list`, 1 to 100 of them, milliseconds each.

    Raises:
        ValueError: a value out of its range.
    """

    kind: Literal["exponential", "fixed", "linear", "list"] = "exponential"
    delay_ms: int = 1_000
    max_ms: int = 3_600_000
    jitter: float = 0.0
    delays_ms: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what the engine could not carry out, where its author sees it."""
        if self.kind not in _KINDS:
            raise ValueError(f"backoff kind {self.kind!r}: use one of {', '.join(_KINDS)}")
        object.__setattr__(self, "delays_ms", tuple(self.delays_ms))
        for delay in (self.delay_ms, self.max_ms, *self.delays_ms):
            if not isinstance(delay, int) or not 0 <= delay <= _LONGEST_MS:
                raise ValueError(f"backoff delay {delay!r}: whole milliseconds are meant, 0 to {_LONGEST_MS} (31 days)")
        if not 0 <= self.jitter <= 1:
            raise ValueError(f"backoff jitter {self.jitter!r}: 0 to 1 is meant")
        if (self.kind == "list") != bool(self.delays_ms) or len(self.delays_ms) > 100:
            raise ValueError("backoff delays_ms: 1 to 100 entries for kind 'list', none for the others")


@dataclass(frozen=True, slots=True)
class Job:
    """One job type: its handler and its defaults. Made by `job`; plugins hand them over in `register_jobs`.

    Attributes:
        name: the type on the wire.
        fn: handler, sync or async: (payload, ctx) -> JSON-serialisable result or None.
        payload: type of the payload: a dataclass, TypedDict, or plain annotation.
        queue: where its jobs go unless the submitter says otherwise.
        attempts: executions at most, 1..100.
        backoff: between attempts.
        timeout_s: how long one attempt may take, seconds.
        fatal: exception classes that no retry can mend.
        key_required: whether an idempotency key must be given; None leaves it to the server's setting.
        description: shown in the catalogue.
        example: a payload that is valid.
        isolation: thread: in the worker process; process: in a child process of its own, which can be killed.
        memory_mb: with process isolation: how much more memory than at its start the child may take, megabytes; None: no limit.
        limits: names of limiters that each attempt needs, whoever runs it; what they allow is set where TaskMaster is operated.
    """

    name: str
    fn: Callable[..., Any]
    payload: Any
    queue: str = "default"
    attempts: int = 5
    backoff: Backoff = field(default_factory=Backoff)
    timeout_s: float = 60.0
    fatal: tuple[type[BaseException], ...] = ()
    key_required: bool | None = None
    description: str = ""
    example: Any = None
    isolation: Literal["thread", "process"] = "thread"
    memory_mb: int | None = None
    limits: tuple[str, ...] = ()

    @property
    def is_async(self) -> bool:
        """Whether the handler runs on the event loop."""
        return inspect.iscoroutinefunction(self.fn) or inspect.iscoroutinefunction(getattr(self.fn, "__call__", None))  # noqa: B004


def job(
    name: str,
    *,
    queue: str = "default",
    attempts: int = 5,
    backoff: Backoff | None = None,
    timeout_s: float = 60.0,
    fatal: tuple[type[BaseException], ...] = (),
    key_required: bool | None = None,
    example: Any = None,
    isolation: Literal["thread", "process"] = "thread",
    memory_mb: int | None = None,
    limits: Iterable[str] = (),
) -> Callable[[Callable[..., Any]], Job]:
    """Make a function `(payload, ctx)` the handler of job type *name*. Works on functions and on bound methods.

    The annotation of the first parameter is the payload's type; without one any JSON object is taken. The first paragraph of the
    docstring becomes the description.

    With *isolation* "process" each attempt runs alone in a child process: what it does to memory, and its end by timeout, crash or
    *memory_mb*, touch nothing else. It costs about 0.3 ms an attempt.

    *limits* names limiters, at most 8, that every job of the type needs: `taskmaster limits put stripe --rate 100 --per-ms 1000` says what
    one allows, over all workers. A name that nobody has given a rule limits nothing.

    Raises:
        ValueError: a name, number or signature that cannot be, with what would do.
    """
    for what, value in (("job type", name), ("queue", queue)):
        if not isinstance(value, str) or not NAME.fullmatch(value):
            raise ValueError(f"{what} {value!r}: use 1 to 64 of a-z 0-9 . _ - and begin with a letter or digit")
    if not isinstance(attempts, int) or not 1 <= attempts <= 100:
        raise ValueError(f"{name}: attempts is {attempts}, allowed are 1 to 100")
    if not 0 < timeout_s <= 86_400:
        raise ValueError(f"{name}: timeout_s is {timeout_s}, allowed are more than 0 and at most 86400")
    if not all(isinstance(cls, type) and issubclass(cls, BaseException) for cls in fatal):
        raise ValueError(f"{name}: fatal is {fatal!r}, a tuple of exception classes is meant")

    if isolation not in ("thread", "process"):
        raise ValueError(f"{name}: isolation is {isolation!r}, allowed are 'thread' and 'process'")
    if memory_mb is not None and (isolation != "process" or type(memory_mb) is not int or not 1 <= memory_mb <= 1_048_576):
        raise ValueError(f"{name}: memory_mb is {memory_mb!r}, allowed are 1 to 1048576, and only with isolation='process'")

    names = tuple(limits) if not isinstance(limits, str) else ()
    if isinstance(limits, str) or len(names) > LIMITS_MAX or not all(isinstance(one, str) and NAME.fullmatch(one) for one in names):
        raise ValueError(f"{name}: limits is {limits!r}, at most {LIMITS_MAX} names are meant: 1 to 64 of a-z 0-9 . _ - each")

    def declare(fn: Callable[..., Any]) -> Job:
        description = " ".join((inspect.getdoc(fn) or "").split("\n\n")[0].split())
        payload = _payload_type(name, fn)
        policy = backoff or Backoff()
        words = (key_required, description, example, isolation, memory_mb, names)
        return Job(name, fn, payload, queue, attempts, policy, timeout_s, tuple(fatal), *words)

    return declare


def _payload_type(name: str, fn: Callable[..., Any]) -> Any:
    """What the first of exactly two positional parameters is annotated with, `Annotated` kept.

    Only that one annotation is evaluated: `ctx: JobContext` may well be imported under TYPE_CHECKING.
    """
    parameters = list(inspect.signature(fn).parameters.values())
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    needed = [p for p in parameters if p.kind is p.KEYWORD_ONLY and p.default is p.empty]
    title = getattr(fn, "__qualname__", repr(fn))
    if len(positional) != 2 or needed:
        given = ", ".join(p.name for p in (*positional, *needed))
        raise ValueError(f"{name}: a handler takes (payload, ctx), {title} takes ({given})")
    annotation = positional[0].annotation
    if annotation is inspect.Parameter.empty:
        return dict[str, Any]
    if not isinstance(annotation, str):
        return annotation
    module = sys.modules.get(getattr(fn, "__module__", None) or "")
    names = getattr(inspect.unwrap(fn), "__globals__", None) or (vars(module) if module is not None else {})
    bearer = type("annotated", (), {"__annotations__": {"payload": annotation}})
    try:
        return get_type_hints(bearer, globalns=names, localns=dict(names), include_extras=True)["payload"]
    except NameError as error:
        raise ValueError(f"{name}: the payload's annotation {annotation!r} of {title} is not known at run time: {error}") from error
