"""Operations over many jobs: opening, counting, listing and ending them, as talks with the store; what a step has done, pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, cast

import msgspec

from taskmaster.engine import dlq, listing, queries
from taskmaster.engine.listing import Place
from taskmaster.engine.orders import Plan, identify, record
from taskmaster.errors import Conflict, KeyReused, NotFound, StoreDefect
from taskmaster.model.states import CODE, PRIORITIES, State
from taskmaster.store import letters, operations, reads
from taskmaster.store.call import Talk
from taskmaster.store.calls import NewJob, Submitted
from taskmaster.store.operations import OperationRow, PageRow
from taskmaster.store.status import Status

__all__ = [
    "OperationView",
    "Total",
    "cancel",
    "check_key",
    "count",
    "merge",
    "newest",
    "of_id",
    "open_order",
    "replays_of",
    "reused",
    "tally",
]

#: Calls that a count takes at most in one partition; beyond, it says "at least".
_COUNTING = 20
#: Jobs of one operation that may be without an end; with so many it waits.
PENDING_MAX = 5_000


class Total(NamedTuple):
    """How many entries are meant, exactly or at least, and some of their ids."""

    matched: int
    is_exact: bool
    sample: tuple[str, ...]


def count(plan: Plan, partition: int, *, upto_ms: int) -> Talk[Total]:
    """How many entries of one partition an order means now, oldest first; ids count as they are given."""
    if plan.ids is not None:
        given = plan.ids.get(partition, [])
        return Total(len(given), True, tuple(given[:5]))
    matched = 0
    sample: tuple[str, ...] = ()
    place: Place | None = listing.BEGINNING
    for _ in range(_COUNTING):
        if plan.action == "cancel":
            n, ids, place = yield from _count_jobs(plan, partition, cast("Place", place))
        else:
            n, ids, place = yield letters.count(partition, plan.letters, upto_ms=upto_ms, after=cast("Place", place))
        matched, sample = matched + n, (sample + ids)[:5]
        if place is None:
            break
    return Total(matched, place is None, sample)


def _count_jobs(plan: Plan, partition: int, after: Place) -> Talk[tuple[int, tuple[str, ...], Place | None]]:
    wanted = plan.order.filter
    state = cast("State", wanted.state if wanted else "waiting")
    index = cast("reads.Index", state)
    call = reads.find(partition, index, state=CODE[state], job_type=plan.letters.type, queue=plan.letters.queue, after=after, limit=200)
    page = yield call
    return len(page.rows), tuple(row.id for row in page.rows), page.last if page.has_more else None


def open_order(plan: Plan, key: str, partitions: int, *, now_ms: int) -> Talk[tuple[str, bool]]:
    """Record an operation in every partition that it concerns; its id, and whether it was there before.

    Not atomic over partitions: should this process die in the middle, the same request with the same key completes it.

    Raises:
        KeyReused: the key was used for another order.
        Conflict: too many operations are open.
    """
    operation_id, request = identify(plan.order, key)
    yield from check_key(operation_id, request, partitions)
    places = sorted(plan.ids) if plan.ids is not None else list(range(partitions))
    is_known = True
    for partition in places:
        known = yield operations.find(partition, operation_id)
        total = Total(0, True, ())
        if not known.rows:
            total = yield from count(plan, partition, upto_ms=now_ms)
        fields = record(plan, partition, len(places), total=total.matched, is_exact=total.is_exact)
        order = plan.order
        call = operations.open_(
            partition, operation_id, request, fields, who=order.by, reason=order.reason, detail=_detail(plan, partition, total)
        )
        status = yield call
        if status is Status.REUSED:
            raise reused(operation_id)
        if status is Status.REJECTED:
            raise Conflict("50 operations are open; wait until some have ended, or cancel them", state="full")
        is_known = is_known and status is Status.ALREADY
    return operation_id, is_known


def check_key(operation_id: str, request: str, partitions: int) -> Talk[None]:
    """Pass, unless the id, which is that of the request's key, stands for another order, in whichever partition that has its part.

    Raises:
        KeyReused: it does.
    """
    for partition in range(partitions):
        known: operations.Rows = yield operations.find(partition, operation_id)
        if any(row.fields.get("rq") != request for row in known.rows):
            raise reused(operation_id)


def reused(operation_id: str) -> KeyReused:
    """The error for a key that stands for another order."""
    return KeyReused("this idempotency key was used before for another operation; take a new key for a new one", operationId=operation_id)


def _detail(plan: Plan, partition: int, total: Total) -> str:
    what: Any = plan.order.filter if plan.ids is None else {"ids": plan.ids[partition][:5]}
    return msgspec.json.encode({"action": plan.action, "what": what, "matched": total.matched, "exact": total.is_exact}).decode()


class OperationView(NamedTuple):
    """One operation over all partitions. Times in Unix ms, 0 when unset.

    Attributes:
        filter: as it was given, JSON; empty when ids were.
        total: entries that were meant when it was opened; `is_exact`: else at least so many.
        counts: what was done: see `store.operations.OperationRow.counts`.
        pending: jobs that it made and that are not known to have ended.
    """

    id: str
    action: str
    state: str
    why: str
    filter: bytes
    ids: int
    rate_per_s: float
    stop_on_failures: int | None
    accept_unknown: bool
    reason: str
    by: str
    total: int
    is_exact: bool
    counts: dict[str, int]
    pending: int
    last_failed: str
    made_ms: int
    started_ms: int
    last_step_ms: int
    ended_ms: int

    @property
    def is_waiting(self) -> bool:
        """Whether it waits for its own jobs to end."""
        return self.state == "running" and self.pending >= PENDING_MAX


def merge(rows: Sequence[OperationRow]) -> OperationView:
    """One operation out of what each partition has of it; at least one."""
    fields = [row.fields for row in rows]
    states = [f.get("st", "") for f in fields]
    state = next(one for one in ("running", "stopped", "cancelled", "completed", "") if one in states)
    first = fields[0]
    counts: Counter[str] = Counter()
    for row in rows:
        counts.update(row.counts)
    started = [_ms(f.get("sa")) for f in fields if f.get("sa")]
    return OperationView(
        id=rows[0].id,
        action=first.get("ac", ""),
        state=state,
        why=next((f["wy"] for f in fields if f.get("wy")), ""),
        filter=first.get("fo", "").encode(),
        ids=sum(len(msgspec.json.decode(f["ids"])) for f in fields if "ids" in f),
        rate_per_s=float(first.get("rt", 0)),
        stop_on_failures=int(first["so"]) if first.get("so") else None,
        accept_unknown=first.get("au") == "1",
        reason=first.get("rs", ""),
        by=first.get("by", ""),
        total=sum(_ms(f.get("tot")) for f in fields),
        is_exact=all(f.get("tx") == "1" for f in fields),
        counts=dict(counts),
        pending=sum(row.pending for row in rows),
        last_failed=next((f["lf"] for f in fields if f.get("lf")), ""),
        made_ms=max(row.made_ms for row in rows),
        started_ms=min(started, default=0),
        last_step_ms=max(_ms(f.get("la")) for f in fields),
        ended_ms=max(_ms(f.get("en")) for f in fields) if state != "running" else 0,
    )


def _ms(text: str | None) -> int:
    return int(float(text)) if text else 0


def of_id(operation_id: str, partitions: int) -> Talk[OperationView]:
    """One operation.

    Raises:
        NotFound: there is none, or no longer.
    """
    rows: list[OperationRow] = []
    for partition in range(partitions):
        found = yield operations.find(partition, operation_id)
        rows += found.rows
    if not rows:
        raise NotFound(f"there is no operation {operation_id!r}, or no longer", operationId=operation_id)
    return merge(rows)


def newest(partitions: int, *, after: Place, limit: int) -> Talk[tuple[list[OperationView], Place | None]]:
    """One page of operations, newest first, and where the next one begins."""
    pages, found = [], {}
    for partition in range(partitions):
        page = yield operations.find(partition, "oplog", after=after, limit=limit)
        pages.append((page.has_more, [(str(row.made_ms), row.id) for row in page.rows]))
        found.update({(partition, row.id): row for row in page.rows})
    names, frontier = listing.candidates(pages)
    views = []
    for name in names:
        rows = [found[partition, name] for partition in range(partitions) if (partition, name) in found]
        if len(rows) < partitions and partitions > 1:
            views.append((yield from of_id(name, partitions)))
        else:
            views.append(merge(rows))
    return listing.page(views, lambda view: (str(view.made_ms), view.id), frontier, after=after, limit=limit)


def cancel(operation_id: str, partitions: int, *, by: str, reason: str) -> Talk[OperationView]:
    """End an operation that runs; how it stands then.

    Raises:
        NotFound: there is none.
        Conflict: it has ended otherwise; fact `state` says how.
    """
    statuses = set()
    for partition in range(partitions):
        ended = yield operations.end(partition, operation_id, "cancelled", who=by, reason=reason)
        statuses.add(ended.status)
    view = yield from of_id(operation_id, partitions)
    if not statuses & {Status.OK, Status.ALREADY}:
        raise Conflict(f"operation {operation_id} is {view.state} and cannot be cancelled", operationId=operation_id, state=view.state)
    return view


# ---------------------------------------------------------------- a step of a replay
def replays_of(rows: Iterable[PageRow], row: OperationRow, *, partitions: int, now_ms: int) -> tuple[list[NewJob], Counter[str]]:
    """New jobs for the dead letters of a page; and what cannot be replayed: gone, or skipped/unreadable."""
    fields = row.fields
    by = f"operation {row.id}: {fields.get('by', '')}: {fields.get('rs', '')}"
    request = dlq.Request(row.id, by, "", fields.get("au") == "1")
    jobs: list[NewJob] = []
    counts: Counter[str] = Counter()
    for entry in rows:
        if not entry.letter:
            counts["gone"] += 1
            continue
        try:
            letter, _ = queries.dead_letter(entry.letter)
        except StoreDefect:
            counts["skipped/unreadable"] += 1
            continue
        _, job = dlq.replay(
            letter.job_id,
            request,
            envelope=letter.envelope,
            queue=letter.queue,
            priority=PRIORITIES[int(entry.level)] if entry.level else "normal",
            root_id=letter.root_id,
            partitions=partitions,
            now_ms=now_ms,
        )
        jobs.append(job)
    return jobs, counts


def tally(answers: Iterable[Submitted]) -> tuple[list[str], Counter[str]]:
    """What became of the jobs of a page: ids of the operation's jobs, and counts.

    A duplicate is a job that this very operation made, in a step that was not noted: it counts as replayed.
    """
    made: list[str] = []
    counts: Counter[str] = Counter()
    for answer in answers:
        if answer.status in (Status.OK, Status.DUPLICATE):
            made.append(answer.id)
            counts["replayed"] += 1
            counts["duplicates"] += answer.status is Status.DUPLICATE
        elif answer.status is Status.GONE:
            counts["gone"] += 1
        elif answer.status is Status.UNKNOWN:
            counts["skipped/effect_unknown"] += 1
        else:
            counts[f"skipped/{answer.status.name.lower()}"] += 1
    return made, counts
