"""A job whose payload says how it ends: for tests, demonstrations and fault drills."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import socket
import time
from dataclasses import dataclass
from typing import Any, Literal

from taskmaster_sdk import Fatal, JobContext, job

__all__ = ["Dummy", "DummyFailed", "dummy", "dummy_isolated"]

#: Seconds that `hang` stays in one call of C, where no exception can reach it.
HANG_S = 3_600


class DummyFailed(Exception):
    """The failure that was asked for."""


@dataclass
class Dummy:
    """What to do.

    Attributes:
        mode: how every attempt ends that `failTimes` lets through.
        sleepMs: milliseconds to wait before anything else.
        failTimes: the first so many attempts fail, whatever the mode.
        result: what mode `ok` returns.
        megabytes: what mode `leak` takes before it waits.
    """

    mode: Literal["ok", "fail", "fatal", "segfault", "exit", "abort", "spin", "hang", "socket", "deaf", "chew", "leak"] = "ok"
    sleepMs: int = 0  # noqa: N815 - as on the wire
    failTimes: int = 0  # noqa: N815
    result: Any = None
    megabytes: int = 1_024


@job("dummy", example={"mode": "ok", "sleepMs": 100, "failTimes": 2, "result": {"answer": 42}})
def dummy(payload: Dummy, ctx: JobContext) -> Any:
    """Do what the payload says: succeed, fail, take the process down, or never come back."""
    return _play(payload, ctx)


@job("dummy-isolated", isolation="process", memory_mb=256, example={"mode": "segfault"})
def dummy_isolated(payload: Dummy, ctx: JobContext) -> Any:
    """The same in a child process of its own, which alone bears the consequences."""
    return _play(payload, ctx)


def _play(payload: Dummy, ctx: JobContext) -> Any:
    if payload.sleepMs > 0:
        time.sleep(payload.sleepMs / 1_000)
    if ctx.attempt <= payload.failTimes:
        raise DummyFailed(f"attempt {ctx.attempt} of {payload.failTimes} that fail as asked")
    if payload.mode == "ok":
        return payload.result
    if payload.mode == "fail":
        raise DummyFailed("fails always, as asked")
    if payload.mode == "fatal":
        raise Fatal("fatal, as asked")
    _crash(payload.mode)
    return _never_return(payload)


def _crash(mode: str) -> None:
    if mode == "segfault":
        ctypes.string_at(0)
    elif mode == "exit":
        os._exit(139)
    elif mode == "abort":
        os.abort()


def _never_return(payload: Dummy) -> None:
    if payload.mode == "hang":
        time.sleep(HANG_S)
    elif payload.mode == "socket":
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.recv(1)  # nobody ever writes
    elif payload.mode == "chew":
        re.match(r"(a+)+$", "a" * 64 + "b")  # backtracks for longer than anybody lives, and holds the interpreter's lock
    elif payload.mode == "leak":
        taken = [bytearray(b"x" * 1_048_576) for _ in range(payload.megabytes)]
        time.sleep(HANG_S if taken else 0)
    elif payload.mode == "deaf":
        while True:
            with contextlib.suppress(BaseException):
                time.sleep(0.01)
    while payload.mode == "spin":  # holds the interpreter as far as a pure-Python loop can
        pass
