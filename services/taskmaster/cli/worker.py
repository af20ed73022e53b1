"""`taskmaster worker`: the worker processes."""

from __future__ import annotations

import sys

import rich_click as click

from taskmaster.cli.options import WORKER, settings_from, settings_options
from taskmaster.cli.store import refuse_unsafe
from taskmaster.store.address import store_url

__all__ = ["worker"]


@click.command()
@settings_options(*WORKER)
def worker(**texts: str | None) -> None:
    """Run worker processes until SIGTERM or Ctrl-C, which let running jobs end; a second one forces.

    Without a store's address it uses the embedded one that `taskmaster up` started.
    Exit codes: 0 drained, 1 something was left or forced, 69 no store, 78 wrong setting or unsafe store.
    """
    settings = settings_from(texts)
    url = store_url(settings)
    from taskmaster.telemetry import logs

    logs.configure(settings.log_level, settings.log_format)
    refuse_unsafe(settings)
    from taskmaster.worker import supervisor

    sys.exit(supervisor.run(settings, url))
