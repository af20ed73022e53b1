"""Retention by bytes and by queue on both servers: what ended jobs count for, and which of them go."""

from __future__ import annotations

from typing import Any

import pytest

from support.desk import WINDOW_MS, Desk, keeping
from taskmaster.maintenance.upkeep import PRUNED_PAGES, Upkeep
from taskmaster.model.retention import Kept
from taskmaster.store import calls, upkeep

BLOB = "b" * 100


def complete(desk: Desk, n: int, queue: str = "one", body: str = "r" * 20, limits: calls.Limits | None = None) -> list[str]:
    """Jobs of 120 bytes each that have completed; their ids."""
    wid = desk.register("w1")
    desk.run(calls.submit(0, [desk.item(queue=queue, blob=BLOB) for _ in range(n)]))
    ids = desk.claim(wid, n, queue)
    desk.cycle(wid, finishes=[desk.end(wid, job_id, body=body) for job_id in ids], limits=limits)
    return ids


def stored(desk: Desk, queue: str = "one", state: str = "c") -> int:
    return int(desk.dump()["n"].get(f"{queue}/{state}/bytes", 0))


def kept(desk: Desk, queue: str = "one", state: str = "c") -> list[str]:
    return [member for member, _ in desk.dump().get(f"fin:{queue}/{state}", ())]


def test_an_ended_job_counts_for_what_is_stored_of_it(desk: Desk) -> None:
    """Submission and result; in letters of more than one byte too; and nothing once it is purged."""
    desk.run(calls.submit(0, [desk.item(blob="ü" * 10)]))
    wid = desk.register("w1")
    (job_id,) = desk.claim(wid)
    assert stored(desk) == 0
    desk.cycle(wid, finishes=[desk.end(wid, job_id, body='"é"')])

    assert stored(desk) == 20 + 4
    desk.run(calls.purge(0, [job_id]))
    assert stored(desk) == 0


@pytest.mark.parametrize("way", ["cancelled", "discarded", "dead", "lost", "lost and cancelled", "cancelled while it ran"])
def test_the_error_of_an_earlier_attempt_counts_while_it_is_kept(desk: Desk, way: str) -> None:
    """It stands beside a job that ended without a word of its own."""
    job_id, wid = desk.submit(blob=BLOB), desk.register("w1", "alpha", "alpha!")
    desk.claim(wid)
    desk.cycle(wid, finishes=[desk.end(wid, job_id, "r", body="e" * 30, row="[]")])
    if way != "cancelled":
        desk.claim(wid)
    cancel = calls.cancel(0, job_id, who="me", key_window_ms=WINDOW_MS)
    if "cancelled" in way:
        desk.run(cancel)
    if "lost" in way:
        desk.now += 100_000
        desk.run(upkeep.reap(0, grace_ms=0, losses=1, key_window_ms=WINDOW_MS))
    elif way != "cancelled":
        outcome = {"discarded": "x", "dead": "f"}.get(way, "r")
        desk.cycle(wid, finishes=[desk.end(wid, job_id, outcome, reason="fatal", fingerprint="f")])

    state = str(desk.field(job_id, "st"))
    assert stored(desk, state=state) == 130
    desk.run(calls.purge(0, [job_id]))
    assert stored(desk, state=state) == 0


def test_a_success_drops_the_error_before_it(desk: Desk) -> None:
    """Only what is stored counts."""
    job_id, wid = desk.submit(blob=BLOB), desk.register("w1")
    desk.claim(wid)
    desk.cycle(wid, finishes=[desk.end(wid, job_id, "r", body="e" * 30, row="[]")])
    desk.claim(wid)
    desk.cycle(wid, finishes=[desk.end(wid, job_id, row="[]")])

    assert stored(desk) == 100


def test_rounds_keep_below_the_bytes(desk: Desk) -> None:
    """The oldest go while there is more, at most twice what ended and 16."""
    old = complete(desk, 30)
    desk.now += 1

    new = complete(desk, 2, limits=keeping(1_000, size=1_500))

    assert kept(desk) == [*old[20:], *new]
    assert stored(desk) == 12 * 120


def test_prune_keeps_below_the_bytes_in_bounded_calls(desk: Desk) -> None:
    """Where nothing ends any more; 64 a call."""
    old = complete(desk, 100)

    assert desk.run(upkeep.prune(0, keeping(1_000, size=2_400))) is True
    assert len(kept(desk)) == 36
    assert desk.run(upkeep.prune(0, keeping(1_000, size=2_400))) is False
    assert (kept(desk), stored(desk)) == (old[80:], 2_400)
    assert desk.run(upkeep.prune(0, keeping(1_000, size=0))) is False
    assert (kept(desk), stored(desk)) == ([], 0)


def test_retention_goes_by_steps(desk: Desk) -> None:
    """A step is a few short pages with gaps between, so that no other call waits for more than one; there is none before a tick asks."""
    done = [job_id for _ in range(3) for job_id in complete(desk, 200)]
    duties = Upkeep(desk.store, 0, keeping(3), lambda _: pytest.fail("no operation is there"))

    duties.prune()
    duties.tick()
    assert kept(desk) == done
    duties.prune()
    assert kept(desk) == done[64 * PRUNED_PAGES :]
    duties.prune()
    assert kept(desk) == done[-3:]
    complete(desk, 10)
    duties.prune()
    assert len(kept(desk)) == 13, "it was done, and no tick has asked again"


def test_a_queue_may_have_rules_of_its_own(desk: Desk) -> None:
    """By count, age and bytes; the others go by what is usual."""
    usual = Kept(5)
    limits = calls.Limits(WINDOW_MS, usual, usual, usual, {"two": (Kept(3), usual, usual), "three": (Kept(100, 1_000), usual, usual)})
    for queue in ("one", "two", "three"):
        complete(desk, 8, queue)
    desk.now += 2_000
    desk.run(upkeep.prune(0, limits))
    assert [len(kept(desk, queue)) for queue in ("one", "two", "three")] == [5, 3, 0]

    complete(desk, 1, "two", limits=limits)

    assert len(kept(desk, "two")) == 3


def test_jobs_from_before_there_was_a_size_count_for_nothing(desk: Desk) -> None:
    """They are pruned as the oldest that they are; the count does not fall below what is there."""
    old = complete(desk, 3, body="")
    for job_id in old:
        desk.raw.hdel(f"tm:{{0}}:j:{job_id}", "sz")
    desk.raw.hdel("tm:{0}:n", "one/c/bytes")
    new = complete(desk, 2)
    assert stored(desk) == 240

    desk.run(upkeep.prune(0, keeping(4)))
    assert (kept(desk), stored(desk)) == ([*old[1:], *new], 240)
    desk.run(upkeep.prune(0, keeping(100, size=239)))

    assert (kept(desk), stored(desk)) == ([new[1]], 120)


def test_what_a_foreign_hand_took_is_counted_anew(desk: Desk) -> None:
    """Bytes that nothing stands for would make retention take the living for the dead."""
    from taskmaster.maintenance.sweeper import Sweeper

    ids = complete(desk, 4)
    desk.raw.delete(*(f"tm:{{0}}:{kind}:{ids[0]}" for kind in "jbr"))

    repairs: list[Any] = Sweeper(desk.store, 0, 600_000, WINDOW_MS).whole()

    assert ("counter", "one/c/bytes") in {(repair.what, repair.id) for repair in repairs}
    assert stored(desk) == 360
