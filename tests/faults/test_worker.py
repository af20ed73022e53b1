"""Workers that are killed, frozen, forced or crashed (F1, F4, F11, F12): each job ends once, and only its last owner ends it."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from support.eventually import eventually
from support.service import WorkerService
from support.worker import Hands, Seen

pytestmark = pytest.mark.server("valkey")


def owner(hands: Hands, job_id: str) -> int:
    """The process that holds the job now."""
    token = hands.look(job_id).fields["tk"]
    return int(json.loads(hands.store.raw().get(f"tm:{{0}}:o:{token.partition('.')[0]}"))["pid"])


def outcomes(seen: Seen) -> list[str]:
    return [row["outcome"] for row in seen.rows]


def settled(hands: Hands) -> dict[str, int]:
    """How many jobs are in which state of the queue; none of the others."""
    return {key: n for key, n in hands.counters().items() if key.startswith("default/") and key.count("/") == 1 and n}


@pytest.mark.parametrize(
    ("point", "effects"),
    [
        ("attempt.started", 1),  # nothing had happened
        ("attempt.finished", 2),  # it had, and nobody was told: why effects need guards
    ],
)
def test_a_process_killed_around_its_handler_costs_one_delivery(serve, sink, hands, fired, point, effects):
    """The job completes in another process soon, with the loss in its history; it burns none of its attempts."""
    with serve(failpoints=f"{point}:kill9"):
        job_id = hands.submit("plain", {"key": "k"})
        seen = hands.ended(job_id, 30)

        assert fired() == {point}
        assert (seen.state, seen.losses, seen.failures) == ("completed", 1, 0)
        assert outcomes(seen) == ["lost", "completed"]
        assert sink.counts()["k"] == effects
        assert settled(hands) == {"default/c": 1}


@pytest.mark.parametrize("point", ["cycle.sent", "cycle.answered"])
def test_a_process_killed_as_it_claims_strands_nothing(serve, sink, hands, tmp_path, point):
    """Claimed by a process that never knew, or never began: another one runs it, once."""
    armed = tmp_path / "fired" / point
    armed.parent.mkdir()
    armed.touch()
    with serve(failpoints=f"{point}:kill9") as service:
        eventually(lambda: sum(hands.store.raw().zcard(key) for key in hands.store.raw().keys("tm:{0}:idle:*")) == 3)
        armed.unlink()
        job_id = hands.submit("plain", {"key": "k"})
        seen = hands.ended(job_id, 30)

        assert len(service.said("worker.child_died")) == 1
        assert (seen.state, seen.failures, sink.counts()["k"]) == ("completed", 0, 1)
        assert seen.losses <= 1  # an idle round may have been the one that was struck
        assert settled(hands) == {"default/c": 1}


@pytest.mark.parametrize(
    ("zombie", "new_owner", "state"),
    [("fail", 0, "completed"), ("fatal", 0, "completed"), ("ok", 1, "failed"), ("fail", 2, "completed"), ("ok", 2, "completed")],
)
def test_whatever_a_zombie_says_is_refused(serve, sink, hands, tmp_path, zombie, new_owner, state):
    """Frozen beyond its lease, continued after another process has completed, failed, or while that one runs: nothing of it counts."""
    gate = tmp_path / "gate"
    with serve() as service:
        job_id = hands.submit("gated", {"key": "k", "gate": str(gate), "then": zombie, "n": new_owner})
        eventually(lambda: sink.counts()["begun:k:1"], 10)
        first = owner(hands, job_id)
        os.kill(first, signal.SIGSTOP)
        try:
            eventually(lambda: sink.counts()["begun:k:2"], 20)
            if new_owner != 2:
                hands.until(job_id, state)
            before = hands.look(job_id)
            record = hands.dead(job_id)
        finally:
            gate.touch()
            os.kill(first, signal.SIGCONT)
        eventually(lambda: any(line["jobId"] == job_id for line in service.said("job.outcome_refused")), 15)

        assert {line["code"] for line in service.said("job.outcome_refused")} == {"stale"}
        after = hands.look(job_id)
        assert (after.state, after.body, after.rows, after.fields.get("tk")) == (
            before.state,
            before.body,
            before.rows,
            before.fields.get("tk"),
        )
        assert "zombie" not in after.fields.get("pg", "")
        Path(f"{gate}.2").touch()
        end = hands.ended(job_id)
        assert (end.state, end.deliveries, end.losses) == (state, 2, 1)
        assert outcomes(end) == ["lost", "completed" if state == "completed" else "failed"]
        assert hands.dead(job_id) == record
        assert settled(hands) == {f"default/{state[0]}": 1}


def test_what_does_not_fit_the_grace_runs_again_once_elsewhere(serve, sink, hands):
    """SIGTERM while a long job runs, and the drain's time is over: handed back, taken by the next service, lost by nobody."""
    with serve(drain_ms=8_000) as first:
        long, short = hands.submit("nap", {"key": "long", "n": 60_000}), hands.submit("nap", {"key": "short", "n": 1_000})
        first.runs(long, short)
        first.send(signal.SIGTERM)
        assert first.wait(30) == 1
        assert [hands.state(long), hands.state(short)] == ["waiting", "completed"]
        assert hands.look(long).handed_back == 1
    with serve() as second:
        second.runs(long)
        hands.cancel(long)
        seen = hands.ended(long, 20)
        assert (seen.state, seen.deliveries, seen.losses) == ("cancelled", 2, 0)
    assert sink.counts() == {"short": 1}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_storm_of_signals_ends_the_whole_family(serve, hands, number):
    """Two, ten, a hundred of them: no deadlock, no orphan, and what ran is handed back or ended."""
    with serve(worker_processes=3) as service:
        ids = hands.submit_many("nap", [{"key": f"k{n}", "n": 5_000} for n in range(6)])
        service.runs(*ids)
        children = service.children()
        assert len(children) >= 4  # three, the suspects, and what forks for isolated handlers
        _storm(service, number)

        service.wait(20)
        assert not service.children()
        eventually(lambda: not [pid for pid in children.values() if Path(f"/proc/{pid}").exists()])
        assert {hands.state(job_id) for job_id in ids} <= {"waiting", "completed"}


def _storm(service: WorkerService, number: signal.Signals) -> None:
    for _ in range(100):
        if service.process.poll() is not None:
            return
        service.send(number)
