"""Webhooks: what is told of, under which names, and how a message is signed (standardwebhooks.com). Pure."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
from collections.abc import Iterable
from typing import Final, Literal, get_args

from taskmaster.model.retry import Backoff

__all__ = [
    "ATTEMPTS",
    "BACKOFF",
    "DELIVERY",
    "JOB_EVENTS",
    "QUEUE",
    "TEST",
    "TIMEOUT_MS",
    "UNWELL",
    "Event",
    "key_of",
    "new_secret",
    "signature",
]

#: The job type of a delivery, and its queue. Only the engine makes such jobs, and nothing is told of their own ends.
DELIVERY: Final = "taskmaster-webhook"
QUEUE: Final = "webhooks"
#: Nearly three hours from the first attempt to the last.
ATTEMPTS: Final = 12
BACKOFF: Final = Backoff(delay_ms=5_000, max_ms=3_600_000, jitter=0.2)
TIMEOUT_MS: Final = 30_000

JobEvent = Literal["job.completed", "job.failed", "job.cancelled"]
JOB_EVENTS: Final[tuple[JobEvent, ...]] = get_args(JobEvent)
#: A rule of health is broken. Only for endpoints that name it.
UNWELL: Final = "health.degraded"
Event = JobEvent | Literal["health.degraded"]
#: What an endpoint is sent when somebody wants to see whether it answers.
TEST: Final = "webhook.test"

_PREFIX: Final = "whsec_"
_LEAST, _MOST = 24, 64


def new_secret() -> str:
    """A fresh signing secret."""
    return _PREFIX + base64.b64encode(secrets.token_bytes(32)).decode()


def key_of(secret: str) -> bytes:
    """The bytes of a secret.

    Raises:
        ValueError: it is no such secret. It is not in the message.
    """
    try:
        key = base64.b64decode(secret.removeprefix(_PREFIX), validate=True) if secret.startswith(_PREFIX) else b""
    except (binascii.Error, ValueError):
        key = b""
    if not _LEAST <= len(key) <= _MOST:
        raise ValueError(f"a secret is {_PREFIX} and {_LEAST} to {_MOST} bytes in base64")
    return key


def signature(given: Iterable[str], message_id: str, timestamp_s: int, body: bytes) -> str:
    """The header `webhook-signature`: one signature for each secret, so that a receiver may know any of them.

    Raises:
        ValueError: one is no secret.
    """
    signed = f"{message_id}.{timestamp_s}.".encode() + body
    return " ".join(f"v1,{base64.b64encode(hmac.digest(key_of(one), signed, hashlib.sha256)).decode()}" for one in given)
