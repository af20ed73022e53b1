"""Every metric's name, kind, labels and meaning, in one place. Units are in the names: seconds, bytes; counters end in `_total`.

What the store knows is exported by the API, summed over partitions, and survives every crash. What a process saw itself says `observed` in
its name where it counts, and dies with its supervisor.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal, NamedTuple

__all__ = ["API", "CATALOGUE", "CLOSED", "LABELS", "MOST", "OTHER", "SCHEDULER", "STORE", "WORKER", "Facts", "Metric", "Shown"]

Kind = Literal["counter", "gauge", "histogram"]
#: Values of counters and gauges by label values.
Facts = Mapping[tuple[str, ...], float]
#: Label sets that were shown before, by metric: they go on being shown by themselves, so that no counter ever falls.
Shown = dict[str, set[tuple[str, ...]]]
#: Where label sets go for which there is no room any more.
OTHER: Final = "other"
#: Label sets that a metric has at most, closed labels apart.
MOST: Final = 300

#: Labels with few values, known here. Each stands last.
CLOSED: Final[dict[str, tuple[str, ...]]] = {
    "outcome": ("completed", "failed", "discarded", "dependency_down", "rate_limited", "not_run"),
    "status": ("2xx", "3xx", "4xx", "5xx"),
    "became": ("fired", "duplicate", "queued", "skipped", "refused"),
}
#: All labels that there may be: never a job's id, a tenant, a key, or a part of a payload.
LABELS: Final = frozenset(
    {"type", "queue", "state", "priority", "dependency", "limiter", "plugin", "script", "method", "route", "version"} | set(CLOSED)
)

_SHORT_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
_LONG_S: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1_800.0)


class Metric(NamedTuple):
    """One metric. *buckets*: upper bounds of a histogram, ascending, without the infinite one."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()

    @property
    def closed(self) -> tuple[str, ...]:
        """Values of its last label, if that is a closed one; else one empty value."""
        return CLOSED.get(self.labels[-1], ("",)) if self.labels else ("",)

    @property
    def open_labels(self) -> tuple[str, ...]:
        """Its labels without a closed last one."""
        return self.labels[:-1] if self.labels and self.labels[-1] in CLOSED else self.labels


