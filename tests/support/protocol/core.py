"""The states of a job as pure functions on an explicit store, and the world around it: workers, a hostile network, people.

The adversary is as strong as a network can be: a request once sent may run at any later moment, any number of times, in any order, or
never, and each of its replies may be lost. Time is abstract: a held lease may run out whenever it likes, so a worker that is merely slow
and a worker that is stopped are the same thing, a zombie. Clock values do not occur; rules about durations are tested elsewhere.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

Message = tuple[Any, ...]
TERMINAL = ("completed", "failed", "cancelled")
LIVE = ("waiting", "delayed", "active")
INDEX = {"waiting": "lane", "delayed": "delayed", "active": "leases", **dict.fromkeys(TERMINAL, "finished")}


class Config(NamedTuple):
    """One small world. Every field is a bound or a switch of the search."""

    name: str
    workers: int = 2
    jobs: int = 1
    submits: tuple[int, ...] = (0,)  # job numbers that a client submits
    same_key: bool = False  # those submissions carry one idempotency key
    max_attempts: int = 2
    max_losses: int = 2
    outcomes: tuple[str, ...] = ("ok", "retry")
    effect: bool = False
    again: bool = False  # an attempt that finds another's reservation takes it over: at least once
    person: bool = False  # somebody settles what is unknown, truthfully
    touch: bool = False  # heartbeat, progress, log: the small writes of an attempt
    limiter: int = 0  # slots of one concurrency limiter over all jobs; 0 = none
    crashes: int = 0
    operator: tuple[Message, ...] = ()  # requests that a person may send at any time
    purge: bool = False
    rewinds: int = 0
    notices: bool = True  # a call whose number leaves a gap tells that the store went back


# ---------------------------------------------------------------- the store: what the scripts read and write
class Job(NamedTuple):
    state: str = "none"
    indexes: frozenset[str] = frozenset()
    epoch: int = 0  # = deliveries, raised at every claim
    token: Any = None  # (claiming consumer, number of its call); a terminal job keeps that of the attempt that ended it
    failures: int = 0
    losses: int = 0
    handed_back: int = 0
    expired: bool = False  # the lease has run out and may be reaped
    cancel: bool = False  # a person asked; the attempt has not ended yet
    ended: Any = None  # token of the last attempt that ended by its own word while the job went on; with `token` the memory for repeats
    accepted: Any = None  # ghost: token of the last attempt whose end was accepted, kept by the checker
    root: int = 0
    source: tuple[int, str] | None = None  # the job that this one replays, and the request id
    keyed: bool = False  # a key record remembers its submission
    births: int = 0  # ghost: how often this id came to life


class Store(NamedTuple):
    jobs: tuple[Job, ...]
    guards: tuple[Any, ...]  # per lineage root: None, ("reserved" | "done" | "free", owner); owner = (token, call)
    slots: frozenset[int] = frozenset()
    dlq: tuple[tuple[int, str], ...] = ()
    keys: tuple[tuple[Any, int], ...] = ()  # idempotency records: the job that owns each key
    gone: frozenset[int] = frozenset()  # tombstones of purged ids that no key record remembers
    consumers: tuple[tuple[Any, int, Any], ...] = ()  # (worker id, last call number, what it claimed)
    left: frozenset[Any] = frozenset()  # consumers that signed off, or whose process is known to be dead
    paused: bool = False
    pause_rev: int = 0
    counts: tuple[tuple[str, int], ...] = ()


def counted(store: Store, before: str, after: str) -> Store:
    """Keep the counters in the same step as the state."""
    counts = Counter(dict(store.counts))
    counts[before] -= 1
    counts[after] += 1
    return store._replace(counts=tuple(sorted((k, v) for k, v in counts.items() if v and k not in ("none", "purged"))))


def move(store: Store, j: int, state: str, **changes: Any) -> Store:
    """The one door through which a job changes state: index, counters and limiter slot go with it."""
    old = store.jobs[j]
    if state != "active":
        changes.setdefault("token", None)
        changes.setdefault("expired", False)
    losses = changes.get("losses", old.losses)
    index = "lost lane" if state == "waiting" and losses else INDEX.get(state)  # jobs that lost a worker wait apart
    new = old._replace(state=state, indexes=frozenset({index} if index else ()), **changes)
    store = counted(store, old.state, state)
    slots = store.slots - {j} if state != "active" else store.slots
    return store._replace(jobs=(*store.jobs[:j], new, *store.jobs[j + 1 :]), slots=slots)


def set_job(store: Store, j: int, **changes: Any) -> Store:
    """Change fields that no index and no counter depends on."""
    return store._replace(jobs=(*store.jobs[:j], store.jobs[j]._replace(**changes), *store.jobs[j + 1 :]))


def is_current(job: Job, token: Any) -> bool:
    """Whether the attempt that shows this token still holds the job. The epoch orders attempts for people; the token decides."""
    return job.state == "active" and job.token == token


def key_of(store: Store, key: Any) -> int | None:
    """The job that a key names."""
    return next((j for k, j in store.keys if k == key), None)


def bury(store: Store, j: int, reason: str, **changes: Any) -> Store:
    """Failed for good: the state and the dead-letter record in one step."""
    return move(store, j, "failed", **changes)._replace(dlq=(*store.dlq, (j, reason)))


# ---------------------------------------------------------------- the scripts
def create(s: Store, j: int, key: Any, **facts: Any) -> Store:
    """A new job, and the key record that remembers its submission."""
    s = move(s, j, "waiting", births=s.jobs[j].births + 1, keyed=key is not None, failures=0, losses=0, **facts)
    return s if key is None else s._replace(keys=(*s.keys, (key, j)))


def submit(s: Store, j: int, key: Any, bad: set[str]) -> tuple[Store, str]:
    """A keyed submission is remembered by its key record alone, any other by its job and then by a tombstone."""
    if key is not None:
        if key_of(s, key) is not None:
            return s, "DUPLICATE"
    elif s.jobs[j].state != "none" and (s.jobs[j].state != "purged" or j in s.gone) and "submit_without_memory" not in bad:
        return s, "ALREADY"
    if s.jobs[j].state in LIVE:
        return s, "ALREADY"
    return create(s, j, key, root=j), "OK"


def end_attempt(cfg: Config, s: Store, j: int, epoch: int, token: Any, outcome: str, bad: set[str]) -> tuple[Store, str]:
    """One finish item. Outcomes: ok, retry, discard, release, snooze; any other word is a reason to fail for good."""
    job = s.jobs[j]
    current = is_current(job, token)
    if "finish_without_token" in bad:
        current = job.state == "active"
    if "fail_without_token" in bad and outcome != "ok":
        current = job.state == "active"
    if "epoch_without_token" in bad:
        current = job.state == "active" and job.epoch == epoch
    if "finish_without_state" in bad:
        current = job.epoch == epoch
    if not current:
        return s, "ALREADY" if job.ended == token or (job.state != "active" and job.token == token) else "STALE"
    forgets = "op_id_not_stored" in bad
    last: dict[str, Any] = {"token": None if forgets else token, "accepted": token}
    goes_on: dict[str, Any] = {"ended": None if forgets else token, "accepted": token}
    if outcome == "ok" and not (job.cancel and "cancel_beats_finish" in bad):
        return move(s, j, "completed", **last), "OK"
    if (job.cancel and "retry_forgets_cancel" not in bad) or outcome == "discard":
        return move(s, j, "cancelled", **last), "OK"
    if outcome in ("release", "snooze"):
        return move(s, j, "waiting" if outcome == "release" else "delayed", **goes_on, handed_back=job.handed_back + 1), "OK"
    failures = job.failures + 1
    if outcome == "retry" and (failures < cfg.max_attempts or "retries_unbounded" in bad):
        return move(s, j, "delayed", **goes_on, failures=failures), "OK"
    if "dlq_before_state" in bad:  # by a call of its own
        s = s._replace(dlq=(*s.dlq, (j, outcome)))
    return bury(s, j, outcome, **last, failures=failures), "OK"


def claimable(cfg: Config, s: Store, j: int) -> bool:
    """Whether the job may be claimed now. Which consumer asks is left open: more than reality allows."""
    return s.jobs[j].state == "waiting" and not s.paused and (not cfg.limiter or len(s.slots) < cfg.limiter)


def cycle(cfg: Config, s: Store, wid: Any, seq: int, finishes: tuple[Any, ...], picks: tuple[int, ...], bad: set[str]) -> tuple[Store, Any]:
    """Finish and fetch in one call. `seq` counts this consumer's calls; the store keeps the last one and what it claimed.

    Answers (code, a code per finish, claims as (job, epoch)).
    """
    last, claimed = next(((n, c) for w, n, c in s.consumers if w == wid), (0, ()))
    if wid in s.left and "gone_may_claim" not in bad:
        return s, ("UNREGISTERED", ("STALE",) * len(finishes), ())
    if seq < last and "late_call_runs" not in bad:
        return s, ("STALE_OP", ("STALE",) * len(finishes), ())
    if cfg.notices and seq > last + 1 and "rewind_unseen" not in bad:
        return s, ("REWOUND", ("STALE",) * len(finishes), ())
    said = []
    for j, epoch, its_token, outcome in finishes:
        s, code = end_attempt(cfg, s, j, epoch, its_token, outcome, bad)
        said.append(code)
    token = (wid, seq)
    if seq == last and "claims_not_remembered" not in bad:
        return s, ("OK", tuple(said), tuple(c for c in claimed if is_current(s.jobs[c[0]], token)))
    claims = []
    for pick in picks:
        blind = ("pause_ignored" in bad and s.paused) or ("limit_read_before" in bad and not s.paused)
        if not claimable(cfg, s, pick) and not (blind and s.jobs[pick].state == "waiting"):
            continue
        epoch = s.jobs[pick].epoch + 1
        s = move(s, pick, "active", epoch=epoch, token=token)
        if "claim_pops_before_lease" in bad:
            s = set_job(s, pick, indexes=frozenset())
        if cfg.limiter:
            s = s._replace(slots=s.slots | {pick})
        claims.append((pick, epoch))
    consumers = tuple(sorted([c for c in s.consumers if c[0] != wid] + [(wid, seq, tuple(claims))]))
    return s._replace(consumers=consumers), ("OK", tuple(said), tuple(claims))


def leave(s: Store, wid: Any, dead: bool, bad: set[str]) -> tuple[Store, str]:
    """A consumer signs off, or its process is known to be dead: none of its late calls may run, and what a dead one held expires now."""
    for j, job in enumerate(s.jobs):
        if dead and job.state == "active" and job.token[0] == wid:
            s = set_job(s, j, expired=True)
    return s._replace(left=s.left | {wid}), "OK"


def reap(cfg: Config, s: Store, j: int, bad: set[str]) -> tuple[Store, str]:
    """Sees only leases that have run out, inside the script: nothing is decided from an earlier read."""
    job = s.jobs[j]
    if not (job.state == "active" and job.expired) and not ("reap_without_cas" in bad and job.epoch):
        return s, "NOTHING"
    losses, slots = job.losses + 1, s.slots
    if job.cancel:
        s = move(s, j, "cancelled", losses=losses)
    elif losses >= cfg.max_losses and "losses_not_counted" not in bad:
        s = bury(s, j, "worker_lost", losses=losses)
    else:
        s = move(s, j, "waiting", losses=losses)
    return (s._replace(slots=slots) if "reap_keeps_slot" in bad else s), "OK"


def put_guard(s: Store, g: int, word: str, owner: Any) -> Store:
    return s._replace(guards=(*s.guards[:g], (word, owner), *s.guards[g + 1 :]))


def reserve(s: Store, j: int, epoch: int, token: Any, call: int, again: bool, bad: set[str]) -> tuple[Store, str]:
    """Licence for one effect of one lineage. A reservation belongs to one call of one attempt, so only its own repeat is told OK."""
    if not is_current(s.jobs[j], token) and "reserve_without_token" not in bad:
        return s, "STALE"
    g = j if "guard_per_job" in bad else s.jobs[j].root
    held = s.guards[g]
    if held is not None and held[0] == "done":
        return s, "DONE"
    if held is not None and held[0] == "reserved" and "reserved_is_free" not in bad:
        if "reserved_is_done" in bad:
            return s, "DONE"
        if held[1] == (token, call) or ("guard_owned_by_attempt" in bad and held[1][0] == token):
            return s, "OK"
        if not again:
            return s, "UNKNOWN"
    if held is not None and held[1][0] == token and held[1][1] >= call:
        return s, "STALE"  # a late copy of a call that is over
    return put_guard(s, g, "reserved", (token, call)), "OK"


def settle(s: Store, j: int, epoch: int, token: Any, call: int, bad: set[str], word: str = "done") -> tuple[Store, str]:
    """The holder says that the effect happened, or that it did not. Facts: taken from the holder also when its lease is lost."""
    g = j if "guard_per_job" in bad else s.jobs[j].root
    held = s.guards[g]
    if held is None:
        return s, "GONE"
    if held[1] != (token, call) and not ("giveback_by_anyone" in bad and word == "free"):
        return s, "STALE"
    if held[0] != "reserved":
        return s, "ALREADY" if held[0] == word else "STALE"
    return drop_guard(put_guard(s, g, word, held[1]), g, bad), "OK"


def give_back(s: Store, j: int, epoch: int, token: Any, call: int, bad: set[str]) -> tuple[Store, str]:
    """The effect surely did not happen: the next attempt may try."""
    return settle(s, j, epoch, token, call, bad, "free")


def judge(s: Store, root: int, happened: bool, bad: set[str]) -> tuple[Store, str]:
    """A person settles an effect whose attempt does not hold its job any more."""
    held = s.guards[root]
    if held is None or held[0] != "reserved" or any(is_current(job, held[1][0]) for job in s.jobs):
        return s, "CONFLICT"
    return drop_guard(put_guard(s, root, "done" if happened else "free", held[1]), root, bad), "OK"


def drop_guard(s: Store, root: int, bad: set[str]) -> Store:
    """A guard goes when neither a job nor a dead-letter record of the lineage could lead to a replay, and nothing about it is open."""
    held = s.guards[root]
    alive = any(job.root == root and job.births and job.state != "purged" for job in s.jobs)
    record = any(s.jobs[k].root == root for k, _ in s.dlq) and "guard_dies_with_job" not in bad
    is_open = held is not None and held[0] == "reserved" and "guard_dies_with_job" not in bad
    return s if alive or record or is_open else s._replace(guards=(*s.guards[:root], None, *s.guards[root + 1 :]))


def touch(s: Store, j: int, epoch: int, token: Any, bad: set[str]) -> tuple[Store, str]:
    """Extend, progress, log: small writes of an attempt. Refused like all others when the lease is not current."""
    if not is_current(s.jobs[j], token) and not ("extend_without_token" in bad and s.jobs[j].state == "active"):
        return s, "STALE"
    return set_job(s, j, expired=False), "OK"


def cancel(s: Store, j: int, bad: set[str]) -> tuple[Store, str]:
    job = s.jobs[j]
    if job.state in ("waiting", "delayed") or ("cancel_without_cas" in bad and job.epoch):
        kept = job.indexes
        s = move(s, j, "cancelled")
        if "cancel_keeps_index" in bad:
            s = set_job(s, j, indexes=s.jobs[j].indexes | kept)
        return s, "OK"
    if job.state == "active":
        return set_job(s, j, cancel=True), "CANCELLING"
    return s, "ALREADY" if job.state == "cancelled" else "CONFLICT"


def force(s: Store, j: int, bad: set[str]) -> tuple[Store, str]:
    """Ends an attempt that did not stop in its grace time; whatever it still says is refused."""
    return (move(s, j, "cancelled"), "OK") if s.jobs[j].state == "active" and s.jobs[j].cancel else (s, "CONFLICT")


def replay(s: Store, source: int, new: int, request: str, bad: set[str]) -> tuple[Store, str]:
    """A keyed submission of the source's payload: the id is drawn anew for each request, the key is of (source, request id)."""
    key = None if "replay_draws_id" in bad else ("replay", source, request)
    if key is not None and key_of(s, key) is not None:
        return s, "DUPLICATE"
    if all(j != source for j, _ in s.dlq):
        return s, "GONE"
    if key is None and s.jobs[new].births:
        return s, "ALREADY"
    return create(s, new, key, root=s.jobs[source].root, source=(source, request)), "OK"


