"""Declaring job types: the `@job` decorator and what it makes."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args, get_type_hints

__all__ = ["NAME", "Backoff", "ErrorKey", "Job", "Meaning", "job"]

#: What an exception means for its job.
Meaning = Literal["retry", "fatal", "discard", "dependency_down", "rate_limited"]
#: An exception class, its qualified name (`httpx.ConnectError`), or the HTTP status that it carries: 503, or all of "5xx".
ErrorKey = type[BaseException] | str | int

#: What a job type or a queue may be called.
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")

#: How long one attempt may take when nothing is said, seconds.
TIMEOUT_S = 60.0
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
        dependency: what its handler calls: all types that name it share one circuit breaker; empty: none.
        errors: what exceptions of the handler mean.
        fallback: called instead of the handler while the breaker is open; None: the job waits.
        limits: names of limiters that each attempt needs, whoever runs it; what they allow is set where TaskMaster is operated.
        trace: link: each attempt begins a trace of its own, linked to its submission; child: it belongs to the submission's.
        is_timed: its author has said how long an attempt may take; else that is the usual.
    """

    name: str
    fn: Callable[..., Any]
    payload: Any
    queue: str = "default"
    attempts: int = 5
    backoff: Backoff = field(default_factory=Backoff)
    timeout_s: float = TIMEOUT_S
    fatal: tuple[type[BaseException], ...] = ()
    key_required: bool | None = None
    description: str = ""
    example: Any = None
    isolation: Literal["thread", "process"] = "thread"
    memory_mb: int | None = None
    dependency: str = ""
    errors: Mapping[ErrorKey, Meaning] = field(default_factory=dict)
    fallback: Callable[..., Any] | None = None
    limits: tuple[str, ...] = ()
    trace: Literal["link", "child"] = "link"
    is_timed: bool = False

    @property
    def is_async(self) -> bool:
        """Whether the handler runs on the event loop."""
        return _is_async(self.fn)


def _is_async(fn: Callable[..., Any]) -> bool:
    return inspect.iscoroutinefunction(fn) or inspect.iscoroutinefunction(getattr(fn, "__call__", None))  # noqa: B004


