"""How many workers a queue needs."""

from __future__ import annotations

import pytest

from taskmaster.engine.queries import empty_queue
from taskmaster.engine.scaling import workers_needed
from taskmaster.model.job import Counts


@pytest.mark.parametrize(
    ("waiting", "active", "oldest_ms", "mean_ms", "needed"),
    [
        (0, 0, None, None, 0),
        (0, 0, None, 500.0, 0),
        (0, 1, None, 500.0, 1),
        (1, 0, 0, 500.0, 1),
        (1, 0, 0, None, 1),
        (100, 0, 0, None, 10),  # nobody knows how long they take
        (1_200, 0, 0, 1_000.0, 2),  # 60 rounds a slot: 20 slots
        (1_200, 20, 0, 1_000.0, 4),
        (1_200, 0, 30_000, 1_000.0, 4),  # half of the time is over
        (1_200, 0, 10_000_000, 1_000.0, 20),  # all of it, but no more than ten times as many
        (600, 0, 0, 600_000.0, 60),  # one that takes longer than the time: each needs a slot
        (60_000, 0, 0, 0.0, 1),
    ],
)
def test_workers_needed(waiting: int, active: int, oldest_ms: int | None, mean_ms: float | None, needed: int) -> None:
    view = empty_queue("one")._replace(counts=Counts(waiting=waiting, active=active), oldest_ms=oldest_ms, mean_run_ms=mean_ms)

    assert workers_needed(view, slots=10, within_ms=60_000, is_paused=False) == needed


def test_a_paused_queue_needs_workers_for_what_runs_alone() -> None:
    view = empty_queue("one")._replace(counts=Counts(waiting=1_000, active=3))

    assert workers_needed(view, slots=2, within_ms=60_000, is_paused=True) == 2
