"""Plugins of failing, crashing, effectful and tracing job types, for workers that tests start."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from support.service import install_plugin

__all__ = ["install", "install_traced", "settings_of"]

_CODE, _TRACED = (Path(__file__).parent / name for name in ("faults_plugin.py", "traced_plugin.py"))
_TESTS = Path(__file__).parents[2]


def install(folder: Path) -> Path:
    """Lay the plugin `faults` into *folder*; give that to `WorkerService` as `plugins_folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    install_plugin(folder, "faults", f"import sys\nsys.path.append({str(_TESTS)!r})\n" + _without_future(_CODE.read_text()))
    return folder


def install_traced(folder: Path) -> Path:
    """Lay the plugin `traced` into *folder*. TASKMASTER_PLUGIN_TRACED_STORE is the store that it submits to."""
    folder.mkdir(parents=True, exist_ok=True)
    install_plugin(folder, "traced", _without_future(_TRACED.read_text()))
    return folder


def settings_of(sink_path: str) -> dict[str, Any]:
    """Settings of a worker that runs it."""
    return {"plugins": "faults", "plugin_faults_sink": sink_path}


def _without_future(code: str) -> str:
    """A `from __future__` import must stand first: it goes, and annotations are evaluated."""
    return code.replace("from __future__ import annotations\n", "")