def purge(s: Store, j: int, bad: set[str]) -> Store:
    """Forget a terminal job. The guard stays while any job or dead-letter record of the lineage could still lead to a replay."""
    root = s.jobs[j].root
    s = move(s, j, "purged", ended=None)
    if not s.jobs[j].keyed and "purge_without_tombstone" not in bad:
        s = s._replace(gone=s.gone | {j})
    if "purge_frees_key" in bad:
        s = s._replace(keys=tuple(k for k in s.keys if k[1] != j))
    return drop_guard(s, root, bad)


def discard(s: Store, j: int, bad: set[str]) -> Store:
    """A person removes a dead letter for good: the failed job, if it is still there, goes in the same step."""
    s = s._replace(dlq=tuple(row for row in s.dlq if row[0] != j))
    if s.jobs[j].state == "failed" and "discard_keeps_the_job" not in bad:
        return purge(s, j, bad)
    return drop_guard(s, s.jobs[j].root, bad)


def set_pause(s: Store, paused: bool, rev: int, bad: set[str]) -> tuple[Store, str]:
    """Compare-and-set on the revision: a late repeat of an older order must not undo a newer one."""
    if s.pause_rev != rev and not ("pause_without_rev" in bad and s.pause_rev > rev):
        return s, "CONFLICT"
    return s._replace(paused=paused, pause_rev=max(s.pause_rev, rev + 1)), "OK"


