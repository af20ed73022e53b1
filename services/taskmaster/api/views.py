"""From what the engine knows to what the API answers. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from taskmaster.api import flow_shapes, shapes
from taskmaster.api.shapes import instant, moment
from taskmaster.engine.effects import EffectView
from taskmaster.engine.lens import Lens
from taskmaster.engine.limits import LimitView
from taskmaster.engine.queries import AttemptView, Consumer, QueueView
from taskmaster.engine.queue_rules import queue_rules, type_rules, unknown_limits
from taskmaster.engine.rules import Pause, pause_of
from taskmaster.engine.why import Explanation, Reason
from taskmaster.errors import StoreDefect
from taskmaster.model import lanes
from taskmaster.model.job import DeadLetter, Failure, JobRecord, LogLine
from taskmaster.model.retention import Ended, Kept
from taskmaster.model.retry import Backoff, schedule_ms
from taskmaster.model.trace import trace_id_of
from taskmaster.plugins.catalogue import CatalogueEntry
from taskmaster.store.flow import Rules

__all__ = [
    "attempt_of",
    "dead_of",
    "effect_of",
    "error_of",
    "failed_reason",
    "job_of",
    "limit_of",
    "plugin_of",
    "policy_of",
    "queue_of",
    "status_of",
    "summary_of",
    "tenant_of",
    "type_of",
    "why_of",
    "worker_of",
]

_raw_decoder = msgspec.json.Decoder(msgspec.Raw)


def policy_of(backoff: Backoff) -> shapes.Policy:
    """The wire form of a policy, defaults included."""
    return shapes.Policy(
        kind=backoff.kind,
        delay_ms=backoff.delay_ms,
        max_ms=backoff.max_ms,
        jitter=backoff.jitter,
        delays_ms=list(backoff.delays_ms) if backoff.kind == "list" else None,
    )


def error_of(failure: Failure | None) -> shapes.Error | None:
    """The wire form of a failure."""
    if failure is None:
        return None
    return shapes.Error(
        class_=failure.error,
        message=failure.message,
        fingerprint=failure.fingerprint or None,
        trace=failure.trace or None,
        plugin=failure.plugin or None,
    )


def failed_reason(failure: Failure | None, reason: str, losses: int) -> str | None:
    """One sentence: the last error's message, else what the engine knows."""
    if failure is not None:
        return f"{failure.error.rpartition('.')[2]}: {failure.message}" if failure.message else failure.error
    if reason == "worker_lost":
        return f"worker_lost: its worker process died {losses} times while running it"
    return reason or None


def status_of(record: JobRecord) -> shapes.JobStatus:
    """GET /jobs/{id}/status."""
    return shapes.JobStatus(
        job_id=record.id,
        type=record.type,
        state=record.state,
        created_at=instant(record.created_ms),
        processed_at=moment(record.claimed_ms),
        failed_reason=_failed_reason(record),
        reason=record.reason or None,
        progress=record.progress,
        attempts_made=record.attempts_made,
        max_attempts=record.attempts,
        next_run_at=moment(record.due_ms) if record.state == "delayed" else None,
        finished_at=moment(record.finished_ms),
    )


def _failed_reason(record: JobRecord) -> str | None:
    if record.state == "completed":
        return None
    return failed_reason(record.failure, record.reason if record.state == "failed" else "", record.losses)


def _summary(record: JobRecord) -> dict[str, Any]:
    return {
        "job_id": record.id,
        "type": record.type,
        "state": record.state,
        "reason": record.reason or None,
        "queue": record.queue,
        "priority": record.priority,
        "created_at": instant(record.created_ms),
        "processed_at": moment(record.claimed_ms),
        "finished_at": moment(record.finished_ms),
        "next_run_at": moment(record.due_ms) if record.state == "delayed" else None,
        "progress": record.progress,
        "attempts_made": record.attempts_made,
        "max_attempts": record.attempts,
        "root_job_id": record.root_id or record.id,
        "replayed_from_job_id": record.replayed_from or None,
        "tags": list(record.tags),
        "limits": list(lanes.split(record.lane)[1]),
        "expires_at": moment(record.expires_ms),
        "revision": record.revision,
    }


def summary_of(record: JobRecord) -> shapes.JobSummary:
    """A row of GET /jobs."""
    return shapes.JobSummary(**_summary(record))


