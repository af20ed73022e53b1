"""The real scripts on real servers, step by step, with late, lost and repeated calls, held against the protocol model after each."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

import msgspec
import pytest
import redis
from hypothesis import HealthCheck, Phase, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from support.desk import keeping
from support.protocol import core
from support.protocol.dump import Snapshot, snapshot, violations
from support.servers import StoreServer
from taskmaster.store import calls, letters, upkeep
from taskmaster.store.call import Call
from taskmaster.store.client import SyncStore
from taskmaster.store.status import Status

BEGINNING_MS = 1_800_000_000_000
LEASE_MS, GRACE_MS, ALIVE_MS, WINDOW_MS, RESEND_MS = 30_000, 5_000, 30_000, 86_400_000, 30_000
JOBS, ATTEMPTS, LOSSES = 20, 2, 2
TYPES, QUEUES = ("alpha", "beta"), ("one", "two")
PLUGIN_SETS = (("alpha", "beta"), ("alpha",), ("alpha!", "beta!"))
WORLD = core.Config("machine", jobs=JOBS, max_attempts=ATTEMPTS, max_losses=LOSSES)
LETTER = {"waiting": "w", "delayed": "d", "active": "a", "completed": "c", "failed": "f", "cancelled": "x"}
WORDS = {"c": "ok", "r": "retry", "f": "fatal", "x": "discard", "h": "release", "s": "snooze"}
#: How often what happens, against 1 for all others.
OFTEN = {
    "cycle": 24,
    "submit_some": 6,
    "a_copy_arrives_late": 4,
    "cancel": 3,
    "lose_leases": 3,
    "extend": 3,
    "replay": 4,
    "submit_again": 4,
    "purge": 2,
}
WANTS: list[list[tuple[int | str, ...]]] = [
    [(2, "one"), (2, "two")],
    [(2, "one"), (2, "two")],
    [(1, "one", "two")],
    [(1, "two", "one")],
    [(3, "one", "two")],
    [(0, "one", "two")],
    [],
]
KEEP = calls.Limits(key_window_ms=WINDOW_MS)


@dataclass
class Attempt:
    """What a handler holds: its right to write may have ended long ago."""

    job: int
    epoch: int
    token: tuple[str, int]

    @property
    def text(self) -> str:
        return f"{self.token[0]}.{self.token[1]}"


@dataclass
class Sent:
    """One numbered call as it went out; whatever happens, its content stays."""

    wid: str
    seq: int
    finishes: list[tuple[Attempt, str]]
    wants: list[tuple[int | str, ...]]
    delay_ms: int = 1_000


@dataclass
class Consumer:
    """One process's memory of its calls."""

    wid: str
    types: tuple[str, ...]
    seq: int = 0
    unanswered: Sent | None = None
    held: list[Attempt] = field(default_factory=list)


def job_id(n: int, created_ms: int) -> str:
    """A job id that is the same in every run."""
    stamp = f"{created_ms:012x}"
    return f"{stamp[:8]}-{stamp[8:]}-7000-8000-{n:012x}"


