"""From what the engine knows of groups and operations to what the API answers. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import msgspec

from taskmaster.api import dlq_shapes as shapes
from taskmaster.api.shapes import instant, moment
from taskmaster.engine.groups import GroupView
from taskmaster.engine.operations import OperationView, Total
from taskmaster.engine.orders import Plan

__all__ = ["group_of", "operation_of", "preview_of"]


def group_of(view: GroupView) -> shapes.Group:
    """An item of GET /dlq/groups."""
    failure = view.failure
    return shapes.Group(
        fingerprint=view.fingerprint,
        count=view.size,
        first_seen_at=instant(view.first_ms),
        last_seen_at=instant(view.last_ms),
        reason=view.reason,
        error=shapes.GroupError(class_=failure.error, message=failure.message) if failure else None,
        sample_entry_id=view.sample_id,
        types=list(view.types),
        queues=list(view.queues),
        reasons=list(view.reasons),
        plugin_versions=view.plugins,
        sampled=view.sampled,
    )


def preview_of(plan: Plan, totals: Sequence[Total]) -> shapes.Preview:
    """What an order means, out of a count of each partition."""
    return shapes.Preview(
        action=plan.action,
        matched=sum(total.matched for total in totals),
        matched_is="exact" if all(total.is_exact for total in totals) else "atLeast",
        sample_ids=[job_id for total in totals for job_id in total.sample][:5],
    )


def operation_of(view: OperationView, *, is_duplicate: bool = False) -> shapes.Operation:
    """GET /operations/{id}."""
    counts = dict(view.counts)
    skipped = {name.partition("/")[2]: counts.pop(name) for name in list(counts) if name.startswith("skipped/")}
    progress = shapes.Progress(
        total=view.total,
        total_is="exact" if view.is_exact else "atLeast",
        done=counts.get("done", 0),
        replayed=counts.get("replayed", 0),
        made=counts.get("made", 0),
        duplicates=counts.get("duplicates", 0),
        discarded=counts.get("discarded", 0),
        cancelled=counts.get("cancelled", 0),
        skipped=skipped,
        gone=counts.get("gone", 0),
        succeeded=counts.get("succeeded", 0),
        failed=counts.get("failed", 0),
        ended_otherwise=counts.get("otherwise", 0),
        pending=view.pending,
        forgotten=counts.get("forgotten", 0),
    )
    filters: dict[str, Any] | None = msgspec.json.decode(view.filter) if view.filter else None
    return shapes.Operation(
        operation_id=view.id,
        action=view.action,
        state=cast("Any", view.state),
        why=view.why or None,
        filter=filters,
        ids=view.ids if filters is None else None,
        rate_per_s=view.rate_per_s,
        stop_on_failures=view.stop_on_failures,
        accept_unknown=view.accept_unknown,
        reason=view.reason,
        by=view.by,
        progress=progress,
        waiting_for="its own jobs: 5,000 have not ended" if view.is_waiting else None,
        last_failed_job_id=view.last_failed or None,
        created_at=instant(view.made_ms),
        started_at=moment(view.started_ms),
        last_step_at=moment(view.last_step_ms),
        finished_at=moment(view.ended_ms),
        duplicate=is_duplicate,
    )