def run(cfg: Config, s: Store, m: Message, bad: set[str]) -> tuple[Store, Any]:
    """Execute one request on the store. `bad` names the rules that are broken on purpose."""
    verb, *args = m
    if verb in ("pause", "resume"):
        return set_pause(s, verb == "pause", args[0], bad)
    scripts: dict[str, Any] = {
        "cycle": partial(cycle, cfg),
        "reap": partial(reap, cfg),
        "submit": submit,
        "leave": leave,
        "reserve": reserve,
        "settle": settle,
        "give_back": give_back,
        "judge": judge,
        "touch": touch,
        "cancel": cancel,
        "force": force,
        "replay": replay,
    }
    return scripts[verb](s, *args, bad)  # type: ignore[no-any-return]


# ---------------------------------------------------------------- the world around the store
class Worker(NamedTuple):
    """What one worker process has in memory; a crash forgets all of it."""

    life: int = 0
    seq: int = 0
    phase: str = "idle"
    job: int = -1
    epoch: int = 0
    token: Any = None
    call: int = 0
    pending: Message | None = None


class World(NamedTuple):
    store: Store
    workers: tuple[Worker, ...]
    sent: frozenset[Message]  # never shrinks: anything sent may still arrive, again
    effects: int = 0
    crashes: int = 0
    rewinds: int = 0
    saved: Store | None = None


