"""Failpoints: nothing unless asked for, exact when asked for, and no name that is nowhere in the code."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import taskmaster
from support.eventually import eventually
from taskmaster import failpoints
from taskmaster.errors import ConfigurationError
from taskmaster.failpoints import NAMES, FailpointHit, Failpoints


def run(code: str, **environ: object) -> subprocess.CompletedProcess[bytes]:
    """*code* in a process of its own."""
    env = os.environ | {name: str(value) for name, value in environ.items()}
    return subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, timeout=30, check=False)


def test_without_the_variable_a_point_does_nothing() -> None:
    """Any name passes, since nothing looks at it: the call is as cheap as a call can be."""
    failpoints.hit("no such point")
    assert not failpoints.is_on
    assert failpoints.hit.__code__.co_names == ()


@pytest.mark.parametrize(("action", "code"), [("kill9", -signal.SIGKILL), ("exit", 70)])
def test_the_process_ends_at_the_third_hit(action: str, code: int) -> None:
    """Neither before nor after, and without any clean-up."""
    text = "import atexit\nfrom taskmaster.failpoints import hit\natexit.register(print, 'cleaned')\n"
    text += "for n in range(5):\n print(n, flush=True); hit('cycle.sent'); hit('cycle.answered')"

    ended = run(text, TM_FAILPOINTS=f"cycle.sent:{action}@3")

    assert (ended.returncode, ended.stdout.split()) == (code, [b"0", b"1", b"2"])


def test_the_process_stops_until_it_is_continued() -> None:
    """SIGSTOP: it holds what it holds, and goes on behind the point."""
    code = "from taskmaster.failpoints import hit; hit('effect.reserved'); print('on')"
    with subprocess.Popen([sys.executable, "-c", code], env=os.environ | {"TM_FAILPOINTS": "effect.reserved:stop"}, stdout=-1) as child:
        _, status = os.waitpid(child.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)
        child.send_signal(signal.SIGCONT)
        assert child.communicate(timeout=20)[0] == b"on\n"


def test_raise_says_where() -> None:
    """The point fails as code there would."""
    points = Failpoints("submit.stored:raise@2")

    points.hit("submit.stored")
    with pytest.raises(FailpointHit, match=r"submit\.stored"):
        points.hit("submit.stored")
    points.hit("submit.stored")


def test_with_a_folder_it_acts_once_over_all_processes(tmp_path: Path) -> None:
    """A replacement of the killed process is not killed as well, until somebody removes the file."""
    code = "from taskmaster.failpoints import hit; hit('attempt.finished')"
    environ = {"TM_FAILPOINTS": "attempt.finished:exit", "TM_FAILPOINTS_DIR": tmp_path}

    assert [run(code, **environ).returncode for _ in range(2)] == [70, 0]
    (tmp_path / "attempt.finished").unlink()
    assert [run(code, **environ).returncode for _ in range(2)] == [70, 0]


def test_pause_lasts_until_its_file_is_gone(tmp_path: Path) -> None:
    """The thread waits there; its file says that it does."""
    points = Failpoints("effect.done:pause", tmp_path)
    thread = threading.Thread(target=points.hit, args=("effect.done",))
    thread.start()
    eventually((tmp_path / "effect.done").exists)

    assert thread.is_alive()
    (tmp_path / "effect.done").unlink()
    thread.join(10)
    assert not thread.is_alive()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("attempt.begun:kill9", "no failpoint 'attempt.begun'; there are attempt.started"),
        ("attempt.started", "expected attempt.started:<action>"),
        ("attempt.started:explode", "kill9, exit, raise, stop, pause"),
        ("attempt.started:kill9@zero", "expected attempt.started:<action>"),
        ("attempt.started:kill9@0", "expected attempt.started:<action>"),
        ("attempt.started:pause", "TM_FAILPOINTS_DIR must name"),
    ],
)
def test_what_cannot_be_meant_is_refused(text: str, says: str) -> None:
    """A failpoint that never fires would make its test pass for nothing."""
    with pytest.raises(ConfigurationError, match=re.escape(says)):
        Failpoints(text)


def test_a_misspelt_point_in_the_code_is_noticed() -> None:
    """As soon as any failpoint is on."""
    with pytest.raises(KeyError):
        Failpoints("").hit("attempt.begun")


def test_every_point_of_the_code_is_in_the_catalogue() -> None:
    """A name that is hit and not listed could not be asked for."""
    sources = [path.read_text() for path in Path(taskmaster.__file__).parent.rglob("*.py")]
    placed = {name for text in sources for name in re.findall(r'\bhit\("([a-z_.]+)"\)', text)}

    assert placed >= {"attempt.started", "attempt.finished", "cycle.sent", "cycle.answered", "submit.before_store", "submit.stored"}
    assert placed - set(NAMES) == set()
