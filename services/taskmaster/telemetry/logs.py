"""Logging: structlog events of ours and standard records of others through one formatter, to standard error.

What cannot be written does not hold up the work: it is counted, and told once lines get through again (`stream`).
"""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog

from taskmaster.telemetry import events
from taskmaster.telemetry.stream import LogStream

__all__ = ["LEVELS", "configure", "get"]

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
#: Libraries that log more than an operator wants at the level of our own events.
_QUIET = ("apscheduler", "dramatiq", "granian", "_granian", "asyncio", "httpx")


def _extras(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Fields that a standard LoggerAdapter put on the record."""
    record = event.get("_record")
    if record is not None:
        event.update({name: record.__dict__[name] for name in ("jobId", "type", "queue", "attempt") if name in record.__dict__})
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
    ]
    pretty = form == "console" or (form == "auto" and sys.stderr.isatty())
    render: Any = structlog.dev.ConsoleRenderer() if pretty else structlog.processors.JSONRenderer()
    stamp = structlog.processors.TimeStamper(fmt="iso", utc=True)

    def notice(lines: int) -> str:
        return str(render(None, "warning", stamp(None, "warning", {"event": events.LOG_DROPPED, "level": "warning", "lines": lines})))

    stream: Any = LogStream(sys.stderr, notice)
    structlog.configure(
        processors=[*shared, render],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.WriteLoggerFactory(stream),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared[1:], _extras],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, render],
        )
    )
    logging.basicConfig(level=number, handlers=[handler], force=True)
    for name in _QUIET:
        logging.getLogger(name).setLevel(max(number, logging.WARNING))


def get() -> Any:
    """The logger of events: `log.info(events.X, field=value)`."""
    return structlog.get_logger()