def first_world(cfg: Config) -> World:
    sent = (
        {("submit", j, "key" if cfg.same_key else None) for j in cfg.submits} | {("reap", j) for j in range(cfg.jobs)} | set(cfg.operator)
    )
    store = Store(jobs=tuple(Job(root=j) for j in range(cfg.jobs)), guards=(None,) * cfg.jobs)
    return World(store, (Worker(),) * cfg.workers, frozenset(sent))


def wants(cfg: Config, w: Worker, i: int, s: Store) -> Iterator[tuple[Message, Worker]]:
    """What an unoccupied worker may send next, with its memory afterwards."""
    wid = (i, w.life)
    attempt = (w.job, w.epoch, w.token)
    picks = [j for j in range(cfg.jobs) if claimable(cfg, s, j)]

    def call(finish: Any) -> Iterator[tuple[Message, Worker]]:
        for pick in picks or ([0] if finish else []):
            yield ("cycle", wid, w.seq + 1, (finish,) if finish else (), (pick,)), w._replace(seq=w.seq + 1)

    if w.phase == "idle":
        yield from call(None)
    elif w.phase == "held":
        if cfg.touch:
            yield ("touch", *attempt), w
        if cfg.effect:
            yield ("reserve", *attempt, w.call + 1, cfg.again), w._replace(call=w.call + 1)
        else:
            for outcome in cfg.outcomes:
                if outcome not in ("release", "snooze") or not s.jobs[w.job].handed_back:
                    yield from call((*attempt, outcome))
    elif w.phase == "licensed":
        if "retry" in cfg.outcomes:
            yield from call((*attempt, "retry"))  # the handler gave up before its effect
        yield ("give_back", *attempt, w.call), w  # the provider refused
    elif w.phase == "refused":
        for outcome in cfg.outcomes:
            if outcome != "ok":
                yield from call((*attempt, outcome))
        if w.call < 2:
            yield ("reserve", *attempt, w.call + 1, cfg.again), w._replace(call=w.call + 1)
    elif w.phase == "acted":
        yield ("settle", *attempt, w.call), w
        if w.call < 2:  # the provider's answer was lost and the handler simply asks for the licence again
            yield ("reserve", *attempt, w.call + 1, cfg.again), w._replace(call=w.call + 1)
        if "retry" in cfg.outcomes:
            yield from call((*attempt, "retry"))
    elif w.phase == "recorded":
        for outcome in cfg.outcomes:
            yield from call((*attempt, outcome))
    elif w.phase == "unknown":
        yield from call((*attempt, "effect_unknown"))


