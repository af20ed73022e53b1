"""Which of its processes `taskmaster up` starts when."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from taskmaster.cli import launcher
from taskmaster.cli.launcher import Child, Launcher
from taskmaster.settings import Settings


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Commands of the children that were started; they run for ever."""
    commands: list[str] = []

    def start(child: Any) -> None:
        commands.append(child.command)
        child.process = SimpleNamespace(poll=lambda: None)

    monkeypatch.setattr(Child, "start", start)
    return commands


@pytest.fixture
def up() -> Launcher:
    return Launcher(Settings(redis_url="redis://nowhere"), None, {}, lambda: None)


def test_the_scheduler_starts_once_the_others_are_there(up: Launcher, started: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """It would take a share of the cores on which they start, and nobody waits for it."""
    up._begin()
    up._keep()
    assert started == ["worker", "api"]

    monkeypatch.setattr(up, "_workers", lambda: 1)
    up._look()
    up._keep()
    assert started == ["worker", "api", "scheduler"]


def test_the_scheduler_starts_in_time_also_without_them(up: Launcher, started: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """An API that does not come up is no reason to have no schedules."""
    monkeypatch.setattr(launcher, "SCHEDULER_S", 0.0)
    up._begin()
    up._keep()

    assert set(started) == {"worker", "api", "scheduler"}


@pytest.mark.parametrize(("age_s", "code"), [(1.0, 78), (60.0, 0)])
def test_a_child_that_could_not_work_at_all_ends_it(up: Launcher, started: list[str], age_s: float, code: int) -> None:
    """Also one that started after the announcement; one that has worked is started again."""
    up._begin()
    up._is_announced = True
    scheduler: Any = up._children[-1]
    up._keep()
    scheduler.process, scheduler.started = SimpleNamespace(poll=lambda: 78), launcher.time.monotonic() - age_s

    assert up._keep() == code