# ---------------------------------------------------------------- the store's truth, on the API's endpoint
STORE_UP: Final = Metric("taskmaster_store_up", "gauge", "1 when the store answered this scrape; else nothing of the store is shown.")
JOBS_CREATED: Final = Metric("taskmaster_jobs_created_total", "counter", "Jobs that were accepted.", ("type", "queue"))
JOBS_COMPLETED: Final = Metric("taskmaster_jobs_completed_total", "counter", "Jobs that completed.", ("type", "queue"))
JOBS_FAILED: Final = Metric("taskmaster_jobs_failed_total", "counter", "Jobs that failed for good.", ("type", "queue"))
JOBS_CANCELLED: Final = Metric(
    "taskmaster_jobs_cancelled_total", "counter", "Jobs that were cancelled, expired or discarded.", ("type", "queue")
)
ATTEMPTS_FAILED: Final = Metric(
    "taskmaster_job_attempts_failed_total", "counter", "Attempts that failed, retried or not.", ("type", "queue")
)
ATTEMPTS_RETRIED: Final = Metric(
    "taskmaster_job_attempts_retried_total", "counter", "Attempts that were followed by a retry.", ("type", "queue")
)
ATTEMPTS_LOST: Final = Metric("taskmaster_job_attempts_lost_total", "counter", "Attempts whose worker went silent.", ("type", "queue"))
DLQ_JOBS: Final = Metric("dlq_jobs_total", "counter", "Permanently failed jobs, by job type.", ("type",))
DLQ_RECORDS: Final = Metric("taskmaster_dlq_records", "gauge", "Dead letters that nobody has discarded.", ("queue",))
QUEUE_JOBS: Final = Metric(
    "taskmaster_queue_jobs",
    "gauge",
    "Jobs now; those that wait by priority, all others with priority `any`.",
    ("queue", "state", "priority"),
)
QUEUE_OLDEST: Final = Metric(
    "taskmaster_queue_oldest_waiting_seconds", "gauge", "How long the job that waits longest has been ready; 0 when none waits.", ("queue",)
)
QUEUE_SLA: Final = Metric(
    "taskmaster_queue_sla_seconds", "gauge", "How long a job may wait, as an operator has said; only of queues that have it.", ("queue",)
)
QUEUE_PAUSED: Final = Metric("taskmaster_queue_paused", "gauge", "1 when the queue is paused.", ("queue",))
QUEUE_ORPHANS: Final = Metric(
    "taskmaster_queue_types_without_worker", "gauge", "Job types that wait and that no live worker has.", ("queue",)
)
WORKERS: Final = Metric("taskmaster_workers", "gauge", "Live worker processes.")
SCHEDULERS: Final = Metric("taskmaster_schedulers", "gauge", "Live schedulers.")
SCHEDULES: Final = Metric("taskmaster_schedules", "gauge", "Schedules.")
SCHEDULE_OVERDUE: Final = Metric("taskmaster_schedule_overdue_seconds", "gauge", "By how much the most overdue schedule is late.")
OUTBOX_ENDS: Final = Metric(
    "taskmaster_webhook_outbox_ends", "gauge", "Ends of jobs that somebody is to be told of, not yet made into deliveries."
)
OUTBOX_OLDEST: Final = Metric(
    "taskmaster_webhook_outbox_oldest_seconds", "gauge", "How long ago the oldest of these ends was; 0 when there is none."
)
ENDS_DROPPED: Final = Metric(
    "taskmaster_webhook_ends_dropped_total", "counter", "Ends that nobody is told of, since too many waited and the oldest went."
)
BREAKER_STATE: Final = Metric("taskmaster_breaker_state", "gauge", "1 for the state that the breaker is in.", ("dependency", "state"))
LIMITER_IN_USE: Final = Metric("taskmaster_limiter_in_use", "gauge", "Claims that count against the limiter now.", ("limiter",))
LIMITER_WAITING: Final = Metric("taskmaster_limiter_waiting", "gauge", "Queues, bands or lanes that wait for the limiter.", ("limiter",))
GENERATION: Final = Metric(
    "taskmaster_store_generation", "gauge", "A number that changes when the store lost what it had answered; the sum over partitions."
)
STORE_UNCHECKED: Final = Metric("taskmaster_store_losses_unchecked", "gauge", "Partitions that lost data and were not swept since.")
STORE_UNMENDED: Final = Metric("taskmaster_store_damages_unmended", "gauge", "What the last sweeps found and could not mend.")
STORE_UNSAFE: Final = Metric("taskmaster_store_rules_broken", "gauge", "Rules of the store's configuration that make it unsafe.")
STORE_WRITABLE: Final = Metric("taskmaster_store_writable", "gauge", "1 when the store takes writes.")
STORE_MEMORY: Final = Metric("taskmaster_store_memory_bytes", "gauge", "Memory that the store uses.")
STORE_MEMORY_LIMIT: Final = Metric("taskmaster_store_memory_limit_bytes", "gauge", "Memory that the store may use; 0: no limit.")

# ---------------------------------------------------------------- every process
BUILD: Final = Metric("taskmaster_build_info", "gauge", "1; the version of this process.", ("version",))
STORE_CALLS: Final = Metric(
    "taskmaster_store_call_duration_seconds", "histogram", "Calls of this process to the store that were answered.", ("script",), _SHORT_S
)
STORE_CALLS_FAILED: Final = Metric(
    "taskmaster_store_calls_failed_observed_total", "counter", "Sendings of calls that were not answered, or with an error.", ("script",)
)

# ---------------------------------------------------------------- the API
REQUESTS: Final = Metric("taskmaster_api_requests_observed_total", "counter", "Requests by route.", ("method", "route", "status"))
REQUEST_DURATION: Final = Metric(
    "taskmaster_api_request_duration_seconds",
    "histogram",
    "Time to answer, from the request's head to the end.",
    ("method", "route"),
    _SHORT_S,
)

