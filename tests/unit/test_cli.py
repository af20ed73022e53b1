"""The command line without a store: options, exit codes, output."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner, Result

from taskmaster.cli import main
from taskmaster.cli.exits import code_of
from taskmaster.cli.launcher import free_port, loopback
from taskmaster.errors import ConfigurationError, NotFound, StoreRefused, StoreUnavailable, StoreUnsafe, TaskMasterError
from taskmaster.settings import NAMES


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def run(*command: str) -> Result:
    return CliRunner().invoke(main, command)


DLQ = [f"dlq {verb}" for verb in ("list", "groups", "show", "replay", "discard")]
OPERATIONS = [f"operations {verb}" for verb in ("list", "show", "start", "cancel")]


@pytest.mark.parametrize("command", ["up", "api", "worker", "submit", "import", "job", "doctor", "config", *DLQ, *OPERATIONS])
def test_every_command_explains_itself_and_its_exit_codes(command: str) -> None:
    result = run(*command.split(), "--help")

    assert result.exit_code == 0
    assert "Exit codes" in " ".join(result.output.split())


def test_up_takes_every_setting_as_an_option() -> None:
    output = run("up", "--help").output

    assert [name for name in NAMES if f"--{name.replace('_', '-')}" not in output] == []


def test_config_shows_values_sources_and_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TASKMASTER_REDIS_URL", "redis://:s3cret@host:1/0")

    text = run("config", "--port", "9000")
    rows = {row["name"]: row for row in msgspec.json.decode(run("config", "--json", "--port", "9000").output)}

    assert "s3cret" not in text.output
    assert list(rows) == list(NAMES)
    assert rows["port"] == {"name": "port", "value": "9000", "source": "command line"}
    assert rows["redis_url"] == {"name": "redis_url", "value": "redis://:***@host:1/0", "source": "environment"}


def test_a_wrong_setting_is_one_line_and_78(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TASKMASTER_PRT", "1")

    result = run("config")

    assert result.exit_code == 78
    assert result.stderr == "taskmaster: unknown setting TASKMASTER_PRT (environment); did you mean TASKMASTER_PORT?\n"


@pytest.mark.parametrize(
    "command",
    [
        ("nonsense",),
        ("up", "--nonsense"),
        ("job",),
        ("submit",),
        ("import",),
        ("import", "no-such-file"),
        ("submit", "t", "{"),
        ("submit", "t", "--priority", "x"),
    ],
)
def test_wrong_usage_is_2(command: tuple[str, ...]) -> None:
    assert run(*command).exit_code == 2


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigurationError("x"), 78),
        (StoreUnsafe("x"), 78),
        (StoreUnavailable("x"), 69),
        (StoreRefused("x"), 69),
        (NotFound("x"), 1),
    ],
)
def test_exit_codes_follow_the_error(error: TaskMasterError, code: int) -> None:
    assert code_of(error) == code


def test_help_does_not_load_the_engine() -> None:
    """`taskmaster --help` has to answer at once."""
    heavy = ("redis", "litestar", "dramatiq", "granian", "jsonschema_rs")
    script = f"import sys, taskmaster.cli; print(*(name for name in {heavy} if name in sys.modules))"

    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=30)

    assert done.stdout.split() == []


def test_a_free_port_is_found_and_an_impossible_host_refused() -> None:
    assert free_port("127.0.0.1", 0) > 0
    with pytest.raises(ConfigurationError, match="cannot listen"):
        free_port("192.0.2.1", 0)
    assert (loopback("0.0.0.0"), loopback("::"), loopback("10.0.0.1")) == ("127.0.0.1", "::1", "10.0.0.1")