def job_of(record: JobRecord, lens: Lens, *, basic: bool) -> shapes.JobBasic:
    """GET /jobs/{id}, as *lens* shows it. The record must have its envelope.

    Raises:
        StoreDefect: it has none.
    """
    envelope = record.envelope
    if envelope is None:
        raise StoreDefect(f"job {record.id} has no submission beside it")
    fields = _summary(record) | {
        "progress_note": record.progress_note or None,
        "failed_reason": _failed_reason(record),
        "error": error_of(record.failure),
        "failures": record.failures,
        "losses": record.losses,
        "handed_back": record.handed_back,
        "cancel_requested": record.cancel_requested,
        "fallback": record.is_fallback,
        "timeout_ms": envelope.timeout_ms,
        "backoff": policy_of(envelope.backoff),
        "retry_schedule_ms": schedule_ms(envelope.backoff, record.attempts),
        "idempotency_key": envelope.key or None,
        "unique_key": envelope.unique_key or None,
        "fairness_key": envelope.fairness_key or None,
        "callback_url": envelope.callback_url or None,
        "lifo": record.is_lifo,
        "origin": envelope.origin,
        "traceparent": envelope.traceparent or None,
        "trace_id": trace_id_of(envelope.traceparent) or None,
        "trace_url": lens.trace_url(trace_id_of(envelope.traceparent)),
        "replayed_at": instant(record.created_ms) if record.replayed_from else None,
        "replayed_by": envelope.replayed_by or None,
    }
    return shapes.JobBasic(**fields) if basic else shapes.Job(**fields, payload=lens.payload(envelope), result=_result(record.result))


def _result(raw: bytes) -> msgspec.Raw | None:
    if not raw:
        return None
    try:
        return _raw_decoder.decode(raw)
    except msgspec.DecodeError:
        return None


def worker_of(consumer: Consumer) -> shapes.Worker:
    """The wire form of a consumer."""
    return shapes.Worker(consumer=consumer.id, host=consumer.host, pid=consumer.pid, name=consumer.name)


def attempt_of(view: AttemptView, lens: Lens) -> shapes.Attempt:
    """An item of GET /jobs/{id}/attempts."""
    plugin, _, version = view.plugin.partition("==")
    return shapes.Attempt(
        number=view.number,
        outcome=view.outcome,
        started_at=moment(view.started_ms),
        ended_at=moment(view.ended_ms),
        duration_ms=max(0, view.ended_ms - view.started_ms) if view.ended_ms and view.started_ms else None,
        worker=worker_of(view.consumer),
        plugin=plugin or None,
        plugin_version=version or None,
        error=view.error or None,
        message=view.message or None,
        trace_id=view.trace_id or None,
        trace_url=lens.trace_url(view.trace_id),
    )


def line_of(kept: LogLine) -> shapes.LogLine:
    """An item of GET /jobs/{id}/logs."""
    line = kept.line
    return shapes.LogLine(number=kept.number, at=instant(line.at_ms), attempt=line.attempt, level=line.level, text=line.text)


def dead_of(letter: DeadLetter, consumer: Consumer, lens: Lens) -> shapes.DeadEntry:
    """GET /dlq/{id}, as *lens* shows it."""
    failure, envelope = letter.failure, letter.envelope
    plugin, _, version = (failure.plugin if failure else "").partition("==")
    return shapes.DeadEntry(
        entry_id=letter.job_id,
        job_id=letter.job_id,
        type=letter.type,
        queue=letter.queue,
        payload=lens.payload(envelope),
        reason=letter.reason,
        failure_reason=failed_reason(failure, letter.reason, letter.losses) or letter.reason,
        error=error_of(failure),
        error_fingerprint=letter.fingerprint,
        attempts=letter.attempts,
        losses=letter.losses,
        max_attempts=envelope.attempts,
        created_at=instant(letter.created_ms),
        failed_at=instant(letter.failed_ms),
        plugin=plugin or None,
        plugin_version=version or None,
        worker=worker_of(consumer) if consumer.id else None,
        trace_id=trace_id_of(envelope.traceparent) or None,
        idempotency_key=envelope.key or None,
        root_job_id=letter.root_id,
        replayed_from_job_id=envelope.replayed_from or None,
        replayed_by=envelope.replayed_by or None,
    )


def _pause(pause: Pause | None) -> dict[str, Any]:
    if pause is None:
        return {"paused": False, "paused_by": None, "paused_at": None, "pause_reason": None}
    return {"paused": True, "paused_by": pause.by, "paused_at": moment(pause.since_ms), "pause_reason": pause.reason or None}


def _without_rule(names: Sequence[str]) -> list[str]:
    return [f"there is no limiter {name!r}: it limits nothing until PUT /limits/{name} gives it a rule" for name in names]


def type_of(entry: CatalogueEntry, found: Sequence[Rules], *, key_required_by_default: bool) -> flow_shapes.JobType:
    """GET /job-types/{type}."""
    rules = type_rules(found, entry.type)
    return flow_shapes.JobType(
        type=entry.type,
        description=entry.description,
        queue=entry.queue,
        attempts=entry.attempts,
        backoff=policy_of(entry.backoff),
        retry_schedule_ms=schedule_ms(entry.backoff, entry.attempts),
        timeout_ms=entry.timeout_ms,
        key_required=key_required_by_default if entry.key_required is None else entry.key_required,
        schema=entry.schema,
        example=entry.example,
        plugin=entry.plugin,
        version=entry.version,
        isolation=entry.isolation,
        memory_mb=entry.memory_mb,
        dependency=entry.dependency or None,
        limits=list(rules.limits),
        declared_limits=list(entry.limits),
        **_pause(rules.paused),
        paused_with_plugin=bool(rules.paused and rules.paused.plugin),
        revision=rules.revision,
        warnings=_without_rule(unknown_limits(found, rules.limits)),
    )


