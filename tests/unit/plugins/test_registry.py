"""The registry does not change, and its fingerprint says what can run."""

from __future__ import annotations

import pytest

from taskmaster.plugins.discovery import discover


def test_a_fingerprint_is_16_hex_digits_and_the_same_for_the_same_plugins(plant):
    entries = [plant("one", types=("a", "b")), plant("two")]

    first, second = discover(source=lambda: entries), discover(source=lambda: entries[::-1])

    assert first.fingerprint() == second.fingerprint()
    assert len(bytes.fromhex(first.fingerprint())) == 8


def test_a_fingerprint_changes_with_type_plugin_and_version(plant):
    registries = [
        discover(source=lambda entry=entry: [entry])
        for entry in (
            plant("one", types=("a",)),
            plant("one", types=("a", "b")),
            plant("two", types=("a",)),
            plant("one", types=("a",), version="1.1"),
        )
    ]

    assert len({registry.fingerprint() for registry in registries}) == 4


def test_handlers_cannot_be_changed(plant):
    registry = discover(source=lambda: [plant("one")])

    with pytest.raises(TypeError):
        registry.handlers["two"] = registry.handlers["one"]  # type: ignore[index]


def test_a_withdrawn_plugin_leaves_its_report_behind(plant):
    registry = discover(source=lambda: [plant("one"), plant("two")])

    without = registry.without({"one": "it did not start"})

    assert without.types == ("two",)
    assert [(report.name, report.state, report.error) for report in without.reports] == [
        ("one", "failed", "it did not start"),
        ("two", "loaded", ""),
    ]
    assert [plugin.name for plugin in without.plugins] == ["two"]
    assert registry.types == ("one", "two")
    assert registry.without({}) is registry
