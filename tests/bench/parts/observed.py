"""What watching costs: the drain with logs and tracing as good as off, with all on and taken, and with nobody who takes them."""

from __future__ import annotations

import os
import socket
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

__all__ = ["OBSERVED", "UNREAD"]

_RATIO = 0.01


def run(bench: Bench, subject: str) -> Figures:
    """Log level info, a scrape a second, one trace in a hundred sent over gRPC; against log level warning and neither."""
    figures = {f"off {name}": value for name, value in _drain(bench, subject, {}).items()}
    port, collector = free_port(), Collector()
    with collector, _scraped(port) as scrapes:
        figures |= {f"on {name}": value for name, value in _drain(bench, subject, _on(collector.endpoint, port)).items()}
    spans = len(collector.named("process bench-noop"))
    return figures | {"spans": spans, "scrapes": len(scrapes), "on/off": figures["on jobs/s"] / figures["off jobs/s"]}


def run_unread(bench: Bench, subject: str) -> Figures:
    """All on and taken; against a pipe that nobody reads the log from and a collector that accepts connections and never answers."""
    with Collector() as collector:
        figures = {f"read {name}": value for name, value in _drain(bench, subject, _on(collector.endpoint, free_port())).items()}
    kept_open, pipe = os.pipe()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        try:
            env = _on(f"http://127.0.0.1:{silent.getsockname()[1]}", free_port())
            figures |= {f"unread {name}": value for name, value in _drain(bench, subject, env, pipe).items()}
        finally:
            os.close(kept_open)
            os.close(pipe)
    return figures | {
        "unread/read": figures["unread jobs/s"] / figures["read jobs/s"],
        "grown MB": figures["unread private MB"] - figures["read private MB"],
    }


def _on(collector: str, port: int) -> dict[str, str]:
    return {
        "TASKMASTER_LOG_LEVEL": "info",
        "TASKMASTER_WORKER_METRICS_PORT": str(port),
        "TASKMASTER_OTLP_ENDPOINT": collector,
        "TASKMASTER_TRACE_RATIO": str(_RATIO),
    }


def _drain(bench: Bench, subject: str, env: dict[str, str], output: int | None = None) -> Figures:
    with bench.peer_stage(subject) as (stage, peer):
        count = bench.count(peer.drain_count)
        peer.submit(stage.store, Load("noop", count))
        workers = stage.workers()
        with peer.workers(stage.store, replace(workers, env={**workers.env, **env}, output=output)) as process:
            figures = drain_between(stage, peer, process, submitted=count, low=count // 10, high=count * 19 // 20)
            return figures | {"private MB": process.private_mb()}


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


UNREAD = Part("unread", ("taskmaster",), run_unread, "Drain with all of that on, and with nobody who reads the log or takes the spans")
OBSERVED = Part("observed", ("taskmaster",), run, "Drain without, and with logs at info level, metrics and tracing of 1 %")