class Lifecycle(RuleBasedStateMachine):
    """Jobs, consumers and a hostile network. The oracle is `core`; `self.store` is what it says the server must hold."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self.now = BEGINNING_MS
        self.client = SyncStore(url, now_ms=lambda: self.now)
        self.raw = redis.Redis.from_url(url, decode_responses=True, protocol=2)
        self.raw.flushall()
        self.store = core.Store(jobs=tuple(core.Job(root=j) for j in range(JOBS)), guards=(None,) * JOBS)
        self.items: list[calls.NewJob] = []  # every submission that was sent, by job number
        self.ids: list[str] = []
        self.requests: list[tuple[int, Any]] = []  # (job number, core message)
        self.consumers: list[Consumer] = []
        self.crashed: list[Consumer] = []
        self.history: list[Sent] = []
        self.in_buffers: list[Sent] = []  # sent, not yet arrived, and nobody waits for the answer any more
        self.zombies: list[Attempt] = []
        self.due: dict[int, int] = {}
        self.expiry: dict[int, int] = {}
        self.buried: dict[str, dict[str, str]] = {}
        self.steps = 0
        self.gen = ""

    def teardown(self) -> None:
        self.client.close()
        self.raw.close()

    # ------------------------------------------------------------ the oracle's side
    def run(self, call: Call[Any]) -> Any:
        """The raw answer of the real script."""
        return self.client.run(replace(call, decode=lambda raw: raw))

    def told(self, message: core.Message) -> Any:
        """The oracle's answer."""
        self.store, said = core.run(WORLD, self.store, message, set())
        return said

    def state(self, j: int) -> str:
        return self.store.jobs[j].state

    def promote_due(self) -> None:
        for j, job in enumerate(self.store.jobs):
            if job.state == "delayed" and self.due[j] <= self.now:
                self.store = core.move(self.store, j, "waiting")

    def let_expire(self, grace_ms: int) -> list[int]:
        """Leases that the clock has ended, as the reaper sees them."""
        lost = [j for j, job in enumerate(self.store.jobs) if job.state == "active" and self.expiry[j] + grace_ms <= self.now]
        for j in lost:
            self.store = core.set_job(self.store, j, expired=True)
        return lost

    def answered(self, j: int, code: str, real: list[Any]) -> None:
        """One row of a submission: code, state and id."""
        assert Status(real[0]).name == code, (code, real)
        if code in ("OK", "ALREADY", "DUPLICATE", "REUSED"):
            there = self.state(j) not in ("none", "purged")
            assert real[1] == (LETTER[self.state(j)].encode() if there else b""), (real, self.state(j))
            assert real[2].decode() == self.ids[j]

    # ------------------------------------------------------------ submissions
    def submit(self, n: int, item: calls.NewJob, message: core.Message) -> None:
        """Send one item, for the first time or again, and compare."""
        row = self.run(calls.submit(0, [item]))[1]
        if isinstance(row, bytes):  # stored: its state alone
            row = [Status.OK, row, item.id.encode()]
        is_late = abs(self.now - int(item.id[:8] + item.id[9:13], 16)) > RESEND_MS
        key = message[2] if message[0] == "submit" else ("replay", message[1], message[3])
        owner = core.key_of(self.store, key) if key is not None else None
        if owner is not None:
            same = self.items[owner].request == item.request
            self.answered(owner, "DUPLICATE" if same else "REUSED", row)
            return
        if is_late and not (key is None and self.state(n) not in ("none", "purged")):
            if key is None and n in self.store.gone:
                assert row[0] in (Status.ALREADY, Status.TOO_OLD)
            else:
                assert row == [Status.TOO_OLD]
            return
        code = self.told(message)
        if code == "GONE":
            assert row == [Status.GONE]
            return
        if code == "OK" and item.due_ms > self.now:
            self.store = core.move(self.store, n, "delayed")
            self.due[n] = item.due_ms
        self.answered(n, code, row)

    def submit_new(self, dice: Random) -> None:
        """A new submission; one in eight is only sent, and may arrive later."""
        kind, queue, priority = dice.choice(TYPES), dice.choice(QUEUES), dice.choice((2, 2, 0, 3))
        delay_ms, key, payload = dice.choice((0, 0, 0, 2_000, 40_000)), dice.choice((None, None, "k1", "k2")), dice.choice("aab")
        n = len(self.ids)
        self.ids.append(job_id(n, self.now))
        digest = f"{key:0>22}" if key else ""
        item = calls.NewJob(
            id=self.ids[n],
            queue=queue,
            type=kind,
            priority=priority,
            due_ms=self.now + delay_ms if delay_ms else 0,
            delay_ms=0,
            max_attempts=ATTEMPTS,
            key=digest,
            request=f"{payload:0>22}",
            blob=f'["{kind}"]',
        )
        self.items.append(item)
        message = ("submit", n, key)
        self.requests.append((n, message))
        if dice.random() < 0.9:
            self.submit(n, item, message)

    def submit_some(self, dice: Random) -> None:
        """Several jobs one after the other."""
        for _ in range(min(3, JOBS - len(self.ids))):
            self.submit_new(dice)

    def submit_again(self, dice: Random) -> None:
        purged = [request for request in self.requests if self.state(request[0]) == "purged"]
        n, message = dice.choice(purged if purged and dice.random() < 0.5 else self.requests)
        self.submit(n, self.items[n], message)

    def replay(self, dice: Random) -> None:
        """A dead letter runs again under a new id, once a request id."""
        source = dice.choice([j for j, _ in self.store.dlq])
        request = dice.choice("rs")
        n, old = len(self.ids), self.items[source]
        self.ids.append(job_id(n, self.now))
        item = msgspec.structs.replace(
            old,
            id=self.ids[n],
            due_ms=0,
            key=f"{request}{source:021d}",
            request=f"{source:022d}",
            root_id=self.ids[self.store.jobs[source].root],
            replayed_from=self.ids[source],
        )
        self.items.append(item)
        message = ("replay", source, n, request)
        self.requests.append((n, message))
        self.submit(n, item, message)

    # ------------------------------------------------------------ consumers
    @initialize()
    def begin(self) -> None:
        for which in (0, 0, 1, 2):
            self.introduce(which)

    def register(self, dice: Random) -> None:
        self.introduce(dice.choice((0, 1, 2)))

    def introduce(self, which: int) -> None:
        types = PLUGIN_SETS[which]
        who = Consumer(f"c{len(self.consumers) + len(self.crashed):09d}", types)
        call = calls.register(
            0, wid=who.wid, cap=f"cap{which}", info="{}", plugin_set="{}", types=types, catalogue=[], alive_ms=ALIVE_MS, gen="generation"
        )
        for _ in range(2):  # its repeat is the same
            gen, now = self.run(call)
            assert (gen, now) == (b"generation", self.now)
        self.gen = "generation"
        self.consumers.append(who)

    def compose(self, dice: Random, who: Consumer) -> Sent:
        """The next call of a consumer: some of what it holds has ended, and it has room in some queues."""
        finishes = [(attempt, dice.choice("ccrrffxhs")) for attempt in who.held if dice.random() < 0.6]
        if self.zombies and dice.random() < 0.3:
            finishes.append((dice.choice(self.zombies), dice.choice("crfxhs")))
        wants = dice.choice(WANTS)
        return Sent(who.wid, who.seq + 1, finishes, wants, dice.choice((0, 1_000, 50_000)))

    def deliver(self, sent: Sent) -> tuple[Status, list[calls.Claim]]:
        """Run one call on the server, whenever that is, and compare with the oracle."""
        finishes = [
            calls.Finish(
                id=self.ids[attempt.job],
                token=attempt.text,
                outcome=outcome,
                body="null",
                row=f'[{attempt.epoch},"{outcome}",0,0,"{sent.wid}"]' if attempt.epoch > 1 or outcome != "c" else "",
                delay_ms=sent.delay_ms,
                reason="fatal",
                fingerprint="f00d",
            )
            for attempt, outcome in sent.finishes
        ]
        answer = self.client.run(
            calls.cycle(0, gen=self.gen, wid=sent.wid, seq=sent.seq, lease_ms=LEASE_MS, finishes=finishes, wants=sent.wants, limits=KEEP)
        )
        last = next((n for wid, n, _ in self.store.consumers if wid == sent.wid), 0)
        runs = sent.wid not in self.store.left and sent.seq >= last
        if runs:
            self.promote_due()
        picks = [self.ids.index(claim.id) for claim in answer.claims]
        before = self.store
        ends = tuple((attempt.job, attempt.epoch, attempt.token, WORDS[outcome]) for attempt, outcome in sent.finishes)
        code, codes, claims = self.told(("cycle", sent.wid, sent.seq, ends, tuple(picks)))
        assert answer.status.name == code
        if not runs:
            assert not answer.claims
            return answer.status, []
        assert [Status(x).name for x in answer.codes] == list(codes)
        assert [(self.ids.index(claim.id), claim.epoch) for claim in answer.claims] == list(claims)
        for j, job in enumerate(self.store.jobs):
            if job.state == "delayed" and before.jobs[j].state == "active":
                self.due[j] = self.now + sent.delay_ms
        for claim, (j, _) in zip(answer.claims, claims, strict=True):
            job, item = self.store.jobs[j], self.items[j]
            assert (claim.attempt, claim.failures) == (job.epoch - job.handed_back, job.failures)
            assert (claim.queue, claim.blob.decode()) == (item.queue, item.blob)
            if sent.seq > last:
                self.expiry[j] = self.now + LEASE_MS
        if sent.seq > last:
            self.check_room(sent, claims)
        return answer.status, list(answer.claims)

    def check_room(self, sent: Sent, claims: tuple[tuple[int, int], ...]) -> None:
        """Claims are of wanted queues and loaded types, as many as there are slots; nothing that could be taken is left."""
        types = next(who.types for who in (*self.consumers, *self.crashed) if who.wid == sent.wid)

        def fits(j: int, queues: tuple[Any, ...]) -> bool:
            return self.items[j].queue in queues and self.items[j].type + ("!" if self.store.jobs[j].losses else "") in types

        taken = 0
        for slots, *queues in sent.wants:
            got = [j for j, _ in claims if fits(j, tuple(queues))]
            left = [j for j in range(len(self.ids)) if self.state(j) == "waiting" and fits(j, tuple(queues))]
            assert len(got) <= int(slots)
            assert len(got) == int(slots) or not left, f"room for {slots}, took {got}, left {left}"
            taken += len(got)
        assert taken == len(claims), "claimed what was not asked for"

    def hear(self, who: Consumer, sent: Sent, status: Status, claims: list[calls.Claim]) -> None:
        """The consumer reads the answer."""
        who.unanswered = None
        if status is not Status.OK:
            return
        ended = [attempt for attempt, _ in sent.finishes]
        self.zombies += [attempt for attempt in ended if attempt in who.held][:1]  # some handlers do not know when to stop
        who.held = [attempt for attempt in who.held if attempt not in ended]
        who.held += [Attempt(self.ids.index(claim.id), claim.epoch, (sent.wid, sent.seq)) for claim in claims]

    def cycle(self, dice: Random) -> None:
        """A round: a new call, or the unanswered one again, unchanged. Its answer is heard or lost."""
        who = dice.choice(self.consumers)
        if who.unanswered is None:
            who.unanswered = self.compose(dice, who)
            who.seq += 1
            self.history.append(who.unanswered)
        sent = who.unanswered
        status, claims = self.deliver(sent)
        if dice.random() < 0.75:
            self.hear(who, sent, status, claims)

    def a_copy_arrives_late(self, dice: Random) -> None:
        self.deliver(dice.choice(self.history[-12:]))

    def a_call_of_a_dead_process_arrives(self, dice: Random) -> None:
        self.deliver(self.in_buffers.pop(0))

    def crash(self, dice: Random) -> None:
        """All memory of a consumer is gone; its leases are not, and a call of it may still be in a buffer."""
        who = dice.choice(self.consumers)
        if dice.random() < 0.5:
            sent = who.unanswered or self.compose(dice, who)
            self.in_buffers.append(sent)
            self.history.append(sent)
        self.zombies += who.held
        self.consumers.remove(who)
        self.crashed.append(who)

    def abandon(self, dice: Random) -> None:
        who = dice.choice(self.crashed)
        assert self.client.run(upkeep.abandon(0, who.wid)) == -1
        for j, job in enumerate(self.store.jobs):
            if job.state == "active" and job.token[0] == who.wid:
                self.expiry[j] = 0
        self.told(("leave", who.wid, False))

    def unregister(self, dice: Random) -> None:
        who = dice.choice(self.consumers)
        for _ in range(2):
            assert self.run(calls.unregister(0, who.wid)) == Status.OK
        self.told(("leave", who.wid, False))
        self.consumers.remove(who)
        self.crashed.append(who)
        self.zombies += who.held

    def extend(self, dice: Random) -> None:
        """A heartbeat, of a zombie as well."""
        who = dice.choice([*self.consumers, *self.crashed])
        attempts = [*who.held, *self.zombies[-4:]]
        said = self.client.run(
            calls.extend(0, who.wid, [(self.ids[a.job], a.text) for a in attempts], lease_ms=LEASE_MS, alive_ms=ALIVE_MS)
        )
        if who.wid in self.store.left:
            assert said is None
            return
        assert said is not None
        for attempt, code in zip(attempts, said, strict=True):
            expected = self.told(("touch", attempt.job, attempt.epoch, attempt.token))
            if expected == "OK":
                self.expiry[attempt.job] = self.now + LEASE_MS
                expected = "CANCEL" if self.store.jobs[attempt.job].cancel else "OK"
            assert code.name == expected

    def progress(self, dice: Random) -> None:
        attempts = [*self.zombies[-3:], *(a for who in self.consumers for a in who.held)]
        said = self.client.run(calls.progress(0, [calls.Word(self.ids[a.job], a.text, "0.5", 1, ["[]"]) for a in attempts]))
        assert [code.name for code in said] == [
            "OK" if core.is_current(self.store.jobs[attempt.job], attempt.token) else "STALE" for attempt in attempts
        ]

    # ------------------------------------------------------------ time and people
    def advance(self, dice: Random) -> None:
        self.now += dice.choice((1, 1_000, 5_000, 31_000, 36_000))

    def promote(self, dice: Random) -> None:
        assert self.run(upkeep.promote(0)) == 0
        self.promote_due()

    def reap(self, dice: Random) -> None:
        """Every expired lease ends once; the second call finds nothing."""
        lost = self.let_expire(GRACE_MS)
        call = upkeep.reap(0, grace_ms=GRACE_MS, losses=LOSSES, key_window_ms=WINDOW_MS)
        more, ids = self.client.run(call)
        assert (more, sorted(ids)) == (False, sorted(self.ids[j] for j in lost))
        for j in lost:
            assert self.told(("reap", j)) == "OK"
        assert self.client.run(call) == (False, ())

    def lose_leases(self, dice: Random) -> None:
        """Nobody extends for a while."""
        self.now += LEASE_MS + dice.choice((0, GRACE_MS))
        self.reap(dice)

    def tick(self, dice: Random) -> None:
        said = self.client.run(upkeep.tick(0, grace_ms=GRACE_MS))
        if said.mine:
            active = [j for j, job in enumerate(self.store.jobs) if job.state == "active"]
            assert said.to_reap == sum(self.expiry[j] + GRACE_MS <= self.now for j in active)
            assert said.to_promote == sum(job.state == "delayed" and self.due[j] <= self.now for j, job in enumerate(self.store.jobs))

    def cancel(self, dice: Random) -> None:
        j = dice.randrange(len(self.ids))
        row = self.run(calls.cancel(0, self.ids[j], who="somebody", key_window_ms=WINDOW_MS))
        if self.state(j) in ("none", "purged"):
            assert row == [Status.GONE]
            return
        code = self.told(("cancel", j))
        assert Status(row[0]).name == code
        assert row[1:] == ([LETTER[self.state(j)].encode()] if code == "CONFLICT" else [])

    def purge(self, dice: Random) -> None:
        ended = [j for j in range(len(self.ids)) if self.state(j) in core.TERMINAL]
        chosen = dice.choices(ended if ended and dice.random() < 0.7 else range(len(self.ids)), k=dice.randint(1, 4))
        for j, row in zip(chosen, self.run(calls.purge(0, [self.ids[j] for j in chosen])), strict=True):
            self.forget(j, row)
        if dice.random() < 0.5:
            again = [request for request in self.requests if request[0] in chosen and self.state(request[0]) == "purged"]
            for n, message in again[:1]:  # its submission was not answered, says somebody
                self.submit(n, self.items[n], message)

    def forget(self, j: int, row: list[Any]) -> None:
        """One row of a purge."""
        if self.state(j) in ("none", "purged"):
            assert row == [Status.GONE]
        elif self.state(j) in core.TERMINAL:
            assert row == [Status.OK]
            young = int(self.ids[j][:8] + self.ids[j][9:13], 16) >= self.now - RESEND_MS
            self.store = core.purge(self.store, j, set())
            if not young:  # too old to be taken again: no tombstone is needed
                self.store = self.store._replace(gone=self.store.gone - {j})
        else:
            assert row == [Status.CONFLICT, LETTER[self.state(j)].encode()]

    def discard(self, dice: Random) -> None:
        """A dead letter goes, and its job with it."""
        j = dice.choice([j for j, _ in self.store.dlq])
        assert self.client.run(letters.discard(0, [self.ids[j]], who="ann", reason="tidy")) == (Status.OK,)
        assert self.client.run(letters.discard(0, [self.ids[j]], who="ann", reason="tidy")) == (Status.GONE,)
        if self.state(j) == "failed":
            self.forget(j, [Status.OK])
        self.store = core.discard(self.store, j, set())
        self.buried.pop(self.ids[j])

    def prune(self, dice: Random) -> None:
        """Retention takes terminal jobs only, and leaves as many as were asked for."""
        keep = dice.choice((1, 2, 100))
        assert self.client.run(upkeep.prune(0, keeping(keep))) is False
        before = Counter((self.items[j].queue, self.state(j)) for j in range(len(self.ids)) if self.state(j) in core.TERMINAL)
        present = {key[2:] for key in self.snap()[0] if key.startswith("j:")}
        kept: Counter[tuple[str, str]] = Counter()
        for j in range(len(self.ids)):
            if self.state(j) in core.TERMINAL:
                if self.ids[j] in present:
                    kept[self.items[j].queue, self.state(j)] += 1
                else:
                    self.forget(j, [Status.OK])
        assert kept == Counter({place: min(n, keep) for place, n in before.items()})

    # ------------------------------------------------------------ what happens next
    def possible(self) -> dict[Any, bool]:
        """What may happen now. The more often it should, the more often its name is in `OFTEN`."""
        has_room, is_staffed = len(self.ids) < JOBS, bool(self.consumers)
        return {
            self.cycle: is_staffed,
            self.submit_new: has_room,
            self.submit_some: has_room,
            self.submit_again: bool(self.requests),
            self.replay: has_room and bool(self.store.dlq),
            self.register: len(self.consumers) < 5 and len(self.crashed) < 8,
            self.a_copy_arrives_late: bool(self.history),
            self.a_call_of_a_dead_process_arrives: bool(self.in_buffers),
            self.crash: is_staffed,
            self.abandon: bool(self.crashed),
            self.unregister: is_staffed,
            self.extend: bool(self.consumers or self.crashed),
            self.progress: bool(self.consumers or self.zombies),
            self.advance: True,
            self.promote: True,
            self.reap: True,
            self.lose_leases: bool(self.expiry),
            self.tick: True,
            self.cancel: bool(self.ids),
            self.purge: bool(self.ids),
            self.prune: True,
            self.discard: bool(self.store.dlq),
        }

    @rule(seed=st.integers(0, 2**32 - 1))
    def step(self, seed: int) -> None:
        """One rule, so that what matters comes often: hypothesis gives all rules of a machine the same weight, and leaves some out."""
        self.steps += 1
        dice = Random(seed * 1_000 + self.steps)  # drawn seeds are often alike
        choices = [verb for verb, is_possible in self.possible().items() if is_possible for _ in range(OFTEN.get(verb.__name__, 1))]
        verb = dice.choice(choices)
        note(f"{verb.__name__} at {self.now - BEGINNING_MS} ms")
        verb(dice)

    # ------------------------------------------------------------ after every step
    def snap(self) -> tuple[Snapshot, list[str]]:
        return snapshot(self.raw)

    @invariant()
    def everything_holds(self) -> None:
        """The oracle is sound, the keys keep the invariants, and both say the same of every job."""
        assert core.check_store(self.store, WORLD) is None
        snap, wrong = self.snap()
        assert not wrong + violations(snap)
        for j, known in enumerate(self.ids):
            job, real = self.store.jobs[j], snap.get(f"j:{known}")
            if job.state in ("none", "purged"):
                assert real is None
                continue
            assert real is not None, f"job {j} is {job.state} and has no hash"
            numbers = tuple(int(real.get(name, 0)) for name in ("ep", "fl", "ls", "hb"))
            assert (real["st"], numbers) == (LETTER[job.state], (job.epoch, job.failures, job.losses, job.handed_back))
            assert (real.get("tk") or None) == (None if job.token is None else f"{job.token[0]}.{job.token[1]}")
            assert real.get("en") == (None if job.ended is None else f"{job.ended[0]}.{job.ended[1]}")
            if job.state in ("waiting", "delayed", "active"):
                assert ("cr" in real) is job.cancel
            if job.state == "active":
                assert dict(snap["active"])[known] == self.expiry[j]
            if job.state == "delayed":
                assert dict(snap["delayed"])[known] == self.due[j]
            if job.source is not None:
                assert (real["rp"], real["rt"]) == (self.ids[job.source[0]], self.ids[job.root])
        records = {key[2:]: value for key, value in snap.items() if key.startswith("d:")}
        assert {self.ids[j]: "attempts_exhausted" if why == "retry" else why for j, why in self.store.dlq} == {
            known: record["rs"] for known, record in records.items()
        }
        for known, record in self.buried.items():
            assert records[known] == record, "I5 a dead-letter record has changed"
        self.buried = records


EXAMPLES = {"valkey": 60, "redis": 25}


@pytest.mark.timeout(300)
def test_the_scripts_behave_as_the_model_says(clean_server: StoreServer) -> None:
    """Whatever arrives late, twice or never, answers and keys are what the model says, after every step."""
    wanted = os.environ.get("STORE_MACHINE_EXAMPLES")  # more examples, drawn at random

    run_state_machine_as_test(
        lambda: Lifecycle(clean_server.url),  # type: ignore[arg-type]  # anything that makes a machine
        settings=settings(
            max_examples=int(wanted) if wanted else EXAMPLES[clean_server.kind],
            stateful_step_count=60,
            derandomize=not wanted,
            deadline=None,
            database=None,
            phases=[Phase.generate, Phase.shrink] if wanted else [Phase.generate],  # shrinking takes minutes
            suppress_health_check=list(HealthCheck),
        ),
    )
