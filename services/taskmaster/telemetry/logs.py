"""Logging: structlog events of ours and standard records of others through one formatter, to standard error.

What cannot be written does not hold up the work: it is counted, and told once lines get through again (`stream`).
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog

from taskmaster.telemetry import events
from taskmaster.telemetry.stream import LogStream

__all__ = ["FACTS", "LEVELS", "configure", "get"]

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
#: What a line about an attempt says of it; the SDK's logger puts them on records of handlers.
FACTS = ("jobId", "type", "queue", "attempt", "plugin", "traceId")
#: Characters of one value at most.
TEXT_MAX = 8_000
#: What moves a cursor, ends a line or turns the direction of writing; tab and line feed aside.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
#: Libraries that log more than an operator wants at the level of our own events.
_QUIET = ("apscheduler", "dramatiq", "granian", "_granian", "asyncio", "httpx")


def _extras(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Fields that a standard LoggerAdapter put on the record."""
    record = event.get("_record")
    if record is not None:
        event.update({name: record.__dict__[name] for name in FACTS if name in record.__dict__})
    return event


def _tidy(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """No value longer than a screen or two. Of a traceback the end is kept: that is where the error is."""
    for name, value in event.items():
        if isinstance(value, str) and len(value) > TEXT_MAX:
            cut = len(value) - TEXT_MAX
            shown = value[-TEXT_MAX:] if name == "exception" else value[:TEXT_MAX]
            event[name] = f"({cut} characters before) … {shown}" if name == "exception" else f"{shown}… ({cut} characters more)"
    return event


def _escaped(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """For a terminal, which obeys control characters; JSON escapes them itself. A traceback keeps its lines."""
    for name, value in event.items():
        if isinstance(value, str):
            text = _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", value)
            event[name] = text if name == "exception" else text.replace("\n", "\\n")
    return event


def configure(level: str, form: str = "auto") -> None:
    """Set up logging for this process. Call once, in a composition root.

    Args:
        level: debug, info, warning or error.
        form: json, console, or auto: console when standard error is a terminal.
    """
    number = LEVELS.get(level, logging.INFO)
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        _tidy,
    ]
    pretty = form == "console" or (form == "auto" and sys.stderr.isatty())
    render: Any = structlog.dev.ConsoleRenderer() if pretty else structlog.processors.JSONRenderer()
    last = [_escaped, render] if pretty else [render]
    stamp = structlog.processors.TimeStamper(fmt="iso", utc=True)

    def notice(lines: int) -> str:
        return str(render(None, "warning", stamp(None, "warning", {"event": events.LOG_DROPPED, "level": "warning", "lines": lines})))

    stream: Any = LogStream(sys.stderr, notice)
    structlog.configure(
        processors=[*shared, *last],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.WriteLoggerFactory(stream),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared[1:], _extras],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    logging.basicConfig(level=number, handlers=[handler], force=True)
    for name in _QUIET:
        logging.getLogger(name).setLevel(max(number, logging.WARNING))


def get() -> Any:
    """The logger of events: `log.info(events.X, field=value)`."""
    return structlog.get_logger()
