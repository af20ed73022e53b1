"""Limiters over real worker processes that are killed."""

from __future__ import annotations

import itertools
import json
import os
import signal

import pytest

from support.eventually import eventually
from support.service import WorkerService
from support.worker import Hands
from taskmaster.engine.limits import LimitRule, put_limit
from taskmaster.engine.rules import Word, set_pause

pytestmark = pytest.mark.server("valkey")
ANN = Word("ann", "a test")
LEASE_S, GRACE_S = 2.0, 1.0
#: What a busy machine takes to start a process anew, or to give it a turn.
SLACK_S = 5.0


def spans(hands: Hands, ids: list[str]) -> list[tuple[int, int]]:
    """When each attempt held its slot, by the store's clock: from its claim to its end, or to the end of its lease."""
    found = []
    for job_id in ids:
        seen = hands.look(job_id)
        rows = {row["epoch"]: (row["started"], row["ended"]) for row in seen.rows}
        rows.setdefault(seen.deliveries, (int(seen.fields["sa"]), int(seen.fields["fa"])))
        found += rows.values()
    return sorted(found)


def test_one_slot_under_kill_9_is_never_two_and_never_stuck(clean_server, tmp_path):
    """Whoever dies with the slot gives it back with its lease: no two attempts ever overlap, and none waits longer than lease and grace."""
    hands = Hands(clean_server.url)
    hands.order(put_limit("one", LimitRule(kind="concurrency", max=1), ANN, partitions=1))
    with WorkerService(clean_server.url, tmp_path, concurrency=4, lease_ms=int(LEASE_S * 1_000)) as service:
        ids = hands.submit_many("dummy", [{"sleepMs": 150}] * 12, lane="~one")
        killed: set[int] = set()

        def strike() -> bool:
            """Kill whoever has the slot, unless it is dead already."""
            held = [seen for seen in map(hands.look, ids) if seen.state == "active"]
            assert len(held) <= 1
            owner = held[0].fields["tk"].partition(".")[0] if held else ""
            info = clean_server.call("GET", f"tm:{{0}}:o:{owner}") if owner else None
            pid = json.loads(info)["pid"] if info else 0
            if pid in service.children().values() and pid not in killed and held[0].losses < 2:  # a third loss would end the job
                os.kill(pid, signal.SIGKILL)
                killed.add(pid)
            return len(killed) == 2  # a third time would be the end of a job that is struck each time

        eventually(strike, 40, every_s=0.005)
        seen = hands.all_ended(ids, 60)

    attempts = spans(hands, ids)
    gaps = [(after[0] - before[1]) / 1_000 for before, after in itertools.pairwise(attempts)]
    assert {one.state for one in seen} == {"completed"}
    assert sum(one.losses for one in seen) >= 1
    assert min(gaps) >= 0, attempts
    assert max(gaps) <= LEASE_S + GRACE_S + SLACK_S, attempts
    assert clean_server.call("ZCARD", "tm:{0}:L:one:s") == 0
    hands.close()


def test_a_pause_outlives_the_workers(clean_server, tmp_path):
    """A service that starts while a queue is paused runs nothing of it, until it is resumed."""
    hands = Hands(clean_server.url)
    with WorkerService(clean_server.url, tmp_path / "one", worker_processes=1):
        hands.order(set_pause("q/default", "pause", 1, ANN))
        job_id = hands.submit("dummy", {})
    with WorkerService(clean_server.url, tmp_path / "two", worker_processes=1) as service:
        eventually(lambda: service.said("worker.ready"))
        assert hands.state(job_id) == "waiting"
        hands.order(set_pause("q/default", "resume", 1, ANN))

        assert hands.ended(job_id).state == "completed"
    hands.close()
