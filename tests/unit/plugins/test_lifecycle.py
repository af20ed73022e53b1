"""A plugin that will not start is withdrawn, one that will not stop is left behind, and the others never notice."""

from __future__ import annotations

import sys
import threading
import time

import pytest

from taskmaster.plugins import lifecycle
from taskmaster.plugins.discovery import discover

#: Every hook appends what it did to `sys.planted_calls`, so that the order over several plugins can be seen.
TELLING = """
import sys
@hookimpl
def on_init(context):
    sys.planted_calls.append(("init", context.plugin))
    context.state["answer"] = 42
@hookimpl
async def on_shutdown(context):
    sys.planted_calls.append(("shutdown", context.plugin, context.state["answer"]))
"""
HANG = """
import sys
@hookimpl
def on_init(context):
    sys.planted_gate.wait(20)
"""


@pytest.fixture
def calls(monkeypatch):
    made: list[tuple] = []
    monkeypatch.setattr(sys, "planted_calls", made, raising=False)
    return made


@pytest.fixture
def gate(monkeypatch):
    """What hanging hooks wait for; opened at the end, so that their threads end too."""
    opened = threading.Event()
    monkeypatch.setattr(sys, "planted_gate", opened, raising=False)
    yield opened
    opened.set()
    for thread in threading.enumerate():
        if thread.name.startswith("plugin "):
            thread.join(5)


def test_plugins_start_in_order_and_stop_in_reverse(plant, calls, run_async, tmp_path):
    entries = [plant("bbb", TELLING), plant("aaa", TELLING)]

    running = lifecycle.start(discover(source=lambda: entries), tmp_path, {"A": "1"}, run_async)
    problems = lifecycle.stop(running, run_async)

    assert problems == {}
    assert calls == [("init", "aaa"), ("init", "bbb"), ("shutdown", "bbb", 42), ("shutdown", "aaa", 42)]


def test_a_hook_is_given_folder_and_environment_of_its_own(plant, calls, run_async, tmp_path):
    body = "import sys\n@hookimpl\nasync def on_init(context):\n    sys.planted_calls.append(context)\n    context.environ['X'] = 'changed'"
    entries = [plant("one", body), plant("two", body)]
    environ = {"X": "as it was"}

    lifecycle.start(discover(source=lambda: entries), tmp_path, environ, run_async)

    assert [context.plugin for context in calls] == ["one", "two"]
    assert calls[0].data_dir == tmp_path
    assert calls[0].environ is not calls[1].environ
    assert environ == {"X": "as it was"}


FAILING = {
    "raises": ("raise RuntimeError('no licence')", "on_init: RuntimeError: no licence"),
    "leaves the interpreter": ("raise SystemExit(3)", "on_init: SystemExit: 3"),
    "raises a time-out of its own": ("raise TimeoutError('server')", "on_init: TimeoutError: server"),
}


@pytest.mark.parametrize("word", ["def", "async def"])
@pytest.mark.parametrize(("statement", "error"), FAILING.values(), ids=FAILING)
def test_a_plugin_that_does_not_start_loses_its_types_only(plant, calls, run_async, tmp_path, word, statement, error):
    entries = [plant("aaa", TELLING), plant("bbb", f"@hookimpl\n{word} on_init(context):\n    {statement}"), plant("ccc", TELLING)]

    running = lifecycle.start(discover(source=lambda: entries), tmp_path, {}, run_async)
    lifecycle.stop(running, run_async)

    assert running.registry.types == ("aaa", "ccc")
    assert running.registry.reports[1].state == "failed"
    assert running.registry.reports[1].error == error
    assert [call[:2] for call in calls] == [("init", "aaa"), ("init", "ccc"), ("shutdown", "ccc"), ("shutdown", "aaa")]


def test_an_on_init_that_hangs_is_abandoned_at_its_limit(plant, calls, gate, run_async, tmp_path):
    entries = [plant("hangs", HANG), plant("zzz", TELLING)]
    began = time.monotonic()

    running = lifecycle.start(discover(source=lambda: entries), tmp_path, {}, run_async, limit_s=0.1)

    assert time.monotonic() - began < 5
    assert running.registry.types == ("zzz",)
    assert running.registry.reports[0].error == "on_init: took longer than 0.1 s"


def test_an_async_on_init_that_hangs_is_cancelled_at_its_limit(plant, run_async, tmp_path):
    body = "import asyncio\n@hookimpl\nasync def on_init(context):\n    await asyncio.Event().wait()"

    running = lifecycle.start(discover(source=lambda: [plant("hangs", body)]), tmp_path, {}, run_async, limit_s=0.1)

    assert running.registry.reports[0].error == "on_init: took longer than 0.1 s"


def test_what_goes_wrong_in_on_shutdown_is_told_and_the_others_still_stop(plant, calls, gate, run_async, tmp_path):
    entries = [
        plant("aaa", TELLING),
        plant("bbb", "@hookimpl\ndef on_shutdown(context):\n    raise SystemExit('leaving')"),
        plant("ccc", HANG.replace("on_init", "on_shutdown")),
        plant("ddd", TELLING),
    ]
    running = lifecycle.start(discover(source=lambda: entries), tmp_path, {}, run_async)

    problems = lifecycle.stop(running, run_async, limit_s=0.1)

    assert problems == {"bbb": "on_shutdown: SystemExit: leaving", "ccc": "on_shutdown: took longer than 0.1 s"}
    assert [call[:2] for call in calls if call[0] == "shutdown"] == [("shutdown", "ddd"), ("shutdown", "aaa")]


def test_shutting_down_as_a_whole_is_bounded(plant, gate, run_async, tmp_path):
    entries = [plant(name, HANG.replace("on_init", "on_shutdown")) for name in ("aaa", "bbb", "ccc")]
    running = lifecycle.start(discover(source=lambda: entries), tmp_path, {}, run_async)
    began = time.monotonic()

    problems = lifecycle.stop(running, run_async, limit_s=10, within_s=0.1)

    assert time.monotonic() - began < 5
    assert "took longer" in problems["ccc"]
    assert "was used up" in problems["aaa"]
