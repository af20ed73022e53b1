"""The ledger of effects on both servers: who gets a licence, what settles it, and when a lineage is forgotten."""

from __future__ import annotations

from typing import Any

import pytest

from support.desk import LEASE_MS, Desk, keeping
from taskmaster.store import calls, effects, upkeep
from taskmaster.store.status import Status

OK, ALREADY, STALE, DONE, UNKNOWN, GONE = Status.OK, Status.ALREADY, Status.STALE, Status.DONE, Status.UNKNOWN, Status.GONE
SMTP = "5" * 32


class Attempt:
    """One claim of a job, asking for effects."""

    def __init__(self, desk: Desk, wid: str = "w1", queue: str = "one") -> None:
        self.desk, self.wid = desk, wid
        if not desk.seqs[wid]:
            desk.register(wid)
        (self.job_id,) = desk.claim(wid, 1, queue)
        self.token = desk.token(wid)

    def reserve(self, call: int = 1, effect: str = SMTP, again: bool = False) -> effects.Reserved:
        return self.desk.run(  # type: ignore[no-any-return]
            effects.reserve(0, self.job_id, self.token, call, effect, name="smtp", key="", again=again)
        )

    def tell(self, happened: bool = True, call: int = 1, result: bytes = b"", root: str = "") -> Status:
        return self.desk.run(  # type: ignore[no-any-return]
            effects.done(0, root or self.job_id, SMTP, self.token, call, happened=happened, result=result)
        )

    def end(self, outcome: str, **facts: Any) -> None:
        self.desk.cycle(self.wid, finishes=[self.desk.end(self.wid, self.job_id, outcome, token=self.token, **facts)])

    def die(self) -> None:
        """Its lease runs out and is reaped."""
        self.desk.now += LEASE_MS + 6_000
        self.desk.reap()


def first(desk: Desk) -> Attempt:
    desk.submit()
    return Attempt(desk)


def suspect(desk: Desk) -> Attempt:
    """The next attempt of a job that lost a worker."""
    return Attempt(desk, _registered(desk, "w2", "alpha!"))


def _registered(desk: Desk, wid: str, kind: str) -> str:
    if not desk.seqs[wid]:
        desk.register(wid, kind)
    return wid


def buried(desk: Desk) -> Attempt:
    """An attempt that reserved, and ended not knowing."""
    attempt = first(desk)
    assert attempt.reserve().status is OK
    attempt.end("f", reason="effect_unknown", fingerprint="f")
    return attempt


def settle(desk: Desk, root: str, happened: bool) -> effects.Settled:
    return desk.run(  # type: ignore[no-any-return]
        effects.settle(0, root, SMTP, happened=happened, who="ann", reason="asked the provider", at_it_ms=LEASE_MS)
    )


def replay(desk: Desk, source: str, root: str, request: str = "k", accept_unknown: bool = False) -> Status:
    item = desk.item(key=request * 22, root_id=root, replayed_from=source, accept_unknown=int(accept_unknown))
    return desk.run(calls.submit(0, [item]))[0].status  # type: ignore[no-any-return]


def keys(desk: Desk, *prefixes: str) -> list[str]:
    return sorted(key for key in desk.dump() if key.startswith(prefixes))


# ---------------------------------------------------------------- within attempts
def test_a_reservation_belongs_to_one_call_of_one_attempt(desk: Desk) -> None:
    attempt = first(desk)
    assert attempt.reserve(1).status is OK
    assert attempt.reserve(1).status is OK  # its own repeat
    asked_again = attempt.reserve(2)
    assert (asked_again.status, asked_again.job_id) == (UNKNOWN, attempt.job_id)
    assert attempt.tell() is OK
    assert attempt.reserve(3).status is DONE


def test_the_next_attempt_meets_what_the_last_one_left(desk: Desk) -> None:
    attempt = first(desk)
    attempt.reserve()
    attempt.die()
    assert attempt.reserve(2).status is STALE
    second = suspect(desk)
    assert second.reserve().status is UNKNOWN
    assert second.reserve(2, again=True).status is OK
    assert attempt.tell() is STALE  # it is the second's now
    assert second.tell(call=2, result=b'"receipt"') is OK
    second.die()
    third = Attempt(desk, "w2")
    assert third.reserve() == (DONE, b'"receipt"', second.job_id)
    desk.dump()


def test_a_zombie_gets_no_licence_while_another_attempt_runs(desk: Desk) -> None:
    """Its job is active, under somebody else's token: whatever it asks for, and however."""
    zombie = first(desk)
    zombie.die()
    second = suspect(desk)

    for again in (False, True):
        assert zombie.reserve(1, again=again).status is STALE
    assert second.reserve().status is OK
    assert zombie.reserve(2, again=True).status is STALE
    assert second.tell() is OK
    desk.dump()


def test_the_word_of_a_holder_that_lost_its_lease_is_taken(desk: Desk) -> None:
    attempt = first(desk)
    attempt.reserve()
    attempt.die()
    assert attempt.tell() is OK
    assert attempt.tell() is ALREADY
    assert attempt.tell(False) is STALE
    (_, row, running, _) = desk.run(effects.lineage(0, attempt.job_id)).effects[0]
    assert (row.state, row.how, running) == ("d", "late", False)
    assert suspect(desk).reserve().status is DONE


def test_what_was_given_back_is_free_and_its_late_copies_are_refused(desk: Desk) -> None:
    attempt = first(desk)
    attempt.reserve(1)
    assert attempt.tell(False) is OK
    assert attempt.tell(False) is ALREADY
    assert attempt.reserve(1).status is STALE  # a late copy: nobody would use that licence
    assert attempt.reserve(2).status is OK
    assert attempt.tell(False) is STALE  # a late copy of giving back the first
    assert attempt.tell(call=2) is OK
    desk.dump()


