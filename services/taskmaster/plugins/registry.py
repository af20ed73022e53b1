"""What was loaded: job types and their handlers, and a report on every plugin, the failed ones too. Frozen."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Literal

import msgspec
import pluggy

from taskmaster.plugins.marks import hider
from taskmaster.plugins.schedules import Declared
from taskmaster_sdk import Job

__all__ = ["Handler", "Plugin", "PluginReport", "Registry"]


@dataclass(frozen=True, slots=True)
class PluginReport:
    """How loading one plugin went: for people, shown by CLI, API and health.

    Attributes:
        name: of the entry point.
        distribution: the package it came from, or empty when unknown.
        version: of that package, or empty.
        state: whether its jobs run.
        error: why not, one short paragraph; empty when loaded.
        duration_ms: of the import and the registration.
        types: the job types it serves; of a failed plugin, those that it would serve, as far as is known.
        notes: what is not wrong but should be known: threads left by the import, globals changed, payloads without a schema.
    """

    name: str
    distribution: str = ""
    version: str = ""
    state: Literal["loaded", "failed"] = "loaded"
    error: str = ""
    duration_ms: float = 0.0
    types: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Handler:
    """The code behind one job type.

    Attributes:
        job: as declared.
        plugin: name of the plugin's entry point.
        version: of the plugin's distribution, or empty.
        decoder: JSON bytes to the object that the handler takes, built once. Raises `msgspec.DecodeError` and its child
            `msgspec.ValidationError`.
        is_async: whether the handler runs on the event loop.
        marked: schema of a payload of which something is marked secret or pii; None when nothing is.
    """

    job: Job
    plugin: str
    version: str
    decoder: Callable[[bytes], Any]
    is_async: bool
    marked: Mapping[str, Any] | None = None

    def hide(self, payload: bytes) -> Callable[[str], str] | None:
        """Takes what is marked in this payload, JSON, out of a text; None when nothing is. For attempts that failed: it decodes anew."""
        return None if self.marked is None else hider(msgspec.json.decode(payload), self.marked)


@dataclass(frozen=True, slots=True)
class Plugin:
    """A loaded plugin's hooks.

    Attributes:
        name: of the entry point.
        schedules: that it declares and that can be carried out.
        manager: pluggy's, with this plugin alone in it: hooks are called plugin by plugin, so that no wrapper, order or failure of one
            reaches another.
    """

    name: str
    manager: pluggy.PluginManager
    schedules: tuple[Declared, ...] = ()


@dataclass(frozen=True, slots=True)
class Registry:
    """A frozen view of the loaded plugins.

    Attributes:
        handlers: by job type.
        reports: one for each plugin that was looked at, sorted by name.
        plugins: the loaded ones, in the order in which they are started.
    """

    handlers: Mapping[str, Handler]
    reports: tuple[PluginReport, ...] = ()
    plugins: tuple[Plugin, ...] = ()

    def __post_init__(self) -> None:
        """Nobody adds a handler behind a reader's back."""
        object.__setattr__(self, "handlers", MappingProxyType(dict(self.handlers)))

    @property
    def types(self) -> tuple[str, ...]:
        """The job types that can run here, sorted."""
        return tuple(sorted(self.handlers))

    def fingerprint(self) -> str:
        """16 hex digits that are equal for workers with the same types from the same plugin versions; PROTOCOL.md's `cap`."""
        served = sorted(f"{name}@{handler.plugin}=={handler.version}" for name, handler in self.handlers.items())
        return hashlib.sha256("\n".join(served).encode()).hexdigest()[:16]

    def without(self, failures: Mapping[str, str]) -> Registry:
        """The same registry with some plugins withdrawn: their types gone, their reports `failed`.

        Args:
            failures: reason by plugin name.
        """
        if not failures:
            return self
        return Registry(
            handlers={name: handler for name, handler in self.handlers.items() if handler.plugin not in failures},
            reports=tuple(
                replace(report, state="failed", error=failures[report.name])
                if report.state == "loaded" and report.name in failures
                else report
                for report in self.reports
            ),
            plugins=tuple(plugin for plugin in self.plugins if plugin.name not in failures),
        )
