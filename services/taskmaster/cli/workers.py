"""`taskmaster workers`: who works."""

from __future__ import annotations

import sys

import rich_click as click

from taskmaster.cli.exits import EX_FAILED, EX_OK
from taskmaster.cli.options import STORE, as_json, echo_json, settings_from, settings_options
from taskmaster.cli.store import connect

__all__ = ["workers"]


@click.command()
@as_json
@settings_options(*STORE)
def workers(as_json: bool, **texts: str | None) -> None:
    """List the live worker processes: host, process id, slots by queue, plugins.

    Exit codes: 0 listed, 1 there is none, 69 no store.
    """
    from taskmaster.api.workers import worker_of
    from taskmaster.engine.workers import worker_views
    from taskmaster.store import reads

    settings = settings_from(texts)
    store = connect(settings)
    try:
        views = worker_views(row for p in range(settings.partitions) for row in store.run(reads.workers(p)))
    finally:
        store.close()
    if as_json:
        echo_json({"items": [worker_of(view) for view in views]})
    for view in () if as_json else views:
        slots = ", ".join(f"{queue} {n}" for queue, n in view.queues.items())
        plugins = ", ".join(f"{name} {version}" for name, version in view.plugins.items())
        click.echo(f"{view.id:<28} {view.name:<9} {slots or 'no queues':<60} {plugins}")
    sys.exit(EX_OK if views else EX_FAILED)
