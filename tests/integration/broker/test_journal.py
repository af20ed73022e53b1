"""The lines of handlers, as they are kept with their jobs: from threads, coroutines and child processes alike."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass
from typing import Annotated

import pytest

from support.eventually import eventually
from support.worker import Worker
from taskmaster.engine.lines import read_lines
from taskmaster.model.job import LogLine
from taskmaster.model.retry import Backoff
from taskmaster_sdk import Job, JobContext, Secret, job

SOON = Backoff(kind="fixed", delay_ms=20)
KINDS = ["thread", "coroutine", "process"]


def lines(worker: Worker, job_id: str) -> list[LogLine]:
    found: list[LogLine] = worker.store.converse(read_lines(0, job_id))
    return found


def texts(worker: Worker, job_id: str) -> list[str]:
    return [kept.line.text for kept in lines(worker, job_id)]


def of_kind(kind: str, body) -> Job:
    """The same handler as a thread's, a coroutine or a child process's."""

    async def as_coroutine(payload, ctx):
        return body(payload, ctx)

    return job("says", isolation="process" if kind == "process" else "thread")(as_coroutine if kind == "coroutine" else body)


@pytest.mark.server("valkey")
@pytest.mark.parametrize("kind", KINDS)
def test_what_a_handler_logs_is_there_when_its_job_has_ended(clean_server, kind):
    """All lines, in order, of both attempts, also the last one before the end; with level, attempt and a time of the store's clock."""

    def says(payload, ctx: JobContext):
        ctx.logger.debug("not kept")
        ctx.log("100 % of it")
        ctx.logger.warning("%s of %d", "ü\x1b[31m", 2)
        if ctx.attempt == 1:
            try:
                raise ValueError("boom")
            except ValueError:
                ctx.logger.exception("it failed")
                raise
        ctx.logger.error("last word")

    with Worker(clean_server.url, [of_kind(kind, says)]) as worker:
        before = worker.store.now_ms()
        job_id = worker.submit("says", backoff=SOON)
        seen = worker.ended(job_id)
        kept = lines(worker, job_id)

    assert seen.state == "completed"
    assert [(one.number, one.line.attempt, one.line.level) for one in kept] == [
        (1, 1, "info"),
        (2, 1, "warning"),
        (3, 1, "error"),
        (4, 2, "info"),
        (5, 2, "warning"),
        (6, 2, "error"),
    ]
    assert [one.line.text for one in kept][:2] == ["100 % of it", "ü\\x1b[31m of 2"]
    failed = kept[2].line.text.splitlines()
    assert (failed[0], failed[-1]) == ("it failed", "ValueError: boom")
    assert kept[-1].line.text == "last word"
    assert all(before - 5_000 < one.line.at_ms < before + 60_000 for one in kept)


@pytest.mark.server("valkey")
@pytest.mark.parametrize("kind", KINDS)
def test_lines_are_seen_while_the_handler_runs(clean_server, kind, tmp_path):
    """Within moments, together with progress."""
    release = tmp_path / "release"

    def says(payload, ctx: JobContext):
        ctx.log("begun")
        ctx.progress(0.5)
        while not release.exists() and ctx.remaining_s:
            time.sleep(0.01)

    with Worker(clean_server.url, [of_kind(kind, says)]) as worker:
        job_id = worker.submit("says")
        eventually(lambda: texts(worker, job_id) == ["begun"], 10, "the line is there")
        assert worker.look(job_id).state == "active"
        release.touch()
        assert worker.ended(job_id).state == "completed"
        assert texts(worker, job_id) == ["begun"]


