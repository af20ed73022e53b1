"""What a submission may say of its place among others."""

from __future__ import annotations

import datetime as dt
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskmaster.engine.options import FAR_MAX_MS, UniqueWork, instant_ms, lane_of, tags_of, unique_of
from taskmaster.errors import InvalidRequest

NOW = 1_790_000_000_000
NAIVE = dt.datetime.fromisoformat("2030-01-01T00:00:00")


def unique(*, is_delayed: bool = False, **fields: Any) -> Any:
    return unique_of(UniqueWork(**{"key": "w"} | fields), "", "mail", is_delayed=is_delayed, window_ms=7)


@pytest.mark.parametrize(
    ("fields", "until", "otherwise", "ttl_ms"),
    [
        ({}, "f", "reject", 0),
        ({"until": "started", "on_conflict": "return-existing"}, "s", "existing", 0),
        ({"until": "ttl", "ttl_ms": 9, "on_conflict": "replace"}, "t", "replace", 9),
        ({"on_conflict": "debounce", "is_delayed": True}, "s", "replace", 0),
        ({"on_conflict": "debounce", "until": "finished", "is_delayed": True}, "f", "replace", 0),
        ({"on_conflict": "throttle", "ttl_ms": 5}, "t", "existing", 5),
    ],
)
def test_every_way_to_be_unique_is_one_of_three(fields: dict[str, Any], until: str, otherwise: str, ttl_ms: int) -> None:
    """Debounce and throttle are short for what the store knows already."""
    made = unique(**fields)

    assert (made.until, made.otherwise, made.ttl_ms, made.window_ms) == (until, otherwise, ttl_ms, 7)


@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        ({"key": ""}, "/unique/key"), ({"key": "k" * 256}, "/unique/key"), ({"key": "\ud800"}, "/unique/key"),
        ({"on_conflict": "ignore"}, "/unique/onConflict"), ({"until": "doomsday"}, "/unique/until"), ({"until": "ttl"}, "/unique/ttlMs"),
        ({"ttl_ms": 5}, "/unique/ttlMs"), ({"until": "ttl", "ttl_ms": 0}, "/unique/ttlMs"),
        ({"until": "ttl", "ttl_ms": FAR_MAX_MS + 1}, "/unique/ttlMs"), ({"on_conflict": "throttle"}, "/unique/ttlMs"),
        ({"on_conflict": "throttle", "until": "started"}, "/unique/until"), ({"on_conflict": "debounce"}, "/unique/onConflict"),
    ],
)  # fmt: skip
def test_what_does_not_go_together_is_refused_with_its_place(fields: dict[str, Any], pointer: str) -> None:
    """The pointer names the field to change."""
    with pytest.raises(InvalidRequest) as caught:
        unique(**fields)

    assert caught.value.facts["errors"][0]["pointer"] == pointer


def test_work_is_named_within_tenant_and_type() -> None:
    """Equal keys of two types, or two tenants, are two works."""
    work = UniqueWork(key="w")
    names = {unique_of(work, tenant, kind, is_delayed=False, window_ms=0).digest for tenant in ("", "t") for kind in ("a", "b")}

    assert len(names) == 4


@given(st.lists(st.from_regex(r"[A-Za-z0-9._:@-]{1,64}", fullmatch=True), max_size=10))
def test_tags_are_kept_once_in_order(tags: list[str]) -> None:
    """Nothing is lost but repeats."""
    kept = tags_of(tags)

    assert list(kept) == sorted(set(tags), key=tags.index)


@pytest.mark.parametrize("tags", [["a b"], [""], ["x" * 65], ["ä"], ["a,b"], ["a\n"], [f"t{n}" for n in range(11)], [5]])
def test_tags_that_cannot_be(tags: list[Any]) -> None:
    """At most ten, of characters that need no quoting in a URL or a key."""
    with pytest.raises(InvalidRequest, match="tags"):
        tags_of(tags)


@pytest.mark.parametrize(
    ("key", "limits"), [("", ()), ("k" * 257, ()), ("\ud800", ()), (None, ("A",)), (None, ("a~b",)), (None, ("a", "b", "c", "d", "e"))]
)
def test_places_that_cannot_be(key: str | None, limits: tuple[str, ...]) -> None:
    """Fairness keys have 1 to 256 characters, and limiters names."""
    with pytest.raises(InvalidRequest):
        lane_of(key, limits)


@pytest.mark.parametrize("at", [NAIVE, dt.datetime(2100, 1, 1, tzinfo=dt.UTC)])
def test_instants_have_an_offset_and_are_near(at: dt.datetime) -> None:
    """Ten years ahead at most."""
    with pytest.raises(InvalidRequest, match="runAt"):
        instant_ms("runAt", at, NOW)


def test_a_work_on_the_wire_says_only_what_it_knows() -> None:
    """Unknown members are refused, not ignored."""
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"key": "w", "expires": 5}, UniqueWork)
