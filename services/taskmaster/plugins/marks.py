"""Fields that are marked secret or pii: how marks get from annotations into a schema, and what they hide of a payload.

A mark on any part of a field's annotation hides the whole field: half a list of tokens is no use to anybody.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from taskmaster_sdk.marks import Mark

__all__ = ["KEY", "MASK", "has_marks", "hidden_texts", "hider", "holds_mask", "mark", "masked", "unmarked"]

KEY = "x-taskmaster"
MASK = "***"
#: Shorter texts are no use as secrets, and would garble every message that they are taken out of.
SHORTEST = 4


def mark(schema: dict[str, Any], payload_type: Any) -> None:
    """Put the marks of *payload_type*, and of all types that it is made of, into *schema*, which msgspec made of it.

    Raises:
        Exception: an annotation cannot be evaluated.
    """
    found = _mark_of(payload_type)
    if found:
        schema[KEY] = found
    parts = schema.get("$defs", {})
    seen: set[Any] = set()
    todo = list(_classes(payload_type))
    while todo:
        cls = todo.pop()
        if cls in seen:
            continue
        seen.add(cls)
        hints = get_type_hints(cls, include_extras=True)
        wire = dict(zip(getattr(cls, "__struct_fields__", ()), getattr(cls, "__struct_encode_fields__", ()), strict=False))
        for name, annotation in hints.items():
            todo += _classes(annotation)
            found = _mark_of(annotation)
            if found:
                # Two classes of one name have longer names there: both are marked rather than none.
                for title, part in parts.items():
                    if title == cls.__name__ or title.endswith(f"_{cls.__name__}"):
                        _put(part, wire.get(name, name), found)


def _put(part: dict[str, Any], name: str, kind: str) -> None:
    properties = part.get("properties", {})
    if name in properties:
        properties[name][KEY] = kind
    elif part.get("type") == "array":  # a class that is written as its values: which of them is whose is not told
        part[KEY] = kind


def _mark_of(annotation: Any) -> str:
    if get_origin(annotation) is Annotated:
        marks = [one.kind for one in annotation.__metadata__ if isinstance(one, Mark)]
        if marks:
            return marks[0]
    inner = getattr(annotation, "__value__", None)  # type X = …
    return next(filter(None, map(_mark_of, (*get_args(annotation), *([inner] if inner is not None else [])))), "")


def _classes(annotation: Any) -> Iterator[type]:
    origin = get_origin(annotation)
    for one in (annotation, origin):
        if isinstance(one, type) and getattr(one, "__annotations__", None):
            yield one
    inner = getattr(annotation, "__value__", None)
    for part in (*get_args(annotation), *([inner] if inner is not None else [])):
        yield from _classes(part)


def has_marks(schema: Any) -> bool:
    """Whether anything in *schema* is marked."""
    if isinstance(schema, dict):
        return KEY in schema or any(map(has_marks, schema.values()))
    return isinstance(schema, list) and any(map(has_marks, schema))


def masked(payload: Any, schema: Mapping[str, Any]) -> Any:
    """*payload* with `***` in place of what is marked."""
    return _walk(payload, [schema], schema.get("$defs", {}), lambda value: MASK if value is not None else None)


def hidden_texts(payload: Any, schema: Mapping[str, Any]) -> list[str]:
    """The texts and numbers that are marked in *payload*, as they would stand in a message, the longest first."""
    found: set[str] = set()

    def take(value: Any) -> Any:
        if isinstance(value, dict):
            for one in value.values():
                take(one)
        elif isinstance(value, list):
            for one in value:
                take(one)
        elif value is not None and not isinstance(value, bool):
            found.update((str(value), repr(value)[1:-1] if isinstance(value, str) else str(value)))

    _walk(payload, [schema], schema.get("$defs", {}), take)
    return sorted((text for text in found if len(text) >= SHORTEST), key=len, reverse=True)


def hider(payload: Any, schema: Mapping[str, Any]) -> Callable[[str], str]:
    """Takes what is marked in *payload* out of a text."""
    texts = hidden_texts(payload, schema)

    def hide(text: str) -> str:
        for one in texts:
            text = text.replace(one, MASK)
        return text

    return hide


def holds_mask(payload: Any, schema: Mapping[str, Any]) -> bool:
    """Whether a marked field of *payload* is `***`: then it was copied from where it is shown."""
    found: list[Any] = []
    _walk(payload, [schema], schema.get("$defs", {}), found.append)
    return MASK in found


def unmarked(schema: Mapping[str, Any], is_telling: Callable[[str, Mapping[str, Any]], bool]) -> list[str]:
    """Where in *schema* a property stands that *is_telling* (its name, its schema) and that nothing hides: paths such as `user.email`."""
    defs = schema.get("$defs", {})
    found: set[str] = set()
    todo: list[tuple[str, Mapping[str, Any]]] = [("", schema)]
    seen: set[tuple[str, int]] = set()
    while todo:
        path, node = todo.pop()
        name = path.rpartition(".")[2]
        nodes = list(_resolved([node], defs))
        if any(KEY in one for one in nodes) or (name, id(node)) in seen:
            continue
        seen.add((name, id(node)))
        if path and any(is_telling(name.removesuffix("[]"), one) for one in nodes):
            found.add(path)
        for one in nodes:
            todo += ((f"{path}.{inner}".lstrip("."), its) for inner, its in one.get("properties", {}).items())
            items = [*one.get("prefixItems", ()), one.get("items"), one.get("additionalProperties")]
            todo += ((path.removesuffix("[]") + "[]", its) for its in items if isinstance(its, dict))
    return sorted(found)


def _walk(value: Any, nodes: Iterable[Mapping[str, Any]], defs: Mapping[str, Any], change: Callable[[Any], Any]) -> Any:
    """*value* with what is marked in one of the schemas that it may be of changed."""
    found = list(_resolved(nodes, defs))
    if any(KEY in node for node in found):
        return change(value)
    if isinstance(value, dict):
        return {name: _walk(one, _of_property(found, name), defs, change) for name, one in value.items()}
    if isinstance(value, list):
        return [_walk(one, _of_item(found, place), defs, change) for place, one in enumerate(value)]
    return value


def _resolved(nodes: Iterable[Mapping[str, Any]], defs: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    todo, seen = list(nodes), set()
    while todo:
        node = todo.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        yield node
        if "$ref" in node:
            target = defs.get(str(node["$ref"]).rpartition("/")[2])
            if target is not None:
                todo.append(target)
        for choice in ("anyOf", "oneOf", "allOf"):
            todo += node.get(choice, ())


def _of_property(nodes: Iterable[Mapping[str, Any]], name: str) -> Iterator[Mapping[str, Any]]:
    for node in nodes:
        known = node.get("properties", {}).get(name)
        if known is not None:
            yield known
        elif isinstance(node.get("additionalProperties"), dict):
            yield node["additionalProperties"]


def _of_item(nodes: Iterable[Mapping[str, Any]], place: int) -> Iterator[Mapping[str, Any]]:
    for node in nodes:
        first = node.get("prefixItems", ())
        if place < len(first):
            yield first[place]
        elif isinstance(node.get("items"), dict):
            yield node["items"]
