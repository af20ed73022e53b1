"""`taskmaster up`: everything on this machine."""

from __future__ import annotations

import os
import sys

import msgspec
import rich_click as click
from setproctitle import setproctitle

from taskmaster import __version__
from taskmaster.cli.launcher import Launcher, free_port, loopback
from taskmaster.cli.options import settings_from, settings_options
from taskmaster.model.addresses import masked_url
from taskmaster.settings import NAMES, Settings, to_environ
from taskmaster.store import embedded

__all__ = ["up"]


@click.command()
@settings_options(*NAMES)
def up(**texts: str | None) -> None:
    """Start a store, workers, a scheduler and the API on this machine, and keep them running until Ctrl-C or SIGTERM.

    Without a store's address (--redis-url, TASKMASTER_REDIS_URL or REDIS_URL) an embedded Valkey is started on the data folder; it writes
    every accepted job to disk. Running jobs get the drain time to end; a second signal cuts them short.

    Exit codes: 0 ended in order, 1 something was forced, 69 store unavailable, 78 wrong setting or unsafe store.
    """
    settings = settings_from(texts)
    setproctitle("taskmaster: up")
    settings = msgspec.structs.replace(settings, port=free_port(settings.host, settings.port))
    store: embedded.EmbeddedStore | None = None
    if settings.redis_url is None:
        store = embedded.start(settings.data_dir, fsync="always" if settings.durability == "strict" else "everysec")
        settings = msgspec.structs.replace(settings, redis_url=store.url)
    try:
        if store is None:  # the embedded one is configured as it must be; its clients look all the same
            _refuse_unsafe(settings)
        environ = os.environ | to_environ(settings)
        code = Launcher(settings, store, environ, lambda: _announce(settings, store)).run()
    finally:
        if store is not None:
            store.stop()
    sys.exit(code)


def _refuse_unsafe(settings: Settings) -> None:
    """As `cli.store` does it, with a log: both take a while to import, which an embedded store's first answer need not wait for."""
    from taskmaster.cli.store import refuse_unsafe
    from taskmaster.telemetry import logs

    logs.configure(settings.log_level, settings.log_format)
    refuse_unsafe(settings)


def _announce(settings: Settings, store: embedded.EmbeddedStore | None) -> None:
    """Print where everything is."""
    host = loopback(settings.host)
    base = f"http://{f'[{host}]' if ':' in host else host}:{settings.port}"
    if store is None:
        where = masked_url(settings.redis_url or "")
    else:
        where = f"embedded Valkey on {settings.data_dir}{', started by another process' if store.is_attached else ''}"
    click.echo(f"TaskMaster {__version__} is up. Ctrl-C stops it.")
    for name, text in (
        ("API", base),
        ("job types", f"{base}/job-types"),
        ("health", f"{base}/health"),
        ("metrics", f"{base}/metrics"),
        ("OpenAPI", f"{base}/openapi.json"),
        ("store", where),
        ("workers", f"{settings.worker_processes} processes, {settings.concurrency} jobs each per queue"),
    ):
        click.echo(f"  {name:<10} {text}")
    sys.stdout.flush()
