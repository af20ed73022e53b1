"""Job types that do to a worker what plugins of this world do. `install` of `support.plugin` lays it where workers find it.

Payload: `key` names the effect in the sink, `gate` a file that must be there before the handler goes on, `n` how often or how much. What
has happened is in the sink alone. TASKMASTER_PLUGIN_FAULTS_SINK is the sink's socket.
"""

from __future__ import annotations

import ctypes
import os
import signal
import time
from pathlib import Path
from typing import Any, TypedDict

from support import sink
from taskmaster_sdk import Backoff, Fatal, JobContext, hookimpl, job

SOON = Backoff(kind="fixed", delay_ms=50)


class Payload(TypedDict, total=False):
    key: str
    gate: str
    n: int
    then: str


def happen(ctx: JobContext, key: str) -> int:
    """The effect."""
    return sink.record(os.environ["TASKMASTER_PLUGIN_FAULTS_SINK"], key, ctx.job_id, ctx.attempt)


def has_happened(key: str) -> bool:
    return sink.seen(os.environ["TASKMASTER_PLUGIN_FAULTS_SINK"], key) > 0


def wait_for(path: str) -> None:
    while path and not Path(path).exists():
        time.sleep(0.01)


@job("plain", backoff=SOON)
def plain(payload: Payload, ctx: JobContext) -> dict[str, Any]:
    """Nothing guards the effect: it happens as often as the job is attempted."""
    return {"n": happen(ctx, payload["key"])}


@job("once", backoff=SOON)
def once(payload: Payload, ctx: JobContext) -> dict[str, Any]:
    """At most once: an outcome that nobody knows ends the job."""
    with ctx.once("sink") as effect:
        if effect.is_new:
            effect.result = {"n": happen(ctx, payload["key"])}
    return dict(effect.result or {})


@job("at-least-once", backoff=SOON)
def at_least_once(payload: Payload, ctx: JobContext) -> None:
    """Repeated under the same key when nobody knows."""
    with ctx.effect("sink", mode="at_least_once") as effect:
        if effect.is_new:
            effect.result = happen(ctx, payload["key"])


@job("verify", backoff=SOON)
def verify(payload: Payload, ctx: JobContext) -> None:
    """Asks the sink when nobody knows."""
    with ctx.effect("sink", mode="verify", verify=lambda _: has_happened(payload["key"])) as effect:
        if effect.is_new:
            effect.result = happen(ctx, payload["key"])


@job("isolated", isolation="process", timeout_s=20, backoff=SOON)
def isolated(payload: Payload, ctx: JobContext) -> dict[str, Any]:
    """A guarded effect in a process of its own, which the first attempt kills if `n` says so, before the effect."""
    if payload.get("n") and ctx.attempt == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    with ctx.once("sink") as effect:
        if effect.is_new:
            effect.result = {"n": happen(ctx, payload["key"])}
    return dict(effect.result or {})


@job("failing", backoff=SOON)
def failing(payload: Payload, ctx: JobContext) -> int:
    """Fails the first `n` attempts."""
    if ctx.attempt <= payload.get("n", 0):
        raise ValueError(f"attempt {ctx.attempt} fails")
    return happen(ctx, payload["key"])


@job("crash-once", backoff=SOON)
def crash_once(payload: Payload, ctx: JobContext) -> int:
    """Takes its process along, once, before the effect."""
    if ctx.attempt == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return happen(ctx, payload["key"])


@job("poison")
def poison(payload: Payload, ctx: JobContext) -> None:
    """Crashes every process that runs it."""
    ctypes.string_at(0)


@job("gated", timeout_s=120, backoff=SOON)
def gated(payload: Payload, ctx: JobContext) -> dict[str, Any]:
    """The first attempt waits for its gate, deaf to everything, and then ends as `then` says; the others do what `n` says at once.

    `then`: ok, fail, fatal. `n`: 0 complete, 1 die for good, 2 wait for the second gate `<gate>.2`.
    """
    happen(ctx, f"begun:{payload['key']}:{ctx.attempt}")
    if ctx.attempt > 1:
        if payload.get("n", 0) == 2:
            wait_for(payload["gate"] + ".2")
        if payload.get("n", 0) == 1:
            raise Fatal("the second owner says no")
        return {"by": "second"}
    wait_for(payload["gate"])
    ctx.progress(0.9, "the zombie")
    if payload.get("then") == "fail":
        raise ValueError("the zombie fails")
    if payload.get("then") == "fatal":
        raise Fatal("the zombie dies")
    return {"by": "first"}


@job("nap", timeout_s=120)
def nap(payload: Payload, ctx: JobContext) -> int:
    """Sleeps `n` ms in steps, and heeds a cancel."""
    until = time.monotonic() + payload.get("n", 0) / 1_000
    while time.monotonic() < until:
        ctx.check()
        time.sleep(0.005)
    return happen(ctx, payload["key"])


@job("huge")
def huge(payload: Payload, ctx: JobContext) -> str:
    """An effect, and a result that is too large to stand beside its job: it becomes an artifact."""
    happen(ctx, payload["key"])
    return "x" * 400_000


@job("broken", attempts=1)
def broken(payload: Payload, ctx: JobContext) -> int:
    """Dies of one of two causes until its gate is there: `then` is full or away, `n` is of the single case."""
    if Path(payload["gate"]).exists():
        return happen(ctx, payload["key"])
    if payload.get("then") == "full":
        raise ValueError(f"mailbox {payload.get('n', 0)} of user{payload.get('n', 0)}@example.com is full")
    raise ConnectionError(f"no route to 10.0.{payload.get('n', 0)}.1:25, message {payload['key']!r}")


JOBS = [plain, once, at_least_once, verify, isolated, failing, crash_once, poison, gated, nap, huge, broken]


@hookimpl
def register_jobs() -> list[Any]:
    return JOBS
