"""How the measurements are judged: by ratios, and where a bound has a unit, by the speed of the machine."""

from __future__ import annotations

import pytest

from bench.targets import Outcome, judge


def judged(part: str, figure: str, **figures: dict[str, float]) -> list[Outcome]:
    """The outcomes for one figure of a part; figures: by system."""
    medians = {(part, system): its for system, its in figures.items()}
    return [outcome for outcome in judge(medians) if (outcome.target.part, outcome.target.figure) == (part, figure)]


@pytest.mark.parametrize(
    ("ours", "others", "bound", "is_met"),
    [
        (1.9, 2.11, 2.0, True),
        (2.1, 2.11, 2.0, False),
        (3.9, 4.22, 4.0, True),  # half as fast: twice the time
        (4.1, 4.22, 4.0, False),
        (1.9, 1.0, 2.0, True),  # twice as fast: not half the time
    ],
)
def test_a_slow_machine_is_allowed_more_time(ours: float, others: float, bound: float, is_met: bool) -> None:
    """And a fast one no less."""
    (outcome,) = judged("idle", "p50 ms", taskmaster={"p50 ms": ours}, bullmq={"p50 ms": others})

    assert outcome.bound == pytest.approx(bound)
    assert outcome.is_met is is_met


@pytest.mark.parametrize(
    ("ours", "others", "bound", "is_met"),
    [(20_001, 10_461.5, 20_000, True), (19_999, 10_461.5, 20_000, False), (39_999, 41_846, 40_000, False)],
)
def test_a_slow_machine_may_do_less(ours: float, others: float, bound: float, is_met: bool) -> None:
    """A rate is asked for in proportion; a fast machine is not asked for more than that."""
    (outcome,) = judged("submit", "bulk jobs/s", taskmaster={"bulk jobs/s": ours}, bullmq={"bulk jobs/s": others})

    assert outcome.bound == pytest.approx(bound)
    assert outcome.is_met is is_met


def test_a_ratio_is_that_of_the_same_run() -> None:
    """Beside another system, and beside itself; what was not measured is not judged."""
    drain = judged("drain", "jobs/s", taskmaster={"jobs/s": 700.0}, dramatiq={"jobs/s": 100.0})
    (beside,) = judged("neighbours", "beside p99 ms", taskmaster={"beside p99 ms": 3.0, "alone p99 ms": 2.0})

    assert [(outcome.target.beside, outcome.reached, outcome.is_met) for outcome in drain] == [("dramatiq", 7.0, True)]
    assert (beside.reached, beside.is_met) == (1.5, False)
