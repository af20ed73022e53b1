"""Submitting at given times from a synchronous client."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from bench.peers.base import Load, Sent

__all__ = ["timed", "turns"]


def turns(load: Load) -> Iterator[int]:
    """Yield how many jobs to submit now, when they are due, until all are submitted."""
    if load.offsets_ms:
        start = time.monotonic()
        for offset_ms in load.offsets_ms:
            time.sleep(max(0.0, start + offset_ms / 1_000 - time.monotonic()))
            yield 1
        return
    for first in range(0, load.count, load.chunk):
        yield min(load.chunk, load.count - first)


def timed(submit: Callable[[], None]) -> Sent:
    """Run it and say what it took."""
    start, cpu = time.perf_counter(), time.process_time()
    submit()
    return Sent(time.perf_counter() - start, time.process_time() - cpu)
