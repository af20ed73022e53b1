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
from bench.parts.draining import drain_between, in_turns
from bench.peers.base import Load
from bench.processes import free_port
from support.collector import Collector

__all__ = ["OBSERVED", "UNREAD"]

_RATIO = 0.01


def run(bench: Bench, subject: str) -> Figures:
    """Log level info, a scrape a second, one trace in a hundred sent over gRPC; against log level warning and neither."""
    port = free_port()
    with Collector() as collector, _scraped(port) as scrapes:
        env = {"off": {}, "on": _on(collector.endpoint, port)}
        figures = in_turns(lambda which: _drain(bench, subject, env[which]), "off", "on")
    return figures | {"spans": len(collector.named("process bench-noop")), "scrapes": len(scrapes)}


def run_unread(bench: Bench, subject: str) -> Figures:
    """All on and taken; against a pipe that nobody reads the log from and a collector that accepts connections and never answers."""
    kept_open, pipe = os.pipe()
    with Collector() as collector, socket.create_server(("127.0.0.1", 0)) as silent:
        ways = {"read": (collector.endpoint, None), "unread": (f"http://127.0.0.1:{silent.getsockname()[1]}", pipe)}

        def measure(which: str) -> Figures:
            endpoint, output = ways[which]
            return _drain(bench, subject, _on(endpoint, free_port()), output)

        try:
            figures = in_turns(measure, "read", "unread")
        finally:
            os.close(kept_open)
            os.close(pipe)
    return figures | {"grown MB": figures["unread private MB"] - figures["read private MB"]}


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
