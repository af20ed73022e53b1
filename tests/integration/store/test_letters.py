"""Dead letters on both servers: groups, search, and letters that go for good."""

from __future__ import annotations

import json
from typing import Any

import pytest

from integration.store.test_effects import Attempt, buried, keys, replay, settle
from support.desk import WINDOW_MS, Desk
from taskmaster.engine import groups
from taskmaster.maintenance.sweeper import Sweeper
from taskmaster.model.letters import LetterFilter
from taskmaster.store import calls, letters, reads
from taskmaster.store.status import Status

OK, GONE = Status.OK, Status.GONE


def listed(desk: Desk, **filters: Any) -> list[str]:
    """Ids of dead letters, newest first, page by page."""
    found, place, limit = [], ("", ""), filters.pop("limit", 2)
    while True:
        page = desk.run(reads.find(0, "dead", letters=LetterFilter(**filters), after=place, limit=limit))
        found += [row.id for row in page.rows]
        if not page.has_more:
            return found
        place = page.last


def discard(desk: Desk, *ids: str) -> list[Status]:
    return list(desk.run(letters.discard(0, ids, who="ann", reason="tidy")))


# ---------------------------------------------------------------- search
def test_search_goes_by_all_that_is_given(desk: Desk) -> None:
    """Type, queue, fingerprint, reason, time, text of class and message, version; newest first, in pages."""
    one = desk.bury(3, message="mailbox is FULL")
    desk.now += 1_000
    two = desk.bury(2, "beta", fingerprint="g", message='says \\"no\\" to f')
    desk.now += 1_000
    three = desk.bury(2, "alpha", "two")
    newest, between = [*reversed(three), *reversed(two), *reversed(one)], desk.now - 1_000

    assert listed(desk) == newest
    assert listed(desk, type="beta") == two[::-1]
    assert listed(desk, queue="two") == three[::-1]
    assert listed(desk, fingerprint="f") == [*three[::-1], *one[::-1]]
    assert listed(desk, fingerprint="f", queue="one") == one[::-1]
    assert listed(desk, reason="fatal") == newest
    assert listed(desk, reason="attempts_exhausted") == []
    assert listed(desk, failed_after_ms=between) == [*three[::-1], *two[::-1]]
    assert listed(desk, failed_before_ms=between) == one[::-1]
    assert listed(desk, failed_after_ms=between, failed_before_ms=between + 1) == two[::-1]
    assert listed(desk, text="Mailbox is full") == one[::-1]
    assert listed(desk, text='"no" to F') == two[::-1]
    assert listed(desk, text="valueerror", limit=3) == newest
    assert listed(desk, text="tests==1") == [], "what stands behind the message is not searched"
    assert listed(desk, version="1", limit=100) == newest
    assert listed(desk, version="2") == []


def test_search_looks_at_no_more_than_its_bound(desk: Desk) -> None:
    """A page that is cut off is short, and says that there is more."""
    for _ in range(5):
        desk.bury(200)
    desk.bury(1)

    page = desk.run(reads.find(0, "dead", letters=LetterFilter(text="nowhere"), limit=10))
    wide = desk.run(reads.find(0, "dead", letters=LetterFilter(reason="other"), limit=10))

    assert (page.has_more, page.rows) == (True, ())
    assert (wide.has_more, wide.rows) == (True, ())
    assert desk.run(reads.find(0, "dead", letters=LetterFilter(reason="other"), after=wide.last, limit=10)).has_more is False
    assert listed(desk, text="nowhere") == []


def test_a_count_says_where_it_stopped(desk: Desk) -> None:
    """What an index knows is exact at once; else 1,000 are looked at in a call."""
    for _ in range(6):
        desk.bury(200)
    simple = desk.run(letters.count(0, LetterFilter(queue="one"), upto_ms=desk.now))
    first = desk.run(letters.count(0, LetterFilter(type="alpha"), upto_ms=desk.now))
    rest = desk.run(letters.count(0, LetterFilter(type="alpha"), upto_ms=desk.now, after=first.after))

    assert (simple.matched, simple.after, len(simple.sample)) == (1_200, None, 5)
    assert (first.matched, rest.matched, rest.after) == (1_000, 200, None)


# ---------------------------------------------------------------- groups
def test_groups_tell_causes_apart(desk: Desk) -> None:
    """How many, since when, until when, what was said last, and by which versions; the latest first."""
    first = desk.bury(15)
    begun = desk.now
    desk.now += 5_000
    second = desk.bury(2, "beta", fingerprint="g", message="other")
    desk.now += 5_000
    (last,) = desk.bury(1, "alpha", "two", message="newest")

    views, more = desk.store.converse(groups.newest(1, after=("", ""), limit=10))

    assert more is None
    assert [(view.fingerprint, view.size, view.sample_id) for view in views] == [("f", 16, last), ("g", 2, second[-1])]
    view = views[0]
    assert (view.first_ms, view.last_ms, view.reason) == (begun, desk.now, "fatal")
    assert (view.types, view.queues, view.sampled) == (("alpha",), ("one", "two"), 12)
    assert view.failure is not None
    assert (view.failure.error, view.failure.message) == ("ValueError", "newest")
    assert view.plugins == {"tests==1": 12}
    assert first[0] in {one.id for row in desk.run(letters.group(0, ["f"])) for one in row.sample}