def heard(w: Worker, m: Message, said: Any) -> Worker:
    """The worker reads the answer to its pending request."""
    w = w._replace(pending=None)
    free = w._replace(phase="idle", job=-1, epoch=0, token=None, call=0)
    if m[0] == "cycle" and said[0] == "REWOUND":
        return w._replace(life=w.life + 1, seq=0)  # what it holds it tells again, in the numbering of its new life
    if m[0] == "cycle":
        return free._replace(phase="held", job=said[2][0][0], epoch=said[2][0][1], token=(m[1], m[2])) if said[2] else free
    if m[0] in ("settle", "give_back"):
        return w._replace(phase="recorded" if m[0] == "settle" else "refused") if said in ("OK", "ALREADY") else free
    if said == "STALE":
        return free
    if m[0] == "reserve":
        return w._replace(phase={"OK": "licensed", "DONE": "recorded", "UNKNOWN": "unknown"}[said])
    return w


def check_store(s: Store, cfg: Config) -> str | None:
    """Structural invariants of one state; None when all hold."""
    for j, job in enumerate(s.jobs):
        index = "lost lane" if job.state == "waiting" and job.losses else INDEX.get(job.state)
        if job.indexes != ({index} if index else set()):
            return f"I1 job in {set(job.indexes)} while {job.state}"
        if job.state in LIVE and (job.state == "active") != (job.token is not None):
            return "I2 lease without owner, or owner without lease"
        if job.cancel and job.state in ("waiting", "delayed"):
            return "a cancel request was forgotten"
        if job.failures > cfg.max_attempts or job.losses > cfg.max_losses:
            return "I3 more attempts than allowed"
        if job.epoch > job.failures + job.losses + job.handed_back + 1:
            return "I3 a delivery is not accounted for"
        rows = sum(1 for k, _ in s.dlq if k == j)
        if rows > 1 or (job.state == "failed") > rows or (rows and job.state not in ("failed", "purged")):
            return f"I5 {rows} dead-letter rows while {job.state}"
        if job.births > 1:
            return "I6 one submission made two jobs"
    if cfg.same_key and sum(job.births for job in s.jobs) > 1:
        return "I6 one key made two jobs"
    replays = Counter(job.source for job in s.jobs if job.source is not None)
    if any(n > 1 for n in replays.values()):
        return "I6 one request made two replays"
    truth = Counter(job.state for job in s.jobs if job.state not in ("none", "purged"))
    if truth != Counter(dict(s.counts)):
        return "I8 counters differ from the truth"
    if cfg.limiter and (s.slots != {j for j, job in enumerate(s.jobs) if job.state == "active"} or len(s.slots) > cfg.limiter):
        return f"B6 limiter slots {set(s.slots)} are not the active jobs, or too many"
    return None


