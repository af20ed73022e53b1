"""Submission through each system's own client, in bulk of 500 and one at a time."""

from __future__ import annotations

from bench.parts.base import Bench, Figures, Part
from bench.peers.base import Load

__all__ = ["SUBMIT"]


def run(bench: Bench, subject: str) -> Figures:
    """Jobs a second; CPU of client and server a job. No worker runs."""
    figures: Figures = {}
    for kind, chunk, full in (("bulk", 500, 20_000), ("single", 1, 5_000)):
        with bench.peer_stage(subject) as (stage, peer):
            if chunk > 1 and not peer.has_bulk:
                continue
            peer.submit(stage.store, Load("noop", chunk, chunk=chunk))
            count = bench.count(full)
            before = stage.store.cpu_s()
            sent = peer.submit(stage.store, Load("noop", count, chunk=chunk))
            figures[f"{kind} jobs/s"] = count / sent.seconds
            figures[f"{kind} client us/job"] = sent.cpu_s / count * 1e6
            figures[f"{kind} server us/job"] = (stage.store.cpu_s() - before) / count * 1e6
    return figures


SUBMIT = Part("submit", ("taskmaster", "dramatiq", "bullmq"), run, "Submission, one client")
