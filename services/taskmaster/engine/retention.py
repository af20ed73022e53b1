"""Retention and windows, from the settings to what the scripts take. Pure."""

from __future__ import annotations

from taskmaster.model.retention import ENDED, EVERY_QUEUE, Ended, Kept, in_force
from taskmaster.settings import Settings
from taskmaster.store.calls import Limits

__all__ = ["kept_of", "limits_of"]


def kept_of(settings: Settings, queue: str) -> dict[Ended, Kept]:
    """What is kept of one queue's ended jobs, by state."""
    counts = (settings.keep_completed, settings.keep_failed, settings.keep_cancelled)
    usual = {state: Kept(count, settings.keep_age_ms) for state, count in zip(ENDED, counts, strict=True)}
    return in_force(settings.retention, queue, usual)


def limits_of(settings: Settings) -> Limits:
    """The same for all queues, as scripts take it."""
    own = [queue for queue in settings.retention if queue != EVERY_QUEUE]
    completed, failed, cancelled = kept_of(settings, EVERY_QUEUE).values()
    queues = {queue: (kept["completed"], kept["failed"], kept["cancelled"]) for queue in own for kept in (kept_of(settings, queue),)}
    return Limits(settings.idempotency_window_ms, completed, failed, cancelled, queues)
