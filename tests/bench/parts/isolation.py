"""What a child process around each attempt costs."""

from __future__ import annotations

from bench.parts.base import Bench, Figures, Part
from bench.parts.draining import drain_between
from bench.peers.base import JobName, Load

__all__ = ["ISOLATION"]

_JOBS = 4_000


def run(bench: Bench, subject: str) -> Figures:
    """Drain of jobs that do nothing, on threads and in child processes; microseconds more a job, as CPU time and on the clock."""
    figures: Figures = {}
    kinds: tuple[tuple[JobName, str], ...] = (("noop", "thread"), ("isolated", "process"))
    for load, name in kinds:
        with bench.peer_stage(subject) as (stage, peer):
            count = bench.count(_JOBS * (5 if load == "noop" else 1))
            peer.submit(stage.store, Load(load, count))
            with peer.workers(stage.store, stage.workers()) as process:
                drained = drain_between(stage, peer, process, submitted=count, low=count // 10, high=count * 19 // 20)
        figures |= {f"{name} {figure}": value for figure, value in drained.items()}
    figures["process us more"] = 1e6 / figures["process jobs/s"] - 1e6 / figures["thread jobs/s"]
    figures["process/thread"] = figures["process jobs/s"] / figures["thread jobs/s"]
    return figures


ISOLATION = Part("isolation", ("taskmaster",), run, "Jobs that do nothing: isolation by process against threads, one worker process")
