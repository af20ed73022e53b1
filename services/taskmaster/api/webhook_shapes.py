"""Webhooks as the API shows them. No secret is in any of them but in the answer to whoever made it."""

from __future__ import annotations

from taskmaster.api.shapes import Shape, instant, moment
from taskmaster.engine.webhooks import EndpointView
from taskmaster.model.job import JobRecord
from taskmaster.model.states import State

__all__ = ["Webhook", "WebhookDelivery", "WebhookDeliveryList", "WebhookList", "WebhookMade", "delivery_of", "webhook_made", "webhook_of"]


class Webhook(Shape, kw_only=True):
    """An endpoint that is told of ends of jobs. Empty `events`, `types`, `queues` mean all; `secrets`: how many sign now."""

    id: str
    url: str
    events: list[str]
    types: list[str]
    queues: list[str]
    description: str
    disabled: bool
    disabled_why: str | None
    secrets: int
    created_at: str
    created_by: str
    revision: int


class WebhookMade(Webhook, kw_only=True):
    """The same with its newest secret, which is shown this once."""

    secret: str


class WebhookList(Shape, kw_only=True):
    """All of them."""

    items: list[Webhook]


class WebhookDelivery(Shape, kw_only=True):
    """One delivery: a job like any other. `about`: the job whose end it tells of; null for a test."""

    job_id: str
    about: str | None
    state: State
    reason: str | None
    attempts_made: int
    max_attempts: int
    created_at: str
    next_run_at: str | None
    finished_at: str | None
    replayed_from_job_id: str | None


class WebhookDeliveryList(Shape, kw_only=True):
    """One page, newest first."""

    items: list[WebhookDelivery]
    next_cursor: str | None = None


def _facts(view: EndpointView, now_ms: int) -> dict[str, object]:
    wanted = view.endpoint
    return {
        "id": view.id,
        "url": wanted.url,
        "events": list(wanted.events),
        "types": list(wanted.types),
        "queues": list(wanted.queues),
        "description": wanted.description,
        "disabled": wanted.disabled,
        "disabled_why": view.disabled_why or None,
        "secrets": len(view.signing(now_ms)),
        "created_at": instant(view.made_ms),
        "created_by": view.by,
        "revision": view.revision,
    }


def webhook_of(view: EndpointView, now_ms: int) -> Webhook:
    """The wire form of an endpoint."""
    return Webhook(**_facts(view, now_ms))  # type: ignore[arg-type]


def webhook_made(view: EndpointView, now_ms: int, secret: str) -> WebhookMade:
    """The same, for whoever made the secret."""
    return WebhookMade(**_facts(view, now_ms), secret=secret)  # type: ignore[arg-type]


def delivery_of(record: JobRecord) -> WebhookDelivery:
    """A row of the deliveries."""
    about = next((tag.removeprefix("about:") for tag in record.tags if tag.startswith("about:")), None)
    return WebhookDelivery(
        job_id=record.id,
        about=about,
        state=record.state,
        reason=record.reason or None,
        attempts_made=record.attempts_made,
        max_attempts=record.attempts,
        created_at=instant(record.created_ms),
        next_run_at=moment(record.due_ms) if record.state == "delayed" else None,
        finished_at=moment(record.finished_ms),
        replayed_from_job_id=record.replayed_from or None,
    )
