"""Every way in which a job ends puts one row into the outbox if somebody wants to hear of it, in the same step; and nothing else does."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from structlog.testing import capture_logs

from support.desk import BEGINNING_MS, GRACE_MS, LEASE_MS, WINDOW_MS, Desk
from taskmaster.maintenance.upkeep import Upkeep
from taskmaster.model.retention import Kept
from taskmaster.model.webhooks import DELIVERY
from taskmaster.store import calls, flow, upkeep, webhooks
from taskmaster.store.calls import Unique
from taskmaster.store.webhooks import End, OutboxState

URL = "https://example.com/hook?token=1"
#: What the outbox of a partition keeps, about: it is trimmed by whole nodes of at most a hundred rows.
KEPT, NODE = 100_000, 100
#: Rows as an end makes them; quicker than so many jobs.
FILL = """
for i = 1, tonumber(ARGV[1]) do
  redis.call('XADD', KEYS[1], '*', 'id', 'job' .. i, 'st', 'c', 'q', 'one', 'ty', 'alpha', 'at', 1, 'rs', '', 'fa', ARGV[2], 'url', 'u')
end"""


def heard(desk: Desk) -> list[End]:
    found: list[End] = desk.run(webhooks.outbox(0))
    return found


def _claimed(desk: Desk, **fields: object) -> tuple[str, str]:
    job_id, wid = desk.submit(callback=URL, **fields), desk.register("w1")
    assert desk.claim(wid) == [job_id]
    return job_id, wid


def _completed(desk: Desk) -> str:
    job_id, wid = _claimed(desk)
    desk.cycle(wid, finishes=[desk.end(wid, job_id, "c", body="1")])
    return job_id


def _completed_after_a_retry(desk: Desk) -> str:
    job_id, wid = _claimed(desk)
    desk.cycle(wid, finishes=[desk.end(wid, job_id, "r", row="[]", body="[]", delay_ms=1_000, fingerprint="f")])
    desk.now += 1_000
    assert desk.claim(wid) == [job_id]
    desk.cycle(wid, finishes=[desk.end(wid, job_id, "c", row="[]")])
    return job_id


def _exhausted(desk: Desk) -> str:
    job_id, wid = _claimed(desk, max_attempts=1)
    desk.cycle(wid, finishes=[desk.end(wid, job_id, "r", row="[]", body="[]", fingerprint="f")])
    return job_id


def _fatal(desk: Desk) -> str:
    job_id, wid = _claimed(desk)
    desk.cycle(wid, finishes=[desk.end(wid, job_id, "f", reason="fatal", fingerprint="f")])
    return job_id


def _discarded(desk: Desk) -> str:
    job_id, wid = _claimed(desk)
    desk.cycle(wid, finishes=[desk.end(wid, job_id, "x")])
    return job_id


def _cancelled_waiting(desk: Desk) -> str:
    job_id = desk.submit(callback=URL)
    desk.run(calls.cancel(0, job_id, who="me", key_window_ms=WINDOW_MS))
    return job_id


def _cancelled_running(desk: Desk) -> str:
    job_id, wid = _claimed(desk)
    desk.run(calls.cancel(0, job_id, who="me", key_window_ms=WINDOW_MS))
    assert heard(desk) == []
    desk.cycle(wid, finishes=[desk.end(wid, job_id, "h")])
    return job_id


def _cancelled_lost(desk: Desk) -> str:
    job_id, _ = _claimed(desk)
    desk.run(calls.cancel(0, job_id, who="me", key_window_ms=WINDOW_MS))
    desk.now += LEASE_MS + GRACE_MS
    desk.reap()
    return job_id


def _lost(desk: Desk) -> str:
    job_id, _ = _claimed(desk)
    desk.now += LEASE_MS + GRACE_MS
    desk.run(upkeep.reap(0, grace_ms=GRACE_MS, losses=1, key_window_ms=WINDOW_MS))
    return job_id


def _expired(desk: Desk) -> str:
    job_id = desk.submit(callback=URL, expires_ms=desk.now + 1_000)
    desk.now += 1_000
    desk.run(upkeep.promote(0))
    return job_id


def _replaced(desk: Desk) -> str:
    """In one call: the first takes the place of a job that nobody wants to hear of, the second that of the first, whose callback came with
    that very call.
    """
    work = Unique("w" * 22, "f", 0, "replace", WINDOW_MS)
    desk.submit(unique=work)
    first, second = (desk.item(callback=URL, unique=work) for _ in range(2))
    desk.run(calls.submit(0, [first, second]))
    return first.id


WAYS: dict[str, tuple[Callable[[Desk], str], str, int, str]] = {
    "completed": (_completed, "c", 1, ""),
    "completed after a retry": (_completed_after_a_retry, "c", 2, ""),
    "exhausted": (_exhausted, "f", 1, "attempts_exhausted"),
    "fatal": (_fatal, "f", 1, "fatal"),
    "discarded": (_discarded, "x", 1, "discarded"),
    "cancelled waiting": (_cancelled_waiting, "x", 0, "cancelled"),
    "cancelled running": (_cancelled_running, "x", 1, "cancelled"),
    "cancelled lost": (_cancelled_lost, "x", 1, "cancelled"),
    "lost": (_lost, "f", 1, "worker_lost"),
    "expired": (_expired, "x", 0, "expired"),
    "replaced": (_replaced, "x", 0, "replaced"),
}


@pytest.mark.parametrize("way", WAYS)
def test_each_end_is_in_the_outbox_once_with_its_facts(desk: Desk, way: str) -> None:
    arrange, state, attempts, reason = WAYS[way]

    job_id = arrange(desk)

    (end,) = heard(desk)
    assert end._replace(entry="") == End("", job_id, state, "one", "alpha", attempts, reason, desk.now, URL, "")
    assert not desk.raw.hexists("tm:{0}:cb", job_id)
    desk.dump()


@pytest.mark.parametrize("way", ["completed", "fatal", "cancelled waiting"])
def test_an_end_that_nobody_wants_to_hear_of_leaves_nothing(desk: Desk, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "URL", "")

    WAYS[way][0](desk)

    assert heard(desk) == []
    assert not desk.raw.exists("tm:{0}:ob", "tm:{0}:cb")


def test_a_job_that_retention_takes_at_once_is_told_of(desk: Desk) -> None:
    """The row says all that is to be told: the job itself may be gone by then."""
    job_id, wid = _claimed(desk)
    none = Kept(0)
    desk.cycle(wid, finishes=[desk.end(wid, job_id, "c")], limits=calls.Limits(WINDOW_MS, none, none, none))

    assert desk.field(job_id, "st") is None
    assert [end.job_id for end in heard(desk)] == [job_id]
    desk.dump()


def test_a_repeated_end_is_told_of_once(desk: Desk) -> None:
    """The answer was lost and the round is sent again; a late copy is judged again."""
    job_id, wid = _claimed(desk)
    call = desk.next_cycle(wid, finishes=[desk.end(wid, job_id, "c")])

    desk.run(call)
    desk.run(call)

    assert len(heard(desk)) == 1


def test_what_is_done_leaves_and_what_came_meanwhile_stays(desk: Desk) -> None:
    first = _cancelled_waiting(desk)
    (seen,) = heard(desk)
    second = _cancelled_waiting(desk)

    assert [desk.run(webhooks.outbox_done(0, [seen.entry])) for _ in range(2)] == [1, 0]
    assert [end.job_id for end in heard(desk)] == [second] != [first]


def test_the_tick_says_how_many_wait(desk: Desk) -> None:
    _cancelled_waiting(desk)

    assert desk.run(upkeep.tick(0, grace_ms=GRACE_MS)).outbox == 1


def test_with_an_endpoint_every_end_is_told_but_those_of_deliveries(desk: Desk) -> None:
    """Whoever listens hears of all jobs; a delivery that was told of would be told of for ever. A disabled endpoint hears nothing."""

    def put(**fields: str) -> None:
        order = flow.Order(repr(fields), None, "ann", "")
        desk.run(webhooks.put_webhook(0, "we_0123456789abcdef", fields, order, "{}"))

    def ended(kind: str = "alpha", **fields: str) -> str:
        job_id = desk.submit(kind, **fields)
        desk.run(calls.cancel(0, job_id, who="me", key_window_ms=WINDOW_MS))
        return job_id

    before = ended()
    put(url="https://example.com/", off="", sec="[]")
    first, _, both = ended(), ended(DELIVERY), ended(callback=URL)
    put(url="https://example.com/", off="by ann", sec="[]")
    ended()
    put()
    ended()

    assert before not in {end.job_id for end in heard(desk)}
    assert [(end.job_id, end.url) for end in heard(desk)] == [(first, ""), (both, URL)]
    desk.dump()


def test_an_endpoint_was_made_by_the_clock_that_ends_are_judged_by(desk: Desk) -> None:
    """Whoever made it may be ahead, and the ends of that time would be told to nobody. A change leaves it; one made anew begins anew."""
    endpoint = {"url": "https://example.com/", "off": "", "sec": "[]"}
    made = []
    for fields in (endpoint, endpoint | {"de": "mine"}, {}, endpoint):
        order = flow.Order(str(len(made)), None, "ann", "")
        desk.run(webhooks.put_webhook(0, "we_0123456789abcdef", fields, order, "{}"))
        made.append(desk.raw.hget("tm:{0}:wh:we_0123456789abcdef", "at"))
        desk.now += 1_000

    assert made == [str(BEGINNING_MS), str(BEGINNING_MS), None, str(BEGINNING_MS + 3_000)]


def test_an_endpoint_hears_of_ends_since_it_was_enabled_last(desk: Desk) -> None:
    """What ended while it was disabled, or wanted to hear of health alone, is not told to it, however long the row has lain there."""
    on = {"url": "https://example.com/", "off": "", "ev": "", "sec": "[]"}
    since = []
    for change in ({}, {"de": "mine"}, {"off": "by ann"}, {}, {"ev": "health.degraded"}, {"ev": "job.failed,health.degraded"}):
        desk.run(webhooks.put_webhook(0, "we_0123456789abcdef", on | change, flow.Order(str(desk.now), None, "ann", ""), "{}"))
        since.append(desk.raw.hget("tm:{0}:wh:we_0123456789abcdef", "on"))
        desk.now += 1_000

    began, enabled, wanted = (str(BEGINNING_MS + n * 1_000) for n in (0, 3, 5))
    assert since == [began, began, None, enabled, None, wanted]


def test_a_job_whose_record_vanished_leaves_no_callback_behind(desk: Desk) -> None:
    """Foreign hands removed it: the sweep forgets who wanted to hear of it."""
    job_id = desk.submit(callback=URL)
    desk.raw.delete(f"tm:{{0}}:j:{job_id}")

    while not desk.run(upkeep.sweep(0, every_ms=1_000, key_window_ms=WINDOW_MS, now=True)).is_done:
        pass

    assert not desk.raw.exists("tm:{0}:cb")


# ---------------------------------------------------------------- its bound
def _lying(desk: Desk) -> int:
    found: int = desk.raw.xlen("tm:{0}:ob")
    return found


def _stand(desk: Desk, partition: int = 0) -> OutboxState:
    found: OutboxState = desk.run(webhooks.outbox_state(partition))
    return found


def test_what_nobody_takes_out_is_bounded_and_what_goes_is_counted(desk: Desk) -> None:
    """The oldest go; the end that came last is there, and every other one too or in the count."""
    desk.raw.eval(FILL, 1, "tm:{0}:ob", KEPT + 5_000, desk.now)

    job_id = _cancelled_waiting(desk)

    left = _lying(desk)
    newest: Any = desk.raw.xrevrange("tm:{0}:ob", count=1)
    assert KEPT < left <= KEPT + NODE + 1
    assert (newest[0][1]["id"], heard(desk)[0].job_id) == (job_id, f"job{KEPT + 5_000 - left + 2}")
    assert desk.raw.hgetall("tm:{0}:obd") == {"n": str(KEPT + 5_001 - left), "at": str(desk.now)}
    desk.dump()


def test_ends_that_there_is_room_for_are_all_kept(desk: Desk) -> None:
    desk.raw.eval(FILL, 1, "tm:{0}:ob", KEPT - 1, desk.now)

    for _ in range(2):
        _cancelled_waiting(desk)

    assert _lying(desk) == KEPT + 1
    assert not desk.raw.exists("tm:{0}:obd")


def test_whoever_listens_pays_for_the_bound_once_a_call_and_others_nothing(desk: Desk) -> None:
    """Three jobs end in one call: commands that the server ran."""
    spent = []
    for url in ("", URL):
        ids, wid = [desk.submit(callback=url) for _ in range(3)], desk.register(f"w{len(url)}")
        assert sorted(desk.claim(wid, 3)) == sorted(ids)
        desk.raw.config_resetstat()
        desk.cycle(wid, finishes=[desk.end(wid, job_id) for job_id in ids])
        ran: Any = desk.raw.info("commandstats")
        spent.append(Counter({name: ran.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in ("xtrim", "xadd", "hget", "exists")}))
    others, listeners = spent

    assert (others["xtrim"], listeners["xtrim"]) == (0, 1)
    assert others["xadd"] == 1, "the event"
    assert listeners - others == Counter(xtrim=1, xadd=3, hget=3, exists=1)


def test_what_was_dropped_is_said_once_and_goes_on_being_counted(desk: Desk) -> None:
    """By the tick, in the log of whichever process has that second; the count is for ever."""
    upkeep_of = Upkeep(
        desk.store, 0, calls.Limits(WINDOW_MS, Kept(1), Kept(1), Kept(1)), jobs_of=lambda _: pytest.fail("no operation is there")
    )
    desk.run(upkeep.sweep(0, every_ms=10**9, key_window_ms=WINDOW_MS, now=True))
    desk.raw.hset("tm:{0}:obd", mapping={"n": 7, "at": desk.now})

    with capture_logs() as first:
        upkeep_of.tick()
    desk.now += 1_000
    with capture_logs() as second:
        upkeep_of.tick()
    desk.raw.hincrby("tm:{0}:obd", "n", 5)
    desk.now += 1_000
    with capture_logs() as third:
        upkeep_of.tick()

    lines = [
        [(line["log_level"], line["partition"], line["ends"]) for line in told if line["event"] == "webhook.ends_dropped"]
        for told in (first, second, third)
    ]
    assert lines == [[("warning", 0, 7)], [], [("warning", 0, 5)]]
    assert _stand(desk).dropped == 12


def test_how_it_stands_with_the_outbox(desk: Desk) -> None:
    """Nothing; a callback whose job lives; its end, which ages; told of; and what was ever dropped."""
    stands = [_stand(desk)]
    job_id = desk.submit(callback=URL)
    stands.append(_stand(desk))
    desk.run(calls.cancel(0, job_id, who="me", key_window_ms=WINDOW_MS))
    desk.now += 90_000
    stands.append(_stand(desk))
    desk.run(webhooks.outbox_done(0, [end.entry for end in heard(desk)]))
    desk.raw.hset("tm:{0}:obd", mapping={"n": 3, "at": desk.now - 40})
    stands.append(_stand(desk))

    assert stands == [
        OutboxState(),
        OutboxState(is_heard=True),
        OutboxState(ends=1, oldest_ms=90_000),
        OutboxState(dropped=3, dropped_ago_ms=40),
    ]


@pytest.mark.parametrize("name", ["ob", "obd"])
def test_a_foreign_key_in_the_place_of_the_outbox_is_told(desk: Desk, name: str) -> None:
    """By the sweep; it stops no tick, and takes no metrics along."""
    desk.raw.set(f"tm:{{0}}:{name}", "foreign")

    said = desk.run(upkeep.tick(0, grace_ms=GRACE_MS))
    found = desk.run(upkeep.sweep(0, every_ms=1_000, key_window_ms=WINDOW_MS, now=True)).repairs

    assert (said.mine, said.outbox, said.dropped, _stand(desk)) == (True, 0, 0, OutboxState())
    assert [(repair.what, repair.id) for repair in found] == [("foreign_key", name)]