@pytest.mark.server("valkey")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("level", "kept"), [("debug", ["low", "high"]), ("warning", ["high"]), ("off", [])])
def test_the_level_that_is_kept_is_not_the_level_that_is_logged(clean_server, kind, level, kept):
    """`job_log_level` alone decides."""

    def says(payload, ctx: JobContext):
        ctx.logger.debug("low")
        ctx.logger.warning("high")

    logging.getLogger("taskmaster.job.says").setLevel(logging.ERROR)
    try:
        with Worker(clean_server.url, [of_kind(kind, says)], job_log_level=level) as worker:
            job_id = worker.submit("says")
            worker.ended(job_id)
            assert texts(worker, job_id) == kept
            assert ("lg" in worker.look(job_id).fields) is bool(kept)
    finally:
        logging.getLogger("taskmaster.job.says").setLevel(logging.NOTSET)


@pytest.mark.server("valkey")
def test_a_handler_that_outlived_its_attempt_is_not_heard(clean_server):
    """Its attempt was ended without it: what it logs from then on is kept with nothing."""
    over, said = threading.Event(), threading.Event()

    @job("stuck")
    def stuck(payload, ctx: JobContext):
        ctx.log("in time")
        while not over.is_set():
            try:
                over.wait(0.05)
            except BaseException:
                continue
        ctx.log("too late")
        said.set()

    with Worker(clean_server.url, [stuck], timeout_grace_ms=100) as worker:
        job_id = worker.submit("stuck", timeout_s=0.3, attempts=1)
        assert worker.ended(job_id).state == "failed"
        over.set()
        assert said.wait(10)
        worker.process.journal.flush(worker.store.run)
        assert texts(worker, job_id) == ["in time"]


@pytest.mark.server("valkey")
def test_a_flood_of_lines_keeps_the_newest_and_the_memory_bounded(clean_server):
    """20,000 lines in one go: the last are there, numbered as they were said."""

    @job("flood")
    def flood(payload, ctx: JobContext):
        for n in range(1, 20_001):
            ctx.log(f"line {n}")

    with Worker(clean_server.url, [flood]) as worker:
        job_id = worker.submit("flood")
        worker.ended(job_id, 30)
        kept = lines(worker, job_id)

    assert 500 < len(kept) <= 1_000
    assert [one.line.text for one in kept] == [f"line {one.number}" for one in kept]
    assert kept[-1].number == 20_000


@pytest.mark.server("valkey")
def test_lines_that_make_no_sense_do_not_fail_their_handler(clean_server):
    """Formats that do not fit, surrogates, objects without a text: the job completes, and its other lines are kept."""

    class Hostile:
        def __str__(self) -> str:
            raise RuntimeError("no")

    @job("odd")
    def odd(payload, ctx: JobContext):
        ctx.logger.info("%d", "x")
        ctx.logger.info(Hostile())
        ctx.logger.info("half \ud800 way")
        ctx.logger.info("x" * 10_000)

    logging.raiseExceptions, raising = False, logging.raiseExceptions
    try:
        with Worker(clean_server.url, [odd]) as worker:
            job_id = worker.submit("odd")
            assert worker.ended(job_id).state == "completed"
            first, second, third, fourth = texts(worker, job_id)
    finally:
        logging.raiseExceptions = raising

    assert first == second.replace("Hostile", "str") == "(a line that could not be made: str)"
    assert third == "half \\xd800 way"
    assert fourth.startswith("x" * 4_000 + "… (6000 ")


@dataclass
class Login:
    """A payload with something that nobody is to see."""

    token: Annotated[str, Secret]


@pytest.mark.server("valkey")
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_marked_secret_is_not_kept(clean_server, kind):
    """Whoever reads a job's lines may not read its secrets."""

    def says(payload: Login, ctx: JobContext):
        ctx.logger.warning("sent %s to them", payload.token)

    async def as_coroutine(payload: Login, ctx: JobContext):
        says(payload, ctx)

    made = job("says", isolation="process" if kind == "process" else "thread")(as_coroutine if kind == "coroutine" else says)
    with Worker(clean_server.url, [made]) as worker:
        job_id = worker.submit("says", {"token": "s3cr3t-t0k3n"})
        assert worker.ended(job_id).state == "completed"
        assert texts(worker, job_id) == ["sent *** to them"]