def test_groups_come_in_pages(desk: Desk) -> None:
    """Each once, whatever their times."""
    for n in range(5):
        desk.bury(1, fingerprint=f"p{n}")
        desk.now += n % 2
    seen, place = [], ("", "")
    while place is not None:
        views, place = desk.store.converse(groups.newest(1, after=place, limit=2))
        seen += [view.fingerprint for view in views]

    assert seen == ["p4", "p3", "p2", "p1", "p0"]


def test_a_record_whose_failure_is_not_ours_is_grouped_all_the_same(desk: Desk) -> None:
    """A lost worker leaves no error; a foreign hand may leave anything."""
    ids = desk.bury(2)
    desk.raw.hset(f"tm:{{0}}:d:{ids[1]}", "er", '{"x":')

    (view,) = desk.store.converse(groups.described(["f"], 1))

    assert (view.size, view.failure, view.plugins) == (2, None, {"tests==1": 1})


# ---------------------------------------------------------------- discard
def test_a_discarded_letter_is_gone_with_its_job(desk: Desk) -> None:
    """Record, places in the indexes, and what retention had left of the job; who did it and why is kept."""
    ids = desk.bury(3)
    key = f"tm:{{0}}:j:{ids[0]}"
    desk.run(calls.purge(0, [ids[2]]))

    assert discard(desk, ids[0], ids[2]) == [OK, OK]
    assert discard(desk, ids[0]) == [GONE]

    snap = desk.dump()
    assert not desk.raw.exists(key)
    assert [key for key in snap if key.startswith(("d:", "j:"))] == [f"d:{ids[1]}", f"j:{ids[1]}"]
    assert (snap["n"]["one/f"], snap["n"]["alpha/one/failed"], snap["n"]["alpha/one/purged"]) == ("1", "3", "2")
    rows: Any = desk.raw.xrange("tm:{0}:audit")
    assert [(row["who"], row["action"], row["target"], row["reason"]) for _, row in rows] == [
        ("ann", "dead_letter.discarded", job_id, "tidy") for job_id in (ids[0], ids[2])
    ]
    assert json.loads(rows[0][1]["detail"]) == {"type": "alpha", "queue": "one", "fingerprint": "f", "failedFor": "fatal"}


def test_a_discarded_letter_takes_its_jobs_tags_along(desk: Desk) -> None:
    """The job leaves the index of each tag, as by a purge."""
    wid = desk.register("w1")
    job_id = desk.submit(tags=("red", "green"))
    desk.claim(wid)
    desk.cycle(wid, finishes=[desk.end(wid, job_id, "f", reason="fatal", fingerprint="f")])

    assert discard(desk, job_id) == [OK]

    assert not desk.raw.exists("tm:{0}:ig:red", "tm:{0}:ig:green")
    desk.dump()


def test_the_last_letter_takes_its_group_along(desk: Desk) -> None:
    """A group is as old as the newest record that is left in it, and not there without any."""
    old = desk.bury(1)
    then = desk.now
    desk.now += 1_000
    new = desk.bury(1)

    discard(desk, *new)
    assert desk.dump()["fps"] == [("f", float(then))]
    discard(desk, *old)

    assert not desk.raw.exists("tm:{0}:fps", "tm:{0}:fp:f", "tm:{0}:dlq:one")


def test_what_was_discarded_is_not_made_anew(desk: Desk) -> None:
    """The sweeper finds nothing missing; a replay finds nothing to replay."""
    (job_id,) = desk.bury(1)
    discard(desk, job_id)

    assert Sweeper(desk.store, 0, 600_000, WINDOW_MS).whole() == []
    assert replay(desk, job_id, job_id) is GONE
    desk.dump()


@pytest.mark.parametrize("is_purged", [True, False])
def test_a_discarded_letter_lets_its_lineage_go(desk: Desk, is_purged: bool) -> None:
    """Effects that were done are forgotten with the last thing that could lead to a replay."""
    attempt = buried(desk)
    settle(desk, attempt.job_id, True)
    if is_purged:
        desk.run(calls.purge(0, [attempt.job_id]))
    assert keys(desk, "e:", "line:") == [f"e:{attempt.job_id}", f"line:{attempt.job_id}"]

    discard(desk, attempt.job_id)

    assert keys(desk, "e:", "line:") == []


def test_effects_outlive_a_discarded_letter_while_others_need_them(desk: Desk) -> None:
    """A replay of it still stands before the same guard; an effect that nobody settled is not forgotten either."""
    attempt = buried(desk)
    replay(desk, attempt.job_id, attempt.job_id, accept_unknown=True)
    discard(desk, attempt.job_id)
    second = Attempt(desk)

    assert second.reserve().status is Status.UNKNOWN
    second.end("c")
    desk.run(calls.purge(0, [second.job_id]))
    assert keys(desk, "e:", "line:") == [f"e:{attempt.job_id}", f"line:{attempt.job_id}"]
    settle(desk, attempt.job_id, True)
    assert keys(desk, "e:", "line:") == []


def test_a_job_that_came_back_is_not_discarded_with_its_old_letter(desk: Desk) -> None:
    """A store that went back in time has a letter and a living job: only the letter goes."""
    (job_id,) = desk.bury(1)
    fields: Any = desk.raw.hgetall(f"tm:{{0}}:d:{job_id}")
    desk.run(calls.purge(0, [job_id]))
    discard(desk, job_id)
    alive = desk.submit()
    desk.raw.hset(f"tm:{{0}}:d:{alive}", mapping=fields | {"id": alive})

    assert discard(desk, alive) == [OK]

    assert desk.field(alive, "st") == "w"
    desk.dump()
