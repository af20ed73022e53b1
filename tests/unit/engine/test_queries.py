"""Reading raw answers, and making one page of several."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskmaster.engine import queries
from taskmaster.errors import StoreDefect
from taskmaster.store.reads import Found, Page, QueueRow, Shown

ID = "01a20557-4f89-7362-bf7c-8356bbe4029a"


def shown(fields: dict[str, str], **more: Any) -> Shown:
    return Shown(
        **({"hold": "", "fields": {"st": "w", "q": "q", "ty": "t"} | fields, "blob": b"", "body": b"", "rows": (), "consumers": {}} | more)
    )


def test_what_the_hash_leaves_out_is_the_usual() -> None:
    record = queries.job_of(ID, shown({}))

    assert (record.state, record.priority, record.attempts, record.attempts_made, record.created_ms) == (
        "waiting",
        "normal",
        5,
        0,
        0x01A205574F89,
    )


@pytest.mark.parametrize(
    ("fields", "hold", "reason"),
    [
        ({"rs": "retrying"}, "", ""),
        ({}, "no_worker", "no_worker"),
        ({"rs": "retrying"}, "breaker_open", "breaker_open"),
        ({"st": "d", "rs": "retrying"}, "", "retrying"),
        ({"st": "a", "cr": "api 1", "rs": "retrying"}, "", "cancelling"),
        ({"st": "c", "rs": "retrying"}, "", ""),
        ({"st": "f", "rs": "fatal"}, "", "fatal"),
        ({"st": "x", "rs": "cancelled"}, "", "cancelled"),
    ],
)
def test_reason_is_of_the_present_state(fields: dict[str, str], hold: str, reason: str) -> None:
    """What an earlier state left behind is not told."""
    assert queries.job_of(ID, shown(fields, hold=hold)).reason == reason


@pytest.mark.parametrize(
    "broken",
    [
        shown({"st": "?"}),
        shown({"pr": "9"}),
        shown({"ep": "x"}),
        shown({}, blob=b"{"),
        shown({"st": "f"}, body=b"[]"),
        shown({}, rows=(b"1",)),
    ],
)
def test_foreign_record_is_a_defect(broken: Shown) -> None:
    with pytest.raises(StoreDefect):
        queries.job_of(ID, broken)


@pytest.mark.parametrize(("text", "share", "note"), [("0.5 half way", 0.5, "half way"), ("1", 1.0, ""), ("x y", None, "y"), ("", None, "")])
def test_progress_is_a_share_and_a_note(text: str, share: float | None, note: str) -> None:
    record = queries.job_of(ID, shown({"pg": text}))

    assert (record.progress, record.progress_note) == (share, note)


ROWS = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 40)), unique=True, max_size=30)


@given(st.lists(ROWS, min_size=1, max_size=3), st.integers(1, 7), st.integers(1, 9))
def test_pages_of_partitions_become_every_row_once_in_order(partitions: list[list[tuple[int, int]]], limit: int, bound: int) -> None:
    """Whatever each partition answers at a time, walking the cursor shows all rows, newest first, none twice."""
    everything = [sorted({(score, f"{p}-{member:02d}") for score, member in rows}, reverse=True) for p, rows in enumerate(partitions)]

    def ask(p: int, after: tuple[str, str]) -> Page:
        place = (float(after[0]), after[1]) if after[0] else (float("inf"), "")
        left = [row for row in everything[p] if row < place]
        looked = left[: min(limit, bound)]
        last = (str(looked[-1][0]), looked[-1][1]) if looked else ("", "")
        return Page(len(left) > len(looked), last, tuple(Found(member, str(score), {}) for score, member in looked if score != 3))

    seen: list[Found] = []
    after: tuple[str, str] | None = ("", "")
    for _ in range(1_000):
        rows, after = queries.merge_pages([ask(p, after or ("", "")) for p in range(len(partitions))], limit)
        assert len(rows) <= limit
        seen += rows
        if after is None:
            break

    assert after is None
    assert [row.place for row in seen] == sorted((row for rows in everything for row in rows if row[0] != 3), reverse=True)


def test_queues_of_partitions_add_up() -> None:
    row = QueueRow("q", (3, 0, 1, 10, 2, 0, 0), (0, 1, 2, 0), 500, 4, 8, 2, (1, 2, 3), (10,), ("t",))
    other = row._replace(oldest_ms=-1, waited_ms=(100,), orphan_types=())
    (view,) = queries.merge_queues([row, other])

    assert (view.counts.waiting, view.counts.completed, view.by_priority["high"], view.oldest_ms) == (6, 20, 2, 500)
    assert (view.rate_per_minute, view.failure_ratio, view.orphan_types) == (8, 0.2, ("t",))
    assert view.waited_ms == {"p50": 2, "p95": 100, "p99": 100}
    assert queries.merge_queues([row._replace(completed_last_hour=0, failed_last_hour=0, waited_ms=())])[0].failure_ratio is None
