"""Marks get from annotations into schemas, and hide what they stand on."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Annotated, Any, NamedTuple, TypedDict

import msgspec
import pytest

from taskmaster.plugins.marks import KEY, has_marks, hidden_texts, hider, holds_mask, masked
from taskmaster.plugins.schema import describe
from taskmaster_sdk import Pii, Secret, job


class Card(TypedDict):
    number: Annotated[str, Secret]
    holder: Annotated[str, Pii]
    brand: str


class Renamed(msgspec.Struct, rename="camel"):
    api_key: Annotated[str, Secret]
    next_one: Renamed | None = None


class Pair(NamedTuple):
    user: str
    password: Annotated[str, Secret]


@dataclass
class Order:
    id: int
    card: Card
    tokens: list[Annotated[str, Secret]] = field(default_factory=list)
    cards: dict[str, Card] = field(default_factory=dict)
    maybe: Card | int | None = None
    either: Annotated[str | None, Secret] = None
    link: Renamed | None = None
    pair: Pair | None = None
    pin: Annotated[int, msgspec.Meta(ge=0), Secret] = 0


CARD = {"number": "4111", "holder": "Ann", "brand": "v"}
HIDDEN = {"number": "***", "holder": "***", "brand": "v"}


def schema_of(payload: Any) -> dict[str, Any]:
    @job("t")
    def handler(payload, ctx):
        """A handler."""

    made = describe(replace(handler, payload=payload))
    assert made.problem == ""
    return made.schema


def test_marks_are_in_the_schema_where_anybody_can_read_them() -> None:
    schema = schema_of(Order)

    assert schema["$defs"]["Card"]["properties"]["number"][KEY] == "secret"
    assert schema["$defs"]["Card"]["properties"]["holder"][KEY] == "pii"
    assert KEY not in schema["$defs"]["Card"]["properties"]["brand"]
    assert has_marks(schema)
    assert not has_marks(schema_of(dict[str, Any]))


@pytest.mark.parametrize(
    ("name", "given", "shown"),
    [
        ("card", CARD, HIDDEN),
        ("tokens", ["aaaa", "bbbb"], "***"),
        ("cards", {"x": CARD, "y": CARD}, {"x": HIDDEN, "y": HIDDEN}),
        ("maybe", CARD, HIDDEN),
        ("maybe", 5, 5),
        ("maybe", None, None),
        ("either", "s3cret", "***"),
        ("either", None, None),
        (
            "link",
            {"apiKey": "k", "nextOne": {"apiKey": "k2", "nextOne": None}},
            {"apiKey": "***", "nextOne": {"apiKey": "***", "nextOne": None}},
        ),
        ("pair", ["ann", "hunter2"], "***"),
        ("pin", 1234, "***"),
        ("id", 7, 7),
    ],
)
def test_what_is_marked_is_masked_wherever_it_stands(name, given, shown) -> None:
    """In objects, lists, maps, unions, recursive and renamed types; what is missing stays missing."""
    assert masked({name: given, "unknown": "kept"}, schema_of(Order)) == {name: shown, "unknown": "kept"}


def test_a_payload_that_is_marked_itself_is_masked_whole() -> None:
    assert masked("hunter2", schema_of(Annotated[str, Secret])) == "***"
    assert masked({"a": 1}, schema_of(Annotated[dict[str, int], Pii])) == "***"


def test_hidden_texts_are_taken_out_of_messages() -> None:
    """Also as a representation shows them; the longest first; too short ones would garble everything."""
    number = "41\n11'x"
    payload = {"card": CARD | {"number": number}, "tokens": ["abcd", "abcdef"], "pin": 98765, "either": "x"}
    schema = schema_of(Order)

    assert "x" not in hidden_texts(payload, schema)
    said = hider(payload, schema)(f"no {number!r}, {number}, abcdef, abcd, 98765, axe")
    assert said == 'no "***", ***, ***, ***, ***, axe'


def test_a_mask_that_comes_back_is_noticed() -> None:
    """Only in a marked field: elsewhere three stars are three stars."""
    assert holds_mask({"card": HIDDEN}, schema_of(Order))
    assert not holds_mask({"card": CARD | {"brand": "***"}}, schema_of(Order))
