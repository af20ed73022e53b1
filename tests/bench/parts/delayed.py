"""What a crowd of delayed jobs costs a worker, and whether jobs start when they are due: a few behind it, or a thousand a second of it."""

from __future__ import annotations

import datetime as dt
import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from bench.parts.base import Bench, Figures, Part, Stage, quantile
from bench.peers.base import Load
from bench.peers.taskmaster import command, common_environment, publish
from bench.processes import BenchError, Running, wait_until

__all__ = ["DELAYED", "IMPORT"]

_HOUR_MS = 3_600_000
_DUE_MS = 1_000
_PROBES = 10
_GIVE_UP_S = 10.0


def run(bench: Bench, subject: str) -> Figures:
    """MB that the worker grows by, and ms after their due time that ten jobs start; 10,000 for one that has not after 10 s."""
    with bench.peer_stage(subject) as (stage, peer), peer.workers(stage.store, stage.workers()) as process:
        stage.warm_up(peer, process)
        time.sleep(1.0)
        before = process.private_mb()
        peer.submit(stage.store, Load("stamp", bench.count(100_000), delay_ms=_HOUR_MS))
        time.sleep(2.0)
        grown = process.private_mb() - before
        offsets_ms = tuple(n * 137.0 for n in range(_PROBES))
        peer.submit(stage.store, Load("stamp", _PROBES, chunk=1, delay_ms=_DUE_MS, offsets_ms=offsets_ms))
        with suppress(BenchError):
            stage.wait_for_stamps(_PROBES, within_s=_GIVE_UP_S, process=process)
        late = [(started - sent) / 1e6 - _DUE_MS for sent, started in stage.stamps()]
    late += [_GIVE_UP_S * 1_000] * (_PROBES - len(late))
    return {"grown MB": grown, "late p50 ms": quantile(late, 0.5), "late max ms": max(late)}


DELAYED = Part("delayed", ("taskmaster", "dramatiq", "bullmq"), run, "100,000 delayed jobs; ten jobs due in 1 s behind them")


_DUE_A_S, _DUE_S = 1_000, 20
#: Lines are imported at some thousands a second: the first are due when the last has surely come.
_IMPORTED_A_S = 2_000


def _write(path: Path, count: int, begin: dt.datetime) -> None:
    """So many delayed jobs, of which 20,000 are due from *begin* on, a thousand a second, evenly, and the others in a year."""
    due = _DUE_A_S * _DUE_S
    with path.open("w") as lines:
        for n in range(count):
            at = begin + (dt.timedelta(milliseconds=n * 1_000 / _DUE_A_S) if n < due else dt.timedelta(days=365))
            lines.write(
                json.dumps({"type": "bench-noop", "idempotencyKey": f"i{n}", "runAt": at.isoformat(), "payload": {"text": "x" * 40}}) + "\n"
            )


def _late(stage: Stage) -> Iterator[int]:
    """Ms from due to claimed, of each job that has been claimed, by the store's clock."""
    client = stage.store.client
    ids: Any = client.zrange("tm:{0}:fin:bench/c", 0, -1)
    for first in range(0, len(ids), 1_000):
        pipe = client.pipeline(transaction=False)
        for job_id in ids[first : first + 1_000]:
            pipe.hmget(f"tm:{{0}}:j:{job_id}", "ra", "sa")
        for due, started in pipe.execute():
            yield int(started) - int(due)


def run_import(bench: Bench, subject: str) -> Figures:
    """Lines a second that `taskmaster import` takes, MB that the worker grows by, and ms after their due times that jobs start."""
    count, due = bench.count(1_000_000), _DUE_A_S * _DUE_S
    with bench.peer_stage(subject) as (stage, peer), peer.workers(stage.store, stage.workers()) as process:
        publish(stage.store)
        path = stage.folder / "jobs.ndjson"
        begin = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=count / _IMPORTED_A_S + 20)
        _write(path, count, begin)
        before = process.private_mb()
        told = _import(stage, path)
        if told["accepted"] != count or dt.datetime.now(dt.UTC) >= begin:
            raise BenchError(f"the import came too late, or was not taken whole: {told}")
        grown = process.private_mb() - before
        _wait_for(stage, process, due, within_s=(begin - dt.datetime.now(dt.UTC)).total_seconds() + 3 * _DUE_S)
        late = list(_late(stage))
        most = process.private_mb() - before
    return {
        "lines/s": count / told["seconds"],
        "grown MB": grown,
        "grown while running MB": most,
        "late p50 ms": quantile(late, 0.5),
        "late p99 ms": quantile(late, 0.99),
        "late max ms": max(late),
    }


def _import(stage: Stage, path: Path) -> dict[str, float]:
    done = subprocess.run(
        command("import", str(path), "--json"),
        env=common_environment(stage.folder, stage.store),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise BenchError(f"import ended with {done.returncode}: {done.stderr[-500:]}")
    told: dict[str, float] = json.loads(done.stdout)
    return told


def _wait_for(stage: Stage, process: Running, count: int, *, within_s: float) -> None:
    ended = lambda: stage.store.client.zcard("tm:{0}:fin:bench/c") >= count  # noqa: E731
    wait_until(ended, what=f"{count} jobs done", within_s=within_s, every_s=0.5, process=process)


IMPORT = Part("import", ("taskmaster",), run_import, "1,000,000 delayed jobs from a file; 20,000 of them due at 1,000 a second")
