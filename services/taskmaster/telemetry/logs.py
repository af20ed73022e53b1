"""Logging: structlog events of ours and standard records of others through one formatter, to standard error.

What cannot be written does not hold up the work: it is counted, and told once lines get through again (`stream`).
"""

from __future__ import annotations

import atexit
import contextlib
import json
import logging
import re
import sys
import time
from collections.abc import Callable, MutableMapping
from functools import lru_cache
from itertools import islice
from typing import Any, NamedTuple

import msgspec
import structlog

from taskmaster.telemetry import events
from taskmaster.telemetry.stream import LogStream

__all__ = ["LEVELS", "OWN", "Teller", "configure", "extras", "facts_of", "flush", "get", "teller"]

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
#: What a line about an attempt says of it; the SDK's logger puts them on records of handlers.
FACTS = ("jobId", "type", "queue", "attempt", "plugin", "traceId")
#: What a record has of its own, and what a line says in any case: nothing that is given as `extra=` stands in its place.
OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "event", "level", "timestamp", "exception"}
#: Of these loggers, all that `extra=` gives is told; of others, who may put there what they like, only the attempt's facts.
_TOLD = ("taskmaster.job.", "taskmaster.plugin.")
#: Characters of one value at most; names that one call may give, and characters of each.
TEXT_MAX, EXTRAS_MAX, NAME_MAX = 8_000, 32, 100
#: What moves a cursor, ends a line or turns the direction of writing; tab and line feed aside.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
#: Libraries that log more than an operator wants at the level of our own events.
_QUIET = ("apscheduler", "dramatiq", "granian", "_granian", "asyncio", "httpx")


def extras(record: logging.LogRecord) -> dict[str, Any]:
    """The attempt's facts, then what a handler or a plugin gave as `extra=`: anything, under any name."""
    given = record.__dict__
    facts = {name: given[name] for name in FACTS if name in given}
    if not record.name.startswith(_TOLD):
        return facts
    others = (name for name in given if name not in OWN and name not in facts)
    return facts | {str(name)[:NAME_MAX]: given[name] for name in islice(others, EXTRAS_MAX)}


