"""W3C trace context: the one place that reads a `traceparent`, and the context of the job that runs here.

`ours` is what code below a handler finds when no OpenTelemetry is there to ask: ids go on from job to job also where nothing is traced.
"""

from __future__ import annotations

import random
import re
from contextvars import ContextVar

__all__ = ["accepted", "is_sampled", "ours", "trace_id_of", "unsampled", "url_of"]

_FORM = re.compile(r"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
#: `traceparent` of the attempt that runs in this thread or task, or empty.
ours: ContextVar[str] = ContextVar("taskmaster_traceparent", default="")


def accepted(traceparent: str | None) -> str:
    """The context as it is stored; empty for none, or for one that is malformed. Later versions are read as version 00, as W3C asks."""
    found = _FORM.fullmatch(traceparent) if traceparent else None
    if found is None:
        return ""
    version, trace, span, flags, more = found.groups()
    if version == "00":
        return "" if more else found[0]
    return f"00-{trace}-{span}-{int(flags, 16) & 1:02x}"


def trace_id_of(traceparent: str) -> str:
    """32 hex digits of an accepted context; empty for none."""
    return traceparent[3:35]


def unsampled() -> str:
    """The context of a trace that begins here and is not recorded: its ids are for logs."""
    ids = random.randbytes(23).hex()  # noqa: S311 - names, not secrets; a digit of each is given, since neither may be zero
    return f"00-{ids[:31]}1-{ids[31:]}1-00"


def is_sampled(traceparent: str) -> bool:
    """Whether whoever made the context records its trace."""
    return bool(traceparent) and bool(int(traceparent[-2:], 16) & 1)


def url_of(template: str | None, trace_id: str) -> str | None:
    """Where people look at a trace; None without a template or a trace."""
    return template.replace("{trace_id}", trace_id) if template and trace_id else None
