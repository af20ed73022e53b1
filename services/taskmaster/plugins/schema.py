"""The JSON Schema of a payload type, and an example that fits it."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from taskmaster.plugins.contain import reason
from taskmaster.plugins.marks import mark
from taskmaster_sdk import Job

__all__ = ["ANY_OBJECT", "Description", "describe", "example_of"]

#: What stands in for a payload type that has no JSON Schema.
ANY_OBJECT: Mapping[str, Any] = {"type": "object"}
#: Formats of JSON Schema that msgspec writes, and a value of each.
_OF_FORMAT = {
    "date-time": "2026-01-01T00:00:00Z",
    "date": "2026-01-01",
    "time": "00:00:00Z",
    "duration": "PT1S",
    "uuid": "00000000-0000-4000-8000-000000000000",
    "decimal": "0",
    "email": "albert@example.com",
    "uri": "https://example.com/",
}
#: Levels of nested objects in a generated example: a type may contain itself.
_DEEPEST = 8


@dataclass(frozen=True, slots=True)
class Description:
    """What the world is told of a payload.

    Attributes:
        schema: JSON Schema 2020-12; every `$ref` points into its own `$defs`.
        example: a payload, or None when none could be made.
        problem: why the schema is only a stand-in, for the plugin's author; empty when it is not.
    """

    schema: dict[str, Any]
    example: Any
    problem: str = ""


def describe(job: Job) -> Description:
    """Schema and example of a job's payload. Never raises: a type that has no schema is described as any object, with the reason."""
    try:
        schema = msgspec.json.schema(job.payload)
        mark(schema, job.payload)
    except Exception as error:  # noqa: BLE001, RUF100 - msgspec and extra_json_schema raise what they like
        problem = f"its payload type {job.payload!r} has no JSON Schema, any object is taken: {reason(error)}"
        return Description(dict(ANY_OBJECT), _given(job), problem)
    for part in schema.get("$defs", {}).values():
        if isinstance(part, dict) and isinstance(part.get("description"), str):
            part["description"] = inspect.cleandoc(part["description"])
    return Description(schema, example_of(schema) if job.example is None else _given(job))


def _given(job: Job) -> Any:
    """The example that the plugin declared, as JSON data; None when there is none or it is not JSON."""
    try:
        return msgspec.to_builtins(job.example)
    except Exception:  # noqa: BLE001, RUF100 - an example is a nicety
        return None


def example_of(schema: Mapping[str, Any]) -> Any:
    """A small value that fits *schema* as far as types, required properties, enums, lengths and bounds go; patterns are not solved."""
    return _example(schema, schema.get("$defs", {}), 0)


def _example(node: Mapping[str, Any], defs: Mapping[str, Any], depth: int) -> Any:
    if "$ref" in node:
        target = defs.get(str(node["$ref"]).rpartition("/")[2])
        return _example(target, defs, depth + 1) if target is not None and depth < _DEEPEST else None
    for ready in ("default", "const"):
        if ready in node:
            return node[ready]
    if node.get("examples"):
        return node["examples"][0]
    if node.get("enum"):
        return node["enum"][0]
    for choice in ("anyOf", "oneOf"):
        if node.get(choice):
            return _example(node[choice][0], defs, depth + 1)
    kind = node.get("type")
    if kind == "object":
        properties: Mapping[str, Any] = node.get("properties", {})
        return {name: _example(properties.get(name, {}), defs, depth + 1) for name in node.get("required", ())} if depth < _DEEPEST else {}
    if kind == "array":
        return _items(node, defs, depth)
    if kind == "string":
        return _OF_FORMAT.get(node.get("format", ""), "text".ljust(node.get("minLength", 0), "x")[: node.get("maxLength", 200)])
    if kind in ("integer", "number"):
        return _number(node, whole=kind == "integer")
    return {"boolean": False, "null": None}.get(str(kind))


def _items(node: Mapping[str, Any], defs: Mapping[str, Any], depth: int) -> list[Any]:
    first = [_example(item, defs, depth + 1) for item in node.get("prefixItems", ())]
    missing = min(node.get("minItems", 0), 100) - len(first)
    more = node.get("items")
    return first + [_example(more, defs, depth + 1) for _ in range(missing)] if isinstance(more, Mapping) else first


def _number(node: Mapping[str, Any], *, whole: bool) -> float:
    step = node.get("multipleOf", 1)
    low = node.get("minimum", node.get("exclusiveMinimum"))
    high = node.get("maximum", node.get("exclusiveMaximum"))
    if low is not None:
        value = low + step if "exclusiveMinimum" in node else low
        value += -value % step if whole or "multipleOf" in node else 0
    elif high is not None and high <= 0:
        value = high - step if "exclusiveMaximum" in node else high
        value -= value % step if whole or "multipleOf" in node else 0
    else:
        value = 0
    return int(value) if whole else value
