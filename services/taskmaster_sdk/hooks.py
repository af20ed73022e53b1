"""The hooks a plugin may implement. Entry-point group `taskmaster.plugins`; the entry point names a module or an object."""

from __future__ import annotations

from collections.abc import Awaitable, Iterable

import pluggy

from taskmaster_sdk.context import PluginContext
from taskmaster_sdk.jobs import Job
from taskmaster_sdk.schedules import Schedule

__all__ = ["API_VERSION", "PROJECT", "HookSpecs", "hookimpl"]

PROJECT = "taskmaster"
#: Raised when a hook or a signature changes in a way that old plugins cannot follow. A plugin may state the one it was written for as
#: `TASKMASTER_API = 1` in its module.
API_VERSION = 1

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


class HookSpecs:
    """Signatures that the host checks plugins against."""

    @hookspec
    def register_jobs(self) -> Iterable[Job]:  # type: ignore[empty-body]
        """Hand over the plugin's job types. Called once a process, before anything runs. Not the place for I/O."""

    @hookspec
    def register_schedules(self) -> Iterable[Schedule]:  # type: ignore[empty-body]
        """Hand over what the plugin runs by the clock. Called once a process, right after `register_jobs`. Not the place for I/O."""

    @hookspec
    def on_init(self, context: PluginContext) -> Awaitable[None] | None:
        """Prepare what handlers need: clients, pools. Once per worker process, before its first job; may be `async def`."""

    @hookspec
    def on_shutdown(self, context: PluginContext) -> Awaitable[None] | None:
        """Put away what `on_init` made. Once per worker process, after its last job, in reverse order; may be `async def`."""
