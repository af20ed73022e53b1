"""Draining a backlog of no-op jobs: the rate between two counts of finished jobs, so that starting up is not in it."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from statistics import fmean

from bench.parts.base import Bench, Figures, Part, Stage
from bench.peers.base import Load, Peer
from bench.processes import Running, wait_until
from taskmaster.engine.limits import LimitRule, put_limit
from taskmaster.engine.rules import Word
from taskmaster.store.client import SyncStore

__all__ = ["BACKLOG", "DRAIN", "DRAIN_TWO", "FLOW", "drain_between", "in_turns"]

_WITHIN_S = 60.0
_POLL_S = 0.02
_TIMED = 10_000


def drain_between(stage: Stage, peer: Peer, process: Running, *, submitted: int, low: int, high: int, poll_s: float = _POLL_S) -> Figures:
    """Jobs a second, and CPU a job of server and workers, from the poll that sees *low* jobs done to the one that sees *high*."""

    def reach(count: int) -> tuple[int, float, float, float]:
        done = 0

        def is_there() -> bool:
            nonlocal done
            done = peer.done(stage.store, submitted)
            return done >= count

        wait_until(is_there, what=f"{count} jobs done", within_s=_WITHIN_S, every_s=poll_s, process=process)
        return done, time.perf_counter(), stage.store.cpu_s(), process.cpu_s()

    first, start, server, worker = reach(low)
    last, end, server_end, worker_end = reach(high)
    jobs = last - first
    return {
        "jobs/s": jobs / (end - start),
        "worker us/job": (worker_end - worker) / jobs * 1e6,
        "server us/job": (server_end - server) / jobs * 1e6,
    }


def run_drain(bench: Bench, subject: str, *, processes: int) -> Figures:
    """Everything submitted first, then the workers started; the first tenth and the last twentieth are not timed."""
    with bench.peer_stage(subject) as (stage, peer):
        count = bench.count(peer.drain_count * processes)
        peer.submit(stage.store, Load("noop", count))
        with peer.workers(stage.store, stage.workers(processes=processes)) as process:
            return drain_between(stage, peer, process, submitted=count, low=count // 10, high=count * 19 // 20)


def run_backlog(bench: Bench, subject: str) -> Figures:
    """Rate over 10,000 jobs with few and with many waiting."""
    figures: Figures = {}
    for size in (12_000, bench.count(1_000_000)):
        with bench.peer_stage(subject) as (stage, peer):
            peer.submit(stage.store, Load("noop", size))
            with peer.workers(stage.store, stage.workers()) as process:
                drained = drain_between(stage, peer, process, submitted=size, low=1_000, high=1_000 + _TIMED)
        which = "few" if size == 12_000 else "many"
        figures |= {f"{which} {name}": value for name, value in drained.items()}
    figures["many/few"] = figures["many jobs/s"] / figures["few jobs/s"]
    return figures


def in_turns(measure: Callable[[str], Figures], one: str, other: str) -> Figures:
    """Means of *one*, *other*, *other*, *one*: the machine changes its speed within seconds, so two runs are hardly of one machine."""
    found: dict[str, list[Figures]] = {one: [], other: []}
    for which in (one, other, other, one):
        found[which].append(measure(which))
    means = {f"{which} {name}": fmean(row[name] for row in rows) for which, rows in found.items() for name in rows[0]}
    return means | {f"{other}/{one}": means[f"{other} jobs/s"] / means[f"{one} jobs/s"]}


def run_flow(bench: Bench, subject: str) -> Figures:
    """The rate without and with a limiter that each job names, which always has room, and jobs of 100 customers that take turns."""
    loads = {"off": Load("noop", 0), "on": Load("noop", 0, limits=("provider",), fairness_keys=100)}

    def measure(which: str) -> Figures:
        with bench.peer_stage(subject) as (stage, peer):
            count = bench.count(peer.drain_count)
            with closing(SyncStore(stage.store.url)) as client:
                client.converse(put_limit("provider", LimitRule(kind="concurrency", max=1_000), Word("bench", ""), partitions=1))
            peer.submit(stage.store, replace(loads[which], count=count))
            with peer.workers(stage.store, stage.workers()) as process:
                return drain_between(stage, peer, process, submitted=count, low=count // 10, high=count * 19 // 20)

    return in_turns(measure, "off", "on")


_PEERS = ("taskmaster", "dramatiq", "bullmq")
DRAIN = Part("drain", _PEERS, functools.partial(run_drain, processes=1), "Drain of no-op jobs, one worker process")
DRAIN_TWO = Part("drain2", _PEERS, functools.partial(run_drain, processes=2), "Drain of no-op jobs, two worker processes")
FLOW = Part("flow", ("taskmaster",), run_flow, "Drain without, and with a limiter and 100 fairness keys")
BACKLOG = Part("backlog", ("taskmaster",), run_backlog, "Drain with 10 thousand and with 1 million waiting (10,000 jobs timed)")
