"""The command line: one module per command. Each imports what is heavy when it runs, so that `--help` answers at once.

Exit codes: 0 done, 1 failed, 2 wrong usage, 69 the store does not answer or refuses, 78 a setting is wrong or the store unsafe.
"""

from __future__ import annotations

from typing import Any

import rich_click as click

from taskmaster import __version__
from taskmaster.cli.api import api
from taskmaster.cli.breakers import breakers
from taskmaster.cli.config import config
from taskmaster.cli.dlq import dlq
from taskmaster.cli.doctor import doctor
from taskmaster.cli.effects import effects
from taskmaster.cli.exits import code_of
from taskmaster.cli.importing import import_
from taskmaster.cli.job import job
from taskmaster.cli.limits import limits
from taskmaster.cli.operations import operations
from taskmaster.cli.pauses import plugins, tenants, types
from taskmaster.cli.queues import queues
from taskmaster.cli.scheduler import scheduler
from taskmaster.cli.schedules import schedules
from taskmaster.cli.submit import submit
from taskmaster.cli.up import up
from taskmaster.cli.worker import worker
from taskmaster.cli.workers import workers
from taskmaster.errors import TaskMasterError

__all__ = ["main"]


class Commands(click.RichGroup):
    """The group, at whose border errors of ours become a line on standard error and an exit code."""

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


for command in (
    up,
    api,
    worker,
    workers,
    scheduler,
    submit,
    import_,
    job,
    schedules,
    queues,
    types,
    plugins,
    tenants,
    limits,
    dlq,
    operations,
    effects,
    breakers,
    doctor,
    config,
):
    main.add_command(command)
