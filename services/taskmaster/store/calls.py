"""The transitions as typed calls: one function a script, named as its file. Building a call does no I/O; a client runs it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
from msgspec.structs import astuple

from taskmaster.model.breaker import BreakerRule, as_fields
from taskmaster.model.retention import Kept
from taskmaster.model.states import State, state_of
from taskmaster.store.call import Call
from taskmaster.store.scripts import load
from taskmaster.store.status import Status

__all__ = [
    "Claim",
    "Cycle",
    "Finish",
    "Limits",
    "NewJob",
    "Published",
    "Registration",
    "Submitted",
    "Word",
    "audit_note",
    "by_kind",
    "cancel",
    "cycle",
    "extend",
    "progress",
    "purge",
    "register",
    "submit",
    "token_of",
    "unregister",
]

# Lua's MessagePack does not know the binary type: what goes through it is text.
_pack = msgspec.msgpack.Encoder().encode
#: At most this many jobs in one submission, finishes in one cycle.
SUBMIT_MAX, FINISH_MAX = 1_000, 256


class Unique(NamedTuple):
    """One job for one work, as submit.lua reads it.

    Attributes:
        digest: of the key that names the work.
        until: s the first attempt has started, f the job has ended, t for *ttl_ms*.
        otherwise: reject, existing (answer with the job that is there) or replace (one that has not started).
        window_ms: how long the idempotency key of a job that is replaced outlives it.
    """

    digest: str
    until: str
    ttl_ms: int
    otherwise: str
    window_ms: int


class NewJob(msgspec.Struct, frozen=True, gc=False):  # thousands live at once: the collector need not look at them
    """One item of a submission. Times in milliseconds.

    Attributes:
        priority: 0 critical .. 3 low.
        accept_unknown: 1: replay also while an effect of the lineage is not settled.
        lane: `model.lanes.lane_name` of its fairness key and limiters; empty for neither.
        lifo: 1: before what waits in its lane.
        expires_ms: not begun later than that; 0: whenever.
        tags: listed under each.
        unique: no other job for the same work, or nothing.
        callback: URL that is to be told of its end, and behind a blank the trace context of whoever asked for it; empty: none.
    """

    id: str
    queue: str
    type: str
    priority: int
    due_ms: int
    delay_ms: int
    max_attempts: int
    key: str
    request: str
    blob: str
    root_id: str = ""
    replayed_from: str = ""
    accept_unknown: int = 0
    lane: str = ""
    lifo: int = 0
    expires_ms: int = 0
    tags: tuple[str, ...] = ()
    unique: Unique | None = None
    callback: str = ""


class Submitted(msgspec.Struct, frozen=True, gc=False):
    """What became of one item.

    Attributes:
        state: of the job with that id; None when it is gone, or nothing was stored.
        id: of the first job when the key was known, of the job that is there when the work is unique.
        why: of REJECTED: full, draining, or late: it expires before it could begin.
        most: of REJECTED full: jobs that may wait in the queue.
    """

    status: Status
    state: State | None
    id: str
    now_ms: int
    why: str = ""
    most: int = 0


class _Kind(msgspec.Struct, frozen=True, omit_defaults=True):
    """What items of a submission have in common, by the names that submit.lua reads: those of the job's hash where there is one."""

    q: str
    ty: str
    pr: int = 2
    due: int = 0
    delay: int = 0
    ma: int = 5
    rt: str = ""
    rp: str = ""
    open: int = 0
    ln: str = ""
    lf: int = 0
    ex: int = 0
    tg: tuple[str, ...] = ()
    ux: Unique | None = None
    cb: str = ""


def by_kind(items: Sequence[NewJob]) -> tuple[list[_Kind], list[int | str]]:
    """Kinds and items as submit.lua takes them: most items of one call are alike but for these four: id, key, request, blob."""
    kinds: dict[tuple[object, ...], int] = {}
    flat: list[int | str] = []
    for job in items:
        shared = (
            job.queue,
            job.type,
            job.priority,
            job.due_ms,
            job.delay_ms,
            job.max_attempts,
            job.root_id,
            job.replayed_from,
            job.accept_unknown,
            job.lane,
            job.lifo,
            job.expires_ms,
            job.tags,
            job.unique,
            job.callback,
        )
        kind = kinds.get(shared) or kinds.setdefault(shared, len(kinds) + 1)
        flat += (kind, job.id, job.key, job.request, job.blob)
    return [_Kind(*shared) for shared in kinds], flat  # type: ignore[arg-type]


_NEW: dict[bytes, State] = {b"w": "waiting", b"d": "delayed"}


