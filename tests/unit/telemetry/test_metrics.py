"""The catalogue of metrics, and where their numbers are kept."""

from __future__ import annotations

import os
import re
import threading
from pathlib import Path

import pytest

from support.prometheus import promtool, samples_of
from taskmaster.telemetry import exposition, metrics
from taskmaster.telemetry.meters import WorkerMeter
from taskmaster.telemetry.metrics import CATALOGUE, LABELS, MOST, Metric
from taskmaster.telemetry.sheet import Sheet, share, total

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("metric", CATALOGUE, ids=lambda metric: metric.name)
def test_names_say_unit_and_kind(metric: Metric) -> None:
    """Counters end in _total, histograms and times in _seconds; only labels of the list are used, and no two metrics share a name."""
    assert re.fullmatch(r"(taskmaster|dlq)_[a-z_]+", metric.name)
    assert metric.name.endswith("_total") == (metric.kind == "counter")
    assert (metric.kind != "histogram") or (metric.name.endswith("_seconds") and list(metric.buckets) == sorted(set(metric.buckets)))
    assert set(metric.labels) <= LABELS
    assert metric.help.endswith(".")
    assert [other.name for other in CATALOGUE].count(metric.name) == 1


def test_no_label_can_hold_what_grows_with_jobs_or_customers() -> None:
    assert not LABELS & {
        "job",
        "job_id",
        "id",
        "tenant",
        "key",
        "idempotency_key",
        "fairness_key",
        "user",
        "path",
        "trace_id",
        "error",
        "payload",
    }


def test_what_a_process_counts_itself_says_so() -> None:
    """The store's counters and those of processes cannot be taken for one another."""
    own = {*metrics.API, *metrics.WORKER, *metrics.SCHEDULER}

    assert all("_observed_" in metric.name for metric in own if metric.kind == "counter")
    assert not any("observed" in metric.name for metric in metrics.STORE)


def test_every_metric_is_in_the_table_of_the_readme() -> None:
    table = set(re.findall(r"^\| `([a-z_]+)(?:\{[a-z_,]*\})?` \|", (ROOT / "ops" / "README.md").read_text(), re.MULTILINE))

    assert table == {metric.name for metric in CATALOGUE}


def test_numbers_of_several_processes_are_added_up_and_outlive_them() -> None:
    """A child that is killed leaves what it has counted, and the next in its place goes on from there."""
    sheets = share(metrics.WORKER, 2)
    for place in (0, 1, 0):
        if os.fork() == 0:
            meter = WorkerMeter(sheets[place])
            for _ in range(100):
                meter.ended("alpha", "one", "c", 0.02, 0.2)
            meter.ended("beta", "one", "f", 1.0, None)
            os.kill(os.getpid(), 9)
        os.wait()

    assert total(metrics.ATTEMPTS, sheets) == {("alpha", "one"): [300, 0, 0, 0, 0, 0], ("beta", "one"): [0, 3, 0, 0, 0, 0]}
    ran = total(metrics.JOB_DURATION, sheets)["alpha", "one"]
    assert ran[metrics.JOB_DURATION.buckets.index(0.025)] == 300
    assert sum(ran[:-1]) == 300
    assert ran[-1] == pytest.approx(6.0)
    assert sum(total(metrics.JOB_DURATION, sheets)["beta", "one"][:-1]) == 0
    assert sum(total(metrics.JOB_FAILED_DURATION, sheets)["beta", "one"][:-1]) == 3


def test_threads_lose_no_increment() -> None:
    sheet = Sheet(metrics.WORKER)
    meter = WorkerMeter(sheet)

    def count() -> None:
        for _ in range(5_000):
            meter.ended("alpha", "one", "c", 0.001, 0.001)

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert total(metrics.ATTEMPTS, [sheet])["alpha", "one"][0] == 20_000
    assert sum(total(metrics.JOB_WAIT, [sheet])["alpha", "one"][:-1]) == 20_000


def test_a_thousand_job_types_are_no_thousand_series() -> None:
    """What there is no room for is counted as `other`; nothing is lost."""
    sheet = Sheet(metrics.WORKER)
    meter = WorkerMeter(sheet)
    for n in range(1_000):
        meter.ended(f"type-{n}", "q" * 64, "c", 0.001, None)
    meter.ended("t" * 64, "q" * 64, "c", 0.001, None)
    meter.ended("t" * 90, "q" * 64, "c", 0.001, None)

    rows = total(metrics.ATTEMPTS, [sheet])
    assert len(rows) == MOST + 1
    assert rows["other", "other"][0] == 1_002 - MOST
    assert sum(row[0] for row in rows.values()) == 1_002


def test_what_the_store_counts_is_bounded_too_and_never_falls() -> None:
    """A type that came later does not push out one that was shown: its counter would seem to start anew."""
    shown: metrics.Shown = {}

    def read(first: int) -> dict[tuple[tuple[str, str], ...], float]:
        facts: metrics.Facts = {(f"type-{n:04}", "one"): 1.0 for n in range(first, 1_000)}
        families = exposition.families_of([], [metrics.JOBS_COMPLETED], {metrics.JOBS_COMPLETED: facts}, shown)
        return samples_of(exposition.render("", families)[0].decode())["taskmaster_jobs_completed_total"]

    before, after = read(500), read(0)

    assert len(before) == len(after) == MOST + 1
    assert before.keys() == after.keys()
    assert (sum(before.values()), sum(after.values())) == (500, 1_000)


def test_closed_labels_stay_what_they_are_beyond_the_bound() -> None:
    """Of queues beyond the bound one can still tell what waits from what has ended."""
    facts: metrics.Facts = {(f"queue-{n}", state, "any"): 1.0 for n in range(MOST + 2) for state in ("active", "failed")}

    families = exposition.families_of([], [metrics.QUEUE_JOBS], {metrics.QUEUE_JOBS: facts}, {})

    samples = samples_of(exposition.render("", families)[0].decode())["taskmaster_queue_jobs"]
    assert samples[("priority", "any"), ("queue", "other"), ("state", "failed")] == 2


def test_the_page_passes_promtool_in_both_formats() -> None:
    sheet = Sheet(metrics.WORKER)
    meter = WorkerMeter(sheet)
    meter.ended("alpha", "one", "c", 0.02, 0.2)
    meter.called("cycle", 0.001)
    known = {metric: {tuple("x" for _ in metric.labels): 1.0} for metric in metrics.STORE}
    both = {**known, metrics.BUILD: exposition.build_facts()}

    body, media_type = exposition.render("", exposition.families_of([sheet], CATALOGUE[: len(metrics.STORE)], both, {}))
    assert media_type.startswith("text/plain")
    checked = promtool("check", "metrics", text=body.decode())
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")
    body, media_type = exposition.render(
        "application/openmetrics-text; version=1.0.0", exposition.families_of([sheet], metrics.WORKER, both, {})
    )
    assert media_type.startswith("application/openmetrics-text")
    assert body.endswith(b"# EOF\n")


def test_counting_costs_a_job_few_microseconds() -> None:
    """Ten thousand attempts in well under a tenth of what ten thousand jobs take."""
    import time

    meter = WorkerMeter()
    meter.ended("alpha", "one", "c", 0.001, 0.001)
    began = time.thread_time()
    for _ in range(10_000):
        meter.ended("alpha", "one", "c", 0.001, 0.001)

    assert time.thread_time() - began < 0.2
