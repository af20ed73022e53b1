"""How a worker process registers: its slots by queue, its types, what it publishes."""

from __future__ import annotations

import math
import os
import socket

import msgspec

from taskmaster.broker.identity import Identity
from taskmaster.plugins import catalogue
from taskmaster.plugins.registry import Registry
from taskmaster.settings import GROUPED, Settings, slots_of
from taskmaster.store import calls
from taskmaster.store.keys import LOST_BAND

__all__ = ["groups_of", "identity_of"]

#: How much longer than its deadline and the grace after it the lease of a handler is kept.
OVERDUE_S = 5.0
#: Characters that are told of why a plugin could not be loaded; the log has all of it.
ERROR_MAX = 300


def groups_of(settings: Settings, registry: Registry, *, suspects: bool) -> list[tuple[int, list[str]]]:
    """Slots for the queues that the loaded types go to by default, and those that the settings name.

    Where suspects run there is one slot over all queues: what runs there may take the process along.
    """
    together = {queue for names in settings.queue_groups for queue in names.split(GROUPED)}
    queues = {handler.job.queue for handler in registry.handlers.values()} | set(settings.queue_concurrency) | together
    if settings.queues:
        queues &= set(settings.queues)
    if suspects:
        return [(1, sorted(queues))] if queues else []
    groups = [(most, sorted(queues & set(names.split(GROUPED)))) for names, most in sorted(settings.queue_groups.items())]
    alone = [(slots_of(settings, queue), [queue]) for queue in sorted(queues - together)]
    return alone + [(most, names) for most, names in groups if names]


def identity_of(settings: Settings, registry: Registry, *, name: str, suspects: bool) -> Identity:
    """How the process called *name* registers; *suspects*: it runs jobs that lost a worker."""
    encode = msgspec.json.encode
    plugin_set = {name: f"{handler.plugin}=={handler.version}" for name, handler in registry.handlers.items()}
    cap = registry.fingerprint() + (LOST_BAND if suspects else "")
    groups = groups_of(settings, registry, suspects=suspects)
    info = {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "name": name,
        "suspects": suspects,
        "cap": cap,  # it leads from a consumer that is long gone to its plugin set
        "queues": {queue: slots for slots, queues in groups for queue in queues},
        "slots": sum(slots for slots, _ in groups),
        "cores": _cores(),
        "drain": settings.drain_ms,
        "metrics": settings.worker_metrics_port,
        "failed": {report.name: report.error[:ERROR_MAX] for report in registry.reports if report.state == "failed"},
    }
    types = tuple(f"{name}{LOST_BAND}" for name in registry.types) if suspects else registry.types
    published = () if suspects else tuple(_published(entry) for entry in catalogue.entries(registry))
    jobs = (handler.job for handler in registry.handlers.values())
    dependencies = tuple((job.name, job.dependency, "?" if job.fallback is not None else "") for job in jobs)
    return Identity(
        cap=cap,
        info=encode(info).decode(),
        plugin_set=encode(plugin_set).decode(),
        types=types,
        catalogue=published,
        dependencies=() if suspects else dependencies,
        lease_ms=settings.lease_ms,
        alive_ms=max(settings.lease_ms, 3_000),
        overdue_s=settings.timeout_grace_ms / 1_000 + OVERDUE_S,
        stalled_s=settings.silent_ms / 1_000 or math.inf,
    )


def _cores() -> int:
    """Processors that this process may use, where the system can tell; else those of the machine."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _published(entry: catalogue.CatalogueEntry) -> calls.Published:
    return calls.Published(entry.type, catalogue.encode(entry).decode(), entry.plugin, ",".join(entry.limits))
