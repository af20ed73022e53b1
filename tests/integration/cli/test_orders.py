"""Commands of operators and submitters against a real store."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from support.desk import Desk, desk_at
from support.servers import StoreServer
from taskmaster.cli import main
from taskmaster.model.retry import Backoff
from taskmaster.plugins.catalogue import CatalogueEntry, encode
from taskmaster.store import calls

pytestmark = pytest.mark.server("valkey")

Run = Callable[..., Result]


@pytest.fixture
def run(clean_server: StoreServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A command over a store where somebody has published the type `mail`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TASKMASTER_REDIS_URL", clean_server.url)
    monkeypatch.setenv("TASKMASTER_IDEMPOTENCY", "optional")
    published = CatalogueEntry("mail", "mails", 5, Backoff(), 30_000, None, {"type": "object"}, None, "", "p", "1")
    with desk_at(clean_server) as desk:
        register(desk, calls.Published("mail", encode(published).decode(), "p"))
    return lambda *command: CliRunner().invoke(main, command)


def register(desk: Desk, published: calls.Published) -> None:
    call = calls.register(0, wid="w", cap="c", info="{}", plugin_set="{}", types=["mail"], catalogue=[published], alive_ms=60_000, gen="g")
    desk.run(call)


def told(result: Result) -> Any:
    assert result.exit_code == 0, result.output
    return json.loads(result.output)


COMMANDS = {
    "limits": ("list", "put", "delete"),
    "queues": ("list", "show", "pause", "resume", "drain", "set"),
    "types": ("list", "pause", "resume"),
    "plugins": ("list", "pause", "resume"),
    "tenants": ("list", "pause", "resume"),
    "webhooks": ("list", "add", "rotate", "enable", "disable", "remove", "test", "deliveries", "redeliver"),
}


@pytest.mark.parametrize("command", [(group, one) for group, ones in COMMANDS.items() for one in ones])
def test_every_command_explains_itself_and_its_exit_codes(command: tuple[str, str]) -> None:
    """Without a store."""
    result = CliRunner().invoke(main, [*command, "--help"])

    assert result.exit_code == 0
    assert "Exit codes" in " ".join(result.output.split())


def test_workers_are_listed(run: Run, clean_server: StoreServer) -> None:
    """A row each; without any, exit code 1."""
    with desk_at(clean_server) as desk:
        info = '{"host":"here","pid":7,"name":"2","queues":{"mails":8}}'
        desk.run(
            calls.register(
                0, wid="x", cap="d", info=info, plugin_set='{"mail":"post==2.1"}', types=["mail"], catalogue=[], alive_ms=60_000, gen="g"
            )
        )
    listed = told(run("workers", "--json"))["items"]
    text = run("workers").output
    clean_server.call("FLUSHALL")

    assert [(one["workerId"], one["queues"], one["plugins"]) for one in listed if one["host"]] == [
        ("here-7", {"mails": 8}, {"post": "2.1"})
    ]
    assert "here-7" in text
    assert "post 2.1" in text
    assert run("workers").exit_code == 1


def test_doctor_tells_of_names_without_a_rule_and_of_pauses(run: Run) -> None:
    """Both may be meant, so they are no failure."""
    run("queues", "set", "mails", "--limit", "typo")
    run("queues", "pause", "mails")
    checks = {check["rule"]: check for check in json.loads(run("doctor", "--json").output)["checks"]}

    assert (checks["limiters"]["severity"], checks["pauses"]["severity"]) == ("warning", "ok")
    assert ("typo" in checks["limiters"]["observed"], checks["pauses"]["observed"]) == (True, "queue mails")


def test_limits_are_made_listed_and_taken_away(run: Run) -> None:
    """As over HTTP, with exit codes."""
    made = told(run("limits", "put", "api", "--rate", "100", "--per-ms", "1000", "--burst", "20", "--json"))
    slots = run("limits", "put", "few", "--concurrency", "2", "--by-key", "--override", "a=b=3", "--reason", "quota")
    listed = told(run("limits", "list", "--json"))
    stale = run("limits", "put", "api", "--rate", "5", "--per-ms", "1000", "--revision", "7")
    gone = run("limits", "delete", "api")
    missing = run("limits", "list", "api")

    assert [(one["name"], one["max"], one["perMs"], one["burst"]) for one in made] == [("api", 100, 1_000, 20)]
    assert "a=b: 3" in slots.output
    assert [one["name"] for one in listed] == ["api", "few"]
    assert [result.exit_code for result in (stale, gone, missing)] == [1, 0, 1]


@pytest.mark.parametrize(
    "command",
    [
        ("limits", "put", "api"),
        ("limits", "put", "api", "--rate", "1", "--concurrency", "1"),
        ("limits", "put", "api", "--concurrency", "1", "--by-key", "--override", "a"),
        ("queues", "set", "mails", "--weight", "vip"),
        ("queues", "set", "mails", "--default", "colour"),
        ("submit", "mail", "{}", "--until", "finished"),
        ("job", "x", "--run-now", "--delay-ms", "5"),
        ("job", "x", "--revision", "5"),
        ("job", "x", "--run-at", "tomorrow"),
    ],
)
def test_wrong_usage_is_2(run: Run, command: tuple[str, ...]) -> None:
    """Told before the store is asked."""
    assert run(*command).exit_code == 2


def test_a_queue_is_paused_drained_resumed_and_set(run: Run) -> None:
    """Each command answers with the queue as it is then."""
    run("submit", "mail", "{}")
    paused = told(run("queues", "pause", "mails", "--reason", "provider down", "--json"))
    drained = told(run("queues", "drain", "mails", "--json"))
    refused = run("submit", "mail", "{}")
    words = run("queues", "show", "mails")
    resumed = told(run("queues", "resume", "mails", "--json"))
    wanted = ("--limit", "api", "--strict", "--weight", "vip=3", "--queue-weight", "4", "--max-length", "9", "--concurrency", "3")
    wanted += ("--sla-ms", "2500")
    changed = told(run("queues", "set", "mails", *wanted, "--json"))
    back = told(run("queues", "set", "mails", "--default", "limits", "--default", "max-length", "--by-turns", "--json"))
    fresh = run("queues", "set", "unheard-of", "--max-length", "5")
    missing = run("queues", "pause", "nope")
    listed = told(run("queues", "list", "--json"))

    assert (paused["paused"], paused["pauseReason"], drained["draining"], refused.exit_code) == (True, "provider down", True, 1)
    assert "provider down" in words.output
    assert (resumed["paused"], resumed["draining"]) == (False, False)
    assert {name: changed[name] for name in ("limits", "strict", "weights", "weight", "maxLength", "concurrency", "slaMs")} == {
        "limits": ["api"],
        "strict": True,
        "weights": {"vip": 3},
        "weight": 4,
        "maxLength": 9,
        "slaMs": 2_500,
        "concurrency": 3,
    }
    assert "api" in changed["warnings"][0]
    assert (back["limits"], back["maxLength"], back["strict"], back["concurrency"]) == ([], None, False, 3)
    assert (fresh.exit_code, missing.exit_code) == (0, 1)
    assert [one["name"] for one in listed] == ["mails", "unheard-of"]


@pytest.mark.parametrize(("group", "name", "scope"), [("types", "mail", "t/mail"), ("plugins", "p", "p/p"), ("tenants", "Kunde 7/ä", "")])
def test_what_else_is_paused_and_resumed(run: Run, clean_server: StoreServer, group: str, name: str, scope: str) -> None:
    """Each command answers how it stands then, also with --json; the list and doctor name what is paused, and why."""
    job_id = told(run("submit", "mail", "{}", "--fairness-key", "Kunde 7/ä", "--json"))["jobId"]
    paused = told(run(group, "pause", name, "--reason", "quota", "--json"))
    words, listed = run(group, "list"), told(run(group, "list", "--json"))
    why = told(run("job", job_id, "--why", "--json"))
    checks = {check["rule"]: check for check in json.loads(run("doctor", "--json").output)["checks"]}
    with desk_at(clean_server) as desk:
        held = desk.claim("w", 1, "mails")
    resumed = run(group, "resume", name)
    with desk_at(clean_server) as desk:
        desk.seqs["w"] = 1
        freed = desk.claim("w", 1, "mails")

    assert (paused["paused"], paused["pauseReason"], resumed.output) == (True, "quota", f"{name}  not paused\n")
    assert words.output.startswith(f"{name}  paused by ")
    assert words.output.endswith(": quota\n")
    assert listed == [paused]
    assert (why["reasons"][0]["code"], why["reasons"][0]["facts"]["reason"]) == ("paused", "quota")
    assert f"{group.rstrip('s')} {name}" in checks["pauses"]["observed"]
    assert (held, freed) == ([], [job_id])


def test_there_must_be_such_a_type_or_plugin(run: Run) -> None:
    """A tenant need not be known; a type whose plugin is paused is not resumed by itself."""
    run("plugins", "pause", "p")

    results = [run("types", "pause", "nope"), run("plugins", "resume", "nope"), run("types", "resume", "mail"), run("tenants", "pause", "")]

    assert [result.exit_code for result in results] == [1, 1, 1, 1]
    assert run("tenants", "resume", "nobody").exit_code == 0


def test_submit_says_where_a_job_stands_among_others(run: Run) -> None:
    """Every option of POST /jobs has its flag."""
    options = ("--fairness-key", "Kunde 7", "--tag", "a", "--tag", "b", "--limit", "api", "--lifo", "--expires-at", "2030-01-01T00:00:00Z")
    first = told(run("submit", "mail", "{}", *options, "--unique", "w", "--on-conflict", "return-existing", "--json"))
    again = told(run("submit", "mail", "{}", "--unique", "w", "--on-conflict", "return-existing", "--json"))
    job = told(run("job", first["jobId"], "--json"))
    refused = run("submit", "mail", "{}", "--unique", "w")

    assert (again["jobId"], again["duplicate"], refused.exit_code) == (first["jobId"], True, 1)
    assert {name: job[name] for name in ("fairnessKey", "tags", "limits", "lifo", "uniqueKey", "expiresAt")} == {
        "fairnessKey": "Kunde 7",
        "tags": ["a", "b"],
        "limits": ["api"],
        "lifo": True,
        "uniqueKey": "w",
        "expiresAt": "2030-01-01T00:00:00.000Z",
    }


def test_a_job_that_has_not_begun_is_changed(run: Run) -> None:
    """The job is printed as it is then."""
    job_id = told(run("submit", "mail", '{"n":1}', "--delay-ms", "600000", "--json"))["jobId"]
    changed = told(run("job", job_id, "--priority", "high", "--tag", "late", "--payload", '{"n":2}', "--json"))
    now = told(run("job", job_id, "--run-now", "--revision", str(changed["revision"]), "--json"))
    stale = run("job", job_id, "--priority", "low", "--revision", "0")

    assert (changed["priority"], changed["tags"], changed["payload"], changed["state"]) == ("high", ["late"], {"n": 2}, "delayed")
    assert (now["state"], stale.exit_code) == ("waiting", 1)
