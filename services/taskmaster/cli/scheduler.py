"""`taskmaster scheduler`: the process that fires schedules."""

from __future__ import annotations

import sys

import rich_click as click

from taskmaster.cli.options import SCHEDULER, settings_from, settings_options
from taskmaster.cli.store import refuse_unsafe
from taskmaster.store.address import store_url

__all__ = ["scheduler"]


@click.command()
@settings_options(*SCHEDULER)
def scheduler(**texts: str | None) -> None:
    """Fire schedules until SIGTERM or Ctrl-C. Any number may run: one leads, another takes over within 10 seconds.

    Without a store's address it uses the embedded one that `taskmaster up` started.
    Exit codes: 0 ended in order, 1 forced, 69 no store, 78 wrong setting or unsafe store.
    """
    settings = settings_from(texts)
    url = store_url(settings)
    from taskmaster.telemetry import logs

    logs.configure(settings.log_level, settings.log_format)
    refuse_unsafe(settings)
    from taskmaster.scheduler import process

    sys.exit(process.run(settings, url))
