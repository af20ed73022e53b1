"""The chain of the audit, written by the real scripts and then touched by a foreign hand; and the command that verifies it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from structlog.testing import capture_logs

from support.desk import Desk, desk_at
from support.servers import StoreServer
from taskmaster.cli import main
from taskmaster.engine.auditing import Head, Verdict, verify
from taskmaster.errors import StoreDefect
from taskmaster.maintenance.audit_heads import AuditHeads
from taskmaster.maintenance.sweeper import Sweeper
from taskmaster.model.chain import hash_of
from taskmaster.store import calls, letters
from taskmaster.store.audit import ANY, audit
from taskmaster.store.call import Call, Talk
from taskmaster.store.client import SyncStore
from taskmaster.store.scripts import Script

Row = tuple[str, dict[str, str]]
Run = Callable[..., Result]


@pytest.fixture
def desk(clean_server: StoreServer) -> Iterator[Desk]:
    with desk_at(clean_server) as made:
        yield made


def write(desk: Desk, *reasons: str, partition: int = 0) -> None:
    for reason in reasons:
        desk.now += 1_000
        desk.run(calls.audit_note(partition, "ann", "looked", "job-1", reason))


def rows(desk: Desk, partition: int = 0) -> list[Row]:
    found: Any = desk.raw.xrange(f"tm:{{{partition}}}:audit")
    return list(found)


def put(desk: Desk, wanted: list[Row], partition: int = 0) -> None:
    """What somebody makes of the stream who can write to the store."""
    key = f"tm:{{{partition}}}:audit"
    desk.raw.delete(key)
    for entry, fields in wanted:
        desk.raw.xadd(key, fields, id=entry)  # type: ignore[arg-type]


def verdict(desk: Desk, *noted: Head, partition: int = 0, since_ms: int = 0) -> Verdict:
    found: Verdict = desk.store.converse(verify(partition, noted, since_ms=since_ms))
    return found


def faults(found: Verdict) -> list[tuple[str, int]]:
    return [(fault.kind, fault.number) for fault in found.faults]


def test_what_was_written_is_whole(desk: Desk) -> None:
    """Also when one step writes many rows; nothing there is whole, too."""
    nothing = verdict(desk)
    write(desk, "one", "", "drei · \u2028")
    dead = desk.bury(30)
    desk.run(letters.discard(0, dead, who="bob", reason="old"))
    found = verdict(desk)

    assert (nothing.faults, nothing.rows, nothing.head) == ((), 0, Head(0, 0, ""))
    assert (found.faults, found.rows, found.unchained, found.trimmed) == ((), 33, 0, 0)
    assert found.head.number == 33
    desk.dump()  # the keys are those that the protocol lists


def test_a_hash_is_over_what_the_protocol_says(desk: Desk) -> None:
    """Reckoned here anew, from the page."""
    write(desk, "one", "zwei ß")
    first, second = rows(desk)

    def reckon(row: Row, before: str) -> str:
        entry, f = row
        texts = [entry, f["n"], f["at"], f["who"], f["action"], f["target"], f["reason"], f["detail"]]
        return hashlib.sha1((before + "".join(f"{len(text.encode())}:{text}" for text in texts)).encode()).hexdigest()

    assert (first[1]["p"], second[1]["p"]) == ("", reckon(first, ""))
    assert verdict(desk).head == Head(0, 2, reckon(second, second[1]["p"]))


@pytest.mark.parametrize("field", ["at", "who", "action", "target", "reason", "detail", "more"])
@pytest.mark.parametrize("place", [0, 2, 4])
def test_an_edited_field_is_found(desk: Desk, field: str, place: int) -> None:
    """In the oldest, a middle and the newest row, and no other row is blamed."""
    write(desk, *"abcde")
    found = rows(desk)
    found[place][1][field] = found[place][1].get(field, "") + "1"
    put(desk, found)

    (fault,) = verdict(desk).faults

    assert (fault.kind, fault.number, fault.entry) == ("changed", place + 1, found[place][0])


def test_an_edited_hash_or_number_is_found(desk: Desk) -> None:
    """At that row, or the one that it speaks of."""
    write(desk, *"abcde")
    whole = rows(desk)
    for field, value in (("p", "f" * 40), ("n", "7"), ("n", "0"), ("n", "x")):
        put(desk, [(entry, dict(fields) | ({field: value} if n == 2 else {})) for n, (entry, fields) in enumerate(whole)])

        assert verdict(desk).faults[0].number in (0, 2, 3, 7), (field, value)

    put(desk, [(entry, {k: v for k, v in fields.items() if n != 2 or k not in "np"}) for n, (entry, fields) in enumerate(whole)])
    assert ("unchained", 0) in faults(verdict(desk))


def test_a_row_that_was_made_later_or_earlier_is_found(desk: Desk) -> None:
    """The entry's id is its time in lists."""
    write(desk, "a", "b")
    (first, fields), second = rows(desk)
    put(desk, [(f"{int(first.partition('-')[0]) - 5_000}-0", fields), second])

    assert faults(verdict(desk)) == [("changed", 1)]


