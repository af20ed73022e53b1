"""From the start of the submit call to the start of the handler, on one monotonic clock."""

from __future__ import annotations

import functools
import itertools
import random
from contextlib import ExitStack

from bench.parts.base import Bench, Figures, Part, Stage, quantile
from bench.peers.base import Load, Peer
from bench.processes import Running

__all__ = ["BUSY", "IDLE", "NEIGHBOURS", "OPEN"]

_PEERS = ("taskmaster", "dramatiq", "bullmq")
_BUSY_SLOTS = 32


def run_latency(bench: Bench, subject: str, *, offsets_ms: tuple[float, ...], payload: dict[str, object], slots: int | None) -> Figures:
    """p50, p99 and maximum in ms; one worker process that is warm."""
    offsets_ms = offsets_ms[: bench.count(len(offsets_ms))]
    with bench.peer_stage(subject) as (stage, peer), peer.workers(stage.store, stage.workers(slots=slots)) as process:
        stage.warm_up(peer, process)
        peer.submit(stage.store, Load("stamp", len(offsets_ms), payload, chunk=1, offsets_ms=offsets_ms))
        stage.wait_for_stamps(len(offsets_ms), within_s=30, process=process)
        waits = [(started - sent) / 1e6 for sent, started in stage.stamps()]
    return {"p50 ms": quantile(waits, 0.5), "p99 ms": quantile(waits, 0.99), "max ms": max(waits)}


def run_neighbours(bench: Bench, subject: str) -> Figures:
    """Pick-up in one queue while nothing else is there, while another queue of the same worker has more than its slots can run, and while
    a second installation on this machine, with its own store and worker, runs those: so much of it is the want of processors.
    """
    count, figures = bench.count(2_000), Figures()
    for name in ("alone", "beside", "apart"):
        with ExitStack() as open_:
            stage, peer, process = _warm(bench, subject, open_)
            if name != "alone":
                reporting = stage if name == "beside" else _warm(bench, subject, open_)[0]
                peer.submit(reporting.store, Load("report", count * 4, {"ms": 50}))
            peer.submit(stage.store, Load("stamp", count, {}, chunk=1, offsets_ms=_gaps(count, 5, 5)))
            stage.wait_for_stamps(count, within_s=30, process=process)
            waits = [(started - sent) / 1e6 for sent, started in stage.stamps()]
        figures |= {f"{name} p50 ms": quantile(waits, 0.5), f"{name} p99 ms": quantile(waits, 0.99)}
    return figures | {f"beside/{other} p99": figures["beside p99 ms"] / figures[f"{other} p99 ms"] for other in ("alone", "apart")}


def _warm(bench: Bench, subject: str, open_: ExitStack) -> tuple[Stage, Peer, Running]:
    stage, peer = open_.enter_context(bench.peer_stage(subject))
    process = open_.enter_context(peer.workers(stage.store, stage.workers()))
    stage.warm_up(peer, process)
    return stage, peer, process


def _gaps(count: int, shortest_ms: float, longest_ms: float) -> tuple[float, ...]:
    dice = random.Random(7)
    return tuple(itertools.accumulate(dice.uniform(shortest_ms, longest_ms) for _ in range(count)))


_IDLE = functools.partial(run_latency, offsets_ms=_gaps(250, 50, 200), payload={}, slots=None)
_OPEN = functools.partial(run_latency, offsets_ms=_gaps(2_000, 5, 5), payload={}, slots=None)
_BUSY = functools.partial(run_latency, offsets_ms=_gaps(2_000, 5, 5), payload={"ms": 50}, slots=_BUSY_SLOTS)

IDLE = Part("idle", _PEERS, _IDLE, "Idle pick-up, gaps of 50-200 ms")
OPEN = Part("open", _PEERS, _OPEN, "Open loop, 200 jobs/s")
NEIGHBOURS = Part("neighbours", ("taskmaster",), run_neighbours, "Open loop, 200 jobs/s, beside a queue at full load (50 ms jobs)")
BUSY = Part("busy", _PEERS, _BUSY, f"Open loop, 200 jobs/s, each running 50 ms, {_BUSY_SLOTS} slots")
