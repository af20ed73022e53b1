"""`taskmaster api`: the REST API."""

from __future__ import annotations

import os
import sys

import msgspec
import rich_click as click

from taskmaster.cli.options import API, settings_from, settings_options
from taskmaster.cli.store import refuse_unsafe
from taskmaster.errors import ConfigurationError
from taskmaster.store.address import store_url

__all__ = ["api"]


@click.command()
@settings_options(*API)
def api(**texts: str | None) -> None:
    """Run the REST API until SIGTERM or Ctrl-C.

    Any number may run over one store. Without a store's address it uses the embedded one that `taskmaster up` started.
    Exit codes: 0 stopped, 69 no store, 78 wrong setting or unsafe store.
    """
    settings = settings_from(texts)
    settings = msgspec.structs.replace(settings, redis_url=store_url(settings))
    from taskmaster.telemetry import logs

    logs.configure(settings.log_level, settings.log_format)
    refuse_unsafe(settings)
    from taskmaster.asgi import serve

    try:
        code = serve(settings)
    except OSError as error:
        message = f"cannot listen on {settings.host}, port {settings.port}: {error.strerror or error}; --port 0 takes any free port"
        raise ConfigurationError(message, name="port") from error
    logs.flush()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # the server's own threads outlive it and would panic in the interpreter's teardown