@pytest.mark.parametrize(
    ("gone", "expected"),
    [([2], [("missing", 3)]), ([1, 2], [("missing", 2)]), ([4], [("head", 5)]), ([0], [("removed", 1)]), ([0, 1, 2, 3, 4], [("head", 5)])],
)
def test_a_removed_row_is_found(desk: Desk, gone: list[int], expected: list[tuple[str, int]]) -> None:
    """In the middle, the newest, the oldest, all."""
    write(desk, *"abcde")
    desk.raw.xdel("tm:{0}:audit", *(rows(desk)[n][0] for n in gone))
    before = verdict(desk)
    write(desk, "later")  # the chain goes on, and does not heal

    assert faults(before) == expected
    assert verdict(desk).faults


def test_two_rows_that_changed_places_are_found(desk: Desk) -> None:
    """With the first of them."""
    write(desk, *"abcde")
    found = rows(desk)
    (one, first), (two, second) = found[1:3]
    put(desk, [found[0], (one, second), (two, first), *found[3:]])

    broken = verdict(desk)

    assert broken.faults
    assert broken.faults[0].number == 2


def test_a_head_that_was_changed_or_removed_is_found(desk: Desk) -> None:
    """And what is written later does not cover it."""
    write(desk, "a", "b")
    desk.raw.hset("tm:{0}:chain", "h", "f" * 40)
    changed = verdict(desk)
    desk.raw.delete("tm:{0}:chain")
    removed = verdict(desk)
    write(desk, "c")

    assert faults(changed) == [("changed", 2)]
    assert removed.faults
    assert faults(verdict(desk))[-1][0] == "moved"


def keeping(call: Call[Any], kept: int) -> Call[Any]:
    """The same script, which keeps so many rows."""
    text = call.script.text.replace(b"100000", str(kept).encode())
    assert text != call.script.text
    return replace(call, script=Script(call.script.name, text, hashlib.sha1(text).hexdigest()))


def converse(desk: Desk, talk: Talk[Any], kept: int) -> Any:
    try:
        call = next(talk)
        while True:
            call = talk.send(desk.run(keeping(call, kept)))
    except StopIteration as end:
        return end.value


def test_trimming_leaves_a_chain_that_fits(desk: Desk) -> None:
    """From the oldest row that is kept, which can be verified too; more must not go than is trimmed."""
    desk.raw.config_set("stream-node-max-entries", 10)
    try:
        for n in range(57):
            desk.run(keeping(calls.audit_note(0, "ann", "looked", "job", str(n)), 20))
    finally:
        desk.raw.config_set("stream-node-max-entries", 100)
    whole = converse(desk, verify(0), 20)
    kept = rows(desk)
    noted = converse(desk, verify(0, [Head(0, whole.trimmed, kept[0][1]["p"])]), 20)
    too_old = converse(desk, verify(0, [Head(0, 1, "a" * 40)]), 20)
    put(desk, [(entry, dict(fields) | ({"who": "eve"} if n == 0 else {})) for n, (entry, fields) in enumerate(kept)])
    edited = converse(desk, verify(0), 20)
    put(desk, kept[15:])
    cut = converse(desk, verify(0), 20)

    assert (whole.faults, whole.rows) == ((), len(kept))
    assert 20 <= len(kept) < 57
    assert whole.trimmed == 57 - len(kept)
    assert noted.faults == ()
    assert faults(too_old) == [("noted", 1)]
    assert faults(edited) == [("changed", whole.trimmed + 1)]
    assert faults(cut) == [("removed", whole.trimmed + 15)]


def test_rows_of_before_there_was_a_chain_are_counted(desk: Desk) -> None:
    """As long as they stand before it; one among the others is a foreign hand's."""
    old = {"at": "1", "who": "ann", "action": "paused", "target": "q/one", "reason": "", "detail": ""}
    for _ in range(3):
        desk.raw.xadd("tm:{0}:audit", old)  # type: ignore[arg-type]
    before = verdict(desk)
    write(desk, "a", "b")
    after = verdict(desk)
    desk.raw.xadd("tm:{0}:audit", old)  # type: ignore[arg-type]
    write(desk, "c")
    broken = verdict(desk)

    assert (before.faults, before.unchained, before.rows) == ((), 3, 0)
    assert (after.faults, after.unchained, after.rows, after.trimmed) == ((), 3, 2, 0)
    assert faults(broken) == [("unchained", 0)]
    assert broken.unchained == 3


