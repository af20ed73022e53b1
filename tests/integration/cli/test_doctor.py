"""`taskmaster doctor` against real servers: exit codes, JSON, table, what is skipped."""

from __future__ import annotations

import contextlib
import datetime as dt
import http.server
import json
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner, Result

from support.clock import MachineClock
from support.servers import StoreServer
from taskmaster.cli import main
from taskmaster.cli.reach import reach
from taskmaster.engine import limits, queue_rules
from taskmaster.engine.rules import Word
from taskmaster.model.retry import Backoff
from taskmaster.plugins.catalogue import CatalogueEntry, encode
from taskmaster.store import calls
from taskmaster.store.client import SyncStore

pytestmark = pytest.mark.server("valkey")

Run = Callable[..., Result]
WORD = Word("ann")


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A command in an empty folder, with the API where nobody listens, unless it says otherwise."""
    monkeypatch.chdir(tmp_path)

    def doctor(url: str, *options: str) -> Result:
        return CliRunner().invoke(main, ["doctor", "--redis-url", url, *(() if "--port" in options else ("--port", "0")), *options])

    return doctor


@pytest.fixture(scope="module")
def sound() -> Iterator[StoreServer]:
    """With an append-only file."""
    with StoreServer("valkey", aof=True) as server:
        yield server


def checks(result: Result) -> dict[str, dict[str, Any]]:
    return {check["rule"]: check for check in json.loads(result.output)["checks"]}


def keep_well(server: StoreServer) -> None:
    """Workers on two hosts, a type with all it should have, limits."""
    entry = CatalogueEntry("mail", "mails", 5, Backoff(), 20_000, None, {"type": "object"}, None, "", "post", "1")
    entry = msgspec.structs.replace(entry, dependency="smtp", limits=("smtp",))
    store = SyncStore(server.url)
    for host in ("here", "there"):
        info = {"host": host, "pid": 7, "name": "1", "slots": 8, "cores": 2, "drain": 30_000, "metrics": 3_001}
        store.run(
            calls.register(
                0,
                wid=host,
                cap="c",
                info=json.dumps(info),
                plugin_set='{"mail":"post==1"}',
                types=["mail"],
                catalogue=[calls.Published("mail", encode(entry).decode(), "post", "smtp")],
                alive_ms=600_000,
                gen="g",
            )
        )
    store.converse(limits.put_limit("smtp", limits.LimitRule(kind="rate", max=9, per_ms=1_000), WORD, partitions=1))
    store.converse(queue_rules.change_queue("mails", queue_rules.QueueChange(max_length=9), WORD, partitions=1))
    store.close()


def test_where_all_is_fine_even_strictly_it_ends_with_0(run: Run, sound: StoreServer) -> None:
    """No warning, no error; skipped is only what nobody can know."""
    sound.flush()
    keep_well(sound)

    result = run(sound.url, "--strict", "--json", "--host", "127.0.0.1", "--sweep")

    found = checks(result)
    assert {name: one for name, one in found.items() if one["severity"] in ("warning", "error")} == {}
    assert (result.exit_code, json.loads(result.output)["ok"]) == (0, True)
    assert {name for name, one in found.items() if one["severity"] == "skipped"} == {"owners", "scaling-endpoint"}


def test_warnings_fail_only_when_strict(run: Run, sound: StoreServer) -> None:
    """No worker is a warning: 0, and 1 with --strict; `ok` says the same."""
    sound.flush()

    usual, strict = run(sound.url, "--json"), run(sound.url, "--json", "--strict")

    assert checks(usual)["workers"]["severity"] == "warning"
    assert (usual.exit_code, json.loads(usual.output)["ok"]) == (0, True)
    assert (strict.exit_code, json.loads(strict.output)["ok"]) == (1, False)


@pytest.mark.parametrize("options", [[], ["--save", "60 1"]])
def test_a_store_without_an_append_only_file_fails(run: Run, options: list[str]) -> None:
    """Snapshots alone too: exit code 1."""
    with StoreServer("valkey", options=options) as server:
        result = run(server.url, "--json")

    assert (result.exit_code, json.loads(result.output)["ok"]) == (1, False)
    assert checks(result)["persistence"].items() >= {"severity": "error", "observed": "appendonly no"}.items()
    assert "CONFIG SET appendonly yes" in checks(result)["persistence"]["fix"]


def test_a_store_that_evicts_is_78(run: Run) -> None:
    """As of the processes that refuse to start with it."""
    with StoreServer("valkey", aof=True, options=["--maxmemory-policy", "allkeys-lru"]) as server:
        result = run(server.url, "--json")

    assert result.exit_code == 78
    assert checks(result)["eviction"]["facts"] == {"refused": True}


def test_power_cuts_are_thought_of(run: Run) -> None:
    """Appendfsync no is a warning, everysec an error where durability is strict."""
    with StoreServer("valkey", aof=True, options=["--appendfsync", "no"]) as server:
        weak = run(server.url, "--json")
        strict = run(server.url, "--json", "--durability", "strict")

    assert (weak.exit_code, checks(weak)["fsync"]["severity"]) == (0, "warning")
    assert (strict.exit_code, checks(strict)["fsync"]["severity"]) == (78, "error")


def test_where_config_is_forbidden_its_rules_are_skipped(run: Run) -> None:
    """With the reason; nothing is claimed, and nothing fails for it."""
    with StoreServer("valkey", aof=True, options=["--rename-command", "CONFIG", ""]) as server:
        result = run(server.url, "--json")

    found = checks(result)
    assert result.exit_code == 0
    assert found["readable"].items() >= {"severity": "skipped", "observed": "CONFIG GET denied"}.items()
    assert found.keys().isdisjoint({"eviction", "persistence", "fsync"})


def test_without_a_store_it_is_69_and_plugins_are_told_still(run: Run, tmp_path: Path) -> None:
    """What could be looked at is."""
    result = run(f"unix://{tmp_path}/none.sock", "--json")

    found = checks(result)
    assert (result.exit_code, json.loads(result.output)["ok"]) == (69, False)
    assert found["store"]["severity"] == "error"
    assert found["store"]["fix"]
    assert "plugins" in found
    assert "workers" not in found


def test_a_plugin_that_does_not_load_here_is_1(run: Run, sound: StoreServer) -> None:
    """And says why."""
    result = run(sound.url, "--json", "--plugins", "no-such")

    assert result.exit_code == 1
    assert "no-such is not loaded: no installed package" in checks(result)["plugins"]["observed"]


def test_a_store_whose_clock_is_off_is_told(run: Run, tmp_path: Path) -> None:
    """As it is measured now."""
    clock = MachineClock(tmp_path)
    with StoreServer("valkey", aof=True, environ=clock.environ) as server:
        clock.set((dt.datetime.now(dt.UTC) + dt.timedelta(minutes=2)).strftime("%Y-%m-%dT%H:%M:%SZ"))
        result = run(server.url, "--json")

    skew = checks(result)["clock-skew"]
    assert (result.exit_code, skew["severity"]) == (0, "warning")
    assert 90_000 < skew["facts"]["skewMs"] < 150_000


def test_people_get_a_row_a_rule_and_what_to_do(run: Run, sound: StoreServer) -> None:
    """The mark, the rule, what was seen; below it why and how, where something is to be done."""
    sound.flush()

    lines = run(sound.url).output.splitlines()

    at = next(number for number, line in enumerate(lines) if line.startswith("warning  workers "))
    assert lines[at].split(maxsplit=2)[2] == "no process is alive"
    assert lines[at + 1].strip() == "why: accepted jobs wait until a worker takes them"
    assert lines[at + 2].strip().startswith("fix: start one: taskmaster up")
    assert "error" in lines[-1]
    assert max(map(len, lines)) <= 140
    assert any(line.startswith("ok       persistence ") for line in lines)


@contextlib.contextmanager
def answering(status: int, kind: str, body: bytes) -> Iterator[int]:
    """Something that answers so on a port of this machine."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("content-type", kind)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Nothing."""

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, name="answering", daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        thread.join(10)
        server.server_close()


