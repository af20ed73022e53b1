"""What the OpenAPI document says of bodies that are read by `strict` and not by the framework."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import msgspec
from litestar.openapi.spec import OpenAPIMediaType, Operation, RequestBody, Schema

__all__ = ["with_body"]


@cache
def with_body(kind: type[Any]) -> type[Operation]:
    """An operation whose JSON body is a *kind* (a msgspec Struct)."""
    (schema,), defs = msgspec.json.schema_components([kind], ref_template="#/$defs/{name}")
    inline = _inline(schema, defs)

    @dataclass
    class WithBody(Operation):
        def __post_init__(self) -> None:
            self.request_body = RequestBody(content={"application/json": OpenAPIMediaType(schema=_Given(inline))}, required=True)

    return WithBody


class _Given(Schema):
    """A schema that is there already."""

    def __init__(self, ready: dict[str, Any]) -> None:
        super().__init__()
        self._ready = ready

    def to_schema(self) -> dict[str, Any]:
        """As given."""
        return self._ready


def _inline(node: Any, defs: dict[str, Any]) -> Any:
    """The schema with what it refers to in its place. Bodies are not recursive."""
    if isinstance(node, dict):
        if "$ref" in node:
            return _inline(defs[str(node["$ref"]).rpartition("/")[2]], defs)
        return {name: _inline(value, defs) for name, value in node.items()}
    return [_inline(value, defs) for value in node] if isinstance(node, list) else node
