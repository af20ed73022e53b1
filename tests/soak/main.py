"""One run: the world, its load, its faults; then peace, the end of all jobs, and the verdict.

The last line is `verdict: valid`, `invalid` or `inconclusive`, the exit code 0, 1 or 2. Inconclusive: a planned kind of fault never took
effect, or there was no load. The folder of a run that is not valid is kept.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import redis

from soak.checker import Report, Wrong, check
from soak.history import History
from soak.loader import Loader
from soak.nemesis import Nemesis
from soak.plan import KINDS, Fault, faults, tasks
from soak.world import World
from support.eventually import eventually
from support.protocol.dump import Snapshot, snapshot

__all__ = ["main"]

#: How long all jobs may take to end once the faults are over: the supervisor's backoff is up to 10 s, a job may lose three workers.
SETTLE_S = 180.0
_CODES = {"valid": 0, "invalid": 1, "inconclusive": 2}
#: Accepted jobs in a run that has shown something.
ENOUGH = 50


def main(arguments: Sequence[str] | None = None) -> int:
    """Run as the command line says; the exit code."""
    wanted = _arguments(arguments)
    folder = Path(tempfile.mkdtemp(prefix="tm-soak-"))  # short: sockets are in it
    plan = faults(wanted.seed, wanted.seconds, wanted.faults)
    (folder / "plan.json").write_text(json.dumps([fault._asdict() for fault in plan], indent=1))
    print(f"soak: seed {wanted.seed}, {wanted.seconds:g} s, {wanted.rate:g} jobs/s, {len(plan)} faults, {folder}", flush=True)
    history = History(folder / "history.jsonl")
    try:
        report, fired, snap = _run(folder, history, plan, wanted)
    finally:
        history.close()
    verdict = _verdict(report, fired, plan)
    _tell(report, fired, plan)
    if report.wrong:
        _tell_slices(folder, history, report, snap)
    if wanted.json:
        facts = {"seed": wanted.seed, "seconds": wanted.seconds, "verdict": verdict, "faults": dict(fired), "counts": report.identities}
        wanted.json.write_text(json.dumps(facts | {"wrong": [asdict(wrong) for wrong in report.wrong]}, indent=1) + "\n")
    if verdict == "valid" and not wanted.keep:
        shutil.rmtree(folder)
    else:
        print(f"kept: {folder}")
    print(f"verdict: {verdict}", flush=True)
    return _CODES[verdict]


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="ops/dev soak", description="Load and faults for a while, then a verdict.")
    parser.add_argument("--seconds", type=float, default=90.0, help="of load and faults (90); peace and the end of all jobs come after")
    parser.add_argument("--seed", type=int, default=1, help="of jobs and faults (1)")
    parser.add_argument("--rate", type=float, default=30.0, help="submissions a second (30)")
    parser.add_argument(
        "--faults", nargs="+", default=list(KINDS), choices=list(KINDS), metavar="KIND", help=f"only these: {', '.join(KINDS)}"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write counts and verdict there")
    parser.add_argument("--keep", action="store_true", help="keep the folder of a valid run, too")
    return parser.parse_args(arguments)


def _run(folder: Path, history: History, plan: list[Fault], wanted: argparse.Namespace) -> tuple[Report, Counter[str], Snapshot]:
    with World(folder) as world:
        nemesis, early = Nemesis(world, history), dict[str, dict[str, str]]()
        loader = Loader(history, tasks(wanted.seed, int(wanted.seconds * wanted.rate * 2)), world.urls, wanted.seed, rate=wanted.rate)
        ends_at = time.monotonic() + wanted.seconds
        loader.start()
        try:
            for fault in plan:
                if time.monotonic() > ends_at:
                    break
                nemesis.strike(fault)
                _look_at_records(world, early)
            while time.monotonic() < ends_at:
                time.sleep(0.1)
        finally:
            history.note("peace")
            world.heal()
            loader.stop()
        report = Report()
        try:
            eventually(lambda: _open_jobs(world) == 0, SETTLE_S, lambda: f"all jobs end; open are {_open_jobs(world)}", every_s=0.1)
        except AssertionError as error:
            report.wrong.append(Wrong(f"G3 {error}"))
        codes = world.stop_all()
        history.note("stopped", codes=codes)
        with redis.Redis.from_url(world.server.url, decode_responses=True, protocol=2) as client:
            snap, wrong = snapshot(client)
        effects = world.sink.effects()
    found = check(history.rows(), effects, snap, early)
    found.wrong = [*report.wrong, *(Wrong(line) for line in wrong), *found.wrong]
    found.wrong += [Wrong(f"G10 {name} ended with {code} after SIGTERM") for name, code in codes.items() if code]
    return found, nemesis.fired, snap


def _open_jobs(world: World) -> int:
    counters: dict[str, str] = world.server.call("HGETALL", "tm:{0}:n")
    return sum(int(n) for name, n in counters.items() if name.count("/") == 1 and name[-1] in "wda")


def _look_at_records(world: World, early: dict[str, dict[str, str]]) -> None:
    """The newest dead letters as they are now: they must be so at the end."""
    try:
        for job_id in world.server.call("ZREVRANGE", "tm:{0}:dlq:default", 0, 5):
            early.setdefault(job_id, world.server.call("HGETALL", f"tm:{{0}}:d:{job_id}"))
    except redis.RedisError:
        return  # the store is just down


def _verdict(report: Report, fired: Counter[str], plan: list[Fault]) -> str:
    if report.wrong:
        return "invalid"
    missing = {fault.kind for fault in plan} - {kind for kind, n in fired.items() if n}
    if missing or report.identities["accepted"] < ENOUGH:
        return "inconclusive"
    return "valid"


def _tell(report: Report, fired: Counter[str], plan: list[Fault]) -> None:
    planned = Counter(fault.kind for fault in plan)
    print("faults that took effect, of those planned:")
    for kind in sorted(planned):
        print(f"  {kind:28} {fired[kind]:4} of {planned[kind]}")
    print("counts:")
    for name, n in report.identities.items():
        print(f"  {name:28} {n:6}")
    for wrong in report.wrong[:40]:
        print(f"WRONG {wrong.text}{f' (job {wrong.job})' if wrong.job else ''}")
    if len(report.wrong) > 40:
        print(f"… and {len(report.wrong) - 40} more")


def _tell_slices(folder: Path, history: History, report: Report, snap: Snapshot) -> None:
    """Of the first few jobs that are wrong: what was said to and of them, in order."""
    rows = history.rows()
    for job_id in list(dict.fromkeys(wrong.job for wrong in report.wrong if wrong.job))[:3]:
        numbers = {row["n"] for row in rows if row.get("id") == job_id and "n" in row}
        print(f"--- job {job_id}: {snap.get(f'j:{job_id}')}")
        for line in snap.get(f"h:{job_id}", []):
            print(f"    attempt {line}")
        for row in rows:
            if row.get("n") in numbers or job_id in (row.get("id"), row.get("source")):
                print(f"    {json.dumps(row)}")
        lines = [line for path in sorted(folder.glob("worker-*.log")) for line in _mentions(path, job_id)]
        for line in sorted(lines, key=_stamp)[-30:]:
            print(f"    {line}")


def _mentions(path: Path, job_id: str) -> list[str]:
    with path.open(errors="replace") as log:
        return [f"{path.stem} {line.strip()}" for line in log if job_id in line]


def _stamp(line: str) -> Any:
    return line.partition('"timestamp": "')[2][:30]