@pytest.mark.parametrize(
    ("status", "kind", "body", "is_reached"),
    [
        (200, "application/json", b'{"items":[]}', True),
        (503, "application/problem+json", b"{}", False),
        (404, "text/html", b"<p>", None),
        (200, "text/html", b"<p>", None),
        (200, "application/json", b"[]", None),
    ],
)
def test_only_our_own_api_is_judged(run: Run, sound: StoreServer, status: int, kind: str, body: bytes, is_reached: bool | None) -> None:
    """What else listens on the port is somebody else's."""
    with answering(status, kind, body) as port:
        seen = checks(run(sound.url, "--json", "--port", str(port), "--host", "0.0.0.0"))

    assert seen["scaling-endpoint"]["severity"] == {True: "ok", False: "warning", None: "skipped"}[is_reached]
    assert seen["api-exposure"]["severity"] == "warning"


def test_what_speaks_no_http_is_not_judged() -> None:
    """Nor is a port where nobody listens a fault."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

        def babble() -> None:
            peer, _ = listener.accept()
            with peer:
                peer.recv(1_000)
                peer.sendall(b"220 mail.example.org\r\n")

        thread = threading.Thread(target=babble, name="babble", daemon=True)
        thread.start()
        strange = reach("127.0.0.1", port)
        thread.join(10)

    nobody = reach("127.0.0.1", port)

    assert (strange.is_reached, nobody.is_reached) == (None, None)
    assert ("is not this API" in strange.observed, "no API answers" in nobody.observed) == (True, True)
