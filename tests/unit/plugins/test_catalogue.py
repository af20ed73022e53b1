"""The catalogue tells the world what a job type takes, without its code."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
import pytest

from taskmaster.plugins.catalogue import CatalogueEntry, decode, encode, entries
from taskmaster.plugins.registry import Handler, Registry
from taskmaster.plugins.validation import Validator
from taskmaster_sdk import Backoff, Job, job


@dataclass
class Item:
    sku: str
    count: Annotated[int, msgspec.Meta(ge=1, le=9)]


@dataclass
class Node:
    name: str
    child: Node | None = None


@dataclass
class Order:
    number: Annotated[str, msgspec.Meta(min_length=8)]
    kind: Literal["new", "old"]
    at: datetime
    items: Annotated[list[Item], msgspec.Meta(min_length=2)]
    ratio: Annotated[float, msgspec.Meta(gt=0)]
    pair: tuple[int, str]
    root: Node
    note: str | None = None
    tags: dict[str, str] = field(default_factory=dict)


class Own:
    pass


def registry_of(*jobs: Job) -> Registry:
    return Registry({one.name: Handler(one, "shop", "1.2", bytes, one.is_async) for one in jobs})


def declare(annotation: Any, name: str = "order", **options: Any) -> Job:
    def handler(payload, ctx):
        """Take an
        order.

        And nothing else.
        """

    handler.__annotations__["payload"] = annotation
    return job(name, **options)(handler)


def test_an_entry_has_the_jobs_defaults_in_camel_case():
    declared = declare(
        Order, queue="shop-queue", attempts=3, timeout_s=1.5, key_required=True, backoff=Backoff("list", delays_ms=(5, 10), max_ms=60_000)
    )

    (entry,) = entries(registry_of(declared))
    wire = msgspec.json.decode(encode(entry))

    assert wire.keys() == {
        "type", "queue", "attempts", "backoff", "timeoutMs", "keyRequired", "schema", "example", "description", "plugin", "version",
        "isolation", "memoryMb", "dependency", "limits", "isTimed",
    }  # fmt: skip
    assert (wire["type"], wire["queue"], wire["attempts"], wire["timeoutMs"], wire["keyRequired"]) == ("order", "shop-queue", 3, 1500, True)
    assert wire["backoff"].items() >= {"kind": "list", "delaysMs": [5, 10], "maxMs": 60_000}.items()
    assert (wire["description"], wire["plugin"], wire["version"]) == ("Take an order.", "shop", "1.2")


def test_encode_and_decode_are_inverse_and_a_newer_workers_fields_are_ignored():
    (entry,) = entries(registry_of(declare(Order)))
    newer = msgspec.json.encode(msgspec.json.decode(encode(entry)) | {"colour": "red"})

    assert decode(encode(entry)) == entry
    assert encode(decode(encode(entry))) == encode(entry)
    assert isinstance(decode(newer), CatalogueEntry)


def test_entries_are_sorted_by_type():
    registry = registry_of(*(declare(Order, name) for name in ("b", "c", "a")))

    assert [entry.type for entry in entries(registry)] == ["a", "b", "c"]


def test_a_schema_refers_only_to_itself():
    (entry,) = entries(registry_of(declare(Order)))

    refs = {part.split('"')[0] for part in msgspec.json.encode(entry.schema).decode().split('"$ref":"')[1:]}
    assert refs == {f"#/$defs/{name}" for name in ("Order", "Item", "Node")}
    assert {ref.rpartition("/")[2] for ref in refs} <= entry.schema["$defs"].keys()


@pytest.mark.parametrize(
    "annotation",
    [
        Order,
        Item,
        Node,
        dict[str, Any],
        dict[str, int],
        list[Item],
        str,
        Annotated[int, msgspec.Meta(lt=-5)],
        Annotated[int, msgspec.Meta(gt=5, multiple_of=4)],
        Annotated[float, msgspec.Meta(le=-1.5)],
        Annotated[float, msgspec.Meta(ge=0.5)],
        Annotated[str, msgspec.Meta(max_length=2)],
        int | None,
        tuple[int, ...],
        bool,
        None,
        Any,
    ],
    ids=str,
)
def test_a_generated_example_fits_its_schema(annotation):
    (entry,) = entries(registry_of(declare(annotation)))

    assert Validator(entry.schema).validate(entry.example) == []


def test_a_given_example_is_taken_as_it_is():
    given = declare(Item, example=Item("A-1", 2)), declare(Item, "other", example={"sku": "A-1", "count": 2})

    assert [entry.example for entry in entries(registry_of(*given))] == [{"sku": "A-1", "count": 2}] * 2


def test_a_payload_type_without_schema_is_any_object():
    (entry,) = entries(registry_of(declare(Own, example=object())))

    assert entry.schema == {"type": "object"}
    assert entry.example is None
    assert decode(encode(entry)) == entry
