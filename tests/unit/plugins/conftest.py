"""Small plugins, written into a folder of their own and found through entry points that the test hands over."""

from __future__ import annotations

import asyncio
import sys
import textwrap
import threading
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from taskmaster.plugins.discovery import GROUP

Plant = Callable[..., "Planted"]

HEAD = """
from dataclasses import dataclass
from taskmaster_sdk import hookimpl, job

@dataclass
class Payload:
    text: str = ""

def declare(name):
    @job(name)
    def handler(payload: Payload, ctx):
        return payload.text
    return handler

"""


@dataclass(frozen=True)
class Dist:
    """As much of a distribution as discovery looks at."""

    name: str
    version: str


@dataclass(frozen=True)
class Planted:
    """An entry point over a real module."""

    name: str
    value: str
    dist: Any

    def load(self) -> Any:
        return EntryPoint(self.name, self.value, GROUP).load()


@pytest.fixture
def plant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Plant]:
    """Write a plugin and get its entry point. `body` follows a head that imports the SDK; by default one job named like the plugin."""
    monkeypatch.syspath_prepend(str(tmp_path))
    modules: list[str] = []

    def write(
        name: str, body: str | None = None, *, version: str = "1.0", dist: str | None = None, types: tuple[str, ...] | None = None
    ) -> Planted:
        module = f"planted_{name}_{len(modules)}".replace("-", "_")
        names = list(types if types is not None else (name,))
        register = f"@hookimpl\ndef register_jobs():\n    return [declare(name) for name in {names}]\n"
        own = textwrap.dedent(body or "")
        source = f"{HEAD}{own}\n{'' if 'def register_jobs' in own else register}"
        (tmp_path / f"{module}.py").write_text(source)
        modules.append(module)
        return Planted(name, module, Dist(dist or f"dist-{name}", version))

    yield write
    for module in modules:
        sys.modules.pop(module, None)


@pytest.fixture
def run_async() -> Iterator[Callable[[Coroutine[Any, Any, Any], float], Any]]:
    """An event loop on a thread, as a worker has one."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="test loop", daemon=True)
    thread.start()

    def run(coro: Coroutine[Any, Any, Any], timeout_s: float) -> Any:
        async def bounded() -> Any:
            async with asyncio.timeout(timeout_s):
                return await coro

        return asyncio.run_coroutine_threadsafe(bounded(), loop).result()

    yield run
    loop.call_soon_threadsafe(loop.stop)
    thread.join(5)
    loop.close()
