"""Command line: run parts for subjects, interleaved, and print the tables."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from bench.machine import Meter, python_speed, wait_for_quiet
from bench.parts.base import Bench, Part
from bench.parts.coroutines import ASYNC
from bench.parts.cost import COST, SIZE
from bench.parts.delayed import DELAYED, IMPORT
from bench.parts.draining import BACKLOG, DRAIN, DRAIN_TWO, FLOW
from bench.parts.http import HTTP
from bench.parts.isolation import ISOLATION
from bench.parts.latency import BUSY, IDLE, NEIGHBOURS, OPEN
from bench.parts.observed import OBSERVED, UNREAD
from bench.parts.schedules import SCHEDULES
from bench.parts.startup import UP
from bench.parts.submission import SUBMIT
from bench.peers.bullmq import BullMQ
from bench.peers.stock import StockDramatiq
from bench.peers.taskmaster import TaskMaster
from bench.processes import BenchError
from bench.report import Row, as_json, as_markdown
from support.servers import KINDS, version_of

__all__ = ["main"]

PARTS = (
    SUBMIT,
    DRAIN,
    DRAIN_TWO,
    FLOW,
    OBSERVED,
    UNREAD,
    IDLE,
    OPEN,
    BUSY,
    NEIGHBOURS,
    DELAYED,
    IMPORT,
    COST,
    SIZE,
    BACKLOG,
    SCHEDULES,
    HTTP,
    ASYNC,
    ISOLATION,
    UP,
)
PEERS = (TaskMaster(), StockDramatiq(), BullMQ())


def main(argv: Sequence[str] | None = None) -> int:
    """0 when every part was measured for every subject; 1 when one was not."""
    options = _parser().parse_args(argv)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # children end with their blocks
    bench = Bench(options.store, options.aof, options.quick, {peer.name: peer for peer in PEERS})
    parts = [part for part in PARTS if not options.only or part.name in options.only]
    rows: list[Row] = []
    for part in parts:
        for repetition in range(options.repeat):
            for subject in part.subjects:
                if not options.subjects or subject in options.subjects:
                    wait_for_quiet(options.patience)
                    rows.append(_measure(bench, part, subject, repetition))
                    print(_progress(rows[-1]), file=sys.stderr, flush=True)
    facts = _facts(options)
    print(as_markdown(parts, rows, facts))
    if options.json:
        options.json.write_text(as_json(rows, facts))
    return 1 if any(row.error for row in rows) else 0


def _measure(bench: Bench, part: Part, subject: str, repetition: int) -> Row:
    load, speed, meter = os.getloadavg()[0], python_speed(), Meter()
    try:
        figures, error = part.run(bench, subject), ""
    except (BenchError, AssertionError, subprocess.SubprocessError, OSError) as problem:
        figures, error = {}, " ".join(str(problem).split()) or type(problem).__name__
    return Row(part.name, subject, repetition, load, meter.others(), speed, figures, error)


def _progress(row: Row) -> str:
    said = f"(others {row.others:.1f}) " + (row.error or ", ".join(f"{name} {value:,.4g}" for name, value in row.figures.items()))
    return f"{time.strftime('%H:%M:%S')} {row.part} {row.subject} {row.repetition + 1}: {said}"


def _facts(options: argparse.Namespace) -> dict[str, object]:
    versions = [f"{options.store} {version_of(options.store)}", f"Python {sys.version.split()[0]}"]
    for peer in PEERS:
        try:
            versions.append(peer.version())
        except (BenchError, OSError, subprocess.SubprocessError):
            versions.append(f"{peer.name}: not here")
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "machine": f"{os.cpu_count()} cores",
        "versions": ", ".join(versions),
        "append-only file": "everysec" if options.aof else "off",
        "repetitions": options.repeat,
        "quick": options.quick,
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="ops/dev bench", description="Measure TaskMaster beside stock Dramatiq and BullMQ.")
    names = ", ".join(part.name for part in PARTS)
    parser.add_argument("--only", type=lambda text: _known(text, [p.name for p in PARTS]), metavar="NAME,...", help=f"parts: {names}")
    subjects = list(dict.fromkeys(subject for part in PARTS for subject in part.subjects))
    parser.add_argument("--subjects", type=lambda text: _known(text, subjects), metavar="NAME,...", help=f"systems: {', '.join(subjects)}")
    parser.add_argument("--quick", action="store_true", help="a fifth of the jobs: to see that it works, not to quote")
    parser.add_argument("--repeat", type=int, default=3, metavar="N", help="runs of each part and system, interleaved; the median is shown")
    parser.add_argument("--patience", type=float, default=0, metavar="S", help="wait up to so long for a quiet machine before each run")
    parser.add_argument("--store", choices=KINDS, default="valkey", help="server that all systems run on")
    parser.add_argument("--aof", action="store_true", help="append-only file, everysec")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every row here")
    return parser


def _known(text: str, names: Sequence[str]) -> list[str]:
    wanted = text.split(",")
    for name in wanted:
        if name not in names:
            raise argparse.ArgumentTypeError(f"{name!r} is not one of {', '.join(names)}")
    return wanted
