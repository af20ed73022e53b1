"""Addresses: whether they can be meant, and how they are shown."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlsplit, urlunsplit

__all__ = ["is_store", "is_web", "masked_url"]

_STORES = ("redis", "rediss", "unix")


def masked_url(url: str) -> str:
    """The URL with its password, and any secret in its query, replaced by `***`."""
    try:
        parts = urlsplit(url)
        netloc = parts.netloc
    except ValueError:
        return "***"
    if "@" in netloc:
        user, _, host = netloc.rpartition("@")
        netloc = f"{user.partition(':')[0]}:***@{host}" if ":" in user else f"{user}@{host}"
    query = re.sub(r"(?i)(pass\w*|secret|token)=[^&]*", r"\1=***", parts.query)
    return urlunsplit((parts.scheme, netloc, parts.path, query, parts.fragment)) if netloc else _hostless(parts.scheme, parts.path, query)


def _hostless(scheme: str, path: str, query: str) -> str:
    return f"{scheme}://{path}{'?' + query if query else ''}"


def is_store(value: Any) -> bool:
    """Whether this is an address of a Redis."""
    try:
        parts = urlsplit(value) if isinstance(value, str) else urlsplit("")
        return parts.scheme in _STORES and bool(parts.path if parts.scheme == "unix" else parts.hostname) and parts.port != 0
    except ValueError:
        return False


def is_web(value: Any) -> bool:
    """Whether this is an address of something that speaks HTTP."""
    try:
        parts = urlsplit(value) if isinstance(value, str) else urlsplit("")
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