def check_step(cfg: Config, a: World, b: World, m: Message | None, said: Any) -> str | None:
    """What one executed request must never do."""
    for before, after in zip(a.store.jobs, b.store.jobs, strict=True):
        if before.state in TERMINAL and after.state not in (before.state, "purged"):
            return f"I4 {before.state} became {after.state}"
        if after.epoch < before.epoch:
            return "I3 epoch went back"
        if after.epoch > before.epoch and a.store.paused:
            return "claimed while paused"
        if m and after.epoch > before.epoch and not a.rewinds and a.workers[m[1][0]].seq > m[2] and a.workers[m[1][0]].life == m[1][1]:
            return "claimed by a late repeat: nobody will ever run it"
    if m is None:
        return None
    if cfg.notices and m[0] == "cycle" and said[0] == "OK" and m[2] > 1 + next((n for wid, n, _ in a.store.consumers if wid == m[1]), 0):
        return "the store forgot rounds that it had answered, and nobody noticed"
    if m[0] == "cycle" and m[1] in a.store.left and not a.rewinds and any(job.token == (m[1], m[2]) for job in b.store.jobs if job.epoch):
        claimed = [x for x, y in zip(a.store.jobs, b.store.jobs, strict=True) if y.epoch > x.epoch]
        if claimed:
            return "claimed by a consumer that has left: nobody will ever run it"
    attempt = (m[3][0] if m[3] else None) if m[0] == "cycle" else m[1:] if m[0] in ("reserve", "touch") else None
    answer = (said[1][0] if said[1] else None) if m[0] == "cycle" else said
    if attempt and answer == "OK" and m[0] != "reserve" and not is_current(a.store.jobs[attempt[0]], attempt[2]):
        return f"B1 {m[0]} of a lost lease was accepted"
    if m[0] == "reserve" and said == "OK" and not is_current(a.store.jobs[m[1]], m[3]):
        return "B1 licence for a lost lease"
    if m[0] == "cycle" and attempt and answer == "OK" and attempt[3] == "ok" and b.store.jobs[attempt[0]].state != "completed":
        return "F51 success reported, another state stored"
    if m[0] == "cancel" and said == "OK" and b.store.jobs[m[1]].state != "cancelled":
        return "F51 cancel reported, another state stored"
    if m[0] == "pause" and b.store.pause_rev > m[1] + 1 and b.store.paused and not a.store.paused:
        return "an old pause undid a newer resume"
    return None


