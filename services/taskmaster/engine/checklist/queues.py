"""Rules about what waits and what failed: dead letters, depth, orders of operators, schedules."""

from __future__ import annotations

from taskmaster.engine.checklist.facts import Facts
from taskmaster.engine.checklist.findings import Finding, Rule, named
from taskmaster.engine.queue_rules import queue_rules, type_rules, unknown_limits
from taskmaster.engine.rules import paused_tenants

__all__ = ["RULES"]

#: So many dead letters are nobody's to read one by one any more.
LETTERS_MANY = 1_000
_SCOPES = {"q": "queue", "t": "type", "p": "plugin", "k": "tenant"}

_LETTERS = Rule(
    "dead-letters",
    "each is work that was promised and not done; the store keeps it until somebody discards it, also when it was replayed",
    "taskmaster dlq groups says of which causes; then taskmaster operations start replay, or discard; the alert TaskMasterDeadLetters of "
    "ops/prometheus tells of new ones",
)
_SLA = Rule(
    "queue-sla",
    "how long a job may wait in the queue is promised to somebody; TaskMasterQueueBehindSla of ops/prometheus tells when it is broken",
    "more workers (GET /scaling says how many), or what holds them up: taskmaster job ID --why of one that waits",
)
_LENGTH = Rule(
    "queue-length",
    "a queue without a longest length takes jobs until the store's memory is full, which stops all queues; load shedding begins earlier, "
    "and never for critical jobs",
    "taskmaster queues set QUEUE --max-length N",
)
_LIMITERS = Rule(
    "limiters",
    "a name without a rule limits nothing",
    "PUT /limits/{name} or taskmaster limits put NAME gives it one; or take the name from the queue or type",
)
_PAUSES = Rule("pauses", "nothing of what is paused begins until it is resumed", "")
_SCHEDULES = Rule(
    "schedule-types",
    "a schedule whose type is gone makes no job, or one that waits",
    "install the type's plugin again, or taskmaster schedules delete ID; what cannot be read is made anew by PUT /schedules/{id}",
)


def dead_letters(facts: Facts) -> list[Finding]:
    """Few, and none that is older than a day."""
    letters = facts.store.letters
    total = sum(letters.by_queue.values())
    told = {"total": total, "olderThanADay": letters.old, "oldestMs": letters.oldest_ms, "queues": letters.by_queue}
    if not total:
        return [_LETTERS.ok("none", told)]
    if letters.old or total >= LETTERS_MANY:
        oldest = f", the oldest {letters.oldest_ms / 86_400_000:.1f} days ago" if letters.oldest_ms else ""
        return [_LETTERS.warning(f"{total}, {letters.old} of them failed more than a day ago{oldest}", told)]
    return [_LETTERS.ok(f"{total}, none older than a day", told)]


def queue_sla(facts: Facts) -> list[Finding]:
    """No queue's oldest job has been waiting for longer than its SLA."""
    slas = {view.name: queue_rules(facts.store.orders, view.name).sla_ms for view in facts.store.queues}
    late = {
        view.name: {"oldestMs": view.oldest_ms, "slaMs": sla}
        for view in facts.store.queues
        if view.oldest_ms is not None and (sla := slas[view.name]) is not None and view.oldest_ms > sla
    }
    told = {"late": late, "withoutSla": sorted(name for name, sla in slas.items() if sla is None)}
    if late:
        texts = (f"{name}: waiting for {one['oldestMs']} ms, promised {one['slaMs']} ms" for name, one in late.items())
        return [_SLA.warning(named(texts), told)]
    promised = sum(sla is not None for sla in slas.values())
    return [_SLA.ok(f"{promised} of {len(slas)} queues have one, and keep it", told)]


def queue_length(facts: Facts) -> list[Finding]:
    """Every queue has a longest length."""
    open_ = [view.name for view in facts.store.queues if queue_rules(facts.store.orders, view.name).max_length is None]
    told = {"queues": open_, "shedWaiting": facts.own.shed_waiting}
    if not open_:
        return [_LENGTH.ok(f"{len(facts.store.queues)} queues, all with a maxLength", told)]
    shed = facts.own.shed_waiting
    until = f"low priority is refused from {shed} waiting jobs on" if shed else "no load is shed by length"
    return [_LENGTH.warning(f"no maxLength: {named(open_)}; {until}", told)]


def limiters(facts: Facts) -> list[Finding]:
    """Every limiter that a queue or a type names has a rule."""
    orders = facts.store.orders
    lists = [queue_rules(orders, queue).limits for queue in orders[0].queues]
    lists += [type_rules(orders, name).limits for name in orders[0].type_limits]
    unknown = unknown_limits(orders, (name for names in lists for name in names))
    if unknown:
        return [_LIMITERS.warning(f"no rule for {named(unknown)}", {"names": unknown})]
    return [_LIMITERS.ok(f"{len(orders[0].limiters)} limiters; every name has a rule")]


def pauses(facts: Facts) -> list[Finding]:
    """What stands still by an order. That is meant, so it is no fault."""
    orders = facts.store.orders
    scopes = [*sorted(scope for scope in orders[0].pauses if not scope.startswith("k/")), *(f"k/{name}" for name in paused_tenants(orders))]
    paused = [f"{_SCOPES.get(kind, kind)} {name}" for kind, _, name in (scope.partition("/") for scope in scopes)]
    return [_PAUSES.ok(named(paused) or "none", {"paused": paused})]


def schedule_types(facts: Facts) -> list[Finding]:
    """Every schedule that is to run makes jobs of a type that is published, and that a live worker has."""
    planned = facts.store.schedules
    known = {entry.type for entry in facts.store.types} | set(facts.store.unreadable)
    served = {name for worker in facts.live for name in worker.types}
    gone = {one.id: one.type for one in planned if one.type not in known}
    idle = {one.id: one.type for one in planned if one.type in known - served} if facts.live else {}
    told = {"gone": gone, "withoutWorker": idle}
    said = {name: f"nobody has published its type {kind}" if kind else "its definition cannot be read" for name, kind in gone.items()}
    texts = [f"{name}: {text}" for name, text in said.items()]
    texts += [f"{name}: no live worker has its type {kind}" for name, kind in idle.items()]
    if gone:
        return [_SCHEDULES.error(named(texts), told)]
    if idle:
        return [_SCHEDULES.warning(named(texts), told)]
    return [_SCHEDULES.ok(f"{len(planned)} schedules run, all of known types", told)]


RULES = (dead_letters, queue_sla, queue_length, limiters, pauses, schedule_types)
