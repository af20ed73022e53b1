"""Limiters over real worker processes that are killed."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys

import pytest

from support.eventually import eventually
from support.processes import environ_of
from support.service import WorkerService
from support.worker import Hands
from taskmaster.api.shapes import moment
from taskmaster.engine.limits import LimitRule, put_limit
from taskmaster.engine.queue_rules import QueueChange, change_queue
from taskmaster.engine.rules import Word, set_pause

pytestmark = pytest.mark.server("valkey")
#: Seconds for which a rate is watched; the long form (30) is also to be used up to 98 %, which a busy machine may not manage.
RATE_S = float(os.environ.get("RATE_S", "6"))
USED_MIN = 0.98 if RATE_S >= 30 else 0.7
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


def test_a_rate_over_four_processes_is_never_exceeded_and_used(clean_server, tmp_path):
    """100 a second, whoever claims: no window of a second by the store's clock ever has more, and as many are made use of."""
    most, per_ms = 100, 1_000
    hands = Hands(clean_server.url)
    hands.order(put_limit("fast", LimitRule(kind="rate", max=most, per_ms=per_ms), ANN, partitions=1))
    hands.order(change_queue("default", QueueChange(limits=("fast",)), ANN, partitions=1))
    ids = hands.submit_many("dummy", [{"sleepMs": 100}] * int(most * (RATE_S + 2)))  # more than one process can do: 8 slots, 80 a second
    timed = int(most * RATE_S)
    with WorkerService(clean_server.url, tmp_path, worker_processes=4, concurrency=8):
        eventually(lambda: claims(hands, ids)[timed:], RATE_S * 2 + 20, every_s=0.5, what=f"{timed} jobs have begun")

    found = claims(hands, ids)
    times, consumers = [at for at, _ in found], {token.partition(".")[0] for _, token in found}
    pids = {json.loads(clean_server.call("GET", f"tm:{{0}}:o:{wid}"))["pid"] for wid in consumers}
    spans = [later - earlier for earlier, later in zip(times, times[most:], strict=False)]
    used = sum(at < times[0] + RATE_S * per_ms for at in times) / timed
    print(f"{len(pids)} processes, {len(times)} claims, {used:.1%} of the rate used, {most + 1} claims take at least {min(spans)} ms")
    assert len(pids) > 1
    assert min(spans) >= per_ms
    assert used >= USED_MIN
    hands.close()


def test_delayed_jobs_of_a_file_cost_the_worker_nothing_and_start_when_due(clean_server, tmp_path):
    """A file of 6,000 delayed jobs is taken with no memory of the worker, and those of them that fall due begin then, none before."""
    due, total = 300, 6_000
    hands = Hands(clean_server.url)
    with WorkerService(clean_server.url, tmp_path, worker_processes=1) as service:
        begin = hands.store.now_ms() + 15_000
        instants = [begin + 10 * n if n < due else begin + 10**9 for n in range(total)]
        lines = [{"type": "dummy", "payload": {}, "runAt": moment(at)} for at in instants]
        (tmp_path / "jobs.ndjson").write_text("".join(json.dumps(line) + "\n" for line in lines))
        before = service.private_mb()
        command = [sys.executable, "-m", "taskmaster", "import", str(tmp_path / "jobs.ndjson"), "--json"]
        environ = environ_of(redis_url=clean_server.url, idempotency="optional")
        done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False, timeout=90, cwd=tmp_path)
        assert json.loads(done.stdout)["accepted"] == total, done.stderr
        assert service.private_mb() - before < 8
        eventually(lambda: clean_server.call("ZCARD", "tm:{0}:fin:default/c") == due, 90, every_s=0.2, what="all that fall due have ended")

    late = []
    for job_id in clean_server.call("ZRANGE", "tm:{0}:fin:default/c", 0, -1):
        fields = hands.look(job_id).fields
        late.append(int(fields["sa"]) - int(fields["ra"]))
    assert min(late) >= 0
    assert sorted(late)[int(0.99 * due) - 1] < 5_000, "by a timer, and not by chance: the machine may be busy"
    hands.close()


def claims(hands: Hands, ids: list[str]) -> list[tuple[int, str]]:
    """When each of those that have begun was claimed, by the store's clock and in order, and by which token."""
    pipe = hands.store.raw().pipeline(transaction=False)
    for job_id in ids:
        pipe.hmget(f"tm:{{0}}:j:{job_id}", "sa", "tk")
    return sorted((int(at), token.decode()) for at, token in pipe.execute() if at)


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