def plugin_of(name: str, entries: Sequence[CatalogueEntry], found: Sequence[Rules]) -> flow_shapes.Plugin:
    """GET /plugins/{name}. *entries*: of its types, at least one."""
    pause = pause_of(found[0].pauses.get(f"p/{name}"))
    return flow_shapes.Plugin(name=name, version=entries[0].version, types=sorted(entry.type for entry in entries), **_pause(pause))


def tenant_of(name: str, pause: Pause | None) -> flow_shapes.Tenant:
    """GET /tenants/{name}."""
    return flow_shapes.Tenant(name=name, **_pause(pause))


def limit_of(view: LimitView, found: Sequence[Rules]) -> flow_shapes.Limit:
    """GET /limits/{name}."""
    return flow_shapes.Limit(
        name=view.name,
        kind=view.rule.kind,
        max=view.rule.max,
        per_ms=view.rule.per_ms,
        burst=view.rule.burst,
        by=view.rule.by,
        overrides=view.rule.overrides,
        in_use=view.in_use,
        waiting=view.waiting,
        room_in_ms=view.room_ms,
        queues=sorted(queue for queue in found[0].queues if view.name in queue_rules(found, queue).limits),
        job_types=sorted(name for name in found[0].type_limits if view.name in type_rules(found, name).limits),
        revision=view.revision,
    )


def queue_of(view: QueueView, found: Sequence[Rules], concurrency: int, kept: Mapping[Ended, Kept]) -> flow_shapes.Queue:
    """GET /queues/{name}. *concurrency*: what the settings say, where nobody has ordered another."""
    rules = queue_rules(found, view.name)
    drain = _pause(rules.draining)
    return flow_shapes.Queue(
        name=view.name,
        **_pause(rules.paused),
        draining=drain["paused"],
        drained_by=drain["paused_by"],
        drained_at=drain["paused_at"],
        drain_reason=drain["pause_reason"],
        counts=msgspec.structs.asdict(view.counts),
        by_priority=view.by_priority,
        oldest_waiting_ms=view.oldest_ms,
        rate_per_minute=view.rate_per_minute,
        failure_rate=view.failure_ratio,
        wait_ms=view.waited_ms,
        run_ms=view.ran_ms,
        concurrency=rules.concurrency or concurrency,
        limits=list(rules.limits),
        strict=rules.strict,
        weights=dict(rules.weights),
        weight=rules.weight,
        max_length=rules.max_length,
        sla_ms=rules.sla_ms,
        revision=rules.revision,
        warnings=_without_rule(unknown_limits(found, rules.limits)),
        no_worker_types=list(view.orphan_types),
        retention={
            state: flow_shapes.Kept(
                count=rule.count,
                age_ms=rule.age_ms,
                bytes=None if rule.bytes < 0 else rule.bytes,
                bytes_kept=view.bytes_kept[state],
            )
            for state, rule in kept.items()
        },
    )


def effect_of(view: EffectView) -> shapes.Effect:
    """One effect. `settledBy` is the person, or `attempt` for the attempt's own word."""
    return shapes.Effect(
        effect_id=f"{view.root_id}.{view.effect}",
        state=view.state,
        name=view.name,
        key=view.key or None,
        job_id=view.job_id,
        root_job_id=view.root_id,
        reserved_at=instant(view.reserved_ms),
        settled_at=moment(view.settled_ms),
        settled_by=view.who or ("attempt" if view.how else None),
        reason=view.reason or None,
        result=msgspec.Raw(view.result) if view.result else None,
    )


def why_of(explained: Explanation) -> shapes.Why:
    """GET /jobs/{id}/why."""
    record = explained.record
    return shapes.Why(
        job_id=record.id,
        state=record.state,
        queue=record.queue,
        type=record.type,
        reasons=[shapes.WhyReason(code=one.code, message=one.message, facts=_facts(one)) for one in explained.reasons],
        estimated_start_at=moment(explained.start_ms or 0),
    )


def _facts(reason: Reason) -> dict[str, Any]:
    """In camel case; instants, which end in `_at_ms`, `since_ms` and `until_ms` inside the engine, as RFC 3339."""
    told: dict[str, Any] = {}
    for name, value in reason.facts.items():
        is_instant = name.endswith(("at_ms", "since_ms", "until_ms"))
        head, *rest = (name.removesuffix("_ms") if is_instant else name).split("_")
        told[head + "".join(part.capitalize() for part in rest)] = moment(value or 0) if is_instant else value
    return told