def test_writers_at_once_make_one_chain(clean_server: StoreServer, desk: Desk) -> None:
    """Of four connections, while somebody verifies."""

    def fill(who: int) -> None:
        store = SyncStore(clean_server.url)
        for n in range(150):
            store.run(calls.audit_note(0, f"writer {who}", "looked", "job", str(n)))
        store.close()

    with ThreadPoolExecutor(4) as pool:
        writers = [pool.submit(fill, who) for who in range(4)]
        meanwhile = [verdict(desk)]
        while not all(one.done() for one in writers):
            meanwhile.append(verdict(desk))
        for one in writers:
            one.result()
    found = verdict(desk)

    assert all(not one.faults for one in meanwhile)
    assert (found.faults, found.rows, found.head.number) == ((), 600, 600)


def test_a_chain_of_many_pages_is_walked(desk: Desk) -> None:
    """A fault behind the first page is found, and the rows from a time on are whole."""
    write(desk, *(str(n) for n in range(2_200)))
    found = rows(desk)
    desk.raw.xdel("tm:{0}:audit", found[99][0])

    assert faults(verdict(desk)) == [("missing", 100)]
    assert verdict(desk).rows == 2_199
    later = verdict(desk, since_ms=int(found[150][1]["at"]))
    assert later.faults == ()


def test_large_rows_come_a_few_at_a_time(desk: Desk) -> None:
    """The definition of a schedule is in its row: a page of them would hold up the store for a second. None is passed over."""
    write(desk, *(f"{n} {'x' * 60_000}" for n in range(60)))
    pages, page = [], desk.run(audit(0, ANY, limit=1_000))
    while page.has_more:
        pages.append(page)
        page = desk.run(audit(0, ANY, begin=f"({page.last}", limit=1_000))
    pages.append(page)
    said = [row.text("reason").split()[0] for page in pages for row in page.rows]

    assert max(len(page.rows) for page in pages) < 20
    assert said == [str(n) for n in reversed(range(60))]
    assert (verdict(desk).rows, verdict(desk).faults) == (60, ())


def test_a_chain_that_was_made_anew_is_found_by_its_noted_head(desk: Desk) -> None:
    """Without one it looks whole: the hashes fit."""
    write(desk, *"abc")
    noted = verdict(desk).head
    write(desk, "d")
    grown = verdict(desk, noted)
    desk.raw.delete("tm:{0}:audit", "tm:{0}:chain")
    write(desk, "a", "b", "forged", "d")
    forged, compared = verdict(desk), verdict(desk, noted)
    desk.raw.delete("tm:{0}:audit", "tm:{0}:chain")
    write(desk, "a", "b")

    assert grown.faults == ()
    assert forged.faults == ()
    assert faults(compared) == [("noted", 3)]
    assert faults(verdict(desk, noted)) == [("noted", 3)]


def test_two_heads_of_one_number_cannot_both_fit(desk: Desk) -> None:
    """One was noted before the chain was made anew, one after: whichever is given first, the older one is not passed over."""
    write(desk, *"abc")
    before = verdict(desk).head
    desk.raw.delete("tm:{0}:audit", "tm:{0}:chain")
    write(desk, *"xyz")
    after = verdict(desk).head

    assert before.number == after.number == 3
    assert [faults(verdict(desk, *noted)) for noted in ((before, after), (after, before))] == [[("noted", 3)]] * 2
    assert faults(verdict(desk, after, after)) == []


def test_a_clock_that_was_set_back_breaks_no_chain(desk: Desk) -> None:
    """Rows of one time stand among those of another: the walk from an instant on passes over none of them."""
    write(desk, *"ab")
    since_ms = desk.now
    write(desk, *"cd")
    desk.now -= 60_000
    write(desk, *"ef")
    desk.now += 60_000
    write(desk, *"gh")
    stamped = [(f"{since_ms + n}-0", fields) for n, (_, fields) in enumerate(rows(desk), start=-1)]
    _rewrite(desk, stamped)
    found = verdict(desk, since_ms=since_ms)

    assert (found.faults, found.rows) == ((), 7)


def _rewrite(desk: Desk, wanted: list[Row]) -> None:
    """The same rows as a store writes them whose clock is the desk's: entries never go back in time."""
    desk.raw.delete("tm:{0}:audit")
    before = ""
    for entry, fields in wanted:
        fields["p"] = before
        desk.raw.xadd("tm:{0}:audit", fields, id=entry)  # type: ignore[arg-type]
        before = hash_of(entry, {name: text.encode() for name, text in fields.items()})
    desk.raw.hset("tm:{0}:chain", "h", before)


