"""Actors for stock Dramatiq: its RedisBroker and its default middleware, untouched.

Workers: `dramatiq bench.peers.stock_actors:from_environment`.
"""

from __future__ import annotations

import os
import time

import dramatiq
from dramatiq.brokers.redis import RedisBroker

from bench.peers.base import QUEUE, STAMPS

__all__ = ["URL", "declare", "from_environment"]

#: Environment variable of the store's address.
URL = "BENCH_REDIS_URL"


def declare(url: str) -> dict[str, dramatiq.Actor]:
    """A broker on this store, made the process's own, with the bench's actors by job name."""
    broker = RedisBroker(url=url)
    dramatiq.set_broker(broker)
    stamps = os.open(os.environ[STAMPS], os.O_WRONLY | os.O_APPEND | os.O_CREAT) if STAMPS in os.environ else -1

    def noop(payload: dict[str, object]) -> None:
        """Nothing."""

    def sleep(payload: dict[str, float]) -> None:
        time.sleep(payload["ms"] / 1_000)

    def stamp(payload: dict[str, str]) -> None:
        os.write(stamps, f"{payload['sent']} {time.monotonic_ns()}\n".encode())
        if "ms" in payload:
            time.sleep(float(payload["ms"]) / 1_000)

    return {fn.__name__: dramatiq.actor(fn, broker=broker, queue_name=QUEUE) for fn in (noop, sleep, stamp)}


def from_environment() -> None:
    """What the worker command line names."""
    declare(os.environ[URL])
