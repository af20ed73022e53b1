"""How many workers a queue needs. Pure."""

from __future__ import annotations

import math

from taskmaster.engine.queries import QueueView

__all__ = ["WITHIN_MS", "workers_needed"]

#: What waits is to have begun in this time, where the queue has no SLA.
WITHIN_MS = 60_000


def workers_needed(view: QueueView, *, slots: int, within_ms: int, is_paused: bool) -> int:
    """Workers of *slots* jobs at once that it takes to go on with what runs, and to begin all that waits within *within_ms*.

    What is late already is to begin in what is left of that time, and never in less than a tenth of it, so that one old job does not ask
    for a whole fleet. Without a job that has completed nobody knows how long one takes: then each that waits counts for a slot of its own.
    0 when nothing waits and nothing runs; what waits in a paused queue is not counted.
    """
    waiting = 0 if is_paused else view.counts.waiting
    left_ms = max(within_ms - (view.oldest_ms or 0), within_ms / 10)
    rounds = 1.0 if view.mean_run_ms is None else max(1.0, left_ms / max(view.mean_run_ms, 1.0))
    return math.ceil((view.counts.active + math.ceil(waiting / rounds)) / slots)
