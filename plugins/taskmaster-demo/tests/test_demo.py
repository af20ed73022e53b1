"""The demo's handlers do what their payload says, and the clean-up stays in its folder."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import taskmaster_demo
from taskmaster_demo import dummy as dummy_module
from taskmaster_demo.cleanup import Cleaner
from taskmaster_demo.dummy import DummyFailed, dummy
from taskmaster_demo.plugin import DemoPlugin
from taskmaster_demo.report import generate_report

import taskmaster_sdk
from taskmaster_sdk import Cancelled, Fatal, Job, PluginContext, job
from taskmaster_sdk.testing import convert, run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "tmp"
    made.mkdir()
    return made


@pytest.fixture
def cleanup(folder: Path) -> Job:
    return job("cleanup-temp")(Cleaner(folder).cleanup_temp)


def aged(path: Path, age_s: float = 3_600, text: str = "old") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    then = path.stat().st_mtime - age_s
    os.utime(path, (then, then))
    return path


def test_the_types_and_their_queues():
    jobs = {one.name: one for one in DemoPlugin().register_jobs()}

    assert {name: one.queue for name, one in jobs.items()} == {
        "generate-report": "report-queue",
        "cleanup-temp": "cleanup-queue",
        "dummy": "default",
        "dummy-isolated": "default",
    }
    assert all(one.description for one in jobs.values())
    assert not any(one.is_async for one in jobs.values())


def test_its_schedules_are_for_its_own_types_with_payloads_that_fit():
    plugin = DemoPlugin()
    jobs = {one.name: one for one in plugin.register_jobs()}

    schedules = plugin.register_schedules()

    assert [one.id for one in schedules] == ["demo-nightly-report", "demo-weekly-report", "demo-cleanup"]
    assert all(convert(jobs[one.type].payload, dict(one.payload)) for one in schedules)


def test_a_dummy_succeeds_with_the_result_that_it_is_given():
    assert run(dummy, {"result": {"a": [1]}}).value == {"a": [1]}
    assert run(dummy, {}).value is None


def test_a_dummy_fails_as_often_as_asked():
    for attempt in (1, 2):
        with pytest.raises(DummyFailed, match=f"attempt {attempt} of 2"):
            run(dummy, {"failTimes": 2, "result": 7}, attempt=attempt)

    assert run(dummy, {"failTimes": 2, "result": 7}, attempt=3).value == 7


def test_a_dummy_fails_always_or_for_good():
    with pytest.raises(DummyFailed):
        run(dummy, {"mode": "fail"}, attempt=99)

    assert isinstance(run(dummy, {"mode": "fatal"}).outcome, Fatal)


def test_a_dummy_sleeps_and_hangs_in_one_call(monkeypatch):
    slept: list[float] = []
    monkeypatch.setattr(dummy_module.time, "sleep", slept.append)

    run(dummy, {"sleepMs": 250})
    run(dummy, {"mode": "hang"})

    assert slept == [0.25, 3_600]


@pytest.mark.parametrize(("mode", "status"), [("segfault", -11), ("exit", 139), ("abort", -6)])
def test_a_dummy_takes_its_process_down(mode, status):
    path = [str(Path(package.__file__).parent.parent) for package in (taskmaster_sdk, taskmaster_demo)]
    code = f"import sys; sys.path[:0] = {path!r}\nfrom taskmaster_demo.dummy import dummy\nfrom taskmaster_sdk.testing import run\n"

    done = subprocess.run([sys.executable, "-c", f"{code}run(dummy, {{'mode': {mode!r}}})"], capture_output=True, timeout=60, check=False)

    assert done.returncode == status


def test_a_dummy_of_an_unknown_mode_is_no_payload():
    with pytest.raises(TypeError, match=r"payload\.mode"):
        run(dummy, {"mode": "dance"})


def test_a_report_tells_how_far_it_is():
    result = run(generate_report, {"title": "Figures", "pages": 4, "pageMs": 0})

    assert result.progress == [(0.25, "page 1 of 4"), (0.5, "page 2 of 4"), (0.75, "page 3 of 4"), (1.0, "page 4 of 4")]
    assert result.value["pages"] == 4
    assert result.value["summary"] == "Figures: 4 pages, 20 words"


@pytest.mark.parametrize("pages", [0, -1])
def test_a_report_without_pages_is_empty(pages):
    assert run(generate_report, {"title": "Empty", "pages": pages}).value["summary"] == "Empty: 0 pages, 0 words"


def test_a_cancelled_report_stops_after_the_page_it_is_at():
    result = run(
        generate_report, {"title": "Figures", "pages": 4, "pageMs": 0}, on_progress=lambda ctx, fraction, note: ctx.request_cancel()
    )

    assert isinstance(result.outcome, Cancelled)
    assert len(result.progress) == 1


def test_old_files_are_removed_and_young_ones_kept(cleanup, folder):
    old, deep, young = aged(folder / "old.txt"), aged(folder / "a" / "b" / "deep.txt"), aged(folder / "young.txt", age_s=5)

    result = run(cleanup, {"olderThanS": 60}).value

    assert result["files"] == ["a/b/deep.txt", "old.txt"]
    assert (result["removed"], result["kept"], result["freedBytes"]) == (2, 1, 6)
    assert (old.exists(), deep.exists(), young.exists()) == (False, False, True)


def test_a_dry_run_only_counts(cleanup, folder):
    old = aged(folder / "old.txt")

    result = run(cleanup, {"olderThanS": 60, "dryRun": True}).value

    assert (result["dryRun"], result["removed"], result["files"]) == (True, 1, ["old.txt"])
    assert old.exists()


def test_links_are_neither_followed_nor_removed(cleanup, folder, tmp_path):
    outside = aged(tmp_path / "outside" / "precious.txt")
    (folder / "file-link").symlink_to(outside)
    (folder / "folder-link").symlink_to(outside.parent)

    result = run(cleanup, {"olderThanS": 0}).value

    assert result["removed"] == 0
    assert result["linksSkipped"] == 2
    assert outside.exists()
    assert (folder / "file-link").is_symlink()


def test_a_folder_that_is_itself_a_link_is_refused(tmp_path):
    outside = aged(tmp_path / "outside" / "precious.txt")
    (tmp_path / "tmp").symlink_to(outside.parent)

    result = run(job("cleanup-temp")(Cleaner(tmp_path / "tmp").cleanup_temp), {"olderThanS": 0})

    assert isinstance(result.outcome, Fatal)
    assert outside.exists()


def test_a_negative_age_is_refused_for_good(cleanup):
    assert isinstance(run(cleanup, {"olderThanS": -1}).outcome, Fatal)


def test_a_cleanup_can_be_cancelled(cleanup, folder):
    old = aged(folder / "old.txt")

    assert isinstance(run(cleanup, {"olderThanS": 0}, cancelled=True).outcome, Cancelled)
    assert old.exists()


def test_the_cleanup_works_below_the_data_folder_only(tmp_path):
    plugin = DemoPlugin()
    plugin.on_init(PluginContext("demo", tmp_path, {}))
    aged(tmp_path / "tmp" / "x")
    aged(tmp_path / "outbox" / "x.eml")
    cleanup = next(one for one in plugin.register_jobs() if one.name == "cleanup-temp")

    assert run(cleanup, {"olderThanS": 0}).value["files"] == ["x"]
    assert (tmp_path / "outbox" / "x.eml").exists()


def test_without_on_init_the_cleanup_fails_and_removes_nothing():
    with pytest.raises(RuntimeError, match="not initialised"):
        run(job("cleanup-temp")(Cleaner().cleanup_temp), {"olderThanS": 0})


def test_a_file_that_somebody_else_removed_meanwhile_does_not_matter(cleanup, folder, monkeypatch):
    aged(folder / "old.txt")
    monkeypatch.setattr(os, "unlink", lambda *args, **named: (_ for _ in ()).throw(FileNotFoundError))

    assert run(cleanup, {"olderThanS": 0}).value["removed"] == 0
