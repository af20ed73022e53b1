"""The SDK stands alone, says no early, and its test helper behaves as the host does."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal
from uuid import UUID

import msgspec
import pytest

import taskmaster_sdk
from taskmaster_sdk import Backoff, Cancelled, Discard, Fatal, JobContext, Retry, Schedule, job
from taskmaster_sdk.testing import convert, run

if TYPE_CHECKING:
    from somewhere import Unknown  # type: ignore[import-not-found]

HEAVY = ("redis", "dramatiq", "litestar", "msgspec", "structlog", "taskmaster", "asyncio")


class Colour(Enum):
    RED = "red"


@dataclass
class Item:
    sku: str
    count: int = 1


@dataclass
class Order:
    number: str
    items: list[Item] = field(default_factory=list)
    at: datetime | None = None
    ident: UUID | None = None
    colour: Colour = Colour.RED
    kind: Literal["a", "b"] = "a"
    ratio: float = 0.0
    pair: tuple[int, str] = (0, "")
    notes: dict[str, Item] = field(default_factory=dict)
    limited: Annotated[int, "any"] = 0


@job("order")
def order(payload: Order, ctx: Unknown) -> Any:
    """Take an order."""
    ctx.progress(0.5, "half")
    ctx.check()
    ctx.progress(2, "x" * 300)
    return payload


def test_the_sdk_imports_nothing_of_the_host():
    """A plugin's tests and its type checks need no engine."""
    code = f"import sys, taskmaster_sdk; print([name for name in {HEAVY} if name in sys.modules])"
    services = Path(taskmaster_sdk.__file__).parent.parent

    done = subprocess.run(
        [sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, {str(services)!r}); {code}"], capture_output=True, text=True
    )

    assert done.stdout.strip() == "[]", done.stderr


def test_the_public_names_are_these():
    """A name that leaves this list breaks plugins: raise API_VERSION."""
    assert set(taskmaster_sdk.__all__) == {
        "API_VERSION", "Backoff", "Cancelled", "DependencyDown", "Discard", "Effect", "EffectUnknown", "Fatal", "Job", "JobContext",
            "ArtifactLost", "LeaseLost", "Pii", "PluginContext", "RateLimited", "Retry", "Schedule", "Secret", "hookimpl", "job",
    }  # fmt: skip
    assert all(hasattr(taskmaster_sdk, name) for name in taskmaster_sdk.__all__)


def test_a_handler_is_declared_with_its_payload_and_description():
    assert order.payload is Order
    assert order.description == "Take an order."
    assert not order.is_async


def test_bound_methods_and_callables_can_be_handlers():
    class Plugin:
        async def handle(self, payload: Item, ctx: JobContext) -> None:
            """Handle it."""

        async def __call__(self, payload: Item, ctx: JobContext) -> None: ...

    declared = job("bound")(Plugin().handle)

    assert (declared.payload, declared.is_async, declared.description) == (Item, True, "Handle it.")
    assert job("callable")(Plugin()).is_async


def test_constraints_of_the_annotation_are_kept():
    constrained = Annotated[int, msgspec.Meta(ge=1)]

    def handler(payload, ctx): ...

    handler.__annotations__["payload"] = constrained

    assert job("constrained")(handler).payload == constrained
    assert job("any")(lambda payload, ctx: None).payload == dict[str, Any]


def three(a, b, c): ...
def one(a): ...
def keyword(a, b, *, c): ...
def unknown(payload: Unknown, ctx): ...