def test_there_are_only_so_many_effects_of_a_lineage(desk: Desk) -> None:
    attempt = first(desk)
    for n in range(1_999):
        assert attempt.reserve(n + 1, f"{n:032}").status is OK
    assert attempt.reserve(2_000, "f" * 32).status is Status.REJECTED


# ---------------------------------------------------------------- people
def test_a_person_settles_only_what_no_attempt_is_at(desk: Desk) -> None:
    attempt = first(desk)
    attempt.reserve()
    assert settle(desk, attempt.job_id, True) == (Status.CONFLICT, "running")
    attempt.end("f", reason="effect_unknown", fingerprint="f")
    assert settle(desk, attempt.job_id, False) == (Status.CONFLICT, "recent")
    assert [row.is_running for row in desk.run(effects.unsettled(0))] == [False]
    desk.now += LEASE_MS
    assert settle(desk, attempt.job_id, False).status is OK
    assert settle(desk, attempt.job_id, False).status is ALREADY
    assert settle(desk, attempt.job_id, True) == (Status.CONFLICT, "settled")
    assert desk.run(effects.unsettled(0)) == ()
    assert attempt.tell() is STALE
    entries: Any = desk.raw.xrange("tm:{0}:audit")
    ((_, fields),) = entries
    assert {k: v for k, v in fields.items() if k != "at"} == {
        "who": "ann",
        "action": "effect.settled",
        "target": f"{attempt.job_id}/{SMTP}",
        "reason": "asked the provider",
        "detail": "did not happen",
        "n": "1",
        "p": "",
    }
    assert replay(desk, attempt.job_id, attempt.job_id) is OK
    assert Attempt(desk).reserve().status is OK
    desk.dump()


def test_unsettled_effects_come_in_pages(desk: Desk) -> None:
    for _ in range(5):
        desk.submit()
    for n in range(5):
        desk.now += n % 2
        Attempt(desk).reserve()
    seen, after = [], ("", "")
    while page := desk.run(effects.unsettled(0, after=after, limit=2)):
        seen += [row.root_id for row in page]
        after = page[-1].place
    assert len(seen) == len(set(seen)) == 5


# ---------------------------------------------------------------- replays and forgetting
def test_a_replay_meets_the_guard_and_is_refused_while_it_is_open(desk: Desk) -> None:
    dead = buried(desk).job_id
    assert replay(desk, dead, dead) is UNKNOWN
    assert replay(desk, dead, dead, accept_unknown=True) is OK
    assert replay(desk, dead, dead) is Status.DUPLICATE  # the same request again
    again = Attempt(desk)
    assert again.job_id != dead
    assert again.reserve().status is UNKNOWN
    desk.dump()


def test_a_done_effect_outlives_its_job_as_long_as_its_record_can_be_replayed(desk: Desk) -> None:
    attempt = first(desk)
    attempt.reserve()
    attempt.tell(result=b"1")
    attempt.end("f", reason="fatal", fingerprint="f")
    dead = attempt.job_id
    desk.run(calls.purge(0, [dead]))
    assert keys(desk, "e:", "line:") == [f"e:{dead}", f"line:{dead}"]
    assert replay(desk, dead, dead) is OK
    again = Attempt(desk)
    assert again.reserve().status is DONE
    again.end("c")
    desk.run(calls.purge(0, [again.job_id]))
    assert keys(desk, "e:", "line:") == [f"e:{dead}", f"line:{dead}"]


@pytest.mark.parametrize("by_retention", [False, True])
def test_effects_go_with_the_last_job_of_their_lineage(desk: Desk, by_retention: bool) -> None:
    attempt = first(desk)
    attempt.reserve()
    attempt.tell()
    attempt.end("c")
    assert keys(desk, "e:", "line:")
    desk.run(upkeep.prune(0, keeping(0, 1)) if by_retention else calls.purge(0, [attempt.job_id]))
    assert keys(desk, "e:", "line:", "eu") == []


def test_an_open_effect_holds_its_lineage_until_it_is_settled(desk: Desk) -> None:
    attempt = first(desk)
    attempt.reserve()
    attempt.end("x")
    desk.run(calls.purge(0, [attempt.job_id]))
    assert keys(desk, "e:", "line:", "eu") == [f"e:{attempt.job_id}", "eu", f"line:{attempt.job_id}"]
    assert attempt.tell() is OK
    assert keys(desk, "e:", "line:", "eu") == []
    assert attempt.tell() is GONE


def test_a_chain_of_replays_shares_one_lineage(desk: Desk) -> None:
    """Root purged, its record replayed, the replay dead and replayed: one ledger all along."""
    root = buried(desk).job_id
    desk.now += LEASE_MS
    settle(desk, root, True)
    desk.run(calls.purge(0, [root]))
    assert replay(desk, root, root, "a") is OK
    second = Attempt(desk)
    assert second.reserve().status is DONE
    second.end("f", reason="fatal", fingerprint="f")
    assert replay(desk, second.job_id, root, "b") is OK
    third = Attempt(desk)
    assert third.reserve().status is DONE
    third.end("c")
    desk.run(calls.purge(0, [second.job_id, third.job_id]))
    assert set(desk.dump()[f"line:{root}"]) == {f"d/{root}", f"d/{second.job_id}"}


def test_jobs_without_effects_and_replays_pay_nothing(desk: Desk) -> None:
    attempt = first(desk)
    attempt.end("f", reason="fatal", fingerprint="f")
    assert desk.field(attempt.job_id, "gd") is None
    assert keys(desk, "e:", "line:", "eu") == []
