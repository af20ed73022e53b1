"""Checking payloads against the catalogue's schemas, fast when they fit and exact when they do not."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any, TypedDict

import jsonschema_rs
import msgspec

from taskmaster.errors import PluginError
from taskmaster.plugins.marks import has_marks

__all__ = ["Mismatch", "Validator", "Validators"]

#: Mismatches told at most: enough to mend a form, and a bound on the answer.
MOST = 20
#: Characters of a pointer or a message at most: property names come from the caller.
LONGEST = 300


class Mismatch(TypedDict):
    """One place where a payload does not fit: a JSON Pointer (RFC 6901) from the payload's root, and what is wrong there."""

    pointer: str
    message: str


class Validator:
    """One compiled schema. Thread-safe; `format` is checked; patterns run in linear time; `$ref` never leaves the schema.

    Raises:
        PluginError: the schema itself is not valid.
    """

    __slots__ = ("_compiled", "digest", "is_marked", "is_valid", "schema")

    def __init__(self, schema: dict[str, Any]) -> None:
        try:
            self._compiled = jsonschema_rs.validator_for(
                schema,
                mask="value",  # payloads are not repeated in messages, which may end in logs
                validate_formats=True,
                pattern_options=jsonschema_rs.RegexOptions(),
                offline=True,
            )
        except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError, ValueError) as error:
            raise PluginError(f"the payload's schema is not a valid JSON Schema: {str(error).partition(chr(10))[0][:LONGEST]}") from error
        self.schema = schema
        self.digest = _digest(schema)
        #: Whether a part of such a payload is not for everybody's eyes.
        self.is_marked = has_marks(schema)
        #: Whether a payload fits. Below a microsecond for a small one: 0.5 us for three strings.
        self.is_valid = self._compiled.is_valid

    def validate(self, payload: object) -> list[Mismatch]:
        """Where *payload* (JSON data: dict, list, str, int, float, bool, None) does not fit; empty when it does, 20 entries at most."""
        try:
            if self.is_valid(payload):
                return []
            return _mismatches(self._compiled.iter_errors(payload))
        except (ValueError, RecursionError) as error:  # nested too deep, or not JSON data
            return [Mismatch(pointer="", message=str(error)[:LONGEST])]


class Validators:
    """The compiled schemas, one for each type, compiled anew only when a type's schema has changed."""

    def __init__(self) -> None:
        self._by_type: dict[str, Validator] = {}

    def of(self, name: str, schema: dict[str, Any]) -> Validator:
        """The validator of type *name*, whose schema now is *schema*.

        Quickest (a look-up) when given the same object again; an equal one is recognised by its digest.

        Raises:
            PluginError: the schema itself is not valid.
        """
        known = self._by_type.get(name)
        if known is not None:
            if known.schema is schema:
                return known
            if known.digest == _digest(schema):
                known.schema = schema
                return known
        self._by_type[name] = fresh = Validator(schema)
        return fresh


def _digest(schema: dict[str, Any]) -> bytes:
    return hashlib.sha256(msgspec.json.encode(schema, order="deterministic")).digest()


def _mismatches(errors: Iterable[jsonschema_rs.ValidationError]) -> list[Mismatch]:
    found: list[Mismatch] = []
    for error in errors:
        path = list(error.instance_path)
        message = error.message
        if isinstance(error.kind, jsonschema_rs.ValidationErrorKind.Required):  # the pointer names what is missing, as a form would
            path.append(error.kind.property)
            message = "is required"
        found.append(Mismatch(pointer=_short(_pointer(path)), message=_short(message)))
        if len(found) == MOST:
            break
    return found


def _pointer(path: Iterable[str | int]) -> str:
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in path)


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
