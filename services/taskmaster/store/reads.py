"""The scripts that only read, as typed calls. What they answer is as raw as the store keeps it: `engine.queries` says what it means."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import msgspec

from taskmaster.model.letters import LetterFilter
from taskmaster.store.call import Call
from taskmaster.store.scripts import load
from taskmaster.store.upkeep import Repair

__all__ = [
    "Counters",
    "Found",
    "Index",
    "Integrity",
    "LastSweep",
    "Lineage",
    "Page",
    "QueueRow",
    "Refusal",
    "Shown",
    "Why",
    "WorkerRow",
    "catalogue",
    "counters",
    "dead",
    "find",
    "integrity",
    "known",
    "lineage",
    "pressure",
    "queues",
    "show",
    "why",
    "workers",
]

Index = Literal["created", "tagged", "finished", "waiting", "delayed", "active", "dead"]
#: Consumers that `workers` answers at most.
WORKERS_MAX = 1_000
#: Jobs that `lineage` answers at most.
LINEAGE_MAX = 200
#: How far the time that a job's id says and that of its submission are apart at most: others are refused (PROTOCOL.md).
MADE_STORED_MS = 30_000


class Shown(NamedTuple):
    """One job. Fields as in its hash; consumers: id -> (who it is, its plugin set), JSON, empty when forgotten.

    *hold*: what keeps it from being claimed while it waits, a word; empty: nothing but its turn.
    """

    hold: str
    fields: dict[str, str]
    blob: bytes
    body: bytes
    rows: tuple[bytes, ...]
    consumers: dict[str, tuple[bytes, bytes]]
    lines: tuple[bytes, ...] = ()


def _fields(raw: Sequence[bytes]) -> dict[str, str]:
    return {raw[i].decode(): raw[i + 1].decode("utf-8", "replace") for i in range(0, len(raw), 2)}


def _shown(raw: list[Any]) -> Shown | None:
    if not raw:
        return None
    hold, fields, blob, body, rows, who, lines = raw
    consumers = {who[i].decode(): (who[i + 1], who[i + 2]) for i in range(0, len(who), 3)}
    return Shown(hold.decode(), _fields(fields), blob, body, tuple(rows), consumers, tuple(lines))


def show(partition: int, job_id: str, parts: str = "brh", after: int = 0) -> Call[Shown | None]:
    """One job; None when there is none.

    Args:
        parts: what to bring beside the hash: b the submission, r result or error, e the error only, h the history and who ran it, l lines.
        after: of the lines the first 200 behind this number.
    """
    return Call(load("show"), partition, (job_id, parts, after), _shown)


def known(partition: int, ids: Sequence[str]) -> Call[tuple[bool, ...]]:
    """Whether there is such a job still, itself or as a dead letter: one answer an id, at most 200."""
    return Call(load("known"), partition, (msgspec.msgpack.encode(ids),), lambda raw: tuple(one == 1 for one in raw))


def dead(partition: int, job_id: str) -> Call[dict[str, bytes] | None]:
    """The fields of one dead-letter record, and as `who` the consumer of its last attempt; None when there is none."""

    def decode(raw: list[Any]) -> dict[str, bytes] | None:
        return {raw[i].decode(): raw[i + 1] for i in range(0, len(raw), 2)} if raw else None

    return Call(load("dead"), partition, (job_id,), decode)


class Refusal(NamedTuple):
    """A limiter without room. `unit` waits for it; `room_ms`: until there is room by itself, -1 when somebody has to give back."""

    instance: str
    kind: str
    unit: str
    in_use: int
    room_ms: int
    fields: dict[str, str]


class Why(NamedTuple):
    """What keeps one job from running, by the very rules of the fetch. Times in ms, by the store's clock.

    Attributes:
        entry: of the catalogue, JSON; empty: nobody has published its type.
        queue_pause, type_pause: JSON {who, reason, since}, or empty.
        consumers: those with its type, of an active job its own: (id, who it is as JSON, it sleeps with room in this queue).
        active, ended: jobs of its queue that run, that ended in the last minute.
        lease_ms: when its lease runs out; 0: it has none.
        place: rank in its lane, jobs there, lanes that take turns, jobs of its level that came earlier, jobs of higher levels, 1: not all
            were counted; empty when it does not wait.
    """

    now_ms: int
    fields: dict[str, str]
    entry: bytes
    queue_pause: bytes
    type_pause: bytes
    refusals: tuple[Refusal, ...]
    consumers: tuple[tuple[str, bytes, bool], ...]
    active: int
    ended: int
    lease_ms: int
    place: tuple[int, ...]


def _why(raw: list[Any]) -> Why | None:
    if not raw:
        return None
    now_ms, fields, entry, queue_pause, type_pause, refusals, who, active, ended, lease_ms, place = raw
    return Why(
        now_ms,
        _fields(fields),
        entry,
        queue_pause,
        type_pause,
        tuple(Refusal(row[0].decode(), row[1].decode(), row[2].decode(), row[3], row[4], _fields(row[5])) for row in refusals),
        tuple((who[i].decode(), who[i + 1], who[i + 2] == 1) for i in range(0, len(who), 3)),
        active,
        ended,
        lease_ms,
        tuple(place),
    )


def why(partition: int, job_id: str) -> Call[Why | None]:
    """What keeps a job from running; None when there is no such job."""
    return Call(load("why"), partition, (job_id,), _why)


class Found(NamedTuple):
    """One row of a page; `score` orders, and with equal scores the id."""

    id: str
    score: str
    fields: dict[str, bytes]

    @property
    def place(self) -> tuple[float, str]:
        """Where it stands: greater is newer."""
        return float(self.score), self.id


class Page(NamedTuple):
    """Rows, newest first. `last`: (score, id) of the last one that was looked at, shown or not."""

    has_more: bool
    last: tuple[str, str]
    rows: tuple[Found, ...]


def _page(raw: list[Any]) -> Page:
    rows = tuple(Found(row[0].decode(), row[1].decode(), {row[i].decode(): row[i + 1] for i in range(2, len(row), 2)}) for row in raw[3:])
    return Page(raw[0] == 1, (raw[1].decode(), raw[2].decode()), rows)


def find(
    partition: int,
    index: Index,
    *,
    state: str = "",
    job_type: str = "",
    queue: str = "",
    letters: LetterFilter | None = None,
    after: tuple[str, str] = ("", ""),
    limit: int = 50,
    tag: str = "",
    priority: int | None = None,
    fairness_key: str = "",
    consumers: Sequence[str] | None = None,
    since_ms: int = 0,
    before_ms: int = 0,
) -> Call[Page]:
    """One page of an index, newest first, behind *after* (score, id).

    At most 1,000 members are looked at (250 if their errors are searched) and 1 MB of rows answered: a page may be short or empty and still
    have more.

    *index*: created: by creation; tagged: with *tag*, by when they got it; finished: by end, of one *state* (its letter); waiting: by
    arrival in the lanes, by creation where there are too many; delayed: by due time; active: by creation, the 5,000 whose leases end first;
    dead: dead-letter records by failure, those that *letters* means.

    *fairness_key*: as `model.lanes.key_name` spells it. *consumers*: of those that run. *since_ms*, *before_ms*: by the time that orders
    the index; created, tagged and finished only. Dead letters have these in *letters*.
    """
    if letters is not None:
        before_ms = letters.failed_before_ms
    wanted = {"tg": tag or None, "pr": priority, "key": fairness_key or None, "by": consumers}
    if index == "created":
        wanted |= {"from": since_ms or None, "to": before_ms or None}
        since_ms, before_ms = max(0, since_ms - MADE_STORED_MS), before_ms and before_ms + MADE_STORED_MS
    if before_ms and (not after[0] or float(after[0]) >= before_ms):
        after = (str(before_ms), "")  # behind all of that time
    wanted["since"] = since_ms or None
    jobs = _pack({name: value for name, value in wanted.items() if value is not None})
    return Call(load("find"), partition, (index, state, job_type, queue, letters.spelled() if letters else "", jobs, *after, limit), _page)


_pack = msgspec.msgpack.Encoder().encode


class Lineage(NamedTuple):
    """Jobs that came of one another. *rows*: id, whether it has a dead-letter record, fields as in its hash (none: the job is gone)."""

    root: str
    rows: tuple[tuple[str, bool, dict[str, bytes]], ...]
    is_more: bool


def lineage(partition: int, job_id: str) -> Call[Lineage | None]:
    """The jobs that a job has in its lineage, at most 200; None when nothing is known of it."""

    def decode(raw: list[Any]) -> Lineage | None:
        if not raw:
            return None
        rows = ((row[0].decode(), bool(row[1]), {row[i].decode(): row[i + 1] for i in range(2, len(row), 2)}) for row in raw[2:])
        return Lineage(raw[0].decode(), tuple(rows), bool(raw[1]))

    return Call(load("lineage"), partition, (job_id, LINEAGE_MAX), decode)


class QueueRow(NamedTuple):
    """One queue in one partition. Times in ms; `oldest_ms` -1 when nothing waits; bytes of completed, failed and cancelled jobs."""

    name: str
    counts: tuple[int, ...]
    by_priority: tuple[int, ...]
    oldest_ms: int
    ended_last_minute: int
    completed_last_hour: int
    failed_last_hour: int
    waited_ms: tuple[int, ...]
    ran_ms: tuple[int, ...]
    orphan_types: tuple[str, ...]
    bytes_kept: tuple[int, ...] = (0, 0, 0)


def queues(partition: int, *, queue: str = "", timed: int = 100) -> Call[tuple[QueueRow, ...]]:
    """Depths and recent figures of one queue or all that ever had a job; *timed*: how many of the last completed jobs to time."""

    def decode(raw: list[Any]) -> tuple[QueueRow, ...]:
        return tuple(
            QueueRow(
                row[0].decode(),
                tuple(row[1]),
                tuple(row[2]),
                int(row[3]),
                row[4],
                row[5],
                row[6],
                tuple(row[7]),
                tuple(row[8]),
                tuple(sorted({name.decode() for name in row[9]})),
                tuple(row[10]),
            )
            for row in raw
        )

    return Call(load("queues"), partition, (queue, timed), decode)


class Counters(NamedTuple):
    """Fields of `n` (store/PROTOCOL.md, "Keys"), and dead letters by queue."""

    fields: dict[str, int]
    dead_letters: dict[str, int]


def counters(partition: int) -> Call[Counters]:
    """Everything that is counted."""

    def decode(raw: list[Any]) -> Counters:
        return Counters(*({pairs[i].decode(): int(pairs[i + 1]) for i in range(0, len(pairs), 2)} for pairs in raw))

    return Call(load("counters"), partition, (), decode)


def pressure(partition: int, *, with_age: bool) -> Call[tuple[tuple[str, int, int], ...]]:
    """(queue, jobs that wait, ms that the oldest has been waiting or -1) of every queue that ever had a job."""

    def decode(raw: list[Any]) -> tuple[tuple[str, int, int], ...]:
        return tuple((raw[i].decode(), raw[i + 1], int(raw[i + 2])) for i in range(0, len(raw), 3))

    return Call(load("pressure"), partition, ("1" if with_age else "",), decode)


def catalogue(partition: int) -> Call[dict[str, bytes]]:
    """Every published job type, as JSON."""
    return Call(load("catalogue"), partition, (), lambda raw: {raw[i].decode(): raw[i + 1] for i in range(0, len(raw), 2)})


class WorkerRow(NamedTuple):
    """One live consumer. `info` and `plugin_set` are JSON; the latter is with the first of each `cap` only."""

    id: str
    cap: str
    info: bytes
    since_ms: int
    alive_until_ms: int
    plugin_set: bytes


def workers(partition: int) -> Call[tuple[WorkerRow, ...]]:
    """The consumers that are alive, at most 1,000."""

    def decode(raw: list[Any]) -> tuple[WorkerRow, ...]:
        return tuple(WorkerRow(row[0].decode(), row[1].decode(), row[2], int(row[3]), int(float(row[4])), row[5]) for row in raw)

    return Call(load("workers"), partition, (WORKERS_MAX,), decode)


class LastSweep(msgspec.Struct, frozen=True):
    """The last sweep that came to its end. Times in ms; `found` is what could not be mended."""

    since: int
    ended: int
    looked: int
    mended: int
    found: int


class Integrity(NamedTuple):
    """How far one partition's data can be trusted.

    Attributes:
        gen: its generation, '' when it has none; `lost` those before it, the last eight.
        seq: arrival counter; it never falls in a store that forgets nothing.
        last: None when no sweep has ended yet.
        is_sweeping: one is under way.
        lost_at: ms of the last loss, 0 when there was none; `how` and `sign` say what it was.
        is_checked: a sweep has ended since the last loss.
        repairs: newest first.
    """

    gen: str
    seq: int
    last: LastSweep | None
    is_sweeping: bool
    lost_at: int
    how: str
    sign: str
    is_checked: bool
    repairs: tuple[Repair, ...]
    lost: tuple[str, ...] = ()


def integrity(partition: int, *, repairs: int = 0) -> Call[Integrity]:
    """Generation, losses, and what the sweeper found; at most *repairs* rows of its report."""
    return Call(load("integrity"), partition, (repairs,), _integrity)


def _integrity(raw: list[Any]) -> Integrity:
    f = _fields(raw[2])
    last = msgspec.json.decode(f["last"], type=LastSweep) if f.get("last") else None
    lost_at, ended = int(f.get("lostAt") or 0), int(f.get("ended") or 0)
    rows = tuple(msgspec.json.decode(row, type=Repair) for row in raw[3])
    how, sign, is_checked, lost = f.get("how", ""), f.get("sign", ""), ended > lost_at or not lost_at, tuple(f.get("lost", "").split())
    return Integrity(raw[0].decode(), raw[1], last, bool(f.get("at")), lost_at, how, sign, is_checked, rows, lost)
