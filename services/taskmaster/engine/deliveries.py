"""Deliveries of webhooks: the job that tells one receiver of one event, and the event. Pure.

There is one for each receiver and event, however often it is asked for: its idempotency key says both.
"""

from __future__ import annotations

import datetime as dt
import secrets
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from taskmaster.engine.health import HealthRule
from taskmaster.engine.submit import Prepared, key_digest
from taskmaster.model.egress import target_of
from taskmaster.model.ids import created_ms, digest, digest_slot, new_job_id
from taskmaster.model.job import Envelope, seal
from taskmaster.model.lanes import lane_name
from taskmaster.model.states import state_of
from taskmaster.model.webhooks import ATTEMPTS, BACKOFF, DELIVERY, QUEUE, TEST, TIMEOUT_MS, UNWELL
from taskmaster.store.calls import NewJob
from taskmaster.store.webhooks import End

__all__ = ["CALLBACK", "Receiver", "alarm_of", "callback_of", "delivery_of", "event_of", "is_delivery", "tag_of", "test_event"]

#: Who is told of a job by its `callbackUrl`.
CALLBACK = "callback"


class Receiver(NamedTuple):
    """Who is told.

    Attributes:
        name: of the endpoint, or `callback`.
        turn: receivers with the same one take turns with the others, so that a slow one holds up nobody.
        where: what the handler needs to find it.
        traceparent: of whoever asked for a callback, or empty.
    """

    name: str
    turn: str
    where: dict[str, str]
    traceparent: str = ""


def callback_of(url: str, traceparent: str = "") -> Receiver:
    """The receiver that a job named itself. A URL that cannot be called is the handler's to refuse."""
    try:
        turn = target_of(url).host
    except ValueError:
        turn = CALLBACK
    return Receiver(CALLBACK, turn, {"url": url}, traceparent)


def event_of(end: End) -> dict[str, Any]:
    """What is told of an end: facts of the job, where its result is, and nothing of its payload, result or error."""
    state = state_of(end.state)
    return {
        "id": f"evt_{end.job_id}",
        "type": f"job.{state}",
        "timestamp": _instant(end.ended_ms),
        "data": {
            "jobId": end.job_id,
            "type": end.type,
            "queue": end.queue,
            "state": state,
            "reason": end.reason or None,
            "attempts": end.attempts,
            "createdAt": _instant(created_ms(end.job_id)),
            "finishedAt": _instant(end.ended_ms),
            "result": f"/jobs/{end.job_id}/result" if state == "completed" else None,
        },
    }


def alarm_of(rule: HealthRule, now_ms: int) -> dict[str, Any]:
    """What is told of a broken rule: one event an hour, whoever looks and however often."""
    hour = str(now_ms // 3_600_000)
    return {
        "id": f"evt_health_{digest(rule.rule, rule.queue or '', hour)}",
        "type": UNWELL,
        "timestamp": _instant(now_ms),
        "data": {"rule": rule.rule, "queue": rule.queue, "observed": rule.observed, "limit": rule.limit},
    }


def delivery_of(event: dict[str, Any], receiver: Receiver, *, partitions: int, now_ms: int) -> Prepared:
    """The job that tells *receiver* of *event*, and its partition. A callback is part of the trace that asked for it."""
    key = f"{receiver.name}/{event['id']}"
    kx = key_digest("", DELIVERY, key)
    slot = digest_slot(kx)
    about = event["data"].get("jobId")
    tags = (tag_of(receiver.name), *((f"about:{about}",) if about else ()))
    payload = msgspec.Raw(msgspec.json.encode({"event": event, **receiver.where}))
    envelope = Envelope(
        DELIVERY, payload, key, "webhook", ATTEMPTS, TIMEOUT_MS, BACKOFF, receiver.traceparent, fairness_key=receiver.turn, tags=tags
    )
    job = NewJob(
        id=new_job_id(now_ms, slot),
        queue=QUEUE,
        type=DELIVERY,
        priority=2,
        due_ms=0,
        delay_ms=0,
        max_attempts=ATTEMPTS,
        key=kx,
        request=digest(key)[:11],
        blob=seal(envelope),
        lane=lane_name(receiver.turn),
        tags=tags,
    )
    return slot % partitions, job


def test_event(endpoint_id: str, now_ms: int) -> dict[str, Any]:
    """What an endpoint is sent when somebody wants to see whether it answers: each time another event."""
    return {
        "id": f"evt_test_{secrets.token_hex(12)}",
        "type": TEST,
        "timestamp": _instant(now_ms),
        "data": {"webhook": endpoint_id},
    }


def tag_of(receiver: str) -> str:
    """The tag of all deliveries to one receiver."""
    return f"webhook:{receiver}"


def is_delivery(job_type: str, tags: Sequence[str], tag: str) -> bool:
    """Whether a job is a delivery to the receiver with that tag."""
    return job_type == DELIVERY and tag in tags


def _instant(ms: int) -> str:
    return dt.datetime.fromtimestamp(ms / 1_000, dt.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