REFUSED = {
    "spaces and capitals": (lambda: job("Bad Name"), "use 1 to 64"),
    "65 characters": (lambda: job("x" * 65), "use 1 to 64"),
    "not a string": (lambda: job(5), "use 1 to 64"),
    "no queue": (lambda: job("x", queue=""), "queue ''"),
    "no attempts": (lambda: job("x", attempts=0), "allowed are 1 to 100"),
    "too many attempts": (lambda: job("x", attempts=101), "allowed are 1 to 100"),
    "no time": (lambda: job("x", timeout_s=0), "timeout_s"),
    "time that is no number": (lambda: job("x", timeout_s=float("nan")), "timeout_s"),
    "fatal by name": (lambda: job("x", fatal=("ValueError",)), "exception classes"),
    "three parameters": (lambda: job("x")(three), r"three takes \(a, b, c\)"),
    "one parameter": (lambda: job("x")(one), r"one takes \(a\)"),
    "a keyword parameter": (lambda: job("x")(keyword), r"keyword takes \(a, b, c\)"),
    "an unknown payload": (lambda: job("x")(unknown), "'Unknown'.* not known at run time"),
    "unknown kind of backoff": (lambda: Backoff("often"), "use one of"),
    "negative delay": (lambda: Backoff(delay_ms=-1), "whole milliseconds"),
    "broken delay": (lambda: Backoff(delay_ms=1.5), "whole milliseconds"),
    "delay beyond a month": (lambda: Backoff(max_ms=32 * 86_400_000), "31 days"),
    "jitter above 1": (lambda: Backoff(jitter=1.1), "0 to 1"),
    "list without delays": (lambda: Backoff("list"), "1 to 100 entries"),
    "delays without list": (lambda: Backoff("fixed", delays_ms=(1,)), "none for the others"),
}


@pytest.mark.parametrize(("declare", "message"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_is_refused_where_it_is_written(declare, message):
    with pytest.raises(ValueError, match=message):
        declare()


def test_run_gives_the_lines_that_were_logged():
    """Every level, formatted, with the traceback behind."""

    @job("speak")
    def speak(payload: Any, ctx: JobContext) -> None:
        ctx.log("50 %")
        ctx.logger.debug("%s and %s", "a", "b")
        ctx.logger.error("no", exc_info=ValueError("why"))

    lines = run(speak, None).lines

    assert lines[:2] == [(20, "50 %"), (10, "a and b")]
    assert (lines[2][0], lines[2][1]) == (40, "no\nValueError: why")


def test_run_gives_value_and_progress_as_the_host_would():
    result = run(order, {"number": "7"})

    assert result.value == Order("7")
    assert result.outcome is None
    assert result.progress == [(0.5, "half"), (1.0, "x" * 200)]


@pytest.mark.parametrize("outcome", [Fatal("no"), Discard("gone"), Retry("later", after_s=5), Cancelled()])
def test_run_gives_the_word_that_the_handler_says(outcome):
    @job("says")
    async def says(payload: dict, ctx: JobContext) -> None:
        await asyncio.sleep(0)
        raise outcome

    assert run(says, {}).outcome is outcome


def test_run_lets_other_errors_pass():
    @job("fails")
    def fails(payload: dict, ctx: JobContext) -> None:
        raise KeyError("x")

    with pytest.raises(KeyError):
        run(fails, {})


def test_run_can_cancel_before_and_in_the_middle():
    before = run(order, {"number": "7"}, cancelled=True)
    middle = run(order, {"number": "7"}, on_progress=lambda ctx, fraction, note: ctx.request_cancel())

    assert isinstance(before.outcome, Cancelled)
    assert isinstance(middle.outcome, Cancelled)
    assert middle.progress == [(0.5, "half")]


def test_the_context_says_which_attempt_it_is():
    seen = {}

    @job("sees", attempts=7, timeout_s=9)
    def sees(payload: dict, ctx: JobContext) -> None:
        seen.update(attempt=ctx.attempt, most=ctx.max_attempts, root=ctx.root_id, ident=ctx.job_id, left=ctx.remaining_s)
        ctx.logger.info("seen")

    run(sees, {}, attempt=3, job_id="a")
    assert (seen["attempt"], seen["most"], seen["root"], seen["ident"]) == (3, 7, "a", "a")
    assert 8 < seen["left"] <= 9
    run(sees, {}, max_attempts=2, root_id="b", timeout_s=-1)
    assert (seen["most"], seen["root"], seen["left"]) == (2, "b", 0)


FULL = {
    "number": "7",
    "items": [{"sku": "a", "count": 2}, {"sku": "b"}],
    "at": "2026-11-01T09:00:00+00:00",
    "ident": "01932c07-209e-7bbd-8c5a-6d9f1e5bf3e4",
    "colour": "red",
    "kind": "b",
    "ratio": 1,
    "pair": [1, "x"],
    "notes": {"n": {"sku": "c"}},
    "limited": 3,
    "unknown": True,
}


def test_convert_agrees_with_the_hosts_decoder():
    converted = convert(FULL, Order)

    assert converted == msgspec.json.decode(msgspec.json.encode(FULL), type=Order)
    assert converted.items[1] == Item("b")
    assert converted.at == datetime(2026, 11, 1, 9, tzinfo=UTC)
    assert convert(converted, Order) is converted


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"number": 7}, "payload.number"),
        ({"items": {}}, "payload.items"),
        ({"items": [{"sku": 1}]}, r"payload.items\[0\].sku"),
        ({"kind": "c"}, "payload.kind"),
        ({"ratio": "x"}, "payload.ratio"),
        ({"ratio": True}, "payload.ratio"),
        ({"pair": [1]}, "payload.pair"),
        ({"notes": []}, "payload.notes"),
        ({"at": 5}, "payload.at"),
        ({"colour": "blue"}, "blue"),
        ({"limited": None}, "payload.limited"),
    ],
    ids=str,
)
def test_convert_refuses_what_the_host_refuses(change, where):
    with pytest.raises((TypeError, ValueError), match=where):
        convert(FULL | change, Order)
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(FULL | change, Order)


