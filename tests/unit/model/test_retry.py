"""Delays between attempts are exact, capped, and shortened by jitter only."""

from __future__ import annotations

import random

import pytest

from taskmaster.model.retry import DEFAULT, LONGEST_MS, Backoff, delay_ms, schedule_ms


@pytest.mark.parametrize(
    ("backoff", "waits"),
    [
        (DEFAULT, [1_000, 2_000, 4_000, 8_000, 16_000]),
        (Backoff(kind="fixed", delay_ms=700), [700] * 5),
        (Backoff(kind="linear", delay_ms=300), [300, 600, 900, 1_200, 1_500]),
        (Backoff(kind="list", delays_ms=(5, 50, 500)), [5, 50, 500, 500, 500]),
        (Backoff(kind="list"), [1_000] * 5),
        (Backoff(delay_ms=10, max_ms=35), [10, 20, 35, 35, 35]),
        (Backoff(kind="linear", delay_ms=10, max_ms=25), [10, 20, 25, 25, 25]),
        (Backoff(kind="list", delays_ms=(5, 50), max_ms=20), [5, 20, 20, 20, 20]),
        (Backoff(delay_ms=0), [0] * 5),
    ],
)
def test_the_waits_follow_the_rule_and_the_cap(backoff, waits):
    """Each kind of backoff gives exactly the waits that its rule says, none above the cap."""
    assert [delay_ms(backoff, n) for n in range(1, 6)] == waits
    assert schedule_ms(backoff, 6) == waits


def test_a_schedule_has_one_wait_less_than_attempts():
    """Five attempts have four waits between them, and one has none."""
    assert schedule_ms(DEFAULT, 5) == [1_000, 2_000, 4_000, 8_000]
    assert schedule_ms(DEFAULT, 1) == []


@pytest.mark.parametrize("failures", [41, 1_000, 10**9])
def test_many_failures_stay_at_the_cap(failures):
    """The hundredth failure costs no more time to compute and waits no longer than the cap."""
    assert delay_ms(Backoff(delay_ms=LONGEST_MS, max_ms=LONGEST_MS), failures) == LONGEST_MS
    assert delay_ms(DEFAULT, failures) == DEFAULT.max_ms


@pytest.mark.parametrize("jitter", [0.1, 0.5, 1.0])
def test_jitter_only_shortens_and_by_no_more_than_its_share(jitter):
    """Jitter j takes off a share between none and j."""
    backoff = Backoff(kind="fixed", delay_ms=10_000, jitter=jitter)

    waits = [delay_ms(backoff, 1, random.Random(7).random) for _ in range(50)] + [delay_ms(backoff, 1) for _ in range(200)]

    assert all(10_000 * (1 - jitter) - 1 <= wait <= 10_000 for wait in waits)
    assert delay_ms(backoff, 1, lambda: 0.0) == 10_000
    assert len({delay_ms(backoff, 1) for _ in range(50)}) > 10


def test_a_shown_schedule_has_no_jitter():
    """What the API shows is the longest that a wait can be, the same at each look."""
    assert schedule_ms(Backoff(jitter=0.9), 4) == [1_000, 2_000, 4_000]
