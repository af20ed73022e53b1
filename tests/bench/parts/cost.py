"""What a job costs the server: CPU over its whole life, and bytes with a 200-byte payload."""

from __future__ import annotations

from bench.parts.base import Bench, Figures, Part
from bench.peers.base import Load
from bench.processes import wait_until

__all__ = ["COST", "SIZE"]

_COUNT = 20_000
#: So many that tables which double in size do not show.
_KEPT = 100_000
#: A JSON object of 200 bytes.
_PAYLOAD: dict[str, object] = {"text": "x" * 189}


def run_cost(bench: Bench, subject: str) -> Figures:
    """Server CPU a job from its submission in bulk to its record; and to the record's end where the system prunes by count."""
    with bench.peer_stage(subject) as (stage, peer):
        count = bench.count(_COUNT)
        before = stage.store.cpu_s()
        peer.submit(stage.store, Load("noop", count))
        submitted = stage.store.cpu_s()
        with peer.workers(stage.store, stage.workers()) as process:
            wait_until(lambda: peer.done(stage.store, count) >= count, what="drain", within_s=60, process=process)
            done = stage.store.cpu_s()
        figures = {"submit us/job": (submitted - before) / count * 1e6, "drain us/job": (done - submitted) / count * 1e6}
        if peer.prune(stage.store):
            figures["prune us/job"] = (stage.store.cpu_s() - done) / count * 1e6
        figures["life us/job"] = sum(figures.values())
        return figures


def run_size(bench: Bench, subject: str) -> Figures:
    """Bytes a job by the server's own count, waiting and finished, all indexes in it."""
    with bench.peer_stage(subject) as (stage, peer):
        peer.submit(stage.store, Load("noop", 500, _PAYLOAD))
        count = _KEPT  # fewer, and the fixed part of indexes and streams would show
        empty = stage.store.used_bytes()
        peer.submit(stage.store, Load("noop", count, _PAYLOAD))
        figures = {"waiting B/job": (stage.store.used_bytes() - empty) / count}
        if peer.has_record:
            with peer.workers(stage.store, stage.workers()) as process:
                wait_until(lambda: peer.done(stage.store, count + 500) >= count + 500, what="drain", within_s=150, process=process)
            figures["finished B/job"] = (stage.store.used_bytes() - empty) / count
        return figures


_PEERS = ("taskmaster", "dramatiq", "bullmq")
COST = Part("cost", _PEERS, run_cost, "Server CPU a job, from submission to pruned record, in batches")
SIZE = Part("size", _PEERS, run_size, "Bytes a job with a 200 B payload")
