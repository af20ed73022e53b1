"""`taskmaster import`: a file of submissions, a line each."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner, Result

from integration.client.conftest import counted, publish
from support.eventually import eventually
from support.processes import environ_of
from support.servers import StoreServer
from taskmaster.cli import main
from taskmaster.cli.lines import Lines
from taskmaster.client import Client

LINES = 20_000


def line(n: int, **fields: Any) -> str:
    return json.dumps({"type": "mail", "idempotencyKey": f"k{n}", "payload": {"to": "a", "n": n}} | fields) + "\n"


def run(url: str, *options: str, text: str | bytes | None = None, file: str = "-") -> Result:
    return CliRunner().invoke(main, ["import", file, "--redis-url", url, *options], input=text)


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """Twenty thousand lines, with something wrong in every thousandth."""
    path = tmp_path / "jobs.ndjson"
    path.write_text("".join(line(n, payload={"n": n}) if n % 1_000 == 7 else line(n) for n in range(LINES)))
    return path


def test_twenty_thousand_lines_and_again(url: str, many: Path, tmp_path: Path) -> None:
    """All that can be is taken, the rest told by number; the same file again makes no job twice."""
    rejects = tmp_path / "rejects"
    command = [sys.executable, "-m", "taskmaster", "import", str(many), "--json", "--rejects", str(rejects)]
    tellings = []
    for _ in range(2):
        done = subprocess.run(
            command, env=environ_of(redis_url=url), capture_output=True, text=True, check=False, timeout=100, cwd=tmp_path
        )
        assert done.returncode == 1, done.stderr
        tellings.append(json.loads(done.stdout))

    wrong = LINES // 1_000
    assert counted(url) == LINES - wrong
    counts = [(told["lines"], told["accepted"], told["duplicates"], told["rejected"]) for told in tellings]
    assert counts == [(LINES, LINES - wrong, 0, wrong), (LINES, 0, LINES - wrong, wrong)]
    rows = [json.loads(row) for row in rejects.read_text().splitlines()]
    assert [row["line"] for row in rows] == [n + 1 for n in range(LINES) if n % 1_000 == 7]
    assert {row["problem"]["code"] for row in rows} == {"invalid-payload"}
    assert rows[0]["problem"]["errors"] == [{"pointer": "/payload/to", "message": "is required"}]


def test_a_good_file_is_taken_whole(url: str) -> None:
    """Empty lines, a byte order mark, CRLF and a missing end of line are nothing to stumble over."""
    text = "\ufeff" + line(1) + "\n  \n" + line(2).replace("\n", "\r\n") + line(3).strip()

    result = run(url, text=text)

    assert result.exit_code == 0, result.output
    assert "3 lines: 3 accepted, 0 duplicates, 0 rejected" in result.output
    assert counted(url) == 3


def test_defaults_and_keys_from_the_payload(url: str) -> None:
    """They stand in where a line says nothing, and only there."""
    lines = [
        {"payload": {"to": "a", "n": 5}},
        {"payload": {"to": "a", "n": 6}, "queue": "own", "type": "free", "idempotencyKey": "own"},
        {"payload": {"to": "a"}},
        {"payload": {"to": "a", "n": True}},
    ]

    result = run(url, "--type", "mail", "--queue", "bulk", "--key-field", "n", text="".join(json.dumps(one) + "\n" for one in lines))

    assert result.exit_code == 1
    assert "line 3: payload/n: a text or whole number is needed here" in result.stderr
    assert "line 4:" in result.stderr
    with Client(url) as client:
        mine = client.submit("mail", {"to": "a", "n": 5}, key="5", queue="bulk")
        own = client.submit("free", {"to": "a", "n": 6}, key="own", queue="own")
    assert (mine.duplicate, own.duplicate) == (True, True)
    assert counted(url) == 2


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("{", "malformed-body"),
        ('{"type":"mail","type":"mail"}', "malformed-body"),
        ('{"type":"mail","payload":{"n":1e999}}', "malformed-body"),
        (b'{"type":"mail\xff"}', "malformed-body"),
        ("[]", "invalid-request"),
        ("5", "invalid-request"),
        ('{"payload":{}}', "invalid-request"),
        ('{"type":"mail","when":"now"}', "invalid-request"),
        ('{"type":"nothing","idempotencyKey":"k"}', "unknown-job-type"),
        ('{"type":"mail","payload":{"to":"a"}}', "idempotency-key-missing"),
        ('{"type":"mail","idempotencyKey":"k","payload":{"to":"' + "x" * 300_000 + '"}}', "body-too-large"),
        ("x" * 1_000_000, "body-too-large"),
    ],
)
def test_a_line_that_cannot_be_taken_spoils_no_other(url: str, tmp_path: Path, text: str | bytes, code: str) -> None:
    """As POST /jobs would refuse it, by the same name."""
    raw = text if isinstance(text, bytes) else text.encode()
    rejects = tmp_path / "rejects"

    result = run(url, "--rejects", str(rejects), text=line(1).encode() + raw + b"\n" + line(3).encode())

    [row] = [json.loads(row) for row in rejects.read_text().splitlines()]
    assert result.exit_code == 1
    assert (row["line"], row["problem"]["code"]) == (2, code)
    assert counted(url) == 2


def test_a_dry_run_checks_and_stores_nothing(url: str) -> None:
    result = run(url, "--dry-run", "--json", text=line(1) + line(2, payload={}) + line(3))

    told = json.loads(result.stdout)
    assert result.exit_code == 1
    assert (told["lines"], told["accepted"], told["rejected"], told["dryRun"]) == (3, 2, 1, True)
    assert counted(url) == 0


def test_only_the_first_rejected_lines_are_shown(url: str) -> None:
    result = run(url, text="{\n" * 50)

    assert [row.partition(":")[0] for row in result.stderr.splitlines()[:-1]] == [f"line {n}" for n in range(1, 11)]
    assert "--rejects FILE keeps all" in result.stderr


def test_no_store_is_69(tmp_path: Path) -> None:
    with_address = run(f"unix://{tmp_path}/none", text=line(1))
    without = CliRunner().invoke(main, ["import", "-", "--data-dir", str(tmp_path)], input=line(1))

    assert (with_address.exit_code, without.exit_code) == (69, 69)
    assert "taskmaster up" in without.stderr


def test_a_terminal_gets_a_bar_and_nothing_else_does(url: str, many: Path, tmp_path: Path) -> None:
    """On standard error, by bytes of the file, with the counts beside it; standard output keeps to the summary."""
    near, far = pty.openpty()
    command = [sys.executable, "-m", "taskmaster", "import", str(many), "--rejects", str(tmp_path / "r")]
    environ = environ_of(redis_url=url) | {"TERM": "xterm", "COLUMNS": "160"}
    with subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=far, cwd=tmp_path) as child:
        os.close(far)
        drawn = b""
        try:
            while chunk := os.read(near, 65_536):
                drawn += chunk
        except OSError:  # the other end is closed
            pass
        told = child.communicate(timeout=100)[0].decode()
    os.close(near)

    assert b" accepted, " in drawn
    assert "%" in drawn.decode(errors="replace")
    assert told.startswith("20,000 lines: 19,980 accepted")
    assert told.count("\n") == 1


def test_lines_are_read_as_they_are_needed(tmp_path: Path) -> None:
    """Numbers of those that were not told of yet are all that is kept."""
    path = tmp_path / "file"
    path.write_text(line(1) * 5_000)
    with path.open("rb") as file:
        lines = Lines(file, 10_000, {}, None)
        iterator = iter(lines)
        first = [next(iterator) for _ in range(10)]

    assert len(first) == len(lines.numbers) == 10
    assert lines.bytes_read == 10 * len(line(1))
    assert lines.size == 5_000 * len(line(1))


@pytest.mark.server("valkey")
def test_a_store_killed_in_the_middle_costs_no_line(tmp_path: Path) -> None:
    """Exit 69 with what is known; the same command again ends the work, and nothing is there twice."""
    path = tmp_path / "jobs.ndjson"
    path.write_text("".join(line(n) for n in range(LINES)))
    command = [sys.executable, "-m", "taskmaster", "import", str(path), "--json"]
    with StoreServer("valkey", aof=True, options=["--appendfsync", "always"]) as server:
        publish(server.url)
        environ = environ_of(redis_url=server.url, store_timeout_ms=1_000)
        with subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path) as child:
            eventually(lambda: server.call("DBSIZE") > 6_000, 60, every_s=0.001)
            server.kill()
            out, err = child.communicate(timeout=100)
        server.start()
        known = msgspec.json.decode(out)
        again = subprocess.run(command, env=environ, capture_output=True, text=True, check=False, timeout=100, cwd=tmp_path)
        told = msgspec.json.decode(again.stdout)

        assert child.returncode == 69
        assert f"{known['lines']:,} lines is known" in err
        assert again.returncode == 0
        assert told["duplicates"] >= known["accepted"] > 0
        assert told["accepted"] + told["duplicates"] == counted(server.url) == LINES
