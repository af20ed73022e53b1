"""Scripts that the server keeps as functions, on real servers."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from support.desk import Desk, desk_at
from support.servers import Kind, StoreServer
from taskmaster.errors import StoreDefect
from taskmaster.store import asking, composing
from taskmaster.store.call import Call
from taskmaster.store.scripts import RESIDENT, Function, Script, load
from taskmaster.store.status import Status

pytestmark = pytest.mark.parametrize("kind", ["valkey", "redis"])


@contextmanager
def store_of(kind: Kind) -> Iterator[tuple[StoreServer, Desk]]:
    with StoreServer(kind, functions=True) as server, desk_at(server) as desk:
        yield server, desk


def counted(server: StoreServer, command: str) -> int:
    """How often the server was asked to."""
    return int(server.call("INFO", "commandstats").get(f"cmdstat_{command}", {"calls": 0})["calls"])


def test_the_long_scripts_run_as_functions(kind: Kind) -> None:
    """Each is loaded by whoever misses it, and never comes as a script."""
    with store_of(kind) as (server, desk):
        desk.register("w")
        job_id = desk.submit()
        server.call("FUNCTION", "FLUSH")

        assert desk.claim("w") == [job_id]
        assert desk.cycle("w", finishes=[desk.end("w", job_id)]).codes == [Status.OK]
        assert counted(server, "fcall") == 5  # two calls found nothing
        assert server.call("SCRIPT", "EXISTS", *[load(name).sha for name in sorted(RESIDENT)]) in ([0, 0], [False, False])


def test_a_call_knows_nothing_of_the_one_before(kind: Kind) -> None:
    """What a library sets is set anew, also after a call that failed half way."""
    parts = [
        "local n = 0\nlocal function up()\n  n = n + 1\n  return n\nend\n",
        "up()\nif ARGV[1] == 'x' then call('HGET', KEYS[1]) end\nreturn up()\n",
    ]
    name = "taskmaster_counting_000000000000"
    code = composing.as_function(parts, f"redis.register_function('{name}', run)")
    script = Script("counting", b"", "", Function(name, f"#!lua name={name}\n{code}".encode()))

    with store_of(kind) as (server, desk):
        with pytest.raises(StoreDefect):
            desk.run(Call(script, 0, ("x",), int))

        assert [desk.run(Call(script, 0, ("",), int)) for _ in range(2)] == [2, 2]
        assert counted(server, "fcall") == 4


def test_a_full_store_runs_a_function_that_it_cannot_keep_as_a_script(kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ending jobs is the way out of a full store, so it may not depend on room for a function."""
    monkeypatch.setattr(asking, "REST_S", 0.0)
    with store_of(kind) as (server, desk):
        desk.register("w")
        job_id = desk.submit()
        desk.claim("w")
        server.call("FUNCTION", "FLUSH")
        server.call("CONFIG", "SET", "maxmemory", "1")

        assert desk.cycle("w", finishes=[desk.end("w", job_id)]).codes == [Status.OK]
        assert server.call("FUNCTION", "LIST") == []

        server.call("CONFIG", "SET", "maxmemory", "0")
        desk.cycle("w")
        assert len(server.call("FUNCTION", "LIST")) == 1


def test_functions_are_flushed_under_load(kind: Kind) -> None:
    """Whenever it happens, no call fails."""
    with store_of(kind) as (server, desk):
        done = threading.Event()

        def flush() -> None:
            while not done.is_set():
                server.call("FUNCTION", "FLUSH")

        thread = threading.Thread(target=flush)
        thread.start()
        try:
            for _ in range(300):
                desk.submit()
        finally:
            done.set()
            thread.join()
