"""What watching costs: the drain with logs and tracing as good as off, and with both on and the metrics scraped."""

from __future__ import annotations

import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from bench.parts.base import Bench, Figures, Part
from bench.parts.draining import drain_between
from bench.peers.base import Load
from bench.processes import free_port
from support.collector import Collector

__all__ = ["OBSERVED"]

_RATIO = 0.01


def run(bench: Bench, subject: str) -> Figures:
    """Log level info, a scrape a second, one trace in a hundred sent over gRPC; against log level warning and neither."""
    figures = {f"off {name}": value for name, value in _drain(bench, subject, {}).items()}
    port, collector = free_port(), Collector()
    on = {
        "TASKMASTER_LOG_LEVEL": "info",
        "TASKMASTER_WORKER_METRICS_PORT": str(port),
        "TASKMASTER_OTLP_ENDPOINT": collector.endpoint,
        "TASKMASTER_TRACE_RATIO": str(_RATIO),
    }
    with collector, _scraped(port) as scrapes:
        figures |= {f"on {name}": value for name, value in _drain(bench, subject, on).items()}
    spans = len(collector.named("process bench-noop"))
    return figures | {"spans": spans, "scrapes": len(scrapes), "on/off": figures["on jobs/s"] / figures["off jobs/s"]}


def _drain(bench: Bench, subject: str, env: dict[str, str]) -> Figures:
    with bench.peer_stage(subject) as (stage, peer):
        count = bench.count(peer.drain_count)
        peer.submit(stage.store, Load("noop", count))
        workers = stage.workers()
        with peer.workers(stage.store, replace(workers, env={**workers.env, **env})) as process:
            return drain_between(stage, peer, process, submitted=count, low=count // 10, high=count * 19 // 20)


@contextmanager
def _scraped(port: int) -> Iterator[list[int]]:
    """Sizes of what a scrape a second brings meanwhile."""
    over, sizes = threading.Event(), list[int]()

    def scrape() -> None:
        while not over.wait(1.0):
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
                    sizes.append(len(answer.read()))
            except (urllib.error.URLError, OSError):
                continue  # the worker is not there yet, or not any more

    thread = threading.Thread(target=scrape)
    thread.start()
    try:
        yield sizes
    finally:
        over.set()
        thread.join()


OBSERVED = Part("observed", ("taskmaster",), run, "Drain without, and with logs at info level, metrics and tracing of 1 %")
