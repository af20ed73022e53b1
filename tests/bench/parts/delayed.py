"""What a crowd of delayed jobs costs a worker, and whether a job due sooner is held up by it."""

from __future__ import annotations

import time
from contextlib import suppress

from bench.parts.base import Bench, Figures, Part, quantile
from bench.peers.base import Load
from bench.processes import BenchError

__all__ = ["DELAYED"]

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
