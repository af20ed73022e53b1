"""No fault is without a test, no promise without a proof."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from faults.matrix import LATER, ROWS

ROOT = Path(__file__).resolve().parents[2]
TESTS = {
    name
    for path in [*ROOT.glob("tests/**/test_*.py"), *ROOT.glob("plugins/*/tests/test_*.py")]
    for name in re.findall(r"^(?:async )?def (test_\w+)", path.read_text(), re.MULTILINE)
}


def test_every_fault_has_a_test_or_waits_for_its_feature() -> None:
    """F1 to F60, each in one of the two tables."""
    rows = [row.split()[0] for row in ROWS]

    assert sorted([*rows, *LATER]) == sorted(f"F{n}" for n in range(1, 61))


@pytest.mark.parametrize("row", ROWS)
def test_the_tests_of_a_fault_are_there(row: str) -> None:
    """By their names."""
    assert ROWS[row]
    assert set(ROWS[row]) - TESTS == set()


def test_every_guarantee_names_tests_that_are_there() -> None:
    """The table in the README: G1 to G12, each with its proof, or with the word that it is coming."""
    text = (ROOT / "README.md").read_text()
    rows = dict(re.findall(r"^\| (G\d+) \|(.+)\|$", text, re.MULTILINE))

    assert sorted(rows) == sorted(f"G{n}" for n in range(1, 13))
    for name, row in rows.items():
        named = re.findall(r"`(test_\w+)`", row)
        assert named or "coming" in row, name
        assert set(named) - TESTS == set(), name
