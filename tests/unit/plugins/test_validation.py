"""Payloads are checked exactly, answers are bounded, and nothing that a schema or a payload says can hurt."""

from __future__ import annotations

from typing import Any

import pytest

from taskmaster.errors import PluginError
from taskmaster.plugins.validation import LONGEST, MOST, Validator, Validators

WELCOME: dict[str, Any] = {
    "$ref": "#/$defs/Welcome",
    "$defs": {
        "Welcome": {
            "type": "object",
            "properties": {
                "email": {"type": "string"},
                "name": {"type": "string", "maxLength": 5},
                "at": {"type": "string", "format": "date-time"},
                "items": {"type": "array", "items": {"type": "integer"}},
                "a/b~c": {"type": "integer"},
                "child": {"$ref": "#/$defs/Welcome"},
            },
            "required": ["email", "name"],
        }
    },
}


def test_a_payload_that_fits_has_no_mismatches():
    assert Validator(WELCOME).validate({"email": "albert@example.com", "name": "Al", "at": "2026-11-01T09:00:00Z", "more": 1}) == []


@pytest.mark.parametrize(
    ("extra", "pointer", "message"),
    [
        ({"email": 5}, "/email", 'value is not of type "string"'),
        ({"name": "Albert"}, "/name", "value is longer than 5 characters"),
        ({"at": "tomorrow"}, "/at", 'value is not a "date-time"'),
        ({"items": [1, 2, "three"]}, "/items/2", 'value is not of type "integer"'),
        ({"a/b~c": "x"}, "/a~1b~0c", 'value is not of type "integer"'),
        ({"child": {"email": "x"}}, "/child/name", "is required"),
    ],
)
def test_a_mismatch_is_a_json_pointer_and_what_is_wrong_there(extra, pointer, message):
    payload = {"email": "albert@example.com", "name": "Al"} | extra

    assert Validator(WELCOME).validate(payload) == [{"pointer": pointer, "message": message}]


@pytest.mark.parametrize("payload", [None, [], "text", 5, 1.5, True])
def test_a_payload_of_another_kind_is_told_at_the_root(payload):
    assert Validator(WELCOME).validate(payload) == [{"pointer": "", "message": 'value is not of type "object"'}]


def test_every_missing_property_is_named():
    assert [mismatch["pointer"] for mismatch in Validator(WELCOME).validate({})] == ["/email", "/name"]


def test_the_answer_is_bounded():
    found = Validator(WELCOME).validate({"email": "x", "name": "x", "items": ["x"] * 1_000})
    (long,) = Validator({"additionalProperties": {"type": "integer"}}).validate({"k" * 100_000: "x"})

    assert len(found) == MOST
    assert len(long["pointer"]) == LONGEST


def test_what_the_payload_holds_is_not_repeated():
    found = Validator(WELCOME).validate({"email": ["s3cret"], "name": "s3cret", "at": "s3cret"})

    assert "s3cret" not in str(found)


def test_a_payload_nested_ten_thousand_deep_is_answered():
    payload: dict[str, Any] = {}
    for _ in range(10_000):
        payload = {"email": "x", "name": "x", "child": payload}

    assert Validator(WELCOME).validate(payload) != []


def test_a_pattern_takes_linear_time():
    assert Validator({"type": "string", "pattern": "^(a+)+$"}).validate("a" * 5_000 + "b") != []


@pytest.mark.parametrize(
    "schema", [{"type": "strnig"}, {"$ref": "http://127.0.0.1:9/x"}, {"$ref": "file:///etc/passwd"}, {"pattern": "("}], ids=str
)
def test_a_schema_that_is_none_or_leads_outside_is_refused(schema):
    with pytest.raises(PluginError, match="not a valid JSON Schema"):
        Validator(schema)


def test_a_schema_is_compiled_again_only_when_it_has_changed():
    validators = Validators()
    first = validators.of("welcome", WELCOME)

    assert validators.of("welcome", WELCOME) is first
    assert validators.of("welcome", dict(reversed(WELCOME.items()))) is first
    assert validators.of("other", WELCOME) is not first
    changed = validators.of("welcome", {"type": "string"})
    assert changed is not first
    assert changed.validate("x") == []
