"""What the doctor and the digest make of what the commands say; the key of the producer."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path

import pytest
from taskmaster_system.commands import CommandFailed, Commands
from taskmaster_system.plugin import StoreUnreachable, SystemPlugin
from taskmaster_system.producer import bucket_key, main

from taskmaster_sdk import Cancelled, Fatal
from taskmaster_sdk.testing import convert, run

GROUP = {
    "fingerprint": "f1",
    "count": 3,
    "firstSeenAt": "2026-11-26T10:00:00.000Z",
    "lastSeenAt": "2026-11-26T12:00:00.000Z",
    "reason": "fatal",
    "error": {"class": "OSError", "message": "no"},
    "types": ["report"],
}


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch) -> SystemPlugin:
    """Its commands run a program that prints what `says` holds."""
    made = SystemPlugin()
    package = tmp_path / "taskmaster"
    package.mkdir()
    (package / "__init__.py").touch()
    program = f"import pathlib, sys\nsys.stdout.write(pathlib.Path({str(tmp_path / 'says')!r}).read_text())\nsys.exit(1)\n"
    (package / "__main__.py").write_text(program)
    made.commands = Commands({"PYTHONPATH": str(tmp_path)})
    return made


@pytest.fixture
def says(tmp_path: Path):
    return (tmp_path / "says").write_text


def test_its_schedules_are_for_its_own_types_with_payloads_that_fit():
    plugin = SystemPlugin()
    jobs = {one.name: one for one in plugin.register_jobs()}

    schedules = plugin.register_schedules()

    assert [one.id for one in schedules] == ["system-doctor", "system-sweep", "system-dlq-digest"]
    assert all(convert(jobs[one.type].payload, dict(one.payload)) for one in schedules)


def finding(rule: str, severity: str) -> dict[str, str]:
    return {"rule": rule, "severity": severity, "observed": f"{rule} seen", "fix": f"{rule} mended"}


def test_a_broken_rule_is_a_result_and_a_line_and_fails_no_job(plugin, says):
    """Else a known condition of the deployment would be a dead letter each hour."""
    bad, worse, warning = finding("persistence", "error"), finding("plugin-loading", "error"), finding("workers", "warning")
    says(json.dumps({"ok": False, "checks": [finding("settings", "ok"), worse, warning, bad, worse]}))

    done = run(plugin.doctor, {})

    value = done.value
    assert (value["ok"], value["checks"], value["broken"]) == (False, 5, ["persistence", "plugin-loading"])
    assert (value["errors"], value["warnings"]) == ([worse, bad, worse], [warning])
    assert (logging.ERROR, "doctor_fails: persistence: persistence seen: persistence mended") in done.lines
    assert done.lines[-1] == (logging.WARNING, "doctor_warns: workers: workers seen: workers mended")


def test_a_doctor_that_could_not_look_fails_with_what_to_do(plugin, says):
    """There is no report that could be its result; it is tried again."""
    says(json.dumps({"ok": False, "checks": [finding("store", "error"), finding("plugin-loading", "error")]}))

    with pytest.raises(StoreUnreachable, match="store seen: store mended"):
        run(plugin.doctor, {})


def test_warnings_of_the_doctor_are_its_result(plugin, says):
    warning = finding("workers", "warning")
    says(json.dumps({"ok": True, "checks": [warning]}))

    assert run(plugin.doctor, {"sweep": True}).value == {"ok": True, "checks": 1, "broken": [], "errors": [], "warnings": [warning]}


@pytest.mark.parametrize(
    ("until", "causes", "new"), [("2026-11-27T08:00:00Z", 1, 1), ("2026-11-27T11:00:00Z", 1, 0), ("2026-11-27T12:00:01Z", 0, 0)]
)
def test_a_digest_tells_of_its_stretch_of_time(plugin, says, until, causes, new):
    says(str([GROUP]).replace("'", '"'))

    done = run(plugin.digest, {"until": until})

    value = done.value
    assert done.lines == ([(logging.WARNING, f"dead_letters: {causes} causes, {new} of them new")] if causes else [])
    assert (value["causes"], value["new"], len(value["groups"])) == (causes, new, causes)
    if causes:
        assert value["groups"][0] == {"fingerprint": "f1", "count": 3, "types": ["report"], "said": "OSError: no"}


def test_a_digest_until_no_instant_is_refused_for_good(plugin, says):
    says("[]")

    assert isinstance(run(plugin.digest, {"until": "soon"}).outcome, Fatal)


def test_a_command_that_says_nothing_fails(plugin, says):
    says("")

    with pytest.raises(CommandFailed, match="ended with 1"):
        run(plugin.doctor, {})


def test_without_on_init_nothing_is_run():
    with pytest.raises(RuntimeError, match="not initialised"):
        run(SystemPlugin().doctor, {})


def test_a_cancelled_job_ends_its_command(plugin, tmp_path):
    (tmp_path / "taskmaster" / "__main__.py").write_text("import time\ntime.sleep(600)\n")

    assert isinstance(run(plugin.doctor, {}, cancelled=True).outcome, Cancelled)


def test_all_moments_of_a_stretch_have_one_key():
    keys = {bucket_key("report", 3_600, 1_795_770_000 + s) for s in (0, 1, 3_599.9)}

    assert keys == {"report@2026-11-27T09:00:00Z"}
    assert bucket_key("report", 3_600, 1_795_770_000 + 3_600) == "report@2026-11-27T10:00:00Z"


@pytest.mark.parametrize("words", [["report", "[]"], ["report", "{"], ["report", "--every-s", "0"], []])
def test_a_producer_refuses_what_is_no_job(words, monkeypatch):
    monkeypatch.setattr(sys, "stderr", sys.stdout)

    with pytest.raises(SystemExit) as ended:
        main(words)

    assert ended.value.code == 2