def _submitted(items: Sequence[NewJob], raw: list[Any]) -> list[Submitted]:
    now = raw[0]
    out = []
    for item, row in zip(items, raw[1:], strict=True):
        if isinstance(row, bytes):  # nearly always: made now, under its own id
            out.append(Submitted(Status.OK, _NEW[row], item.id, now))
            continue
        status = Status(row[0])
        if status is Status.REJECTED:
            out.append(Submitted(status, None, item.id, now, row[1].decode(), row[2]))
            continue
        state = state_of(row[1].decode()) if len(row) > 1 and row[1] else None
        job_id = row[2].decode() if len(row) > 2 else item.id
        if status is Status.ALREADY or (status is Status.DUPLICATE and job_id == item.id):
            status = Status.OK  # our own request, sent again
        out.append(Submitted(status, state, job_id, now))
    return out


def submit(partition: int, items: Sequence[NewJob], *, atomic: bool = False) -> Call[list[Submitted]]:
    """Record new jobs. Independent: each item has its own answer; atomic: all or, on any refusal, none.

    Statuses: OK, DUPLICATE, REUSED, TOO_OLD (the id's time is older than the resend window), GONE (source of a replay),
    UNKNOWN (an effect of a replay's lineage is not settled), CONFLICT (another job has the unique work), REJECTED (`why`), ABORTED.
    """
    kinds, flat = by_kind(items)
    args = ("atomic" if atomic else "independent", _pack(kinds), _pack(flat))
    return Call(load("submit"), partition, args, lambda raw: _submitted(items, raw))


class Finish(msgspec.Struct, frozen=True, gc=False):
    """The end of one attempt, in the order that cycle.lua reads.

    Attributes:
        token: of the claim.
        outcome: c completed, r retry, f dead letter, x discard, h hand back, s snooze, d its dependency is down, l is rate limited by it.
        body: result or failure, JSON, opaque to the store.
        row: history row, JSON; empty for a first attempt that completed.
        delay_ms: r, s, d, l: how long to wait.
        reason: f, s, d, l: one word for people. `dependency_down` of an r: the dependency's breaker counts it too.
        fingerprint: r, f: of the failure.
    """

    id: str
    token: str
    outcome: str
    body: str = ""
    row: str = ""
    delay_ms: int = 0
    reason: str = ""
    fingerprint: str = ""


class Claim(msgspec.Struct, frozen=True, gc=False):
    """One job handed to this consumer; its token is `token_of` the call. `due_ms`: when it could begin, 0: as soon as it was made."""

    id: str
    queue: str
    epoch: int
    attempt: int
    failures: int
    due_ms: int
    blob: bytes

    @property
    def spared(self) -> int:
        """Deliveries before this one that burned no attempt."""
        return self.epoch - self.attempt


def token_of(wid: str, seq: int) -> str:
    """What fences every write of the attempts that one call claimed. Unique: ids of consumers are random and their calls are numbered."""
    return f"{wid}.{seq}"


class Limits(NamedTuple):
    """Windows and retention that finishing scripts apply: the key's, and what is kept of each queue's ended jobs.

    Attributes:
        queues: completed, failed, cancelled of single queues, instead of the three.
    """

    key_window_ms: int = 86_400_000
    completed: Kept = Kept(10_000)
    failed: Kept = Kept(50_000)
    cancelled: Kept = Kept(10_000)
    queues: Mapping[str, tuple[Kept, Kept, Kept]] = {}


class Cycle(NamedTuple):
    """Answer of a round; `fallbacks`: ids of the claims that run the fallback of their type.

    `status` OK, STALE_OP, UNREGISTERED, GENERATION or REWOUND; all else is empty unless OK.
    """

    status: Status
    now_ms: int = 0
    codes: Sequence[int] = ()
    claims: Sequence[Claim] = ()
    next_ms: int = -1
    more: bool = False
    fallbacks: frozenset[str] = frozenset()


_claim_rows = msgspec.msgpack.Decoder(list[tuple[str, str, int, int, int, int]]).decode


def _cycle(raw: list[Any]) -> Cycle:
    if raw[0] != 0:
        return Cycle(Status(raw[0]))
    claims = [Claim(*row, blob or b"") for row, blob in zip(_claim_rows(raw[3]), raw[4], strict=True)]
    fallbacks = frozenset(str(job_id, "ascii") for job_id in raw[7]) if len(raw) > 7 else frozenset()
    return Cycle(Status.OK, raw[1], raw[2], claims, raw[5], raw[6] == 1, fallbacks)


def cycle(
    partition: int,
    *,
    gen: str,
    wid: str,
    seq: int,
    lease_ms: int,
    finishes: Sequence[Finish] = (),
    wants: Sequence[tuple[int | str, ...]] = (),
    limits: Limits | None = None,
) -> Call[Cycle]:
    """One round of a consumer: end *finishes*, promote what is due, claim up to the wanted slots per group of queues.

    Args:
        seq: numbers this consumer's calls 1, 2, 3 …; an unanswered call is sent again unchanged, with the same number.
        wants: groups (free slots, queue, queue …): the queues of a group share its slots. 0 slots: nothing is wanted
            there, and nobody is to pick this consumer for it.
    """
    ended = [value for finish in finishes for value in astuple(finish)]
    args = (gen, wid, seq, lease_ms, _pack(ended), _pack(wants), _pack(limits or Limits()))
    return Call(load("cycle"), partition, args, _cycle)