def is_kept(job: Job, token: Any) -> bool:
    """Whether the last end that was accepted is this attempt's, and the job has not been purged since."""
    return job.state != "purged" and job.accepted == token


def core_steps(cfg: Config, world: World, bad: set[str]) -> Iterator[tuple[bool, World, str | None]]:
    """Every next world: (may progress rely on this step, world, violation of the step)."""
    s = world.store
    for m in world.sent:
        after, said = run(cfg, s, m, bad)
        lost = world._replace(store=after)
        if m[0] == "pause" and after.pause_rev == 1:
            lost = lost._replace(sent=lost.sent | {("resume", 1)})
        wrong = check_step(cfg, world, lost, m, said)
        waiting = [i for i, w in enumerate(world.workers) if w.pending == m]
        for i in waiting:
            w = world.workers[i]
            if m[0] == "cycle" and m[3] and said[1][0] == "STALE" and is_kept(s.jobs[m[3][0][0]], m[3][0][2]):
                wrong = wrong or "an accepted finish was answered STALE"
            if m[0] == "cycle" and not said[2] and any(job.token == (m[1], m[2]) and job.state == "active" for job in after.jobs):
                wrong = wrong or "claimed, but the repeat of the call does not say so"
            yield True, lost._replace(workers=(*world.workers[:i], heard(w, m, said), *world.workers[i + 1 :])), wrong
        if after is not s or wrong:
            yield bool(waiting) or m[0] in ("submit", "reap", "resume"), lost, wrong
    for i, w in enumerate(world.workers):
        if i and world.workers[i - 1] == Worker():
            break  # workers are alike: the first to act is called 0
        put = lambda new, i=i: (*world.workers[:i], new, *world.workers[i + 1 :])  # noqa: E731
        if w.pending is None:
            for m, new in wants(cfg, w, i, s):
                yield True, world._replace(workers=put(new._replace(pending=m)), sent=world.sent | {m}), None
            if w.phase == "licensed":
                yield True, world._replace(workers=put(w._replace(phase="acted")), effects=world.effects + 1), None
        if world.crashes < cfg.crashes and w != Worker(life=w.life):
            dead = ("leave", (i, w.life), True)  # its supervisor may say so, once it has waited for the process
            crashed = world._replace(workers=put(Worker(life=w.life + 1)), sent=world.sent | {dead}, crashes=world.crashes + 1)
            yield False, crashed, None
    for j, job in enumerate(s.jobs):
        if job.state == "active" and not job.expired:
            yield True, world._replace(store=set_job(s, j, expired=True)), None
        if job.state == "delayed":
            yield True, world._replace(store=move(s, j, "waiting")), None
        if cfg.purge and job.state in TERMINAL:
            yield False, world._replace(store=purge(s, j, bad)), None
        if cfg.purge and any(k == j for k, _ in s.dlq):
            yield False, world._replace(store=discard(s, j, bad)), None
        if cfg.person and judge(s, j, True, bad)[1] == "OK":
            token = s.guards[j][1][0]  # a holder that has lost its lease is out of its effect before a person is asked
            if "settle_while_owner_lives" in bad or not any(w.phase == "licensed" and w.token == token for w in world.workers):
                yield False, world._replace(store=judge(s, j, world.effects > 0, bad)[0]), None
        if "guard_expires" in bad and job.state in (*TERMINAL, "delayed"):
            yield False, world._replace(store=s._replace(guards=(None,) * cfg.jobs)), None
    if world.rewinds < cfg.rewinds:
        if world.saved is None:
            yield False, world._replace(saved=s), None
        elif world.saved != s:
            yield False, world._replace(store=world.saved, rewinds=world.rewinds + 1), None


