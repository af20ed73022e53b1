"""The measurements, a short form of them: that they measure, not what."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    """A run in a process of its own."""
    return subprocess.run(
        [sys.executable, "tests/bench/run.py", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=180, check=False
    )


@pytest.mark.timeout(200)
def test_a_quick_run_measures(tmp_path: Path) -> None:
    """A job's whole life, from submission to pruned record, and what another system does of it: a row each, a table, the target judged."""
    report = tmp_path / "bench.json"

    done = bench("--quick", "--repeat", "1", "--only", "cost", "--subjects", "taskmaster,dramatiq", "--json", str(report))

    assert done.returncode == 0, done.stderr[-3_000:]
    rows = {row["subject"]: row["figures"] for row in json.loads(report.read_text())["rows"]}
    assert rows.keys() == {"taskmaster", "dramatiq"}
    assert rows["taskmaster"].keys() == {"submit us/job", "drain us/job", "prune us/job", "life us/job"}
    assert all(figure > 0 for figures in rows.values() for figure in figures.values())
    assert "x dramatiq" in done.stdout
    assert "| cost | life us/job |" in done.stdout


def test_a_part_that_is_not_there_is_told() -> None:
    """With those that are."""
    done = bench("--only", "drian")

    assert done.returncode == 2
    assert "'drian' is not one of submit, drain" in done.stderr
