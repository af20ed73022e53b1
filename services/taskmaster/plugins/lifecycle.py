"""Starting and stopping plugins in a worker process: `on_init` in order, `on_shutdown` in reverse, each within a time limit.

A synchronous hook runs on a thread of its own, because a thread is the only thing that can be walked away from: one that outlives its
limit is abandoned (it is a daemon and ends with the process). An asynchronous one runs on the worker's event loop.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from taskmaster.plugins.contain import reason
from taskmaster.plugins.registry import Plugin, Registry
from taskmaster.telemetry import events
from taskmaster_sdk import PluginContext

__all__ = ["LIMIT_S", "RunAsync", "Running", "start", "stop"]

#: Seconds that one hook of one plugin may take.
LIMIT_S = 30.0
log = logging.getLogger(__name__)


class RunAsync(Protocol):
    """Runs a coroutine on the worker's event loop from another thread and waits for it.

    Gives its value or raises what it raised; after *timeout_s* seconds it cancels the coroutine and raises `TimeoutError`, whether or not
    the coroutine obeys.
    """

    def __call__(self, coro: Coroutine[Any, Any, Any], timeout_s: float, /) -> Any: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class Running:
    """Plugins that are up.

    Attributes:
        registry: without the plugins that could not be started; their reports say why.
        contexts: of every plugin that started, in that order.
    """

    registry: Registry
    contexts: tuple[tuple[Plugin, PluginContext], ...] = ()


def start(registry: Registry, data_dir: Path, environ: Mapping[str, str], run_async: RunAsync, *, limit_s: float = LIMIT_S) -> Running:
    """Run every plugin's `on_init`. Never raises for a plugin's sake: one that fails or hangs is withdrawn, the others go on.

    Call it once per worker process, before its first job, not on the event loop's thread. A withdrawn plugin's `on_shutdown` is not called.

    Args:
        registry: what `discover` gave.
        data_dir: handed to the plugins.
        environ: copied for each plugin.
        run_async: for hooks that are `async def`.
        limit_s: seconds for each plugin.
    """
    failures: dict[str, str] = {}
    contexts: list[tuple[Plugin, PluginContext]] = []
    for plugin in registry.plugins:
        context = PluginContext(plugin.name, data_dir, dict(environ))
        problem = _call(plugin, "on_init", context, run_async, limit_s)
        if problem:
            failures[plugin.name] = f"on_init: {problem}"
        else:
            contexts.append((plugin, context))
    return Running(registry.without(failures), tuple(contexts))


def stop(running: Running, run_async: RunAsync, *, limit_s: float = LIMIT_S, within_s: float | None = None) -> dict[str, str]:
    """Run `on_shutdown` of every started plugin, last started first. Never raises; what went wrong is logged and returned by plugin name.

    Args:
        running: what `start` gave.
        run_async: as for `start`; the loop must still run.
        limit_s: seconds for each plugin.
        within_s: seconds for all of them together; plugins that it leaves no time for are not called. None: no such limit.
    """
    ends = None if within_s is None else time.monotonic() + within_s
    problems: dict[str, str] = {}
    for plugin, context in reversed(running.contexts):
        left = limit_s if ends is None else min(limit_s, ends - time.monotonic())
        problem = (
            _call(plugin, "on_shutdown", context, run_async, left) if left > 0 else "not called: the time for shutting down was used up"
        )
        if problem:
            problems[plugin.name] = f"on_shutdown: {problem}"
    return problems


def _call(plugin: Plugin, hook: str, context: PluginContext, run_async: RunAsync, limit_s: float) -> str:
    """Run one hook of one plugin; what went wrong, or empty."""
    began = time.monotonic()
    try:
        caller = plugin.manager.hook.on_init if hook == "on_init" else plugin.manager.hook.on_shutdown
        for answer in _on_a_thread(lambda: caller(context=context), f"plugin {plugin.name} {hook}", limit_s):
            if inspect.isawaitable(answer):
                error = run_async(_contained(answer), max(0.0, began + limit_s - time.monotonic()))
                if error is not None:
                    raise error
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001, RUF100 - the plugin border
        problem = (
            f"took longer than {limit_s:g} s" if isinstance(error, TimeoutError) and time.monotonic() - began >= limit_s else reason(error)
        )
        log.error(events.PLUGIN_HOOK_FAILED, extra={"plugin": plugin.name, "hook": hook, "error": problem}, exc_info=error)
        return problem
    return ""


def _on_a_thread(call: Callable[[], list[Any]], name: str, limit_s: float) -> list[Any]:
    """What *call* gives or raises, if it does so within *limit_s* seconds.

    Raises:
        TimeoutError: it did not; the thread is left behind.
        BaseException: what it raised.
    """
    answers: list[list[Any]] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            answers.append(call())
        except BaseException as error:  # noqa: BLE001, RUF100 - carried over to the caller
            errors.append(error)

    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()
    thread.join(limit_s)
    if errors:
        raise errors[0]
    if not answers:
        raise TimeoutError(f"{name} took longer than {limit_s:g} s")
    return answers[0]


async def _contained(answer: Awaitable[object]) -> BaseException | None:
    """What *answer* raised. Handed over as a value: a `SystemExit` that left a task would end the worker's event loop."""
    try:
        await answer
    except (KeyboardInterrupt, asyncio.CancelledError):
        raise
    except BaseException as error:  # noqa: BLE001, RUF100 - carried over to the caller
        return error
    return None
