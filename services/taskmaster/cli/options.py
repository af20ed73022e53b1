"""Settings as command-line options, and values as text."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import rich_click as click

from taskmaster.settings import NAMES, Settings, help_text, load

__all__ = ["API", "SCHEDULER", "STORE", "WORKER", "as_json", "echo_json", "pairs_of", "settings_from", "settings_options"]

C = TypeVar("C", bound=Callable[..., Any])

#: Settings of those who only need the store.
STORE = ("data_dir", "redis_url", "partitions", "durability")
#: Of those that trace.
TRACES = ("otlp_endpoint", "otlp_protocol", "trace_ratio")
API = (*STORE, *TRACES, "trace_url", "host", "port", "idempotency", "store_timeout_ms", "max_body_bytes", "log_level", "log_format")
SCHEDULER = (
    *STORE,
    *TRACES,
    "metrics_host",
    "scheduler_metrics_port",
    "idempotency",
    "idempotency_window_ms",
    "store_timeout_ms",
    "max_body_bytes",
    "log_level",
    "log_format",
)
_NOT_THE_WORKERS = ("host", "port", "scheduler_metrics_port", "idempotency", "max_body_bytes", "trace_url")
WORKER = tuple(name for name in NAMES if name not in _NOT_THE_WORKERS)

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def settings_options(*names: str) -> Callable[[C], C]:
    """Options for these settings and for the configuration file; the command gets their texts as keyword arguments, for `settings_from`."""

    def decorate(command: C) -> C:
        for name in reversed([name for name in NAMES if name in names]):
            spelled = f"--{name.replace('_', '-')}"
            command = click.option(spelled, name, metavar=_metavar(name), help=_sentence(help_text(name)))(command)
        return click.option("--config", "config", metavar="FILE", help="TOML file with settings (default: taskmaster.toml here).")(command)

    return decorate


def settings_from(texts: dict[str, str | None]) -> Settings:
    """The settings of this process: the given options over the environment, `.env` and the file.

    Raises:
        ConfigurationError: one of them is wrong.
    """
    return load(texts, os.environ, Path.cwd())


def pairs_of(texts: Sequence[str], name: str) -> dict[str, int]:
    """KEY=N as a caller may repeat it; the key may have = in it.

    Raises:
        click.BadParameter: it has another form.
    """
    found = {}
    for text in texts:
        key, equals, number = text.rpartition("=")
        if not (key and equals and number.isascii() and number.isdigit() and len(number) <= 10):
            raise click.BadParameter(f"{text!r}: KEY=N is meant, such as vip=3", param_hint=name)
        found[key] = int(number)
    return found


def echo_json(value: Any) -> None:
    """Print *value* as indented JSON."""
    click.echo(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def _metavar(name: str) -> str:
    ends = {"_ms": "MS", "_bytes": "BYTES", "_dir": "FOLDER", "_url": "URL"}
    return next((text for end, text in ends.items() if name.endswith(end)), "VALUE")


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + "."
