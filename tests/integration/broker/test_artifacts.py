"""Files that jobs leave: written by handlers of every kind, referred to in results, and gone with their job."""

from __future__ import annotations

import hashlib
import threading
import time
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from support.worker import Worker
from taskmaster.engine.artifacts import ArtifactStore
from taskmaster.maintenance.artifacts import ArtifactSweep
from taskmaster.model.ids import new_job_id
from taskmaster.store import calls, reads, upkeep
from taskmaster_sdk import ArtifactLost, Job, JobContext, LeaseLost, job

pytestmark = pytest.mark.server("valkey")
KINDS = ["thread", "coroutine", "process"]


def of_kind(kind: str, name: str, body) -> Job:
    async def as_coroutine(payload, ctx):
        return body(payload, ctx)

    return job(name, attempts=1, isolation="process" if kind == "process" else "thread")(as_coroutine if kind == "coroutine" else body)


def shelf(folder: Path) -> ArtifactStore:
    return ArtifactStore(folder / "artifacts", 1_000_000)


def files(folder: Path) -> list[Path]:
    return [path for path in (folder / "artifacts").rglob("*") if path.is_file()]


@pytest.mark.parametrize("kind", KINDS)
def test_an_artifact_goes_from_job_to_job_by_its_reference(clean_server, tmp_path, kind):
    """Bytes and a file; the second job reads both, from the first one's result as its payload."""
    source = tmp_path / "source"
    source.write_bytes(b"col\n" * 1_000)

    def report(payload, ctx: JobContext):
        return [ctx.artifact("../../r\u00fc port.pdf", b"%PDF", content_type="application/pdf"), ctx.artifact("", source)]

    def mail(payload, ctx: JobContext):
        sizes = []
        for reference in payload["files"]:
            with ctx.open_artifact(reference) as file:
                sizes.append(len(file.read()))
        return sizes

    with Worker(clean_server.url, [of_kind(kind, "report", report), of_kind(kind, "mail", mail)], data_dir=tmp_path) as worker:
        made = worker.ended(worker.submit("report"))
        sent = worker.ended(worker.submit("mail", {"files": made.result}))

    first, second = made.result
    assert sent.result == [4, 4_000]
    assert (first["name"], first["size"], first["contentType"]) == ("r\u00fc port.pdf", 4, "application/pdf")
    assert first["sha256"] == hashlib.sha256(b"%PDF").hexdigest()
    assert (second["name"], second["contentType"]) == ("artifact", "application/octet-stream")
    assert not [path for path in files(tmp_path) if path.name.endswith(".part")]


@pytest.mark.parametrize("kind", KINDS)
def test_a_result_that_is_too_large_becomes_an_artifact(clean_server, tmp_path, kind):
    """The reference is the result; one that no artifact can hold fails the job with the way out in its error."""

    def big(payload, ctx: JobContext):
        return "x" * payload["n"]

    with Worker(clean_server.url, [of_kind(kind, "big", big)], data_dir=tmp_path, artifact_max_bytes=1_000_000) as worker:
        kept = worker.ended(worker.submit("big", {"n": 262_142}))
        spilled = worker.ended(worker.submit("big", {"n": 262_143}))
        refused = worker.ended(worker.submit("big", {"n": 1_000_000}))

    assert kept.result == "x" * 262_142
    assert (spilled.result["name"], spilled.result["size"], spilled.state) == ("result.json", 262_145, "completed")
    with shelf(tmp_path).open(spilled.result) as file:
        assert file.read() == b'"' + b"x" * 262_143 + b'"'
    assert (refused.state, refused.reason) == ("failed", "result_rejected")
    assert "ctx.artifact" in refused.failure.message
    assert len(files(tmp_path)) == 2


@pytest.mark.parametrize("kind", KINDS)
def test_an_attempt_that_lost_its_job_stores_nothing(clean_server, tmp_path, kind):
    """Another has the job by then: `LeaseLost`, and no file stays."""
    begun, go_on, heard = (tmp_path / name for name in ("begun", "go_on", "heard"))

    def slow(payload, ctx: JobContext):
        begun.touch()
        while not go_on.exists() and ctx.remaining_s:
            time.sleep(0.01)
        try:
            ctx.artifact("late", b"x")
        except LeaseLost:
            heard.touch()
            raise

    with Worker(clean_server.url, [of_kind(kind, "slow", slow)], data_dir=tmp_path) as worker:
        job_id = worker.submit("slow")
        worker.until(job_id, lambda _: begun.exists())
        worker.store.raw().hset(f"tm:{{0}}:j:{job_id}", "tk", "another.1")
        go_on.touch()
        worker.until(job_id, lambda _: heard.exists())

    assert files(tmp_path) == []


