"""Finding plugins and loading each one apart from the others.

pluggy's own loader stops at the first plugin that fails, so the entry points are walked here: sorted by name, each within its own border.
Whatever a plugin raises at import or registration, `SystemExit` included, ends in its report; only Ctrl-C passes. A plugin is in as a
whole or not at all: one duplicate type refuses all of its types, and their jobs wait until the clash is mended.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace
from importlib.metadata import Distribution, entry_points
from typing import Any, Protocol

import msgspec
import pluggy

from taskmaster.errors import PluginError
from taskmaster.plugins.contain import Traces, reason
from taskmaster.plugins.marks import has_marks
from taskmaster.plugins.registry import Handler, Plugin, PluginReport, Registry
from taskmaster.plugins.schedules import declared
from taskmaster.plugins.schema import describe
from taskmaster.telemetry import events
from taskmaster_sdk import API_VERSION, Job
from taskmaster_sdk.hooks import PROJECT, HookSpecs

__all__ = ["GROUP", "EntryPointLike", "discover"]

GROUP = "taskmaster.plugins"
log = logging.getLogger(__name__)


class EntryPointLike(Protocol):
    """What is needed of an `importlib.metadata.EntryPoint`."""

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def value(self) -> str: ...  # noqa: D102
    @property
    def dist(self) -> Distribution | None: ...  # noqa: D102
    def load(self) -> Any: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class _Loaded:
    """One plugin that passed its own checks, before it is compared with the others."""

    plugin: Plugin
    handlers: tuple[Handler, ...]
    notes: tuple[str, ...]


def installed() -> Iterable[EntryPointLike]:
    """The entry points of this interpreter."""
    return entry_points(group=GROUP)


def discover(
    allow: Collection[str] | None = None,
    *,
    source: Callable[[], Iterable[EntryPointLike]] = installed,
    monotonic: Callable[[], float] = time.perf_counter,
) -> Registry:
    """Load every plugin that is installed and allowed. Never raises for a plugin's sake.

    Imports foreign code: call it once a process, on the main thread, before threads start. Where two plugins share an entry-point name or
    a job type, the first in order of (name, distribution) has it and the other one is refused.

    Args:
        allow: names of entry points; others are not even imported. None or empty: all. A name that is not installed gets a failed report.
        source: where entry points come from.
        monotonic: the clock behind `duration_ms`, in seconds.
    """
    handlers: dict[str, Handler] = {}
    reports: list[PluginReport] = []
    plugins: list[Plugin] = []
    names: dict[str, str] = {}
    for entry in sorted(source(), key=lambda entry: (entry.name, _origin(entry))):
        if allow and entry.name not in allow:
            continue
        distribution, version = _origin(entry)
        report = PluginReport(entry.name, distribution, version)
        began = monotonic()
        traces = Traces()
        try:
            if entry.name in names:
                raise PluginError(
                    f"another plugin named {entry.name!r} comes from {names[entry.name] or 'an unknown package'}", plugin=entry.name
                )
            names[entry.name] = distribution
            loaded = _load(entry, version)
            report = replace(report, types=tuple(sorted(handler.job.name for handler in loaded.handlers)), notes=loaded.notes)
            _refuse_duplicates(entry.name, loaded.handlers, handlers)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001, RUF100 - the plugin border
            message = error.message if isinstance(error, PluginError) else reason(error)
            report = replace(report, state="failed", error=message)
            log.warning(
                events.PLUGIN_IMPORT_FAILED, extra={"plugin": entry.name, "error": message}, exc_info=not isinstance(error, PluginError)
            )
        else:
            handlers.update((handler.job.name, handler) for handler in loaded.handlers)
            plugins.append(loaded.plugin)
        took_ms = round((monotonic() - began) * 1_000, 3)
        reports.append(replace(report, duration_ms=took_ms, notes=(*report.notes, *traces.since())))
    reports += [
        PluginReport(name, state="failed", error=f"no installed package has a plugin of this name (entry-point group {GROUP})")
        for name in sorted(set(allow or ()) - {report.name for report in reports})
    ]
    return Registry(handlers, tuple(sorted(reports, key=lambda report: (report.name, report.distribution))), tuple(plugins))


def _origin(entry: EntryPointLike) -> tuple[str, str]:
    """Distribution and version, empty when its metadata does not say."""
    try:
        return (entry.dist.name or "", entry.dist.version or "") if entry.dist is not None else ("", "")
    except Exception:  # noqa: BLE001, RUF100 - broken metadata is the package's matter
        return ("", "")


def _load(entry: EntryPointLike, version: str) -> _Loaded:
    """Import the plugin, check what it claims, and take its jobs.

    Raises:
        PluginError: it does not keep the contract.
        BaseException: whatever its code raises.
    """
    thing = entry.load()
    _check_api(entry, thing)
    if isinstance(thing, type):
        raise PluginError(f"{entry.value} is a class; the entry point must name a module or an instance", plugin=entry.name)
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(HookSpecs)
    try:
        manager.register(thing, entry.name)
        manager.check_pending()
    except pluggy.PluginValidationError as error:
        known = ", ".join(sorted(name for name in vars(HookSpecs) if not name.startswith("_")))
        raise PluginError(f"a hook does not fit: {reason(error)}. Hooks are: {known}", plugin=entry.name) from error
    handlers: list[Handler] = []
    notes: list[str] = []
    for jobs in manager.hook.register_jobs():
        for job in jobs:
            handlers.append(_handler(entry.name, version, job))
            problem = describe(job).problem
            if problem:
                notes.append(f"{job.name}: {problem}")
    schedules = []
    for given in (one for some in manager.hook.register_schedules() for one in some):
        try:
            schedules.append(declared(entry.name, given))
        except PluginError as error:  # its jobs can run all the same
            notes.append(error.message)
    return _Loaded(Plugin(entry.name, manager, tuple(schedules)), tuple(handlers), tuple(notes))


def _check_api(entry: EntryPointLike, thing: object) -> None:
    """A plugin may say which contract it was written for, in the object or in its module. An unknown one is refused."""
    module = sys.modules.get(entry.value.partition(":")[0].strip())
    wanted = getattr(thing, "TASKMASTER_API", getattr(module, "TASKMASTER_API", API_VERSION))
    if wanted != API_VERSION:
        raise PluginError(
            f"written for plugin API {wanted!r}, this TaskMaster has {API_VERSION}; install versions that agree", plugin=entry.name
        )


def _handler(plugin: str, version: str, job: object) -> Handler:
    """The handler of one declared job.

    Raises:
        PluginError: not a job, or its payload type cannot be decoded.
    """
    if not isinstance(job, Job):
        raise PluginError(f"register_jobs gave {type(job).__name__}, not a Job; decorate the handler with @job", plugin=plugin)
    try:
        decode = msgspec.json.Decoder(job.payload).decode
    except Exception as error:
        raise PluginError(
            f"{job.name}: the payload type {job.payload!r} cannot be read from JSON: {reason(error)}", plugin=plugin
        ) from error
    schema = describe(job).schema
    return Handler(job, plugin, version, decode, job.is_async, schema if has_marks(schema) else None)


def _refuse_duplicates(plugin: str, new: Iterable[Handler], taken: dict[str, Handler]) -> None:
    """No two handlers for one type, within a plugin or between two.

    Raises:
        PluginError: says which type, and whose it is.
    """
    seen: set[str] = set()
    clashes = []
    for handler in new:
        name = handler.job.name
        if name in seen:
            clashes.append(f"{name!r} is declared twice")
        elif name in taken:
            clashes.append(f"{name!r} belongs to plugin {taken[name].plugin!r} already")
        seen.add(name)
    if clashes:
        raise PluginError(f"job type {'; '.join(clashes)}. None of this plugin's types is served until that is settled", plugin=plugin)
