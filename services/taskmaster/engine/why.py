"""Why a job is not running, in order, with the facts and an estimate. Pure: store/lua/why.lua asks the rules by which the fetch claims."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import msgspec

from taskmaster.engine.queries import consumer_of, job_of
from taskmaster.model.job import JobRecord
from taskmaster.store.reads import Refusal, Shown, Why

__all__ = ["Explanation", "Reason", "explain"]

#: Reasons of which nobody can say when they end.
_OPEN_ENDED = frozenset({"no_worker", "paused", "queue_not_served", "blocked_by_parent"})
_DELAYED = {
    "retrying": "its attempt failed, and it waits for the next",
    "retry_budget": "its attempt failed, and its dependency has had as many retries as it may: it waits for its turn among them",
    "dependency_down": "its dependency was down when it was tried",
    "rate_limited": "its dependency asked for patience when it was tried",
}


class Reason(NamedTuple):
    """One reason. `code` is stable, `message` for people, `facts` the numbers behind it: instants end in `_ms`, unix time."""

    code: str
    message: str
    facts: dict[str, Any]


class Explanation(NamedTuple):
    """All reasons of a job, the one that holds it now first.

    `start_ms`: when it may begin, as things are; None: that depends on somebody, or nobody can tell.
    """

    record: JobRecord
    reasons: tuple[Reason, ...]
    start_ms: int | None


def explain(job_id: str, why: Why) -> Explanation:
    """The reasons of one job.

    Raises:
        StoreDefect: what is stored is not what this version writes.
    """
    record = job_of(job_id, Shown("", why.fields, b"", b"", (), {}))
    if record.state == "waiting":
        reasons = [*_expired(why), *_obstacles(record, why), *_turn(why)]
    elif record.state == "delayed":
        reasons = [_not_due(record), *_obstacles(record, why)]
    elif record.state == "active":
        reasons = [_running(record, why)]
    elif record.state == "blocked":
        reasons = [Reason("blocked_by_parent", "it waits for jobs of its workflow", {})]
    else:
        how = f", {record.reason}" if record.reason else ""
        reasons = [
            Reason(record.state, f"it has ended: {record.state}{how}", {"ended_at_ms": record.finished_ms, "cause": record.reason or None})
        ]
    return Explanation(record, tuple(reasons), _start_ms(record, why, reasons))


def _expired(why: Why) -> Iterator[Reason]:
    expires_ms = int(why.fields.get("ex") or 0)
    if expires_ms and expires_ms <= why.now_ms:
        yield Reason("expired", "it was to begin earlier, and will be cancelled", {"expires_at_ms": expires_ms})


def _not_due(record: JobRecord) -> Reason:
    code = record.reason if record.reason in _DELAYED else "not_due"
    message = _DELAYED.get(record.reason, "it is not due yet")
    return Reason(code, message, {"due_at_ms": record.due_ms, "failures": record.failures, "max_attempts": record.attempts})


def _running(record: JobRecord, why: Why) -> Reason:
    wid, info = (why.consumers[0][0], why.consumers[0][1]) if why.consumers else (record.consumer, b"")
    who = consumer_of(wid, info)
    facts: dict[str, Any] = {"consumer": wid, "host": who.host, "pid": who.pid}
    facts |= {"since_ms": record.claimed_ms, "attempt": record.attempts_made}
    facts |= {"progress": record.progress, "lease_until_ms": why.lease_ms}
    where = f" on {who.host}, process {who.pid}" if who.host else ""
    if why.lease_ms <= why.now_ms:
        return Reason("worker_silent", f"the worker that runs it{where} has not been heard of; another will take it over", facts)
    if record.cancel_requested:
        return Reason("cancelling", f"it runs{where}, and its worker has been asked to stop", facts)
    return Reason("running", f"it runs{where}", facts)


# ---------------------------------------------------------------- what holds a job that waits
def _obstacles(record: JobRecord, why: Why) -> Iterator[Reason]:
    if not why.consumers:
        yield _no_worker(record, why)
    for scope, raw in (("queue", why.queue_pause), ("type", why.type_pause)):
        if raw:
            yield _paused(scope, record.queue if scope == "queue" else record.type, msgspec.json.decode(raw))
    if why.consumers and not _slots(why, record.queue):
        yield Reason("queue_not_served", f"no live worker takes jobs of the queue {record.queue}", {"queue": record.queue})
    for refusal in why.refusals:
        yield _refused(refusal, why.now_ms)


def _no_worker(record: JobRecord, why: Why) -> Reason:
    try:
        entry = msgspec.json.decode(why.entry) if why.entry else {}
    except msgspec.DecodeError:
        entry = {}
    facts = {"type": record.type, "plugin": entry.get("plugin"), "plugin_version": entry.get("version") or None, "losses": record.losses}
    if record.losses:
        return Reason("no_worker", f"it lost a worker, and no live one takes such jobs of the type {record.type}", facts)
    by = f"; the plugin {facts['plugin']} has published it" if facts["plugin"] else "; no plugin has ever published it"
    return Reason("no_worker", f"no live worker has the type {record.type}{by}", facts)


def _paused(scope: str, name: str, order: Mapping[str, Any]) -> Reason:
    facts = {"scope": scope, "name": name, "by": order.get("who"), "since_ms": order.get("since"), "reason": order.get("reason") or None}
    return Reason("paused", f"the {scope} {name} is paused by {facts['by']}", facts)


def _refused(refusal: Refusal, now_ms: int) -> Reason:
    fields, name = refusal.fields, refusal.instance
    room_at = now_ms + refusal.room_ms if refusal.room_ms >= 0 else None
    if refusal.kind == "breaker":
        return _breaker(refusal, room_at, now_ms)
    facts: dict[str, Any] = {"limit": name, "in_use": refusal.in_use, "room_at_ms": room_at, "waits": refusal.unit}
    key = name.partition("@")[2]
    if refusal.kind == "gate" and "pause" in fields:
        order = msgspec.json.decode(fields["pause"])
        return _paused("tenant", order.get("name") or key, order)
    if refusal.kind == "gate":
        return Reason("paused", f"the gate {name} is shut", facts | {"scope": "gate", "name": name})
    facts["max"] = int(fields.get(f"max/{key}") or fields["max"]) if key else int(fields["max"])
    if refusal.kind == "rate":
        facts["per_ms"] = int(fields["per"])
        return Reason("rate_limited", f"the limit {name} is used up: {facts['in_use']} of {facts['max']} in {facts['per_ms']} ms", facts)
    return Reason("concurrency_limited", f"the limit {name} is taken: {facts['in_use']} of {facts['max']} run", facts)


def _breaker(refusal: Refusal, room_at: int | None, now_ms: int) -> Reason:
    fields, name = refusal.fields, refusal.instance.removeprefix("!")
    till = int(fields["till"]) if fields.get("till") else None
    facts: dict[str, Any] = {"dependency": name, "cause": fields.get("how") or None, "since_ms": int(fields.get("since") or 0) or None}
    facts |= {"open_until_ms": till, "by": None, "reason": None, "waits": refusal.unit}
    if till is None:
        facts |= {"by": fields.get("who"), "reason": fields.get("why") or None}
        return Reason("breaker_open", f"the breaker of {name} is open by order of {facts['by']}", facts)
    if till <= now_ms:
        facts |= {"probing": refusal.in_use, "probes": int(fields.get("probes") or 1)}
        return Reason("breaker_open", f"{name} is being probed: {facts['probing']} of {facts['probes']} calls are under way", facts)
    how = "it asked for patience" if facts["cause"] == "rate_limited" else "its calls fail"
    return Reason("breaker_open", f"the breaker of {name} is open: {how}", facts | {"room_at_ms": room_at})


def _slots(why: Why, queue: str) -> int:
    """How many jobs of the queue its live workers run at once; those that do not say count as one each, so that nothing is made up."""
    processes: dict[bytes, int] = {}
    for _, info, _ in why.consumers:
        try:
            served = msgspec.json.decode(info).get("queues")
        except (msgspec.DecodeError, AttributeError):
            served = None
        processes[info] = int(served.get(queue, 0)) if isinstance(served, dict) else 1
    return sum(processes.values())


def _turn(why: Why) -> Iterator[Reason]:
    """Nothing forbids it: it is a matter of slots, and of who comes before it."""
    if not why.place:
        return
    rank, in_lane, lanes, earlier, higher, is_cut = why.place
    sleeping = sum(sleeps for _, _, sleeps in why.consumers)
    slots = _slots(why, why.fields["q"])
    facts = {"active": why.active, "slots": slots, "workers": len({info for _, info, _ in why.consumers})}
    if why.consumers and slots and not sleeping:
        yield Reason("no_free_slot", f"all {slots} slots of its queue's workers are taken or spoken for", facts)
    ahead = {"ahead_in_lane": rank, "in_lane": in_lane, "lanes": lanes, "ahead_in_level": earlier, "in_higher_levels": higher}
    ahead |= {"counted_all": not is_cut, "ended_last_minute": why.ended}
    yield Reason("waiting_its_turn", f"{rank} jobs are before it in its lane, {earlier} came earlier at its priority", ahead)


def _start_ms(record: JobRecord, why: Why, reasons: list[Reason]) -> int | None:
    """As things are: the latest of the instants that are known, and behind them what is ahead at the present rate."""
    if record.state not in ("waiting", "delayed") or any(reason.code in _OPEN_ENDED or reason.code == "expired" for reason in reasons):
        return None
    at = max(why.now_ms, record.due_ms if record.state == "delayed" else 0)
    for refusal in why.refusals:
        if refusal.room_ms < 0:
            return None
        at = max(at, why.now_ms + refusal.room_ms)
    ahead = why.place[3] + why.place[4] if why.place else 0
    if not ahead:
        return at
    return at + ahead * 60_000 // why.ended if why.ended else None
