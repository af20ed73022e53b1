"""Flow control on real servers, at random but by seed: after every step the keys keep the invariants, and an oracle says what may run.

Consumers sleep as real ones do: they call when they have something to say, when a marker is in their inbox, or when their timer rings.
There is no tick here, so a wake-up that is lost stays lost, and is found.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Any

import pytest

from support.desk import ALIVE_MS, GRACE_MS, WINDOW_MS, Desk
from support.protocol.dump import snapshot, violations
from taskmaster.store import calls, flow, upkeep
from taskmaster.store.status import Status

QUEUES, TYPES, KEYS = ("one", "two", "three"), ("alpha", "beta", "gamma"), ("", "k1", "k2", "k3")
PLUGIN_SETS = (("alpha", "alpha!", "beta", "beta!", "gamma", "gamma!"), ("alpha",), ("beta", "beta!", "gamma"))
PER_MS, LEASE_MS = 1_000, 10**9
#: What each limiter may be; the first is how it begins.
RULES: dict[str, list[dict[str, str | int]]] = {
    "few": [{"kind": "slots", "max": 2}, {"kind": "slots", "max": 1}, {}, {"kind": "slots", "max": 1, "by": "key"}],
    "each": [
        {"kind": "slots", "max": 1, "by": "key", "max/k1": 2},
        {"kind": "slots", "max": 2, "by": "key", "max/k3": 0},
        {"kind": "gate"},
    ],
    "fast": [{"kind": "rate", "max": 3, "per": PER_MS}, {"kind": "rate", "max": 2, "per": PER_MS}, {"kind": "gate"}],
    "drip": [{"kind": "rate", "max": 2, "per": PER_MS, "burst": 2}, {"kind": "rate", "max": 2, "per": PER_MS, "burst": 3}],
    "keyed": [{"kind": "rate", "max": 2, "per": PER_MS, "by": "key"}, {}],
    "max": [{"kind": "slots", "max": 3}, {"kind": "gate"}],  # a name that a limiter's fields have, too
}
ATTACHED: dict[str, list[str]] = {"one": ["", "few", "each"], "two": ["keyed", "", "each,max"], "three": ["fast", ""]}
OWN = ("", "", "", "~drip", "~few", "~each~max")
GROUPS: tuple[list[tuple[int | str, ...]], ...] = (
    [(2, "one"), (1, "two"), (1, "three")],
    [(3, "one", "two", "three")],
    [(1, "three", "one"), (2, "two")],
)


@dataclass
class Job:
    item: calls.NewJob
    priority: int
    state: str = "new"  # as the machine was told; waiting and delayed are read from the store


@dataclass
class Consumer:
    """One process's memory."""

    wid: str
    types: tuple[str, ...]
    groups: list[tuple[int | str, ...]]
    running: dict[str, tuple[str, str]] = field(default_factory=dict)  # job -> token, queue
    timer: int | None = None
    is_awake: bool = True

    def wants(self) -> list[tuple[int | str, ...]]:
        """Its groups with the slots that are free now."""
        busy = [queue for _, queue in self.running.values()]
        return [(int(slots) - sum(busy.count(str(name)) for name in queues), *queues) for slots, *queues in self.groups]


