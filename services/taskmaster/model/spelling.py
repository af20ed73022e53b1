"""How the value of a setting is spelled: as the variable that it could be read from again, and for people, without its secrets. Pure."""

from __future__ import annotations

from typing import Any

from taskmaster.model import retention
from taskmaster.model.addresses import masked_url

__all__ = ["shown", "text"]


def text(name: str, value: Any) -> str:
    """As an environment variable; secrets are in it. Empty: not set."""
    if name == "retention":
        return retention.spell(value)
    if isinstance(value, dict):
        return ",".join(f"{key}={number}" for key, number in value.items())
    if isinstance(value, tuple):
        return ",".join(value)
    return "" if value is None else str(value)


def shown(name: str, value: Any) -> str:
    """For people: secrets are masked, and what is not set says what that means."""
    if name == "redis_url":
        return masked_url(value) if value else "(embedded)"
    if name == "otlp_endpoint":
        return masked_url(value) if value else "(none)"
    if name == "webhook_secrets":
        return ",".join("***" for _ in value) or "(none)"
    return text(name, value) or ("(all)" if name in ("queues", "plugins", "scopes") else "(none)")
