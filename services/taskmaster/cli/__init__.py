"""The command line: one module per command. Each imports what is heavy when it runs, so that `--help` answers at once.

Exit codes: 0 done, 1 failed, 2 wrong usage, 69 the store does not answer or refuses, 78 a setting is wrong or the store unsafe.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import rich_click as click

from taskmaster import __version__
from taskmaster.cli.exits import code_of
from taskmaster.errors import TaskMasterError

__all__ = ["main"]


#: Command -> module and name in it.
_COMMANDS = {
    "up": ("up", "up"),
    "api": ("api", "api"),
    "worker": ("worker", "worker"),
    "workers": ("workers", "workers"),
    "scheduler": ("scheduler", "scheduler"),
    "submit": ("submit", "submit"),
    "import": ("importing", "import_"),
    "job": ("job", "job"),
    "events": ("events", "events"),
    "schedules": ("schedules", "schedules"),
    "queues": ("queues", "queues"),
    "types": ("pauses", "types"),
    "plugins": ("pauses", "plugins"),
    "tenants": ("pauses", "tenants"),
    "limits": ("limits", "limits"),
    "webhooks": ("webhooks", "webhooks"),
    "dlq": ("dlq", "dlq"),
    "operations": ("operations", "operations"),
    "effects": ("effects", "effects"),
    "audit": ("audit", "audit"),
    "breakers": ("breakers", "breakers"),
    "doctor": ("doctor", "doctor"),
    "health": ("health", "health"),
    "config": ("config", "config"),
}


class Commands(click.RichGroup):
    """The group, at whose border errors of ours become a line on standard error and an exit code. Imports the command that is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's
        """In the order in which people meet them."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's
        """The command with this name, if there is one."""
        if cmd_name not in _COMMANDS:
            return None
        module, name = _COMMANDS[cmd_name]
        found: click.Command = getattr(import_module(f"taskmaster.cli.{module}"), name)
        return found

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command that was asked for."""
        try:
            return super().invoke(ctx)
        except TaskMasterError as error:
            click.echo(f"taskmaster: {error.message}", err=True)
            ctx.exit(code_of(error))


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 done, 1 failed, 2 wrong usage, 69 store unavailable, 78 wrong setting or unsafe store.",
)
@click.version_option(__version__, prog_name="taskmaster")
def main() -> None:
    """Background jobs for Python teams. `taskmaster up` starts everything on this machine."""
