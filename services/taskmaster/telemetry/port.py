"""The port that a process without an HTTP server of its own tells its metrics on."""

from __future__ import annotations

import socket

from taskmaster.telemetry import events
from taskmaster.telemetry.logs import get

__all__ = ["bind"]


def bind(host: str, port: int, setting: str) -> socket.socket | None:
    """A listening socket; None, with a warning, where there can be none: no work depends on it."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listening = socket.socket(family, kind)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(address)
            listening.listen(64)
        except OSError:
            listening.close()
            raise
    except OSError as error:
        hint = f"metrics of this process are off; {setting} names another port, or 0 for none"
        get().warning(events.METRICS_OFF, host=host, port=port, error=error.strerror or str(error), hint=hint)
        return None
    get().info(events.METRICS_SERVED, url=f"http://{f'[{host}]' if ':' in host else host}:{port}/metrics")
    return listening
