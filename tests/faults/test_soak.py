"""The whole at once: load and faults from one seed, and a checker that would notice."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from mutants.catalogue import MUTANTS

ROOT = Path(__file__).resolve().parents[2]


def soak(folder: Path, *arguments: str, services: Path | None = None) -> tuple[int, list[str], dict]:
    """One run in a process of its own: exit code, lines, what it wrote as JSON."""
    environ = os.environ | {"TMPDIR": str(folder)} | ({"PYTHONPATH": str(services)} if services else {})
    command = [sys.executable, "tests/soak/run.py", "--json", str(folder / "report.json"), *arguments]
    ended = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=280, check=False)
    assert ended.stdout, ended.stderr[-3_000:]
    return ended.returncode, ended.stdout.splitlines(), json.loads((folder / "report.json").read_text())


def left_over(folder: Path) -> list[str]:
    """Processes that work in *folder*."""
    everything = psutil.process_iter(["cwd", "cmdline"])
    return [str(process) for process in everything if str(folder) in f"{process.info['cwd']} {process.info['cmdline']}"]


@pytest.fixture
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose name is short enough for sockets."""
    path = Path("/tmp") / f"tms-{os.getpid()}"
    path.mkdir()
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.mark.timeout(300)
def test_a_smoke_run_is_valid(short: Path) -> None:
    """One seed, every kind of fault about once; every promise holds, and no process is left."""
    code, lines, report = soak(short, "--seconds", "55", "--seed", "1")

    assert lines[-1] == "verdict: valid", "\n".join(lines)
    assert code == 0
    assert sum(report["faults"].values()) >= 15
    assert report["counts"]["accepted"] > 300
    assert left_over(short) == []


@pytest.mark.timeout(300)
def test_a_broken_engine_is_invalid(short: Path) -> None:
    """Dead letters that are not listed are seen by the checker, without any fault; the folder stays."""
    mutant = MUTANTS["dead_letter_not_listed"]
    services = short / "services"
    shutil.copytree(ROOT / "services", services, ignore=shutil.ignore_patterns("__pycache__"))
    path = services / "taskmaster" / mutant.file
    path.write_text(path.read_text().replace(mutant.old, mutant.new))

    code, lines, report = soak(short, "--seconds", "6", "--seed", "1", "--faults", "cut", services=services)

    assert (code, lines[-1]) == (1, "verdict: invalid")
    assert any("I5 dlq:" in row["text"] for row in report["wrong"])
    assert list(short.glob("tm-soak-*/history.jsonl"))
