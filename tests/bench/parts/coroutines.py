"""A thousand handlers that wait 200 ms each."""

from __future__ import annotations

import threading

from bench.parts.base import Bench, Figures, Part
from bench.parts.draining import drain_between
from bench.peers.base import Load
from bench.processes import Running

__all__ = ["ASYNC"]

_SLOTS = 1_000
_WAIT_MS = 200


def run(bench: Bench, subject: str) -> Figures:
    """Jobs a second (5,000 would be ideal), MB more than an idle worker, and threads of the process that has most."""
    with bench.peer_stage(subject) as (stage, peer):
        workers = stage.workers(slots=_SLOTS)
        with peer.workers(stage.store, workers) as process:
            stage.warm_up(peer, process)
            idle_mb = process.private_mb()
        count = bench.count(25_000)
        peer.submit(stage.store, Load("async", count, {"ms": _WAIT_MS}))
        total = count + 3
        with peer.workers(stage.store, workers) as process:
            stop, peak = threading.Event(), Peak(process)
            sampler = threading.Thread(target=peak.sample_until, args=(stop,), name="peak")
            sampler.start()
            try:
                figures = drain_between(stage, peer, process, submitted=total, low=_SLOTS, high=total, poll_s=0.005)
            finally:
                stop.set()
                sampler.join()
    return figures | {"grown MB": peak.private_mb - idle_mb, "threads": float(peak.threads)}


class Peak:
    """The most memory and threads seen."""

    def __init__(self, process: Running) -> None:
        self._process = process
        self.private_mb = 0.0
        self.threads = 0

    def sample_until(self, stop: threading.Event) -> None:
        """Look twice a second."""
        while not stop.wait(0.5):
            self.private_mb = max(self.private_mb, self._process.private_mb())
            self.threads = max(self.threads, self._process.threads())


ASYNC = Part("async", ("taskmaster", "bullmq"), run, "1,000 waiting async handlers (200 ms each), one worker process")
