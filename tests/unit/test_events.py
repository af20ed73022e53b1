"""The catalogue of log events is whole: nothing is logged under another name, and people can look each one up."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from taskmaster.telemetry import events

SERVICES = Path(__file__).parents[2] / "services"
NAMES = {name: value for name, value in vars(events).items() if name.isupper()}
LEVELS = {"debug", "info", "warning", "error", "critical", "exception"}


def test_every_event_is_in_the_table_of_the_readme_and_nothing_else_is() -> None:
    page = (SERVICES / "README.md").read_text("utf-8")
    table = page.partition("## Log events")[2].partition("\n## ")[0]
    told = re.findall(r"`([a-z_]+\.[a-z_]+)`", "\n".join(line.split("|")[1] for line in table.splitlines() if line.startswith("| `")))

    assert sorted(told) == sorted(NAMES.values())


def test_every_event_is_logged_somewhere() -> None:
    """A name that nothing uses is not an event."""
    used = {node.attr for _, tree in modules() for node in ast.walk(tree) if isinstance(node, ast.Attribute) and node.attr.isupper()}

    assert NAMES.keys() - used == set()


def test_nothing_is_logged_under_a_name_of_its_own() -> None:
    """The first argument of every call of a logger comes from the catalogue."""
    wild = [
        f"{path}:{node.lineno}"
        for path, tree in modules()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in LEVELS
        and node.args
        and isinstance(node.args[0], ast.Constant | ast.JoinedStr)
        and is_logger(node.func.value)
    ]

    assert wild == []


def is_logger(node: ast.expr) -> bool:
    """`log`, `logs.get()`, `get()`."""
    return bool(re.fullmatch(r"(\w+\.)?_?(log|logger|get\(\))|logs\.get\(\)", ast.unparse(node)))


def modules() -> Iterator[tuple[Path, ast.Module]]:
    for path in sorted((SERVICES / "taskmaster").rglob("*.py")):
        if path.name != "events.py":
            yield path, ast.parse(path.read_text("utf-8"))
