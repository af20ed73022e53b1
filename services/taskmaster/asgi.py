"""The API process: Litestar on granian, inside our own event loop, so that signals and the end of waits are ours."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import socket
import sys
from typing import Final

from granian.constants import HTTPModes, Interfaces
from granian.server.embed import Server
from litestar import Litestar

from taskmaster.api.app import create_app, end_waits
from taskmaster.settings import Settings
from taskmaster.telemetry import events, logs, tracing

if sys.platform == "win32":
    from asyncio import new_event_loop
else:
    import resource

    from uvloop import new_event_loop  # a submission costs a sixth less than on the interpreter's own loop

__all__ = ["serve"]

#: How long open requests may take after the signal; the process is gone within 3 s.
GRACE_S: Final = 2.0
BACKLOG: Final = 1_024
#: Requests that are open at once: more than all who may wait for a job or follow something, so that those who ask for little are answered.
#: The server would take as many as its backlog, and leave the next ones without a word, those about its health too.
OPEN_MAX: Final = 8_192


def serve(settings: Settings) -> int:
    """Run the API until SIGTERM or SIGINT; the exit code.

    Prints the address when it listens. Open requests get 2 seconds to end; clients that wait for a job are answered at once. A second
    signal ends the process now.

    Raises:
        OSError: the address is taken.
        ConfigurationError: the settings name no store.
    """
    _allow_files()
    app = create_app(settings)
    traced = tracing.start(settings, "api")
    with contextlib.closing(_reserve(settings.host, settings.port)) as reserved:
        address, port = reserved.getsockname()[:2]
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            runner.run(_serve(app, address, port))
    if traced is not None:
        traced.stop(0.5)
    return 0


def _reserve(host: str, port: int) -> socket.socket:
    """A bound socket that never listens: so a port that is taken is told now, and a free one is known before the server listens on it."""
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    if port:
        with socket.socket(family, socket.SOCK_STREAM) as other:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            other.bind(address)  # the server's own socket would share the port with another server, and not say so
    reserved = socket.socket(family, socket.SOCK_STREAM)
    try:
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        reserved.bind(address)
    except OSError:
        reserved.close()
        raise
    return reserved


async def _serve(app: Litestar, address: str, port: int) -> None:
    server = Server(
        app,
        address=address,
        port=port,
        interface=Interfaces.ASGI,
        http=HTTPModes.http1,
        websockets=False,
        backlog=BACKLOG,
        backpressure=OPEN_MAX,
        log_enabled=False,
    )
    app.on_startup.append(_freeze)
    loop, stopping = asyncio.get_running_loop(), asyncio.Event()

    def stop() -> None:
        if stopping.is_set():
            os._exit(1)
        stopping.set()
        end_waits(app)
        server.stop()  # type: ignore[no-untyped-call]

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    running = loop.create_task(server.serve(), name="server")
    told = loop.create_task(_tell(address, port), name="tell")
    ended = loop.create_task(stopping.wait(), name="stopping")
    await asyncio.wait({running, ended}, return_when=asyncio.FIRST_COMPLETED)
    told.cancel()
    if not running.done():
        await asyncio.wait({running}, timeout=GRACE_S)
    if not running.done():
        running.cancel()
        await asyncio.wait({running}, timeout=0.5)
    logs.get().info(events.API_STOPPED)
    ended.cancel()
    if running.done() and not running.cancelled():
        running.result()


def _allow_files() -> None:
    """As many open connections as the system grants; often a quarter of `OPEN_MAX` unless it is asked."""
    if sys.platform != "win32":
        granted, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = 2 * OPEN_MAX if most == resource.RLIM_INFINITY else min(2 * OPEN_MAX, most)
        if granted != resource.RLIM_INFINITY and granted < wanted:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))


async def _tell(address: str, port: int) -> None:
    """Print the address as soon as it answers."""
    while True:
        try:
            _, writer = await asyncio.open_connection(address if address not in ("0.0.0.0", "::") else "localhost", port)  # noqa: S104
        except OSError:
            await asyncio.sleep(0.01)
            continue
        writer.close()
        break
    url = f"http://{f'[{address}]' if ':' in address else address}:{port}"
    sys.stdout.write(f"TaskMaster API: {url}\n")
    sys.stdout.flush()
    logs.get().info(events.API_STARTED, url=url)


def _freeze() -> None:
    """Keep the collector off what lives as long as the process: full collections over it are what made one request in a hundred slow."""
    gc.collect(1)  # the old have been looked at while they came: a tenth of a second more finds nothing
    gc.freeze()
