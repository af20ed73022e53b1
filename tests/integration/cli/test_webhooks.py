"""Webhooks from the command line, against a real store."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from support.servers import StoreServer
from support.worker import Hands
from taskmaster.cli import main
from taskmaster.model.webhooks import JOB_EVENTS, UNWELL, key_of

pytestmark = pytest.mark.server("valkey")

Run = Callable[..., Result]


@pytest.fixture
def run(clean_server: StoreServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TASKMASTER_REDIS_URL", clean_server.url)
    return lambda *command: CliRunner().invoke(main, ["webhooks", *command])


def told(result: Result) -> Any:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_a_webhook_from_its_making_to_its_end(run: Run) -> None:
    """Added with a secret that is shown once; listed, rotated, disabled, enabled, removed."""
    made = run("add", "https://example.com/in", "--event", "job.failed", "--type", "mail", "--queue", "mails", "--description", "for ops")
    webhook, secret = made.stdout.splitlines()
    text, rows = run("list"), told(run("list", "--json"))
    fresh = run("rotate", webhook, "--reason", "leaked")
    off, disabled = run("disable", webhook, "--reason", "too loud"), run("list", webhook)
    on, enabled = run("enable", webhook), told(run("list", webhook, "--json"))
    gone, none = run("remove", webhook), run("list")

    assert made.exit_code == fresh.exit_code == off.exit_code == on.exit_code == gone.exit_code == 0
    assert len(key_of(secret)) == len(key_of(fresh.stdout.strip())) == 32
    assert text.stdout == f"{webhook}  https://example.com/in  job.failed, type mail, queue mails  told  for ops\n"
    assert [(row["id"], row["events"], row["types"], row["queues"]) for row in rows] == [(webhook, ["job.failed"], ["mail"], ["mails"])]
    assert secret not in text.output + json.dumps(rows) + disabled.output + json.dumps(enabled)
    assert "disabled: too loud" in disabled.stdout
    assert (enabled[0]["disabled"], enabled[0]["secrets"], enabled[0]["revision"]) == (False, 2, 4)
    assert (none.stdout, none.exit_code) == ("", 0)


def test_every_event_that_there_is_can_be_asked_for(run: Run) -> None:
    """The command line knows the words of the API."""
    events = [*JOB_EVENTS, UNWELL]
    made = told(run("add", "https://example.com/in", *(word for event in events for word in ("--event", event)), "--json"))

    assert made["events"] == events


def test_a_test_is_a_delivery_and_can_be_made_again(run: Run, clean_server: StoreServer) -> None:
    """Listed under the webhook; one that goes on is not made again."""
    webhook = told(run("add", "https://example.com/in", "--json"))["id"]
    job_id = run("test", webhook).stdout.strip()
    text, rows = run("deliveries", webhook), told(run("deliveries", webhook, "--json"))
    early = run("redeliver", webhook, job_id)
    hands = Hands(clean_server.url)
    hands.cancel(job_id)
    hands.close()
    again = run("redeliver", webhook, job_id)
    after = told(run("deliveries", webhook, "--json"))

    assert [(row["jobId"], row["state"], row["about"]) for row in rows] == [(job_id, "waiting", None)]
    assert text.stdout.startswith(f"{job_id}  ")
    assert early.exit_code == 1
    assert "only a job that has ended" in early.stderr
    assert again.exit_code == 0, again.output
    assert [row["jobId"] for row in after] == [again.stdout.strip(), job_id]
    assert told(run("deliveries", "callback", "--json")) == []


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (("add", "ftp://example.com"), "http:// or https:// is meant"),
        (("add", "https://a:b@example.com"), "no user or password"),
        (("add", "https://example.com", "--type", "A B"), "types/0"),
        (("list", "we_0123456789abcdef"), "there is no webhook"),
        (("rotate", "nothing"), "there is no webhook"),
        (("disable", "nothing"), "there is no webhook"),
        (("remove", "nothing"), "there is no webhook"),
        (("test", "nothing"), "there is no webhook"),
        (("deliveries", "nothing"), "there is no webhook"),
        (("redeliver", "callback", "nothing"), "has no delivery"),
    ],
)
def test_what_cannot_be_says_so_and_fails(run: Run, command: tuple[str, ...], said: str) -> None:
    result = run(*command)

    assert (result.exit_code, said in result.stderr) == (1, True), result.output