# ---------------------------------------------------------------- workers: the sum over all processes of a supervisor
ATTEMPTS: Final = Metric(
    "taskmaster_attempts_observed_total", "counter", "Attempts that ended in this worker.", ("type", "queue", "outcome")
)
JOB_DURATION: Final = Metric(
    "taskmaster_job_duration_seconds", "histogram", "How long attempts took that completed.", ("type", "queue"), _LONG_S
)
JOB_FAILED_DURATION: Final = Metric(
    "taskmaster_job_failed_duration_seconds", "histogram", "How long attempts took that did not complete.", ("type", "queue"), _LONG_S
)
JOB_WAIT: Final = Metric(
    "taskmaster_job_wait_seconds", "histogram", "From when a job could begin until it was first claimed.", ("type", "queue"), _LONG_S
)
LEASES_LOST: Final = Metric("taskmaster_leases_lost_observed_total", "counter", "Running attempts whose lease was found to be lost.")
OUTCOMES_REFUSED: Final = Metric("taskmaster_outcomes_refused_observed_total", "counter", "Ends of attempts that the store refused.")
WORKER_PROCESSES: Final = Metric("taskmaster_worker_processes", "gauge", "Processes of this worker whose heart beats.")
WORKER_DEATHS: Final = Metric(
    "taskmaster_worker_deaths_observed_total", "counter", "Processes of this worker that ended otherwise than well."
)
WORKER_CUT_OFF: Final = Metric(
    "taskmaster_worker_cut_off_seconds", "gauge", "For how long the process that is worst off has had no answer from the store."
)
PLUGIN_LOADED: Final = Metric("taskmaster_plugin_loaded", "gauge", "1 when the plugin was loaded, 0 when it could not be.", ("plugin",))
PLUGIN_FAILURES: Final = Metric(
    "taskmaster_plugin_failures_observed_total", "counter", "Worker processes in which the plugin could not be initialised.", ("plugin",)
)

# ---------------------------------------------------------------- schedulers
FIRES: Final = Metric("taskmaster_schedule_fires_observed_total", "counter", "Instants of schedules that were carried out.", ("became",))
MISSES: Final = Metric("taskmaster_schedule_missed_observed_total", "counter", "Instants of schedules that were found to be missed.")
LAG: Final = Metric("taskmaster_schedule_lag_seconds", "histogram", "From an instant until its job was made.", (), _LONG_S)
LEADING: Final = Metric("taskmaster_scheduler_leading", "gauge", "Partitions that this scheduler leads.")

_ALL: Final = (BUILD, STORE_CALLS, STORE_CALLS_FAILED)
#: What the API exports of the store.
STORE: Final = (
    STORE_UP,
    JOBS_CREATED,
    JOBS_COMPLETED,
    JOBS_FAILED,
    JOBS_CANCELLED,
    ATTEMPTS_FAILED,
    ATTEMPTS_RETRIED,
    ATTEMPTS_LOST,
    DLQ_JOBS,
    DLQ_RECORDS,
    QUEUE_JOBS,
    QUEUE_OLDEST,
    QUEUE_SLA,
    QUEUE_PAUSED,
    QUEUE_ORPHANS,
    WORKERS,
    SCHEDULERS,
    SCHEDULES,
    SCHEDULE_OVERDUE,
    OUTBOX_ENDS,
    OUTBOX_OLDEST,
    ENDS_DROPPED,
    BREAKER_STATE,
    LIMITER_IN_USE,
    LIMITER_WAITING,
    GENERATION,
    STORE_UNCHECKED,
    STORE_UNMENDED,
    STORE_UNSAFE,
    STORE_WRITABLE,
    STORE_MEMORY,
    STORE_MEMORY_LIMIT,
)
#: What each process exports of itself.
API: Final = (*_ALL, REQUESTS, REQUEST_DURATION)
WORKER: Final = (
    *_ALL,
    ATTEMPTS,
    JOB_DURATION,
    JOB_FAILED_DURATION,
    JOB_WAIT,
    LEASES_LOST,
    OUTCOMES_REFUSED,
    WORKER_PROCESSES,
    WORKER_DEATHS,
    WORKER_CUT_OFF,
    PLUGIN_LOADED,
    PLUGIN_FAILURES,
)
SCHEDULER: Final = (*_ALL, FIRES, MISSES, LAG, LEADING)
CATALOGUE: Final = tuple(dict.fromkeys((*STORE, *API, *WORKER, *SCHEDULER)))