def test_convert_misses_a_required_field():
    with pytest.raises(TypeError, match="number"):
        convert({}, Order)
    with pytest.raises(TypeError, match="an object"):
        convert([], Order)


def test_a_relation_of_traces_that_there_is_not_is_refused():
    with pytest.raises(ValueError, match="'link' and 'child'"):
        job("t", trace="parent")
    assert job("t")(lambda payload, ctx: None).trace == "link"


@pytest.mark.parametrize(
    "options",
    [
        {"isolation": "container"},
        {"memory_mb": 64},
        {"isolation": "process", "memory_mb": 0},
        {"isolation": "process", "memory_mb": True},
        {"isolation": "process", "memory_mb": 1.5},
    ],
)
def test_isolation_that_cannot_be_is_refused(options):
    with pytest.raises(ValueError, match=r"isolation|memory_mb"):
        job("x", **options)(lambda payload, ctx: None)


def test_a_fallback_can_be_tried_without_a_breaker():
    """In place of the handler when asked for; a job that has none runs as ever."""

    @job("quote", dependency="rates", fallback=lambda payload, ctx: "yesterday's")
    def quote(payload, ctx):
        return "today's"

    assert [run(quote, {}, fallback=is_open).value for is_open in (False, True)] == ["today's", "yesterday's"]
    assert run(order, {"number": "1"}, fallback=True) == run(order, {"number": "1"})


def test_limits_of_a_type_are_names():
    """Any iterable of them; they are part of the declaration."""
    assert job("x", limits=(name for name in ("stripe", "eu")))(lambda payload, ctx: None).limits == ("stripe", "eu")


@pytest.mark.parametrize("limits", ["stripe", ["A"], [5], [f"l{n}" for n in range(9)], [""]])
def test_limits_that_cannot_be_are_refused(limits):
    """At most eight names; a string is one name too many letters."""
    with pytest.raises(ValueError, match="limits"):
        job("x", limits=limits)


@pytest.mark.parametrize("wrong", [{"id": "No Name"}, {"version": 0}, {"version": "2"}])
def test_a_schedule_says_no_where_its_author_sees_it(wrong: dict[str, Any]) -> None:
    """An id or a version that could never be brought in."""
    with pytest.raises(ValueError, match="schedule"):
        Schedule(**{"id": "nightly", "type": "report", "cron": "@daily"} | wrong)
