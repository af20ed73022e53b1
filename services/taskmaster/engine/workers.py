"""Who works: live worker processes, put together from their consumers. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import msgspec

from taskmaster.errors import NotFound
from taskmaster.store.reads import WorkerRow

__all__ = ["WorkerView", "find_worker", "worker_processes", "worker_views"]


class _Info(msgspec.Struct):
    """What a process says of itself when it registers."""

    host: str = ""
    pid: int = 0
    name: str = ""
    suspects: bool = False
    queues: dict[str, int] = {}
    slots: int | None = None
    cores: int | None = None
    drain: int | None = None
    metrics: int | None = None
    failed: dict[str, str] = {}


class WorkerView(NamedTuple):
    """One live worker process.

    Attributes:
        id: host and process id.
        name: its number under its supervisor; `suspects`: it runs jobs that lost a worker, one at a time.
        queues: jobs that it runs at once, by queue.
        plugins: name -> version of those whose types it runs.
        since_ms: registered, Unix ms.
        alive_until_ms: given up for lost if it is not heard of until then, Unix ms.
        consumers: its ids in the store, which attempts carry.
        types: job types that it can run.
        slots: jobs that it runs at once, over all queues; this and the next three are None of a worker of an older version.
        cores: processors that it may use.
        drain_ms: how long its jobs may take to end at shutdown.
        metrics_port: of its service; 0: it has none.
        failed: plugins that it could not load -> why.
    """

    id: str
    host: str
    pid: int
    name: str
    is_suspects: bool
    queues: dict[str, int]
    plugins: dict[str, str]
    since_ms: int
    alive_until_ms: int
    consumers: tuple[str, ...]
    types: tuple[str, ...] = ()
    slots: int | None = None
    cores: int | None = None
    drain_ms: int | None = None
    metrics_port: int | None = None
    failed: Mapping[str, str] = {}


def worker_views(rows: Iterable[WorkerRow]) -> list[WorkerView]:
    """The processes of these consumers, those of one host beside each other, oldest first."""
    sets: dict[str, bytes] = {}
    of_process: dict[bytes, list[WorkerRow]] = {}
    for row in rows:
        of_process.setdefault(row.info, []).append(row)
        if row.plugin_set:
            sets[row.cap] = row.plugin_set
    views = [_view(own, sets.get(own[0].cap, b"")) for own in of_process.values()]
    return sorted(views, key=lambda view: (view.host, view.since_ms, view.pid))


def _view(rows: list[WorkerRow], plugin_set: bytes) -> WorkerView:
    info = msgspec.json.decode(rows[0].info, type=_Info)
    run_by = msgspec.json.decode(plugin_set, type=dict[str, str]) if plugin_set else {}
    plugins = (text.partition("==") for text in run_by.values())
    return WorkerView(
        id=f"{info.host}-{info.pid}",
        host=info.host,
        pid=info.pid,
        name=info.name,
        is_suspects=info.suspects,
        queues=dict(sorted(info.queues.items())),
        plugins={name: version for name, _, version in sorted(plugins)},
        since_ms=min(row.since_ms for row in rows),
        alive_until_ms=max(row.alive_until_ms for row in rows),
        consumers=tuple(sorted(row.id for row in rows)),
        types=tuple(sorted(run_by)),
        slots=info.slots,
        cores=info.cores,
        drain_ms=info.drain,
        metrics_port=info.metrics,
        failed=info.failed,
    )


def find_worker(views: Iterable[WorkerView], worker_id: str) -> WorkerView:
    """The one with this id.

    Raises:
        NotFound: none that lives has it.
    """
    for view in views:
        if view.id == worker_id:
            return view
    raise NotFound(f"there is no live worker {worker_id[:200]!r}; GET /workers lists them", workerId=worker_id[:200])


def worker_processes(views: Iterable[WorkerView]) -> int:
    """How many there are, but for those that run suspects alone."""
    return sum(not view.is_suspects for view in views)