def forget(cfg: Config, world: World) -> World:
    """Drop what can never matter again, so that worlds with the same future are one. Sound because epochs and call numbers only grow and
    terminal states stay; hence not while a rewind is still to come, and never for a broken protocol.
    """
    s = world.store
    if world.rewinds < cfg.rewinds:
        return world
    last = {w: n for w, n, _ in s.consumers}
    pending = {w.pending for w in world.workers}
    numbers = {(m[1], m[2]) for m in world.sent if m[0] == "cycle"}

    def live(job: Job, epoch: int, token: Any) -> bool:
        return job.epoch < epoch or is_current(job, token)

    def matters(m: Message) -> bool:
        if m in pending:
            return True
        if m[0] == "cycle":
            first = last.get(m[1], 0) + 1  # a call runs only when all before it have
            gapless = not cfg.notices or all((m[1], n) in numbers for n in range(first, m[2]))
            return m[2] >= first and m[1] not in s.left and gapless
        if m[0] == "leave":
            return m[1] not in s.left
        if m[0] in ("reserve", "touch"):
            return live(s.jobs[m[1]], m[2], m[3])
        if m[0] in ("settle", "give_back"):
            held = s.guards[s.jobs[m[1]].root]
            return live(s.jobs[m[1]], m[2], m[3]) or (held is not None and held == ("reserved", (m[3], m[4])))
        if m[0] in ("reap", "cancel", "force"):
            return s.jobs[m[1]].state not in (*TERMINAL, "purged")
        return m[0] not in ("pause", "resume") or m[1] >= s.pause_rev

    sent = frozenset(m for m in world.sent if matters(m))
    cycles = [m for m in (*sent, *pending) if m and m[0] == "cycle"]
    asked = {finish[2] for m in cycles for finish in m[3]} | {w.token for w in world.workers}
    callers = {m[1] for m in cycles} | {(i, w.life) for i, w in enumerate(world.workers)}

    def fade(job: Job) -> Job:
        """Nobody will ask again about ends that no request names."""
        if job.ended is not None and job.ended not in asked:
            job = job._replace(ended=None, accepted=None if job.accepted == job.ended else job.accepted)
        if job.state not in LIVE and job.token is not None and job.token not in asked:
            job = job._replace(token=None, accepted=None)
        return job

    consumers = tuple(c for c in s.consumers if c[0] in callers)
    store = s._replace(jobs=tuple(map(fade, s.jobs)), consumers=consumers, left=frozenset(w for w in s.left if w in callers))
    return world._replace(sent=sent, store=store)


def core_verdict(cfg: Config, world: World) -> str | None:
    wrong = check_store(world.store, cfg)
    if wrong or not cfg.effect or cfg.rewinds:
        return wrong
    if world.effects > 1 and not cfg.again:
        return "B2 the effect happened twice"
    if not world.effects and any(job.state == "completed" for job in world.store.jobs):
        return "F3 success claimed, but the effect never happened"
    return None


def core_done(world: World) -> bool:
    """Everything that came to life has ended and no worker holds anything."""
    states = [job.state for job in world.store.jobs if job.births]
    return bool(states) and all(x in (*TERMINAL, "purged") for x in states)
