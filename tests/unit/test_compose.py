"""compose.yaml and the Containerfile: well formed by the tools that know, and by the rules of this project."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import click
import pytest

compose_spec = pytest.importorskip("compose_spec")
yaml = pytest.importorskip("yaml")

ROOT = Path(__file__).parents[2]
FILES = ("compose.yaml", "ops/containers/compose.test.yaml")
CONTAINERFILE = ROOT / "ops/containers/Containerfile"
STACK: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = STACK["services"]
OURS = ("api", "worker", "scheduler")


def tool(name: str, *words: str) -> str:
    done = subprocess.run([Path(sys.executable).parent / name, *words], cwd=ROOT, capture_output=True, text=True, timeout=60)
    return "" if done.returncode == 0 else done.stdout + done.stderr or f"exit code {done.returncode}"


def without_variables(text: str) -> str:
    """Each variable's default in its place."""
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text)


@pytest.mark.parametrize("file", FILES)
def test_the_file_fits_the_compose_specification(file) -> None:
    assert tool("check-jsonschema", "--builtin-schema", "vendor.compose-spec", file) == ""


def test_another_projects_parser_reads_it() -> None:
    """Types of every value; references and variables resolved, which that parser leaves to others."""
    compose_spec.PyCompose.from_yaml(without_variables(json.dumps(STACK)))


def test_the_schema_would_notice_a_wrong_word(tmp_path) -> None:
    wrong = tmp_path / "compose.yaml"
    wrong.write_text((ROOT / "compose.yaml").read_text().replace("condition: service_healthy", "condition: service_well"))

    assert "service_well" in tool("check-jsonschema", "--builtin-schema", "vendor.compose-spec", str(wrong))


def test_the_containerfile_has_nothing_to_be_said_against() -> None:
    assert tool("hadolint", str(CONTAINERFILE)) == ""


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_keeps_to_itself(name) -> None:
    """No root, no rights, no file system to write to but its own volumes, memory bounded, ports on this machine alone, started again."""
    service = SERVICES[name]

    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", service["user"])
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert re.fullmatch(r"\d+[mg]", service["mem_limit"])
    assert service["restart"] == "unless-stopped"
    assert [port for port in service.get("ports", ()) if not port.startswith("127.0.0.1:")] == []
    assert re.fullmatch(r"([a-z]+/)?[a-z]+:[\w.]*[\d.l]+", service["image"]), "a short name, and a tag that says which"
    assert "healthcheck" in service or name == "jaeger", "its image has nothing that could ask"


@pytest.mark.parametrize("name", OURS)
def test_every_process_of_ours_ends_in_its_own_time(name) -> None:
    """Its first process passes signals on, and nobody kills it before the drain is over."""
    service = SERVICES[name]
    drain_s = int(service["environment"].get("TASKMASTER_DRAIN_MS", 0)) / 1_000

    assert service["init"] is True
    assert int(service["stop_grace_period"].removesuffix("s")) >= drain_s + 10
    assert service["depends_on"] == {"valkey": {"condition": "service_healthy"}}


def test_the_commands_and_settings_exist(tmp_path) -> None:
    """Each command is one of the command line's; each setting is known and takes its value."""
    from taskmaster.cli import main
    from taskmaster.settings import load

    for name in OURS:
        assert SERVICES[name]["command"][0] in main.list_commands(click.Context(main))
        environ = {key: without_variables(value) for key, value in SERVICES[name]["environment"].items()}
        assert load({}, environ, tmp_path).otlp_endpoint == "http://jaeger:4317"


def test_the_store_loses_and_drops_nothing() -> None:
    """An append-only file on a volume, and no eviction: what `taskmaster doctor` asks for."""
    command = SERVICES["valkey"]["command"]
    said = dict(zip(command[1::2], command[2::2], strict=False))

    assert (said["--appendonly"], said["--maxmemory-policy"], said["--zset-max-listpack-entries"]) == ("yes", "noeviction", "16")
    assert SERVICES["valkey"]["volumes"] == ["valkey-data:/data"]


def test_the_image_is_made_of_the_locks_own_versions() -> None:
    """What the image gets is what was tested, without what only developers need."""
    pins = [
        dict(re.findall(r"^([a-z0-9.-]+)==([^\s;]+)", (ROOT / path).read_text(), re.MULTILINE))
        for path in ("ops/containers/requirements.lock", "ops/requirements.lock")
    ]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    direct = {re.split(r"[><=; ]", one)[0] for one in project["dependencies"]}

    assert pins[0].items() <= pins[1].items()
    assert direct <= pins[0].keys()
    assert not pins[0].keys() & {"pytest", "mypy", "ruff", "rotel"}
