"""What an exception of a handler means for its job: by the type's own table, then by what is usual. Pure."""

from __future__ import annotations

import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any

from taskmaster_sdk.jobs import ErrorKey, Meaning

__all__ = ["meaning_of", "retry_after_s", "status_of"]

#: Usual where a type names a dependency, unless it says otherwise. Timeouts are not among them: they may be the handler's own.
_STATUSES: dict[int | None, Meaning] = {
    429: "rate_limited",
    500: "dependency_down",
    502: "dependency_down",
    503: "dependency_down",
    504: "dependency_down",
}


def status_of(error: BaseException) -> int | None:
    """The HTTP status that *error* carries: its response's, or its own."""
    for bearer in (_attribute(error, "response"), error):
        for name in ("status_code", "status"):
            status = _attribute(bearer, name)
            if type(status) is int and 100 <= status <= 599:
                return status
    return None


def _attribute(thing: Any, name: str) -> Any:
    """None where there is none, or where looking raises."""
    try:
        return getattr(thing, name, None)
    except Exception:
        return None


def meaning_of(error: BaseException, table: Mapping[ErrorKey, Meaning], *, has_dependency: bool) -> Meaning | None:
    """What *error* means; None when nothing says.

    In order: its HTTP status in the table, that status's class ("5xx"), the nearest of its classes in the table, by itself or by its
    qualified name; then, where the type has a dependency, what is usual.
    """
    if not table and not has_dependency:
        return None
    status = status_of(error)
    if status is not None:
        found = table.get(status) or table.get(f"{status // 100}xx")
        if found is not None:
            return found
    for cls in type(error).__mro__:
        found = table.get(cls) or table.get(f"{cls.__module__}.{cls.__qualname__}")
        if found is None and cls.__module__ == "builtins":
            found = table.get(cls.__qualname__)
        if found is not None:
            return found
    if not has_dependency:
        return None
    if status in _STATUSES:
        return _STATUSES[status]
    return "dependency_down" if isinstance(error, ConnectionError) else None


def retry_after_s(error: BaseException) -> float | None:
    """Seconds that the provider asks for: `retry_after_s` or `retry_after` of *error*, or its response's Retry-After, a date as well."""
    for name in ("retry_after_s", "retry_after"):
        seconds = _seconds(_attribute(error, name))
        if seconds is not None:
            return seconds
    headers = _attribute(_attribute(error, "response"), "headers")
    get = _attribute(headers, "get")
    try:
        text = (get("Retry-After") or get("retry-after")) if callable(get) else None
        if text is None:
            return None
        seconds = _seconds(text)
        return seconds if seconds is not None else max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except Exception:
        return None


def _seconds(value: Any) -> float | None:
    if value is None or isinstance(value, bool):
        return None
    try:
        return float(value)
    except (TypeError, ValueError):
        return None
