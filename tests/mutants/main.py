"""Make each mutant, run the tests that must notice, and say who survived.

A mutant is a copy of `services` with one text changed; PYTHONPATH puts it before the installed one, in the tests and in every process they
start. The copy without any change must pass the same tests first, else a failure would prove nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from mutants.catalogue import MUTANTS, Mutant

__all__ = ["Verdict", "main", "problems"]

ROOT = Path(__file__).resolve().parents[2]
#: One run of one mutant's tests, seconds.
LIMIT_S = 240
_FAILED, _PASSED = 1, 0


@dataclass(frozen=True)
class Verdict:
    """What became of one mutant.

    Attributes:
        word: caught, SURVIVED, or broken: its tests could not tell.
        by: the test that noticed, or what went wrong.
    """

    name: str
    word: str
    by: str
    took_s: float


def problems(mutants: Iterable[Mutant] = MUTANTS.values()) -> list[str]:
    """Mutants that do not fit the code any more, a line each."""
    wrong = []
    for mutant in mutants:
        path = ROOT / "services" / "taskmaster" / mutant.file
        found = path.read_text().count(mutant.old) if path.is_file() else 0
        if found != 1:
            wrong.append(f"{mutant.name}: its text is {found} times in {mutant.file}, once is expected: {mutant.old!r}")
        if mutant.old == mutant.new:
            wrong.append(f"{mutant.name}: changes nothing")
        wrong += [f"{mutant.name}: there is no {test}" for test in mutant.tests if "/" in test and not (ROOT / test).exists()]
    return wrong


def judge(mutant: Mutant) -> Verdict:
    """Whether one of its tests fails."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="tm-mutant-") as folder:
        code, said = _pytest(_copy(Path(folder), mutant), mutant.tests)
    took_s = round(time.monotonic() - started, 1)
    failed = [line.split(" ", 1)[1] for line in said.splitlines() if line.startswith(("FAILED ", "ERROR "))]
    if code == _FAILED and failed:
        return Verdict(mutant.name, "caught", failed[0].split(" - ")[0], took_s)
    if code == _PASSED:
        return Verdict(mutant.name, "SURVIVED", " ".join(mutant.tests), took_s)
    return Verdict(mutant.name, "broken", f"pytest ended with {code}: {said[-300:]}", took_s)


def sound(tests: tuple[str, ...]) -> str:
    """What is wrong with these tests on code that nothing was done to; empty: they pass."""
    with tempfile.TemporaryDirectory(prefix="tm-mutant-") as folder:
        code, said = _pytest(_copy(Path(folder), None), tests)
    return "" if code == _PASSED else f"{' '.join(tests)} ends with {code} on sound code:\n{said[-2_000:]}"


def _copy(folder: Path, mutant: Mutant | None) -> Path:
    services = folder / "services"
    shutil.copytree(ROOT / "services", services, ignore=shutil.ignore_patterns("__pycache__"))
    if mutant is not None:
        path = services / "taskmaster" / mutant.file
        path.write_text(path.read_text().replace(mutant.old, mutant.new))
    return services


def _pytest(services: Path, tests: Sequence[str]) -> tuple[int, str]:
    """Exit code and output of pytest with *services* in the place of ours."""
    environ = os.environ | {"PYTHONPATH": str(services), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "pytest", "-x", "-q", "--no-header", "-p", "no:cacheprovider", "--timeout=60", *tests]
    with subprocess.Popen(
        command, cwd=ROOT, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    ) as running:
        try:
            said, _ = running.communicate(timeout=LIMIT_S)
        except subprocess.TimeoutExpired:
            os.killpg(running.pid, signal.SIGKILL)  # its own session: pytest and what it started
            return -1, f"not within {LIMIT_S} s"
    return running.returncode, said


def _model() -> Verdict:
    """The rules of the protocol, broken in its executable model."""
    started = time.monotonic()
    environ = os.environ | {"PYTHONPATH": str(ROOT / "tests")}
    ended = subprocess.run(
        [sys.executable, "-m", "support.protocol.model", "--mutants"], cwd=ROOT, env=environ, capture_output=True, text=True, check=False
    )
    lines = ended.stdout.splitlines() or [ended.stderr[-300:]]
    survived = [line for line in lines if line.startswith("SURVIVED")]
    word = "caught" if ended.returncode == 0 else "SURVIVED" if survived else "broken"
    return Verdict("model", word, "; ".join(survived) or lines[-1], round(time.monotonic() - started, 1))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, print a table; 1 when a mutant survives or cannot be judged."""
    parser = argparse.ArgumentParser(prog="ops/dev mutants", description="Break the engine on purpose, a rule at a time.")
    parser.add_argument("names", nargs="*", metavar="mutant", help="only these; all, and those of the model, if none is named")
    parser.add_argument("--list", action="store_true", help="print their names and end")
    parser.add_argument("--jobs", type=int, default=2, help="how many at a time (2)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the verdicts there")
    wanted = parser.parse_args(arguments)
    unknown = set(wanted.names) - MUTANTS.keys() - {"model"}
    if unknown:
        parser.error(f"no such mutant: {', '.join(sorted(unknown))}")
    chosen = [MUTANTS[name] for name in wanted.names if name != "model"] if wanted.names else list(MUTANTS.values())
    if wanted.list:
        print("\n".join(mutant.name for mutant in chosen))
        return 0
    wrong = problems(chosen)
    if wrong:
        print("\n".join(wrong), file=sys.stderr)
        return 1
    with ThreadPoolExecutor(wanted.jobs) as pool:
        unsound = [text for text in pool.map(sound, sorted({mutant.tests for mutant in chosen})) if text]
        if unsound:
            print("\n".join(unsound), file=sys.stderr)
            return 1
        tasks = [pool.submit(_model)] if not wanted.names or "model" in wanted.names else []
        tasks += [pool.submit(judge, mutant) for mutant in chosen]
        verdicts = []
        for task in tasks:
            verdict = task.result()
            verdicts.append(verdict)
            print(f"{verdict.word:9} {verdict.name:34} {verdict.took_s:6.1f} s  {verdict.by}", flush=True)
    caught = sum(verdict.word == "caught" for verdict in verdicts)
    print(f"{caught} of {len(verdicts)} caught")
    if wanted.json:
        wanted.json.write_text(json.dumps([asdict(verdict) for verdict in verdicts], indent=1) + "\n")
    return int(caught < len(verdicts))
