"""Running TaskMaster's own commands from a job: what they print is data, and their options are the operator's."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from taskmaster_sdk import JobContext

__all__ = ["CommandFailed", "Commands"]

_LOOK_EVERY_S = 0.2


class CommandFailed(Exception):
    """The command did not print what it should. Says how it ended, and the end of what it said."""


class Commands:
    """Commands of this installation, with the settings of the worker's environment.

    Args:
        environ: None until the plugin is initialised.
    """

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        self.environ = environ

    def run(self, ctx: JobContext, *words: str) -> Any:
        """What `taskmaster <words> --json` prints, whatever its exit code is. Ends the command when the job is cancelled or out of time.

        Raises:
            CommandFailed: it printed no JSON.
        """
        if self.environ is None:
            raise RuntimeError("the plugin was not initialised: on_init has not run")
        command = [sys.executable, "-m", "taskmaster", *words, "--json"]
        pipe = subprocess.PIPE
        with subprocess.Popen(command, env=dict(self.environ), stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe) as process:
            try:
                out, said = _wait(process, ctx)
            finally:
                process.kill()
        try:
            return json.loads(out)
        except ValueError as error:
            raise CommandFailed(f"taskmaster {' '.join(words)} ended with {process.returncode}: {said.decode()[-500:]}") from error


def _wait(process: subprocess.Popen[bytes], ctx: JobContext) -> tuple[bytes, bytes]:
    while True:
        ctx.check()
        try:
            return process.communicate(timeout=_LOOK_EVERY_S)
        except subprocess.TimeoutExpired:
            continue
