"""The mutants fit the code, and a few of them, of each sort, are caught."""

from __future__ import annotations

import json

import pytest

from mutants.catalogue import MUTANTS, SCRIPTS
from mutants.main import main, problems


def test_every_mutant_applies() -> None:
    """A mutant whose text is not there any more breaks nothing: it has to follow the code."""
    assert problems() == []


def test_a_mutant_that_does_not_apply_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    """By name, with what was looked for."""
    mutant = next(iter(MUTANTS.values()))

    (wrong,) = problems([mutant._replace(old="nowhere in the file")])

    assert mutant.name in wrong
    assert "'nowhere in the file'" in wrong


@pytest.mark.timeout(240)
def test_some_mutants_are_caught(tmp_path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """One of the scripts and one of the worker, by the quickest of their tests; `ops/dev mutants` runs all."""
    quick = (SCRIPTS, "-k", "valkey and a_repeat_answers and cycle")
    monkeypatch.setitem(MUTANTS, "finish_without_token", MUTANTS["finish_without_token"]._replace(tests=quick))
    report = tmp_path / "verdicts.json"

    assert main(["finish_without_token", "guard_trusts_any_lease", "--json", str(report)]) == 0

    assert {row["word"] for row in json.loads(report.read_text())} == {"caught"}
    assert "2 of 2 caught" in capsys.readouterr().out


@pytest.mark.timeout(120)
def test_a_mutant_that_nobody_notices_fails_the_run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A change of a comment is no change."""
    harmless = MUTANTS["guard_trusts_any_lease"]._replace(
        name="harmless", old='"""It has ended."""', new='"""It has come to its end."""', tests=("tests/unit/broker/test_slots.py",)
    )
    monkeypatch.setitem(MUTANTS, "harmless", harmless)

    assert main(["harmless"]) == 1
    assert "SURVIVED  harmless" in capsys.readouterr().out
