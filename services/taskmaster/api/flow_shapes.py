"""Shapes of answers about what jobs pass through: types, queues, plugins, tenants and limiters."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from taskmaster.api.shapes import Policy, Shape
from taskmaster.model.retention import Ended

__all__ = [
    "JobType",
    "JobTypeList",
    "Kept",
    "Limit",
    "LimitList",
    "Plugin",
    "PluginList",
    "Queue",
    "QueueList",
    "Scaling",
    "ScalingList",
    "Tenant",
    "TenantList",
]


class JobType(Shape, kw_only=True):
    """A job type with its defaults. `declaredLimits` are its plugin's, `limits` those in force; `revision` is of an operator's word on
    those.
    """

    type: str
    description: str
    queue: str
    attempts: int
    backoff: Policy
    retry_schedule_ms: list[int]
    timeout_ms: int
    key_required: bool
    schema: dict[str, Any]
    example: Any
    plugin: str
    version: str
    isolation: str
    memory_mb: int | None
    dependency: str | None
    limits: list[str]
    declared_limits: list[str]
    paused: bool
    paused_by: str | None
    paused_at: str | None
    pause_reason: str | None
    paused_with_plugin: bool
    revision: int
    warnings: list[str]


class JobTypeList(Shape, kw_only=True):
    """All of them."""

    items: list[JobType]
    next_cursor: str | None = None


class Kept(Shape, kw_only=True):
    """What is kept of jobs that ended in one state: the oldest go beyond any of the three (bytes null: any number). `bytesKept`: now."""

    count: int
    age_ms: int
    bytes: int | None
    bytes_kept: int


class Queue(Shape, kw_only=True):
    """A queue. Rates and times are of the last minute, the last hour, the last 100 completed jobs; `revision` is of its settings;
    `warnings` say what of them has no effect.
    """

    name: str
    paused: bool = False
    paused_by: str | None = None
    paused_at: str | None = None
    pause_reason: str | None = None
    draining: bool = False
    drained_by: str | None = None
    drained_at: str | None = None
    drain_reason: str | None = None
    counts: dict[str, int]
    by_priority: dict[str, int]
    oldest_waiting_ms: int | None
    rate_per_minute: int
    failure_rate: float | None
    wait_ms: dict[str, int] | None
    run_ms: dict[str, int] | None
    concurrency: int
    limits: list[str] = msgspec.field(default_factory=list)
    strict: bool = False
    weights: dict[str, int] = msgspec.field(default_factory=dict)
    weight: int = 1
    max_length: int | None = None
    sla_ms: int | None = None
    revision: int = 0
    no_worker_types: list[str]
    retention: dict[Ended, Kept]
    warnings: list[str] = msgspec.field(default_factory=list)


class Scaling(Shape, kw_only=True):
    """How much work a queue has, and how many workers of *slotsPerWorker* jobs at once it needs. Times in ms; `meanRunMs` is of the last
    100 completed jobs, null before there is one.
    """

    queue: str
    backlog: int
    active: int
    oldest_waiting_ms: int
    rate_per_minute: int
    mean_run_ms: float | None
    is_paused: bool
    slots_per_worker: int
    within_ms: int
    workers_needed: int


class ScalingList(Shape, kw_only=True):
    """All queues."""

    items: list[Scaling]


class QueueList(Shape, kw_only=True):
    """All of them."""

    items: list[Queue]
    next_cursor: str | None = None


class Plugin(Shape, kw_only=True):
    """A plugin by what it has published."""

    name: str
    version: str
    types: list[str]
    paused: bool
    paused_by: str | None
    paused_at: str | None
    pause_reason: str | None


class PluginList(Shape, kw_only=True):
    """All of them."""

    items: list[Plugin]
    next_cursor: str | None = None


class Tenant(Shape, kw_only=True):
    """A tenant, by the fairness key of its jobs, and whether it is paused."""

    name: str
    paused: bool
    paused_by: str | None
    paused_at: str | None
    pause_reason: str | None


class TenantList(Shape, kw_only=True):
    """Those that are paused."""

    items: list[Tenant]
    next_cursor: str | None = None


class Limit(Shape, kw_only=True):
    """A limiter as it stands. By fairness key: `inUse` is null, `waiting` counts keys; else queues, levels and lanes that wait. `roomInMs`:
    until there is room by itself, 0 now, null when an attempt must end first.
    """

    name: str
    kind: Literal["rate", "concurrency"]
    max: int
    per_ms: int | None
    burst: int | None
    by: Literal["fairnessKey"] | None
    overrides: dict[str, int]
    in_use: int | None
    waiting: int
    room_in_ms: int | None
    queues: list[str]
    job_types: list[str]
    revision: int


class LimitList(Shape, kw_only=True):
    """All of them."""

    items: list[Limit]
    next_cursor: str | None = None
