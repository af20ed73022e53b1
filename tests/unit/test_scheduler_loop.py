"""The scheduler's loop: APScheduler goes round by a monotonic clock and keeps nothing."""

from __future__ import annotations

import ast
import datetime as dt
import threading
from pathlib import Path

import pytest
from apscheduler.schedulers import base

import taskmaster.scheduler
from support.eventually import eventually
from taskmaster.scheduler.loop import Loop


def test_apscheduler_keeps_no_schedules() -> None:
    """Of APScheduler only the loop and its interfaces are used: no stores that pickle, no triggers that read cron their own way."""
    allowed = {"executors.debug", "job", "jobstores.base", "schedulers.background", "triggers.base"}
    (folder,) = taskmaster.scheduler.__path__
    found = set()
    for path in Path(folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("apscheduler"):
                found.add((node.module or "").removeprefix("apscheduler."))

    assert found == allowed


def test_the_next_round_comes_when_the_last_one_said() -> None:
    """And a round that raises is followed by another."""
    rounds, came = [], threading.Event()

    def turn() -> float:
        rounds.append(1)
        if len(rounds) == 2:
            raise RuntimeError("as asked")
        if len(rounds) == 4:
            came.set()
        return 0.0 if len(rounds) < 4 else 3_600.0

    loop = Loop(turn)
    loop.start()
    try:
        assert came.wait(20)
    finally:
        loop.stop()

    assert len(rounds) == 4


@pytest.mark.parametrize("jump", [dt.timedelta(hours=-1), dt.timedelta(hours=1)])
def test_a_local_clock_that_is_set_neither_stops_nor_hurries_it(monkeypatch: pytest.MonkeyPatch, jump: dt.timedelta) -> None:
    """APScheduler's reading of the clock jumps between two rounds: they go on at their pace."""
    rounds: list[int] = []

    class Jumped(dt.datetime):
        @classmethod
        def now(cls, tz: dt.tzinfo | None = None) -> Jumped:
            real = super().now(tz)
            return real + jump if len(rounds) >= 3 else real

    monkeypatch.setattr(base, "datetime", Jumped)

    def turn() -> float:
        rounds.append(1)
        return 0.01 if len(rounds) < 8 else 3_600.0

    loop = Loop(turn)
    loop.start()
    try:
        eventually(lambda: len(rounds) >= 8, 10, "the rounds go on")
    finally:
        loop.stop()

    assert len(rounds) == 8