def _extras(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Fields of a standard record."""
    record = event.get("_record")
    if record is not None:
        event.update({name: _bounded(value) for name, value in extras(record).items()})
    return event


def _bounded(value: Any) -> Any:
    """A list or an object of more than a screen or two becomes a text, which can be cut."""
    if isinstance(value, str | int | float | None):
        return value
    text = repr(value)
    return text if len(text) > TEXT_MAX else value


def _tidy(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """No value longer than a screen or two. Of a traceback the end is kept: that is where the error is."""
    for name, value in event.items():
        if isinstance(value, str) and len(value) > TEXT_MAX:
            cut = len(value) - TEXT_MAX
            shown = value[-TEXT_MAX:] if name == "exception" else value[:TEXT_MAX]
            event[name] = f"({cut} characters before) … {shown}" if name == "exception" else f"{shown}… ({cut} characters more)"
    return event


class _Stamp:
    """The time, ISO 8601 in UTC to the microsecond. The part that is the same for a second is made once in it: a worker may write
    thousands of lines.
    """

    def __init__(self) -> None:
        self._second = (-1, "")

    def __call__(self, _: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        event["timestamp"] = self.text()
        return event

    def text(self) -> str:
        """Now."""
        second, micros = divmod(time.time_ns() // 1_000, 1_000_000)
        known, text = self._second  # read and written whole: threads need no lock
        if known != second:
            text = time.strftime("%Y-%m-%dT%H:%M:%S.", time.gmtime(second))
            self._second = (second, text)
        return f"{text}{str(1_000_000 + micros)[1:]}Z"  # half the time of a format with zeros


def _json(_: Any, __: str, event: MutableMapping[str, Any]) -> str:
    """One line. Beyond ASCII everything is escaped: some of it moves cursors and turns the direction of writing."""
    try:
        line = _encode(event).decode()
    except (msgspec.MsgspecError, TypeError, ValueError, OverflowError, RecursionError):
        line = json.dumps(event, default=repr, skipkeys=True)
    return line if line.isascii() else json.dumps(json.loads(line))


_encode, _quoted = msgspec.json.Encoder(enc_hook=repr).encode, json.encoder.encode_basestring_ascii


def _escaped(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """For a terminal, which obeys control characters; JSON escapes them itself. A traceback keeps its lines."""
    return {
        _plain(name): _plain(value, keeps_lines=name == "exception") if isinstance(value, str) else value for name, value in event.items()
    }


def _plain(text: str, *, keeps_lines: bool = False) -> str:
    escaped = _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text)
    return escaped if keeps_lines else escaped.replace("\n", "\\n")


class _Handler(logging.StreamHandler[Any]):
    """What standard records are written with."""

    def emit(self, record: logging.LogRecord) -> None:
        """As `_Lines`. A record that cannot be formatted is told without its arguments."""
        put = self.stream.write if record.levelno >= logging.WARNING else self.stream.write_soon
        try:
            line = self.format(record)
        except Exception as error:
            with contextlib.suppress(Exception):
                record.msg, record.args = f"{record.msg} ({type(error).__name__}: it cannot be formatted)", ()
                put(f"{self.format(record)}\n")
        else:
            put(f"{line}\n")


class Teller(NamedTuple):
    """Tells of what befalls an attempt: `tell(event, prepare(*facts))`, all `FACTS` in their order, '' for no trace. What several lines say
    alike is prepared once.
    """

    prepare: Callable[[str, str, str, int, str, str], Any]
    tell: Callable[[str, Any], None]


def _facts_text(job_id: str, job_type: str, queue: str, attempt: int, plugin: str, trace_id: str) -> str:
    """What of a line comes behind its event, level and time."""
    trace = f',"traceId":{_quoted(trace_id)}' if trace_id else ""
    return f',"jobId":{_quoted(job_id)}{_kind_text(job_type, queue, attempt, plugin)}{trace}'


@lru_cache(1_000)
def _kind_text(job_type: str, queue: str, attempt: int, plugin: str) -> str:
    """The facts that many attempts share: encoding them is most of what a line costs."""
    return f",{_json(None, '', {'type': job_type, 'queue': queue, 'attempt': attempt, 'plugin': plugin})[1:-1]}"


def facts_of(*values: Any) -> dict[str, Any]:
    """The same as a mapping."""
    return {name: value for name, value in zip(FACTS, values, strict=True) if value != ""}


class _Lines:
    """What structlog writes our events with: those that may be many wait for one another, warnings and worse do not."""

    def __init__(self, stream: LogStream, stamp: _Stamp | None) -> None:
        self._stream = stream
        self._stamp = stamp

    @property
    def teller(self) -> Teller | None:
        """The short way to lines that say little; only to JSON."""
        return None if self._stamp is None else Teller(_facts_text, self._tell)

    def _tell(self, event: str, facts: Any) -> None:
        assert self._stamp is not None
        self._stream.write_soon(f'{{"event":"{event}","level":"info","timestamp":"{self._stamp.text()}"{facts}}}\n')

    def info(self, line: str) -> None:
        self._stream.write_soon(f"{line}\n")

    def warning(self, line: str) -> None:
        self._stream.write(f"{line}\n")

    debug = info
    warn = error = exception = critical = fatal = warning


def configure(level: str, form: str = "auto") -> None:
    """Set up logging for this process. Call once, in a composition root.

    Args:
        level: debug, info, warning or error.
        form: json, console, or auto: console when standard error is a terminal.
    """
    number, stamp = LEVELS.get(level, logging.INFO), _Stamp()
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        stamp,
        structlog.processors.format_exc_info,
        _tidy,
    ]
    pretty = form == "console" or (form == "auto" and sys.stderr.isatty())
    render: Any = structlog.dev.ConsoleRenderer() if pretty else _json
    last = [_escaped, render] if pretty else [render]

    def notice(lines: int) -> str:
        return str(render(None, "warning", stamp(None, "warning", {"event": events.LOG_DROPPED, "level": "warning", "lines": lines})))

    stream: Any = LogStream(sys.stderr, notice)
    lines = _Lines(stream, None if pretty else stamp)
    atexit.register(stream.flush)
    structlog.configure(
        processors=[*shared, *last],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=lambda *_: lines,
        cache_logger_on_first_use=True,
    )
    handler = _Handler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared[1:-1], _extras, _tidy],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    logging.basicConfig(level=number, handlers=[handler], force=True)
    for name in _QUIET:
        logging.getLogger(name).setLevel(max(number, logging.WARNING))


def teller() -> Teller | None:
    """What tells of events at info level that each job has; None where nobody reads them: they need not be made.

    The same lines that `get().info` would write, in a fraction of the time.
    """
    logger = get().bind()  # bound now: the lazy proxy costs a microsecond a call
    if not logger.is_enabled_for(logging.INFO):
        return None
    lines = logger._logger  # noqa: SLF001 - ours, if `configure` was called
    short = lines.teller if isinstance(lines, _Lines) else None
    return short or Teller(facts_of, lambda event, facts: logger.info(event, **facts))


def flush() -> None:
    """Write what waits. For a process that ends without the interpreter's leave."""
    for handler in logging.getLogger().handlers:
        handler.flush()


def get() -> Any:
    """The logger of events: `log.info(events.X, field=value)`."""
    return structlog.get_logger()
