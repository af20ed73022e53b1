"""Hooks and the handler: one delivery of one event, and what its receiver's answer means."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from taskmaster.engine.rules import Word
from taskmaster.engine.webhooks import disable_endpoint, find_endpoint
from taskmaster.errors import NotFound, RevisionMismatch
from taskmaster.model import trace, webhooks
from taskmaster.model.egress import Allowed, parse_allowed, target_of
from taskmaster.settings import Settings, load
from taskmaster.store.client import SyncStore
from taskmaster_sdk import Backoff, Discard, Fatal, Job, JobContext, PluginContext, Retry, hookimpl, job
from taskmaster_webhooks import sending
from taskmaster_webhooks.sending import Answer, Forbidden, post, resolve

__all__ = ["Delivery", "DeliveryFailed", "Receiver", "WebhooksPlugin", "plugin"]

_GONE, _BUSY = 410, (429, 503)


class DeliveryFailed(Exception):
    """The receiver did not take it. Says how it answered."""


@dataclass
class Delivery:
    """What is to be delivered, and to whom.

    Attributes:
        event: `id`, `type`, `timestamp` and `data`, sent as it stands.
        url: the callback of one job; or
        endpoint: id of an endpoint, which says where to now.
    """

    event: dict[str, Any] = field(default_factory=dict)
    url: str = ""
    endpoint: str = ""


class Receiver(NamedTuple):
    """Where a delivery goes. *secrets*: none, if it is to go unsigned; *revision*: of the endpoint, if it is one."""

    url: str
    secrets: tuple[str, ...]
    revision: int = 0

    def __repr__(self) -> str:
        return "Receiver()"


class WebhooksPlugin:
    """What the entry point names. `on_init` reads what may be called, and the secrets of callbacks."""

    def __init__(self) -> None:
        self._allowed: Allowed | None = None
        self._settings = Settings()
        self._store: SyncStore | None = None
        policy = webhooks.BACKOFF
        self.deliver = job(
            webhooks.DELIVERY,
            queue=webhooks.QUEUE,
            attempts=webhooks.ATTEMPTS,
            backoff=Backoff(policy.kind, policy.delay_ms, policy.max_ms, policy.jitter),
            timeout_s=webhooks.TIMEOUT_MS / 1_000,
            key_required=True,
            trace="child",
        )(self._deliver)

    @hookimpl
    def register_jobs(self) -> list[Job]:
        """The one job type."""
        return [self.deliver]

    @hookimpl
    def on_init(self, context: PluginContext) -> None:
        """Read the settings.

        Raises:
            ConfigurationError: one of them is wrong.
        """
        self._settings = settings = load({}, context.environ, Path.cwd())
        self._allowed = parse_allowed(settings.webhook_allow)
        if settings.redis_url:  # endpoints are read there; nothing is connected yet
            self._store = SyncStore(settings.redis_url, timeout_s=settings.store_timeout_ms / 1_000)

    @hookimpl
    def on_shutdown(self, context: PluginContext) -> None:  # noqa: ARG002 - the hook's signature
        """Close the connections to the store."""
        if self._store is not None:
            self._store.close()

    def _deliver(self, payload: Delivery, ctx: JobContext) -> dict[str, Any]:
        """Tell a receiver what became of a job: a signed POST, repeated until it is taken."""
        if self._allowed is None:
            raise RuntimeError("the plugin was not initialised: on_init has not run")
        receiver = self._receiver(payload)
        try:
            target = target_of(receiver.url)
        except ValueError as error:
            raise Fatal(f"the URL cannot be called: {error}") from error
        body = msgspec.json.encode(payload.event)
        headers = _headers(receiver.secrets, str(payload.event.get("id", ctx.root_id)), body)
        began_at = time.monotonic()
        try:
            addresses = resolve(target, self._allowed, timeout_s=sending.TIMEOUT_S)
        except Forbidden as error:
            raise Fatal(str(error)) from error
        answer = post(target, addresses, body, headers, timeout_s=max(0.1, sending.TIMEOUT_S - (time.monotonic() - began_at)))
        if 200 <= answer.status < 300:
            return {"status": answer.status, "host": target.host, "tookMs": int((time.monotonic() - began_at) * 1_000)}
        if answer.status == _GONE:
            if payload.endpoint:
                self._disable(payload.endpoint, receiver, target.host)
                ctx.logger.warning("webhook_disabled", extra={"webhook": payload.endpoint})
            raise Discard(f"{target.host} answered 410: it wants to hear no more")
        raise _refused(answer, target.host)

    def _receiver(self, payload: Delivery) -> Receiver:
        """Where to, as it stands now: the URL of an endpoint may have been changed, or its secret, since the event."""
        if not payload.endpoint:
            return Receiver(payload.url, self._settings.webhook_secrets)
        store = self._of_endpoints()
        try:
            endpoint = store.converse(find_endpoint(payload.endpoint))
        except NotFound as error:
            raise Discard(f"webhook {payload.endpoint} was deleted") from error
        if endpoint.endpoint.disabled:
            raise Discard(f"webhook {payload.endpoint} is disabled: {endpoint.disabled_why}")
        return Receiver(endpoint.endpoint.url, endpoint.signing(store.now_ms()), endpoint.revision)

    def _disable(self, endpoint_id: str, receiver: Receiver, host: str) -> None:
        """Nothing more goes to *receiver*; the next attempt finds where the endpoint is, if it was changed while this one was under way."""
        word = Word("taskmaster", f"{host} answered 410 Gone")
        try:
            talk = disable_endpoint(endpoint_id, word, partitions=self._settings.partitions, known=receiver.revision)
            self._of_endpoints().converse(talk)
        except RevisionMismatch as error:
            raise Retry(f"{host} answered 410, and the webhook was changed meanwhile", after_s=1) from error

    def _of_endpoints(self) -> SyncStore:
        if self._store is None:
            raise RuntimeError("the settings of this worker name no store: set TASKMASTER_REDIS_URL")
        return self._store


def _headers(secrets: tuple[str, ...], message_id: str, body: bytes) -> dict[str, str]:
    now_s = int(time.time())
    headers = {
        "Content-Type": "application/json",
        "User-Agent": "TaskMaster-Webhooks",
        "webhook-id": message_id,
        "webhook-timestamp": str(now_s),
    }
    if traceparent := trace.ours.get():
        headers["traceparent"] = traceparent
    if secrets:
        headers["webhook-signature"] = webhooks.signature(secrets, message_id, now_s, body)
    return headers


def _refused(answer: Answer, host: str) -> Exception:
    """What a status means that is neither good nor the end. A receiver that says when to come again is heard."""
    if answer.status in _BUSY and answer.retry_after_s is not None:
        return Retry(f"{host} answered {answer.status} and asks for {answer.retry_after_s:g} s", after_s=answer.retry_after_s)
    told = " (redirects are not followed)" if 300 <= answer.status < 400 else ""
    return DeliveryFailed(f"{host} answered {answer.status}{told}")


plugin = WebhooksPlugin()