class World:
    """A store, three consumers, and what ought to be true of them."""

    def __init__(self, desk: Desk, seed: int) -> None:
        self.desk, self.dice = desk, Random(seed)
        self.jobs: dict[str, Job] = {}
        self.rules = {name: rules[0] for name, rules in RULES.items()}
        self.attached = {queue: names[0] for queue, names in ATTACHED.items()}
        self.typed = {"gamma": "few"}
        self.paused: set[str] = set()
        self.holders: dict[str, set[str]] = defaultdict(set)  # instance -> jobs
        self.times: dict[str, list[int]] = defaultdict(list)  # instance -> claims
        self.orders = self.born = 0
        self.consumers: list[Consumer] = []
        self.log: list[str] = []
        for name, rule in self.rules.items():
            desk.run(flow.put_limit(0, name, rule, self.order()))
        for queue, names in self.attached.items():
            desk.run(flow.put_queue(0, queue, {"lm": names, "weights": '{"k1": 3}'}, self.order()))
        desk.raw.hset("tm:{0}:tl", mapping=self.typed)
        for types, groups in zip(PLUGIN_SETS, GROUPS, strict=True):
            self.enrol(types, groups)

    def order(self) -> flow.Order:
        self.orders += 1
        return flow.Order(f"op{self.orders}", None, "ann", "why")

    def enrol(self, types: tuple[str, ...], groups: list[tuple[int | str, ...]]) -> None:
        self.born += 1
        self.consumers.append(Consumer(self.desk.register(f"w{self.born}", *types), types, groups))

    # ------------------------------------------------------------ the oracle
    def needs(self, job: Job) -> Iterator[tuple[str, dict[str, str | int]]]:
        """Instances of limiters that a claim of this job takes now, and their rules."""
        key, *own = (job.item.lane or "-").split("~")
        names = {*self.attached[job.item.queue].split(","), *self.typed.get(job.item.type, "").split(","), *own}
        for name in sorted(names):
            rule = self.rules.get(name)
            if rule:
                yield (f"{name}@{key or '-'}" if rule.get("by") else name), rule

    def room(self, instance: str, rule: dict[str, str | int]) -> bool:
        most = int(rule.get(f"max/{instance.partition('@')[2]}", rule.get("max", 0)))
        if rule["kind"] == "slots":
            return len(self.holders[instance]) < most
        if rule["kind"] == "gate":
            return False
        if "burst" in rule:
            return self.tokens(instance, int(rule["burst"]), most) >= 1 - 1e-6
        return sum(at > self.desk.now - PER_MS for at in self.times[instance]) < most

    def tokens(self, instance: str, burst: int, most: int) -> float:
        """What is in a bucket that was full before the first of its claims."""
        level, last = float(burst), self.desk.now
        for at in self.times[instance]:
            level, last = min(burst, level + (at - last) * most / PER_MS if at > last else level) - 1, at
        return min(burst, level + (self.desk.now - last) * most / PER_MS)

    def may_run(self, job: Job) -> bool:
        tenant = job.item.lane.partition("~")[0] or "-"
        is_paused = self.paused & {f"q/{job.item.queue}", f"t/{job.item.type}", f"k/{tenant}"}
        is_late = job.item.expires_ms and job.item.expires_ms <= self.desk.now
        return not is_paused and not is_late and all(self.room(instance, rule) for instance, rule in self.needs(job))

    def claimed(self, who: Consumer, claim: calls.Claim) -> None:
        """One claim more: it had to be allowed."""
        job = self.jobs[claim.id]
        assert self.may_run(job), f"{who.wid} got {job.item}, paused {self.paused}, needs {list(self.needs(job))}"
        for instance, rule in self.needs(job):
            if rule["kind"] == "slots":
                self.holders[instance].add(claim.id)
            elif rule["kind"] == "rate":
                self.times[instance].append(self.desk.now)

    # ------------------------------------------------------------ what happens
    def submit(self) -> None:
        dice, now = self.dice, self.desk.now
        items = []
        for _ in range(dice.choice((1, 1, 2, 6))):
            unique = None
            if dice.random() < 0.2:
                until = dice.choice("sft")
                unique = calls.Unique(f"work-{until}", until, 600_000, dice.choice(("reject", "existing", "replace")), WINDOW_MS)
            item = self.desk.item(
                dice.choice(TYPES),
                dice.choice(QUEUES),
                priority=dice.randrange(4),
                lane=dice.choice(KEYS) + dice.choice(OWN),
                delay_ms=dice.choice((0, 0, 0, 30, 700)),
                expires_ms=dice.choice((0, 0, 0, now + 20, now + 1_500)),
                lifo=int(dice.random() < 0.1),
                tags=dice.choice(((), (), ("red",), ("red", "blue"))),
                unique=unique,
                max_attempts=3,
            )
            items.append(item)
        for item, said in zip(items, self.desk.run(calls.submit(0, items, atomic=dice.random() < 0.3)), strict=True):
            if said.status is Status.OK and said.id == item.id:
                self.jobs[item.id] = Job(item, item.priority)

    def state(self, job_id: str) -> str:
        return self.desk.field(job_id, "st") or ""

    def call(self, who: Consumer, finishes: list[calls.Finish]) -> None:
        """One round, now and then sent twice."""
        for finish in finishes:
            self.release(who, finish.id)
        who.is_awake, who.timer = False, None
        self.desk.raw.zrem(f"tm:{{0}}:in:{who.wid}", "w")
        call = self.desk.next_cycle(who.wid, *who.wants(), finishes=finishes, lease_ms=LEASE_MS)
        answer: calls.Cycle = self.desk.run(call)
        assert answer.status is Status.OK
        for claim in answer.claims:
            self.claimed(who, claim)
            who.running[claim.id] = (self.desk.token(who.wid), claim.queue)
        assert all(int(group[0]) >= 0 for group in who.wants())
        if self.dice.random() < 0.1:
            again: calls.Cycle = self.desk.run(call)
            assert [claim.id for claim in again.claims] == [claim.id for claim in answer.claims]
            answer = again
        who.is_awake = answer.more
        who.timer = self.desk.now + answer.next_ms if answer.next_ms >= 0 else None

    def release(self, who: Consumer, job_id: str) -> None:
        del who.running[job_id]
        for jobs in self.holders.values():
            jobs.discard(job_id)

    def cycle(self) -> None:
        """Somebody who is awake, or whose jobs have ended."""
        who = self.dice.choice(self.consumers)
        ends = [job_id for job_id in who.running if self.dice.random() < 0.5]
        if not ends and not self.is_due(who):
            return
        finishes = [
            self.desk.end(
                who.wid,
                job_id,
                self.dice.choice("ccccrrhsfx"),
                token=who.running[job_id][0],
                delay_ms=self.dice.choice((0, 40, 900)),
                reason="why",
                fingerprint="f",
                row="[]",
            )
            for job_id in ends
        ]
        self.call(who, finishes)

    def is_due(self, who: Consumer) -> bool:
        is_marked = self.desk.raw.zscore(f"tm:{{0}}:in:{who.wid}", "w") is not None
        return who.is_awake or is_marked or (who.timer is not None and who.timer <= self.desk.now)

    def lose(self) -> None:
        """A consumer's process is killed; its leases end, and after the grace its jobs are back."""
        who = self.dice.choice(self.consumers)
        self.consumers.remove(who)
        assert self.desk.run(upkeep.abandon(0, who.wid)) == -1
        self.advance(GRACE_MS)
        if who.running:
            assert set(self.desk.reap()[1]) == set(who.running)
        for job_id in list(who.running):
            self.release(who, job_id)
        self.enrol(who.types, who.groups)

    def cancel(self) -> None:
        for job_id in self.dice.sample(sorted(self.jobs), min(len(self.jobs), 3)):
            self.desk.run(calls.cancel(0, job_id, who="ann", key_window_ms=WINDOW_MS))

    def patch(self) -> None:
        for job_id in self.dice.sample(sorted(self.jobs), min(len(self.jobs), 3)):
            changes = self.dice.choice(({"pr": self.dice.randrange(4)}, {"due": 0}, {"due": self.desk.now + 300}, {"tg": ["green"]}))
            self.desk.run(flow.patch(0, job_id, changes, op=self.order().op))

    def purge(self) -> None:
        self.desk.run(calls.purge(0, self.dice.sample(sorted(self.jobs), min(len(self.jobs), 5))))

    def change_limit(self) -> None:
        name = self.dice.choice(sorted(RULES))
        rule = self.dice.choice(RULES[name])
        if "burst" in rule and rule != self.rules[name]:
            self.times[name].clear()  # the oracle's bucket knows one size only
            self.desk.raw.delete(f"tm:{{0}}:L:{name}:b")
        self.rules[name] = rule
        self.desk.run(flow.put_limit(0, name, rule, self.order()))

    def change_queue(self) -> None:
        queue = self.dice.choice(QUEUES)
        self.attached[queue] = self.dice.choice(ATTACHED[queue])
        self.desk.run(flow.put_queue(0, queue, {"lm": self.attached[queue], "strict": self.dice.choice(("", 1))}, self.order()))

    def pause(self) -> None:
        scope = self.dice.choice(
            (*(f"q/{queue}" for queue in QUEUES), *(f"t/{kind}" for kind in TYPES), *(f"k/{key}" for key in KEYS if key))
        )
        if scope in self.paused:
            self.resume(scope)
        else:
            self.paused.add(scope)
            self.desk.run(flow.pause(0, scope, "pause", self.order()))

    def resume(self, scope: str) -> None:
        self.paused.discard(scope)
        self.desk.run(flow.pause(0, scope, "resume", self.order()))

    def wait(self) -> None:
        self.advance(self.dice.choice((1, 9, 60, 400, 1_000)))

    def advance(self, ms: int) -> None:
        self.desk.now += ms
        for who in self.consumers:
            attempts = [(job_id, token) for job_id, (token, _) in who.running.items()]
            self.desk.run(calls.extend(0, who.wid, attempts, lease_ms=LEASE_MS, alive_ms=ALIVE_MS))

    # ------------------------------------------------------------ what must be true
    def check(self) -> None:
        snap, wrong = snapshot(self.desk.raw)
        wrong += violations(snap)
        assert not wrong, "\n".join([*wrong, *self.log[-12:]])
        for instance, jobs in self.holders.items():
            assert {member for member, _ in snap.get(f"L:{instance}:s", ())} == jobs, instance

    def settle(self) -> None:
        """W2: everybody who is on the way calls; when all sleep, nothing is left that one of them could claim."""
        for _ in range(400):
            due = [who for who in self.consumers if self.is_due(who)]
            kicks: Any = self.desk.raw.zrange("tm:{0}:kick", 0, 0, withscores=True)
            if due:
                self.call(self.dice.choice(due), [])
            elif kicks and kicks[0][1] <= self.desk.now + 10:
                assert kicks[0][1] > self.desk.now, f"everybody sleeps, and {kicks} is due"
                self.advance(int(kicks[0][1]) - self.desk.now)
            else:
                break
        else:
            raise AssertionError("they never sleep")
        for index in ("delayed", "exp"):
            head: Any = self.desk.raw.zrange(f"tm:{{0}}:{index}", 0, 0, withscores=True)
            assert not head or head[0][1] > self.desk.now, f"everybody sleeps, and {head} of {index} is due"
        for job_id, job in self.jobs.items():
            if self.state(job_id) != "w" or not self.may_run(job):
                continue
            kind = job.item.type + ("!" if int(self.desk.field(job_id, "ls") or 0) else "")
            for who in self.consumers:
                has_room = any(int(group[0]) > 0 and job.item.queue in group for group in who.wants())
                assert kind not in who.types or not has_room, f"{who.wid} sleeps, {job.item} waits\n" + "\n".join(self.log[-40:])

    def drain(self) -> None:
        """All that holds jobs up is taken away: then all of them end."""
        for scope in sorted(self.paused):
            self.resume(scope)
        for name in RULES:
            self.rules[name] = RULES[name][0]
            self.desk.run(flow.put_limit(0, name, self.rules[name], self.order()))
            self.times[name].clear() if "burst" in self.rules[name] else None
            self.desk.raw.delete(f"tm:{{0}}:L:{name}:b")
        for _ in range(400):
            self.settle()
            for who in self.consumers:
                self.call(who, [self.desk.end(who.wid, job_id, token=token) for job_id, (token, _) in who.running.items()])
            if all(self.state(job_id) in ("", "c", "f", "x") for job_id in self.jobs):
                return
            self.advance(100)
        raise AssertionError(f"still there: {[job.item for job_id, job in self.jobs.items() if self.state(job_id) in 'wda']}")


OFTEN = {"submit": 6, "cycle": 12, "wait": 5, "change_limit": 2, "settle": 2}
VERBS = ("submit", "cycle", "wait", "cancel", "patch", "purge", "change_limit", "change_queue", "pause", "lose", "settle")
STEPS = 120
SEEDS = range(int(os.environ.get("FLOW_MACHINE_SEEDS", "5")))  # more, when somebody asks for them


@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", SEEDS)
def test_limits_hold_and_nothing_is_forgotten(desk: Desk, seed: int) -> None:
    """Whatever is submitted, ended, lost, changed or paused: no limit is exceeded, and when all sleep, nothing that could run is left."""
    world = World(desk, seed)
    verbs = [verb for verb in VERBS for _ in range(OFTEN.get(verb, 1))]

    for _ in range(STEPS):
        verb = world.dice.choice(verbs)
        world.log.append(f"{verb} at {desk.now}")
        getattr(world, verb)()
        world.check()

    world.drain()
    world.advance(2 * PER_MS)
    world.settle()
    world.check()
    assert not [key for key in snapshot(desk.raw)[0] if key.startswith("L:") and key.endswith((":s", ":w", ":i"))]