def extend(
    partition: int, wid: str, attempts: Sequence[tuple[str, str]], *, lease_ms: int, alive_ms: int
) -> Call[tuple[Status, ...] | None]:
    """Keep leases for another *lease_ms*. Answers OK, STALE or CANCEL an attempt (id, token); None when the wid is not known."""

    def decode(raw: list[Any]) -> tuple[Status, ...] | None:
        return None if raw == [Status.UNREGISTERED] else tuple(Status(code) for code in raw[1:])

    return Call(load("extend"), partition, (wid, lease_ms, alive_ms, _pack(attempts)), decode)


class Word(NamedTuple):
    """What an attempt has to tell.

    Attributes:
        progress: at most 60 bytes; empty: nothing new.
        first: number of the first of *lines* among all of its attempt, from 1 on.
        lines: JSON rows, see `model.job.Line`.
    """

    id: str
    token: str
    progress: str = ""
    first: int = 1
    lines: Sequence[str] = ()


def progress(partition: int, words: Sequence[Word]) -> Call[tuple[Status, ...]]:
    """Note progress of attempts, and what they log: at most 256."""
    rows = [(word.id, word.token, word.progress, word.first, *word.lines) for word in words]
    return Call(load("progress"), partition, (_pack(rows),), lambda raw: tuple(Status(code) for code in raw))


class Cancelled(NamedTuple):
    """OK: ended; CANCELLING: its worker was asked; ALREADY; CONFLICT: it ended otherwise, `state` says how; GONE."""

    status: Status
    state: State | None = None


def cancel(partition: int, job_id: str, *, who: str, key_window_ms: int) -> Call[Cancelled]:
    """End a job that is not running, or ask the one who runs it to stop. *who*: at most 40 characters."""

    def decode(raw: list[Any]) -> Cancelled:
        return Cancelled(Status(raw[0]), state_of(raw[1].decode()) if len(raw) > 1 else None)

    return Call(load("cancel"), partition, (job_id, who[:40], key_window_ms), decode)


def purge(partition: int, ids: Sequence[str], *, who: str = "", reason: str = "") -> Call[tuple[Status, ...]]:
    """Forget terminal jobs; OK, GONE or CONFLICT an id. *who* wanted it and why goes into the audit; nobody: it does not."""
    return Call(load("purge"), partition, (_pack(ids), who[:200], reason[:200]), lambda raw: tuple(Status(row[0]) for row in raw))


_NEW_BREAKER = [part for pair in as_fields(BreakerRule()).items() for part in pair]


class Published(NamedTuple):
    """A job type for the catalogue.

    Attributes:
        entry: JSON, as plugins.catalogue writes it.
        plugin: its plugin's name; a pause of that is one of the type.
        limits: names of limiters that its jobs need, with commas, unless an operator has said otherwise.
    """

    type: str
    entry: str
    plugin: str = ""
    limits: str = ""


class Registration(NamedTuple):
    """The store's generation and clock."""

    gen: str
    now_ms: int


def register(
    partition: int,
    *,
    wid: str,
    cap: str,
    info: str,
    plugin_set: str,
    types: Sequence[str],
    catalogue: Sequence[Published],
    alive_ms: int,
    gen: str,
    dependencies: Sequence[tuple[str, str, str]] = (),
) -> Call[Registration]:
    """Introduce a consumer.

    Args:
        cap: digest of the plugin set.
        info: JSON, who it is: host, pid, slot.
        plugin_set: JSON, type -> `plugin==version`.
        types: what it has loaded, as bands name them.
        catalogue: what to publish.
        gen: used when the store has no generation yet.
        dependencies: (type, dependency or empty, `?` or empty): a type's calls go through the breaker of its dependency, which is made if
            there is none; `?`: it has a fallback, and rather than wait it is claimed for that.
    """
    needs = [*dependencies, _NEW_BREAKER]
    args = (wid, cap, info, plugin_set, _pack(types), _pack(catalogue), alive_ms, gen, _pack(needs))
    return Call(load("register"), partition, args, lambda raw: Registration(raw[0].decode(), raw[1]))


def unregister(partition: int, wid: str) -> Call[Status]:
    """A consumer goes."""
    return Call(load("unregister"), partition, (wid,), Status)


def audit_note(partition: int, who: str, action: str, target: str, reason: str = "") -> Call[Status]:
    """Keep in the audit that somebody did what changes nothing: saw *target* unmasked, say."""
    return Call(load("audit_note"), partition, (who, action, target, reason), Status)
