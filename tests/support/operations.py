"""The workers' duty for operations, done by hand."""

from __future__ import annotations

from pathlib import Path

from support.eventually import eventually
from taskmaster.engine import operations as engine
from taskmaster.engine.scheduled_types import Types
from taskmaster.maintenance.operations import Operations
from taskmaster.settings import Settings
from taskmaster.store.client import SyncStore

__all__ = ["duty", "work"]


def duty(store: SyncStore, partition: int = 0, partitions: int = 1, key_window_ms: int = 60_000) -> Operations:
    """That of one partition; `step` is what a second brings."""
    settings = Settings(redis_url=store.url, data_dir=Path("/nonexistent"), partitions=partitions)
    return Operations(store, partition, partitions, key_window_ms, Types(store, settings).of)


def work(store: SyncStore, operation_id: str) -> engine.OperationView:
    """Step by step, until the operation does not run; how it stands then."""
    at_work = duty(store)

    def ended() -> engine.OperationView | None:
        at_work.step()
        view = store.converse(engine.of_id(operation_id, 1))
        return None if view.state == "running" else view

    found = eventually(ended, 10, "the operation ends")
    assert found is not None
    return found