def test_a_foreign_key_in_place_of_the_head_is_told(desk: Desk) -> None:
    """What must be audited is refused; the sweep names the key, and a chain that begins anew does not pass as whole."""
    write(desk, "a", "b")
    desk.raw.set("tm:{0}:chain", "x")
    with pytest.raises(StoreDefect, match="WRONGTYPE"):
        write(desk, "c")
    told = Sweeper(desk.store, 0, 600_000, 60_000).whole()
    desk.raw.delete("tm:{0}:chain")
    write(desk, "d")

    assert ("foreign_key", "chain") in {(repair.what, repair.id) for repair in told}
    assert verdict(desk).faults


def test_heads_go_into_the_log_once(clean_server: StoreServer, desk: Desk) -> None:
    """As `--expect-head` takes them; of partitions that have rows."""
    duty = AuditHeads(desk.store, 2)
    with capture_logs() as told:
        duty.look()
        write(desk, "a", partition=1)
        duty.look()
        duty.look()

    head = verdict(desk, partition=1).head
    assert [(line["event"], line["head"]) for line in told] == [("audit.head", f"1:1:{head.hash}")]


# ---------------------------------------------------------------- the command
@pytest.fixture
def run(clean_server: StoreServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TASKMASTER_REDIS_URL", clean_server.url)
    monkeypatch.setenv("TASKMASTER_PARTITIONS", "2")
    return lambda *command: CliRunner().invoke(main, ["audit", *command])


def test_the_command_tells_the_first_bad_row_and_its_partition(desk: Desk, run: Run) -> None:
    """Exit code 0 as long as all partitions are whole, 1 with the fault."""
    write(desk, "a", "b")
    write(desk, "c", "d", "e", partition=1)
    whole, printed = run("verify"), run("verify", "--json")
    desk.raw.xdel("tm:{1}:audit", rows(desk, 1)[1][0])
    broken, text = run("verify", "--json"), run("verify")

    assert (whole.exit_code, printed.exit_code, broken.exit_code, text.exit_code) == (0, 0, 1, 1)
    assert [(one["partition"], one["number"]) for one in json.loads(printed.output)["heads"]] == [(0, 2), (1, 3)]
    told = json.loads(broken.output)
    assert (told["whole"], told["firstFault"]["partition"], told["firstFault"]["kind"], told["firstFault"]["number"]) == (
        False,
        1,
        "missing",
        2,
    )
    assert [one["whole"] for one in told["partitions"]] == [True, False]
    assert "partition 1: BROKEN" in text.output
    assert "row 2 is not there" in text.output


def test_the_command_compares_with_heads_that_were_noted(desk: Desk, run: Run, tmp_path: Path) -> None:
    """From a file, or one by one; what is no head is wrong usage."""
    write(desk, "a")
    noted = tmp_path / "heads.json"
    noted.write_text(run("verify", "--json").output)
    head = verdict(desk).head
    write(desk, "b")
    fits, one = run("verify", "--head", str(noted)), run("verify", "--expect-head", f"0:1:{head.hash}")
    desk.raw.delete("tm:{0}:audit", "tm:{0}:chain")
    write(desk, "forged", "b")
    results = [run("verify"), run("verify", "--head", str(noted)), run("verify", "--expect-head", f"0:1:{head.hash}")]
    noted.write_text("{}")
    wrong = [run("verify", "--head", str(noted)), run("verify", "--expect-head", "x"), run("verify", "--expect-head", f"2:1:{head.hash}")]

    assert [fits.exit_code, one.exit_code] == [0, 0], fits.output
    assert [result.exit_code for result in results] == [0, 1, 1]
    assert "another hash than was noted" in results[1].output
    assert [result.exit_code for result in wrong] == [2, 2, 2]


def test_the_command_lists_newest_first(desk: Desk, run: Run) -> None:
    """Of all partitions, by who, what and when."""
    write(desk, *(f"r{n}" for n in range(5)), partition=1)
    desk.now += 1_000
    desk.run(calls.audit_note(0, "bob", "paused", "q/one", "night"))
    listed = json.loads(run("list", "--json").output)
    mine = json.loads(run("list", "--who", "bob", "--action", "paused", "--target", "q", "--json").output)
    none = json.loads(run("list", "--target", "q/o", "--json").output)
    few = json.loads(run("list", "--limit", "2", "--json").output)
    text = run("list").output
    wrong = run("list", "--after", "yesterday")

    assert len(listed) == 6
    assert [one["reason"] for one in mine] == ["night"]
    assert none == []
    assert few == listed[:2]
    assert "bob  paused  q/one: night" in text
    assert wrong.exit_code == 2