def test_an_attempt_that_has_ended_stores_nothing(clean_server, tmp_path):
    """A thread that a handler left behind is refused."""
    ended, said = threading.Event(), []

    @job("leaves")
    def leaves(payload, ctx: JobContext):
        def later():
            ended.wait(10)
            try:
                ctx.artifact("late", b"x")
            except LeaseLost as error:
                said.append(error)

        threads.append(threading.Thread(target=later))
        threads[0].start()

    threads: list[threading.Thread] = []
    with Worker(clean_server.url, [leaves], data_dir=tmp_path) as worker:
        worker.ended(worker.submit("leaves"))
        ended.set()
        threads[0].join(10)

    assert len(said) == 1
    assert files(tmp_path) == []


def test_artifacts_go_with_their_job_and_not_earlier(clean_server, tmp_path):
    """A job, or a dead letter, keeps them; young ones are left alone; the sweep goes on where it was."""

    @job("leaves", attempts=1)
    def leaves(payload, ctx: JobContext):
        ctx.artifact("a", b"x")
        if payload.get("fails"):
            raise ValueError

    with Worker(clean_server.url, [leaves], data_dir=tmp_path) as worker:
        done, dead = worker.submit("leaves"), worker.submit("leaves", {"fails": True}, attempts=1)
        worker.all_ended([done, dead])
        store = shelf(tmp_path)
        for _ in range(250):
            store.write(new_job_id(1), "stray", b"x", "text/plain")
        for job_id in (done, dead):
            worker.store.run(calls.purge(0, [job_id]))
        young = ArtifactSweep(worker.store, store, 1).step()
        sweep = ArtifactSweep(worker.store, store, 1, grace_s=0)
        gone = [sweep.step(), sweep.step()]

    assert (young, sum(gone)) == (0, 251)
    assert 199 <= gone[0] <= 200
    assert {path.parent.name for path in files(tmp_path)} == {dead, "artifacts"}


def test_artifacts_of_another_store_are_left_alone(clean_server, tmp_path):
    """A data folder that is used with the wrong store loses nothing; after a loss that was noticed it is the same store still."""
    store = shelf(tmp_path)
    store.write(new_job_id(1), "stray", b"x", "text/plain")
    with Worker(clean_server.url, [job("leaves")(lambda payload, ctx: None)], data_dir=tmp_path / "elsewhere") as worker:
        store.own("theirs")
        with capture_logs() as told:
            sweep = ArtifactSweep(worker.store, store, 1, grace_s=0)
            foreign = [sweep.step(), sweep.step()]
        kept = len(files(tmp_path))
        gen = worker.store.run(reads.integrity(0)).gen
        store.own(gen)
        worker.store.run(upkeep.store_rewound(0, known=gen, fresh="later", sign="rewound"))

        gone = ArtifactSweep(worker.store, store, 1, grace_s=0).step()

    assert (foreign, kept, gone) == ([0, 0], 3, 1)
    assert [line["event"] for line in told] == ["artifacts.foreign"]
    assert store.owner() == "later"


def test_an_artifact_that_was_changed_or_is_gone_is_not_read(tmp_path):
    """The digest decides; a reference that is none is refused before any file is looked at."""
    store = shelf(tmp_path)
    reference = store.write(new_job_id(1), "a", b"abc", "text/plain")
    content = next(path for path in files(tmp_path) if path.suffix == "")
    content.write_bytes(b"abd")

    with pytest.raises(ArtifactLost, match="digest"):
        store.open(reference)
    store.remove(str(reference["artifact"]).partition(".")[0])
    with pytest.raises(ArtifactLost, match="gone"):
        store.open(reference)
    for wrong in ({}, reference | {"artifact": "../../etc/passwd"}, reference | {"artifact": f"{'.' * 36}.{'0' * 32}"}):
        with pytest.raises((ValueError, ArtifactLost)):
            store.open(wrong)


@pytest.mark.parametrize(
    ("name", "kept"),
    [("/etc/passwd", "passwd"), ("..", "artifact"), ("a\n\x00b\u202e", "a__b_"), ("C:\\x\\y.txt", "y.txt"), ("n" * 300, "n" * 120)],
)
def test_names_are_for_people(tmp_path, name, kept):
    """Nothing of them is a path."""
    assert shelf(tmp_path).write(new_job_id(1), name, b"", "text/plain")["name"] == kept
    assert {path.parent.parent for path in files(tmp_path)} == {tmp_path / "artifacts"}


def test_what_is_too_large_leaves_nothing_behind(tmp_path):
    """Bytes or a file: refused for good, and no part of it stays."""
    source = tmp_path / "source"
    source.write_bytes(b"x" * 1_000_001)

    for content in (source, source.read_bytes()):
        with pytest.raises(Exception, match="TASKMASTER_ARTIFACT_MAX_BYTES"):
            shelf(tmp_path).write(new_job_id(1), "big", content, "text/plain")
    with pytest.raises(FileNotFoundError):
        shelf(tmp_path).write(new_job_id(1), "none", tmp_path, "text/plain")

    assert files(tmp_path) == []