def job(
    name: str,
    *,
    queue: str = "default",
    attempts: int = 5,
    backoff: Backoff | None = None,
    timeout_s: float | None = None,
    fatal: tuple[type[BaseException], ...] = (),
    key_required: bool | None = None,
    example: Any = None,
    isolation: Literal["thread", "process"] = "thread",
    memory_mb: int | None = None,
    dependency: str = "",
    errors: Mapping[ErrorKey, Meaning] | None = None,
    fallback: Callable[..., Any] | None = None,
    limits: Iterable[str] = (),
    trace: Literal["link", "child"] = "link",
) -> Callable[[Callable[..., Any]], Job]:
    """Make a function `(payload, ctx)` the handler of job type *name*. Works on functions and on bound methods.

    The annotation of the first parameter is the payload's type; without one any JSON object is taken. The first paragraph of the
    docstring becomes the description.

    With *isolation* "process" each attempt runs alone in a child process: what it does to memory, and its end by timeout, crash or
    *memory_mb*, touch nothing else. It costs about 0.3 ms an attempt.

    With a *dependency* the engine watches how its calls go, over all workers: when too many fail, a circuit breaker opens, and jobs of all
    types that depend on it wait without burning attempts until a few probes have gone well. What counts as what: an attempt that completes
    is a good call; `ConnectionError`, an HTTP status of 500, 502, 503 or 504 and the word `DependencyDown` mean that it is down; a status
    of 429 and `RateLimited` that it wants fewer calls; any other exception is retried by the job's policy and counts as a failed call.
    *errors* says otherwise: "retry" (says nothing of the dependency), "fatal", "discard", "dependency_down" or "rate_limited", by exception
    class, qualified name, or HTTP status (`exception.response.status_code`, `.status_code` or `.status`; "5xx" for all of them). A status
    beats a class, the nearest class its parents.

    With a *fallback* its jobs do not wait for an open breaker: they are claimed, and this function `(payload, ctx)` is called in place of
    the handler, in an attempt like any other. What it returns is the job's result, which is then marked (`fallback` true). It is a plain
    function if the handler is one, a coroutine function if the handler is one.

    *limits* names limiters, at most 8, that every job of the type needs: `taskmaster limits put stripe --rate 100 --per-ms 1000` says what
    one allows, over all workers. A name that nobody has given a rule limits nothing.

    *timeout_s* is how long one attempt may take: 60 s when nothing is said, which `taskmaster doctor` tells.

    *trace* says how an attempt stands to what submitted its job, where tracing is on. "link": it begins a trace of its own with a link to
    the submission, which is right for work that runs later, often, or for many callers. "child": its span is a child of the submission's,
    so that request, attempts and what they submit are one trace: right for work that somebody waits for.

    Raises:
        ValueError: a name, number or signature that cannot be, with what would do.
    """
    for what, value in (("job type", name), ("queue", queue)):
        if not isinstance(value, str) or not NAME.fullmatch(value):
            raise ValueError(f"{what} {value!r}: use 1 to 64 of a-z 0-9 . _ - and begin with a letter or digit")
    if not isinstance(attempts, int) or not 1 <= attempts <= 100:
        raise ValueError(f"{name}: attempts is {attempts}, allowed are 1 to 100")
    is_timed, timeout_s = timeout_s is not None, TIMEOUT_S if timeout_s is None else timeout_s
    if not 0 < timeout_s <= 86_400:
        raise ValueError(f"{name}: timeout_s is {timeout_s}, allowed are more than 0 and at most 86400")
    if not all(isinstance(cls, type) and issubclass(cls, BaseException) for cls in fatal):
        raise ValueError(f"{name}: fatal is {fatal!r}, a tuple of exception classes is meant")

    if isolation not in ("thread", "process"):
        raise ValueError(f"{name}: isolation is {isolation!r}, allowed are 'thread' and 'process'")
    if memory_mb is not None and (isolation != "process" or type(memory_mb) is not int or not 1 <= memory_mb <= 1_048_576):
        raise ValueError(f"{name}: memory_mb is {memory_mb!r}, allowed are 1 to 1048576, and only with isolation='process'")

    if dependency and (not isinstance(dependency, str) or not NAME.fullmatch(dependency)):
        raise ValueError(f"{name}: dependency {dependency!r}: use 1 to 64 of a-z 0-9 . _ - and begin with a letter or digit")
    meanings = dict(errors or {})
    for key, meaning in meanings.items():
        _check_meaning(name, key, meaning)

    if fallback is not None and not dependency:
        raise ValueError(f"{name}: a fallback needs a dependency, whose breaker decides when it runs")

    names = tuple(limits) if not isinstance(limits, str) else ()
    if isinstance(limits, str) or len(names) > LIMITS_MAX or not all(isinstance(one, str) and NAME.fullmatch(one) for one in names):
        raise ValueError(f"{name}: limits is {limits!r}, at most {LIMITS_MAX} names are meant: 1 to 64 of a-z 0-9 . _ - each")

    if trace not in ("link", "child"):
        raise ValueError(f"{name}: trace is {trace!r}, allowed are 'link' and 'child'")

    def declare(fn: Callable[..., Any]) -> Job:
        if fallback is not None:
            _payload_type(name, fallback)  # it takes (payload, ctx) as well
            if _is_async(fallback) != _is_async(fn):
                raise ValueError(f"{name}: handler and fallback must both be plain functions, or both coroutine functions")
        description = " ".join((inspect.getdoc(fn) or "").split("\n\n")[0].split())
        payload = _payload_type(name, fn)
        policy = backoff or Backoff()
        words = (key_required, description, example, isolation, memory_mb, dependency, meanings, fallback, names, trace, is_timed)
        return Job(name, fn, payload, queue, attempts, policy, timeout_s, tuple(fatal), *words)

    return declare


def _check_meaning(name: str, key: object, meaning: object) -> None:
    """Refuse an entry of *errors* that could never apply."""
    if isinstance(key, type):
        is_key = issubclass(key, BaseException)
    elif isinstance(key, str):
        is_key = bool(re.fullmatch(r"[1-5]xx|[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", key))
    else:
        is_key = type(key) is int and 100 <= key <= 599
    if not is_key:
        raise ValueError(
            f"{name}: errors has {key!r}; use an exception class, its qualified name, an HTTP status from 100 to 599, or '5xx'"
        )
    if meaning not in get_args(Meaning):
        raise ValueError(f"{name}: errors says {meaning!r} of {key!r}; use one of {', '.join(get_args(Meaning))}")


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
