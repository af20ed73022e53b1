"""The job types that the benchmark submits: nothing, blocking, awaiting, and saying when it began."""

from __future__ import annotations

import asyncio
import functools
import os
import time
from dataclasses import dataclass

from taskmaster_sdk import Job, JobContext, hookimpl, job

__all__ = ["register_jobs"]

QUEUE = "bench"


@dataclass
class Mail:
    """Something of a usual size; nobody reads it."""

    email: str = ""
    name: str = ""
    message: str = ""
    text: str = ""


@dataclass
class Wait:
    """Milliseconds."""

    ms: float = 0


@dataclass
class Stamp:
    """When it was submitted, nanoseconds of the monotonic clock in digits; how long to block after the stamp, ms."""

    sent: str
    ms: float = 0


@functools.cache
def _stamps() -> int:
    return os.open(os.environ["BENCH_STAMPS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)


@job("bench-noop", queue=QUEUE)
def noop(payload: Mail, ctx: JobContext) -> None:
    """Nothing."""


@job("bench-isolated", queue=QUEUE, isolation="process")
def isolated(payload: Mail, ctx: JobContext) -> None:
    """Nothing, in a child process."""


@job("bench-sleep", queue=QUEUE)
def sleep(payload: Wait, ctx: JobContext) -> None:
    """Hold a thread."""
    time.sleep(payload.ms / 1_000)


@job("bench-async", queue=QUEUE)
async def wait(payload: Wait, ctx: JobContext) -> None:
    """Hold no thread."""
    await asyncio.sleep(payload.ms / 1_000)


@job("bench-stamp", queue=QUEUE)
def stamp(payload: Stamp, ctx: JobContext) -> None:
    """Append "<sent> <started>" to the file that BENCH_STAMPS names."""
    os.write(_stamps(), f"{payload.sent} {time.monotonic_ns()}\n".encode())
    if payload.ms:
        time.sleep(payload.ms / 1_000)


@job("bench-report", queue="bench-reports")
def report(payload: Wait, ctx: JobContext) -> None:
    """Hold a thread of another queue."""
    time.sleep(payload.ms / 1_000)


@hookimpl
def register_jobs() -> list[Job]:
    """All of them."""
    return [noop, isolated, sleep, wait, stamp, report]
