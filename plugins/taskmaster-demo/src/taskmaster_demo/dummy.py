"""A job whose payload says how it ends: for tests, demonstrations and fault drills."""

from __future__ import annotations

import ctypes
import os
import time
from dataclasses import dataclass
from typing import Any, Literal

from taskmaster_sdk import Fatal, JobContext, job

__all__ = ["Dummy", "DummyFailed", "dummy"]

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
    """

    mode: Literal["ok", "fail", "fatal", "segfault", "exit", "spin", "hang"] = "ok"
    sleepMs: int = 0  # noqa: N815 - as on the wire
    failTimes: int = 0  # noqa: N815
    result: Any = None


@job("dummy", example={"mode": "ok", "sleepMs": 100, "failTimes": 2, "result": {"answer": 42}})
def dummy(payload: Dummy, ctx: JobContext) -> Any:
    """Do what the payload says: succeed, fail, take the process down, or never come back."""
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
    if payload.mode == "segfault":
        ctypes.string_at(0)
    elif payload.mode == "exit":
        os._exit(139)
    elif payload.mode == "hang":
        time.sleep(HANG_S)
        return None
    while True:  # spin: holds the interpreter as far as a pure-Python loop can
        pass
