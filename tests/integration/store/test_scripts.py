"""Each script on both servers: what it decides, what its repeat answers, whom it wakes, and that it does nothing by halves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from random import Random
from typing import Any

import msgspec
import pytest

from support.desk import ALIVE_MS, BEGINNING_MS, GRACE_MS, LEASE_MS, WINDOW_MS, Desk, keeping
from support.protocol.dump import lasting, snapshot
from support.servers import StoreServer
from taskmaster.errors import StoreDefect, StoreRefused
from taskmaster.model.letters import LetterFilter
from taskmaster.store import audit, breakers, calls, effects, events, flow, letters, operations, reads, schedules, upkeep, webhooks
from taskmaster.store.call import Call
from taskmaster.store.status import Status

OK, ALREADY, STALE, GONE = Status.OK, Status.ALREADY, Status.STALE, Status.GONE
LEVELS = ("critical", "high", "normal", "low")


# ---------------------------------------------------------------- the reply was lost: the same call again
def _submitted(desk: Desk) -> tuple[Call[Any], Any]:
    item = desk.item()
    return calls.submit(0, [item]), [BEGINNING_MS, [ALREADY, b"w", item.id.encode()]]


def _submitted_keyed(desk: Desk) -> tuple[Call[Any], Any]:
    item = desk.item(key="k" * 22, delay_ms=5_000)
    return calls.submit(0, [item]), [BEGINNING_MS, [Status.DUPLICATE, b"d", item.id.encode()]]


def _submitted_atomic(desk: Desk) -> tuple[Call[Any], Any]:
    items = [desk.item(), desk.item(key="k" * 22)]
    again = [[ALREADY, b"w", items[0].id.encode()], [Status.DUPLICATE, b"w", items[1].id.encode()]]
    return calls.submit(0, items, atomic=True), [BEGINNING_MS, *again]


def _replayed(desk: Desk) -> tuple[Call[Any], Any]:
    dead, wid = desk.submit(), desk.register("w1")
    desk.claim(wid)
    desk.cycle(wid, finishes=[desk.end(wid, dead, "f", reason="fatal", fingerprint="f")])
    item = desk.item(key="k" * 22, root_id=dead, replayed_from=dead)
    return calls.submit(0, [item]), [BEGINNING_MS, [Status.DUPLICATE, b"w", item.id.encode()]]


def _cycled(desk: Desk) -> tuple[Call[Any], Any]:
    wid = desk.register("w1")
    ids = [desk.submit() for _ in range(7)]
    desk.claim(wid, 6)
    facts: dict[str, Any] = {"row": "[]", "reason": "x", "fingerprint": "f", "delay_ms": 1_000}
    ends = [desk.end(wid, job_id, outcome, **facts) for job_id, outcome in zip(ids, "crfxhs", strict=False)]
    call = desk.next_cycle(wid, (2, "one"), finishes=ends)
    claims = msgspec.msgpack.encode([[job_id, "one", epoch, 1, 0, 0] for job_id, epoch in ((ids[4], 2), (ids[6], 1))])
    return call, [OK, BEGINNING_MS, [ALREADY] * 6, claims, [b'["alpha"]'] * 2, 1_000, 0]


def _extended(desk: Desk) -> tuple[Call[Any], Any]:
    desk.submit()
    wid = desk.register("w1")
    (held,) = desk.claim(wid)
    call = calls.extend(0, wid, [(held, desk.token(wid)), (held, "w1.9")], lease_ms=LEASE_MS, alive_ms=ALIVE_MS)
    return call, [BEGINNING_MS, OK, STALE]


def _progressed(desk: Desk) -> tuple[Call[Any], Any]:
    desk.submit()
    wid = desk.register("w1")
    (held,) = desk.claim(wid)
    lines = [str(n) * 300 for n in range(300)]
    desk.run(calls.progress(0, [calls.Word(held, desk.token(wid), "", 1, lines[:200])]))
    words = [calls.Word(held, desk.token(wid), "0.5 half", 101, lines[100:]), calls.Word(held, "w1.9", "0.7", 1, lines)]
    return calls.progress(0, words), [OK, STALE]


def _promoted(desk: Desk) -> tuple[Call[Any], Any]:
    desk.submit(delay_ms=1_000)
    desk.now += 1_000
    return upkeep.promote(0), 0


def _reaped(desk: Desk) -> tuple[Call[Any], Any]:
    desk.submit()
    desk.claim(desk.register("w1"))
    desk.now += LEASE_MS + GRACE_MS
    return upkeep.reap(0, grace_ms=GRACE_MS, losses=3, key_window_ms=WINDOW_MS), [0]


def _abandoned(desk: Desk) -> tuple[Call[Any], Any]:
    desk.submit()
    desk.claim(desk.register("w1"))
    return upkeep.abandon(0, "w1"), -1


def _cancelled(desk: Desk) -> tuple[Call[Any], Any]:
    return calls.cancel(0, desk.submit(), who="me", key_window_ms=WINDOW_MS), [ALREADY]


def _cancelled_running(desk: Desk) -> tuple[Call[Any], Any]:
    held = desk.submit()
    desk.claim(desk.register("w1"))
    return calls.cancel(0, held, who="me", key_window_ms=WINDOW_MS), [Status.CANCELLING]


def _purged(desk: Desk) -> tuple[Call[Any], Any]:
    job_id = desk.submit()
    desk.run(calls.cancel(0, job_id, who="me", key_window_ms=WINDOW_MS))
    return calls.purge(0, [job_id]), [[GONE]]


def _pruned(desk: Desk) -> tuple[Call[Any], Any]:
    for _ in range(3):
        desk.run(calls.cancel(0, desk.submit(), who="me", key_window_ms=WINDOW_MS))
    return upkeep.prune(0, keeping(1)), 0


def _registered(desk: Desk) -> tuple[Call[Any], Any]:
    call = calls.register(
        0, wid="w1", cap="c", info="{}", plugin_set="{}", types=["alpha"], catalogue=[PUBLISHED], alive_ms=ALIVE_MS, gen="g"
    )
    return call, [b"g", BEGINNING_MS]


def _told_of(desk: Desk) -> list[str]:
    """The end of a job that somebody wants to hear of; its entry in the outbox."""
    job_id = desk.submit(callback="https://example.com/")
    desk.run(calls.cancel(0, job_id, who="me", key_window_ms=WINDOW_MS))
    return [end.entry for end in desk.run(webhooks.outbox(0))]


def _webhook(desk: Desk, **fields: str) -> Call[Any]:
    usual = {"url": "https://example.com/", "off": "", "sec": "[]"}
    return webhooks.put_webhook(0, "we_0123456789abcdef", usual | fields, ORDER, "{}")


def _webhook_gone(desk: Desk) -> tuple[Call[Any], Any]:
    desk.run(_webhook(desk))
    return webhooks.put_webhook(0, "we_0123456789abcdef", {}, ORDER._replace(op="other"), "{}"), [ALREADY, 2]


def _webhooks_read(desk: Desk) -> tuple[Call[Any], Any]:
    desk.run(_webhook(desk))
    return webhooks.webhooks(0), None


def _outbox_state_read(desk: Desk) -> tuple[Call[Any], Any]:
    _told_of(desk)
    return webhooks.outbox_state(0), None


def _dropped_said(desk: Desk) -> tuple[Call[Any], Any]:
    desk.raw.hset("tm:{0}:obd", mapping={"n": 3, "at": desk.now})
    return upkeep.tick(0, grace_ms=GRACE_MS), [0]


def _outbox_read(desk: Desk) -> tuple[Call[Any], Any]:
    _told_of(desk)
    return webhooks.outbox(0), None


def _unregistered(desk: Desk) -> tuple[Call[Any], Any]:
    desk.submit()
    for wid in ("w1", "w2"):
        desk.cycle(desk.register(wid, "beta", "alpha" if wid == "w2" else "gamma"), (1, "one"))
    return calls.unregister(0, "w1"), OK


def _ticked(desk: Desk) -> tuple[Call[Any], Any]:
    desk.register("w1")
    desk.now += ALIVE_MS + 1
    return upkeep.tick(0, grace_ms=GRACE_MS), [0]


def _swept(desk: Desk) -> tuple[Call[Any], Any]:
    desk.submit()
    return upkeep.sweep(0, every_ms=1_000, key_window_ms=WINDOW_MS), []


def _mended(desk: Desk) -> tuple[Call[Any], Any]:
    lost, gone = desk.submit(), desk.submit()
    desk.run(calls.cancel(0, gone, who="me", key_window_ms=WINDOW_MS))
    desk.run(calls.purge(0, [gone]))
    desk.raw.set(f"tm:{{0}}:b:{gone}", "left over")
    for name in ("lane:one/2/alpha/-", "it:alpha", "bands:one"):
        desk.raw.delete(f"tm:{{0}}:{name}")
    return upkeep.mend(0, [f"j:{lost}", f"b:{gone}"], key_window_ms=WINDOW_MS), []


def _rewound(desk: Desk) -> tuple[Call[Any], Any]:
    desk.register("w1")
    return upkeep.store_rewound(0, known="g", fresh="h", sign="rewound"), [Status.CONFLICT, b"h", b""]


def _read(call: Callable[[str], Call[Any]]) -> Callable[[Desk], tuple[Call[Any], Any]]:
    def arrange(desk: Desk) -> tuple[Call[Any], Any]:
        job_id, wid = desk.submit(), desk.register("w1")
        desk.claim(wid)
        desk.cycle(wid, finishes=[desk.end(wid, job_id, "f", reason="fatal", fingerprint="f")])
        return call(job_id), None

    return arrange


def _held(desk: Desk) -> tuple[str, str]:
    job_id, wid = desk.submit(), desk.register("w1")
    desk.claim(wid)
    return job_id, desk.token(wid)


def _reserved(desk: Desk) -> tuple[Call[Any], Any]:
    job_id, token = _held(desk)
    return effects.reserve(0, job_id, token, 1, "e" * 32, name="smtp", key="", again=False), [OK]


def _told(happened: bool) -> Callable[[Desk], tuple[Call[Any], Any]]:
    def told(desk: Desk) -> tuple[Call[Any], Any]:
        job_id, token = _held(desk)
        desk.run(effects.reserve(0, job_id, token, 1, "e" * 32, name="smtp", key="", again=False))
        return effects.done(0, job_id, "e" * 32, token, 1, happened=happened, result=b"1"), ALREADY

    return told


def _settled(desk: Desk) -> tuple[Call[Any], Any]:
    job_id, token = _held(desk)
    desk.run(effects.reserve(0, job_id, token, 1, "e" * 32, name="smtp", key="", again=False))
    desk.cycle("w1", finishes=[desk.end("w1", job_id, "f", token=token, reason="effect_unknown", fingerprint="f")])
    return effects.settle(0, job_id, "e" * 32, happened=True, who="ann", reason="in the provider's log", at_it_ms=LEASE_MS), [ALREADY]


OP = "o" * 22


def _opened(desk: Desk, action: str = "replay", **fields: str) -> Call[Any]:
    usual = {"ac": action, "fl": "", "ra": "100", "tot": "2", "tx": "1"}
    return operations.open_(0, OP, "r" * 22, usual | fields, who="ann", reason="mended", detail="{}")


def _at_work(desk: Desk, action: str = "replay", **fields: str) -> list[str]:
    """Two dead letters, and an operation on them that may act."""
    ids = desk.bury(2)
    desk.run(_opened(desk, action, **fields))
    desk.now += 1_000
    return ids


def _step(desk: Desk) -> operations.Step:
    page = desk.run(operations.page(0, OP))
    return operations.Step(OP, page.before, page.behind, page.is_end)


def _noted(desk: Desk) -> tuple[Call[Any], Any]:
    _at_work(desk)
    return operations.note(0, _step(desk), spent=2, counts={"done": 2, "replayed": 1}, made=[desk.submit()]), STALE


def _step_discarded(desk: Desk) -> tuple[Call[Any], Any]:
    ids = _at_work(desk, "discard")
    return operations.discard(0, _step(desk), ids), STALE


def _step_cancelled(desk: Desk) -> tuple[Call[Any], Any]:
    job_id = desk.submit(delay_ms=60_000)
    desk.run(_opened(desk, "cancel", fl='{"state":"delayed"}'))
    desk.now += 1_000
    return operations.cancel(0, _step(desk), [job_id], key_window_ms=WINDOW_MS), STALE


def _looked(desk: Desk) -> tuple[Call[Any], Any]:
    ids = _at_work(desk, so="1")
    desk.run(operations.note(0, _step(desk), spent=2, counts={"done": 2}, made=[*ids, desk.submit()]))
    return operations.look(0, OP), None


def _op_ended(desk: Desk) -> tuple[Call[Any], Any]:
    _at_work(desk)
    return operations.end(0, OP, "cancelled", who="ann", reason="enough"), [ALREADY]


def _op_read(call: Call[Any]) -> Callable[[Desk], tuple[Call[Any], Any]]:
    def arrange(desk: Desk) -> tuple[Call[Any], Any]:
        _at_work(desk)
        return call, None

    return arrange


PUBLISHED = calls.Published("alpha", '{"plugin":"mailer","limits":["few"]}', "mailer", "few")
ORDER = flow.Order("op", None, "ann", "why")


def _limited(desk: Desk) -> tuple[Call[Any], Any]:
    desk.run(flow.put_queue(0, "one", {"lm": "few"}, ORDER))
    desk.run(flow.put_limit(0, "few", {"kind": "slots", "max": 1}, ORDER))
    desk.submit(), desk.submit()
    desk.claim(desk.register("w1"), 2)
    return flow.put_limit(0, "few", {"kind": "slots", "max": 2}, ORDER._replace(op="other")), [ALREADY, 2]


def _paused(desk: Desk) -> tuple[Call[Any], Any]:
    desk.submit()
    return flow.pause(0, "q/one", "pause", ORDER), [ALREADY, 1]


def _resumed(desk: Desk) -> tuple[Call[Any], Any]:
    desk.run(flow.pause(0, "t/alpha", "pause", ORDER))
    desk.submit()
    desk.claim(desk.register("w1"))
    return flow.pause(0, "t/alpha", "resume", ORDER._replace(op="other")), [ALREADY, 2]


def _set_up(desk: Desk) -> tuple[Call[Any], Any]:
    desk.submit()
    return flow.put_queue(0, "one", {"max": 3, "strict": 1}, ORDER), [ALREADY, 1]


def _patched(desk: Desk) -> tuple[Call[Any], Any]:
    job_id = desk.submit(delay_ms=1_000, lane="k", tags=("a",))
    return flow.patch(0, job_id, {"pr": 0, "due": 0, "tg": ["b"], "b": "[]"}, op="op"), [ALREADY, b"w", 1]


def _forced(desk: Desk) -> tuple[Call[Any], Any]:
    desk.register("w1", alpha="stripe")
    desk.submit()
    return breakers.force(0, "stripe", "open", ORDER), [ALREADY, 1]


def _type_set(desk: Desk) -> tuple[Call[Any], Any]:
    desk.run(flow.put_limit(0, "few", {"kind": "slots", "max": 1}, ORDER))
    desk.submit()
    return flow.put_type(0, "alpha", ["few"], ORDER), [ALREADY, 1]


def _plugin_paused(desk: Desk) -> tuple[Call[Any], Any]:
    desk.run(_registered(desk)[0])
    desk.submit()
    return flow.pause_plugin(0, "mailer", "pause", ORDER), [ALREADY, 1]


def _plugin_resumed(desk: Desk) -> tuple[Call[Any], Any]:
    desk.run(_plugin_paused(desk)[0])
    return flow.pause_plugin(0, "mailer", "resume", ORDER._replace(op="other")), [ALREADY, 2]


def _scheduled(desk: Desk) -> Call[Any]:
    return schedules.put(
        0,
        "daily",
        op="op",
        known=0,
        last="",
        spec="{}",
        next_ms=BEGINNING_MS,
        due_ms=BEGINNING_MS,
        enabled=None,
        who="ann",
    )


def _fire(desk: Desk, slot: schedules.Slot = "next", *, at_ms: int = BEGINNING_MS, **facts: Any) -> Call[Any]:
    usual: dict[str, Any] = {"at": str(at_ms), "due": at_ms, "next": str(at_ms + 1_000), "next_due": at_ms + 1_000}
    step = schedules.Step(slot=slot, from_=str(at_ms), **(usual | facts))
    return schedules.fire(0, "daily", "op", step, [desk.item(key=f"{at_ms:022d}")], key_window_ms=WINDOW_MS)


def _schedule_put(desk: Desk) -> tuple[Call[Any], Any]:
    return _scheduled(desk), [ALREADY, 1]


def _schedule_declared(desk: Desk) -> tuple[Call[Any], Any]:
    facts: dict[str, Any] = {"op": "x", "known": 0, "last": "", "spec": "{}", "next_ms": 1, "due_ms": 1, "enabled": None, "who": "plugin"}
    return schedules.put(0, "daily", **facts, declared='{"plugin":"p","version":1}'), [ALREADY, 1]


def _schedule_paused(desk: Desk) -> tuple[Call[Any], Any]:
    desk.run(_scheduled(desk))
    facts: dict[str, Any] = {"known": 1, "last": "", "spec": "", "next_ms": None, "due_ms": None, "enabled": False, "who": "ann"}
    return schedules.put(0, "daily", op="other", **facts), [ALREADY, 1]


def _schedule_deleted(desk: Desk) -> tuple[Call[Any], Any]:
    desk.run(_scheduled(desk))
    desk.run(_fire(desk))
    return schedules.delete(0, "daily", known=1, who="ann"), [GONE]


def _schedule_fired(desk: Desk) -> tuple[Call[Any], Any]:
    desk.run(_scheduled(desk))
    call = _fire(desk, missed=(2, 1, 2))
    return call, [ALREADY, b"fired", desk.last_id.encode()]


def _schedule_queued(desk: Desk) -> tuple[Call[Any], Any]:
    desk.run(_scheduled(desk))
    desk.run(_fire(desk))
    first = desk.last_id
    desk.now += 1_000
    return _fire(desk, at_ms=desk.now, overlap="queue-one"), [ALREADY, b"queued", first.encode()]


def _schedule_held(desk: Desk) -> tuple[Call[Any], Any]:
    call, _ = _schedule_queued(desk)
    (first,) = (str(key)[9:] for key in desk.raw.keys("tm:{0}:j:*"))
    desk.run(call)
    desk.run(calls.cancel(0, first, who="me", key_window_ms=WINDOW_MS))
    held = _fire(desk, "held", at_ms=desk.now, overlap="queue-one")
    return held, [ALREADY, b"fired", desk.last_id.encode()]


def _schedule_cancelling(desk: Desk) -> tuple[Call[Any], Any]:
    desk.run(_scheduled(desk))
    desk.run(_fire(desk))
    desk.now += 1_000
    call = _fire(desk, at_ms=desk.now, overlap="cancel-previous")
    return call, [ALREADY, b"fired", desk.last_id.encode()]


def _schedule_extra(desk: Desk) -> tuple[Call[Any], Any]:
    desk.run(_scheduled(desk))
    call = _fire(desk, "extra", by="ann")
    return call, [OK, b"duplicate", desk.last_id.encode()]


def _schedule_round(desk: Desk) -> tuple[Call[Any], Any]:
    desk.run(_scheduled(desk))
    row = [b"daily", b"next", b"%d" % BEGINNING_MS, b"op", b"{}", b"0"]
    return schedules.round_(0, "s1", lease_ms=6_000), [OK, BEGINNING_MS, -1, row]


def _schedule_read(call: Call[Any]) -> Callable[[Desk], tuple[Call[Any], Any]]:
    def arrange(desk: Desk) -> tuple[Call[Any], Any]:
        desk.run(_scheduled(desk))
        desk.run(_fire(desk))
        return call, None

    return arrange


REPEATS: dict[str, Callable[[Desk], tuple[Call[Any], Any]]] = {
    "submit": _submitted,
    "submit keyed": _submitted_keyed,
    "submit atomic": _submitted_atomic,
    "submit replay": _replayed,
    "cycle": _cycled,
    "extend": _extended,
    "progress": _progressed,
    "promote": _promoted,
    "reap": _reaped,
    "abandon": _abandoned,
    "cancel": _cancelled,
    "cancel running": _cancelled_running,
    "purge": _purged,
    "prune": _pruned,
    "register": _registered,
    "unregister": _unregistered,
    "tick": _ticked,
    "tick dropped": _dropped_said,
    "sweep": _swept,
    "mend": _mended,
    "store_rewound": _rewound,
    "guard_reserve": _reserved,
    "guard_done": _told(True),
    "guard_done given back": _told(False),
    "guard_settle": _settled,
    "discard": lambda desk: (letters.discard(0, desk.bury(2), who="ann", reason="old"), [GONE, GONE]),
    "operation_open": lambda desk: (_opened(desk), ALREADY),
    "operation_note": _noted,
    "operation_discard": _step_discarded,
    "operation_cancel": _step_cancelled,
    "operation_look": _looked,
    "operation_end": _op_ended,
    "operation_page": _op_read(operations.page(0, OP)),
    "operations": _op_read(operations.find(0, "ops")),
    "groups": _read(lambda _: letters.groups(0)),
    "group": _read(lambda _: letters.group(0, ["f"])),
    "letters": _read(lambda _: letters.count(0, LetterFilter(type="alpha"), upto_ms=BEGINNING_MS)),
    "limit_put": _limited,
    "pause": _paused,
    "pause resume": _resumed,
    "queue_put": _set_up,
    "patch": _patched,
    "breaker_force": _forced,
    "breakers": _read(lambda _: breakers.breakers(0)),
    "pressure": _read(lambda _: reads.pressure(0, with_age=True)),
    "why": _read(lambda job_id: reads.why(0, job_id)),
    "type_put": _type_set,
    "plugin_pause": _plugin_paused,
    "plugin_pause resume": _plugin_resumed,
    "rules": _read(lambda _: flow.rules(0)),
    "limits": _read(lambda _: flow.limits(0)),
    "schedule_put": _schedule_put,
    "schedule_put declared": _schedule_declared,
    "schedule_put pause": _schedule_paused,
    "schedule_delete": _schedule_deleted,
    "schedule_fire": _schedule_fired,
    "schedule_fire queued": _schedule_queued,
    "schedule_fire held": _schedule_held,
    "schedule_fire cancelling": _schedule_cancelling,
    "schedule_fire extra": _schedule_extra,
    "schedule_round": _schedule_round,
    "schedules": _schedule_read(schedules.schedules(0, limit=10)),
    "schedule_fires": _schedule_read(schedules.fires(0, "daily", limit=10)),
    "effects": _read(lambda job_id: effects.lineage(0, job_id)),
    "unsettled": _read(lambda _: effects.unsettled(0)),
    "integrity": _read(lambda _: reads.integrity(0, repairs=10)),
    "show": _read(lambda job_id: reads.show(0, job_id)),
    "audit": _read(lambda _: audit.audit(0, audit.ANY)),
    "events": _read(lambda _: events.events(0, events.OLDEST, events.Wanted(types=["alpha"]))),
    "dead": _read(lambda job_id: reads.dead(0, job_id)),
    "find": _read(lambda _: reads.find(0, "created")),
    "lineage": _read(lambda job_id: reads.lineage(0, job_id)),
    "queues": _read(lambda _: reads.queues(0)),
    "counters": _read(lambda _: reads.counters(0)),
    "known": _read(lambda job_id: reads.known(0, [job_id])),
    "workers": _read(lambda _: reads.workers(0)),
    "catalogue": _read(lambda _: reads.catalogue(0)),
    "webhook_put": lambda desk: (_webhook(desk), [ALREADY, 1]),
    "webhook_put gone": _webhook_gone,
    "webhooks": _webhooks_read,
    "outbox": _outbox_read,
    "outbox_state": _outbox_state_read,
    "outbox_done": lambda desk: (webhooks.outbox_done(0, _told_of(desk)), 0),
}


@pytest.mark.parametrize("name", REPEATS)
def test_a_repeat_answers_as_its_header_says_and_changes_nothing(desk: Desk, name: str) -> None:
    """The reply of a call that ran is lost; the same call again finds that out and leaves every key as it is."""
    call, expected = REPEATS[name](desk)
    first = desk.answer(call)
    after = desk.dump()

    again = desk.answer(call)

    assert again == (first if expected is None else expected)
    assert desk.dump() == after


def test_every_script_has_a_repeat_here() -> None:
    """A new script needs a row in the table above; but for the one whose repeat is a second row in the audit, which nobody counts."""
    from taskmaster.store.scripts import names

    assert {name.split()[0] for name in REPEATS} == set(names()) - {"audit_note"}


# ---------------------------------------------------------------- submissions
def test_items_of_a_bulk_are_judged_one_by_one(desk: Desk) -> None:
    """Each item has its own answer in order; what one is refused for does not touch the others."""
    desk.submit(key="k" * 22)
    items = [
        desk.item(),
        desk.item(key="k" * 22),
        desk.item(key="k" * 22, request="other" * 4 + "xx"),
        desk.item(at_ms=desk.now - 30_001),
        desk.item(at_ms=desk.now + 30_001),
        desk.item(replayed_from="018f0000-0000-7000-8000-000000000000", root_id="x", key="q" * 22),
        desk.item(at_ms=desk.now - 30_000),
        desk.item(at_ms=desk.now + 30_000),
    ]

    answers = desk.run(calls.submit(0, items))

    assert [answer.status.name for answer in answers] == ["OK", "DUPLICATE", "REUSED", "TOO_OLD", "TOO_OLD", "GONE", "OK", "OK"]
    assert int(desk.dump()["n"]["one/w"]) == 4


def test_an_atomic_bulk_with_a_refusal_writes_nothing(desk: Desk) -> None:
    """One refused item: the others answer ABORTED, and no key is touched."""
    first = desk.item(key="k" * 22)
    desk.run(calls.submit(0, [first]))
    before = desk.dump()
    items = [desk.item(), first, desk.item(key="k" * 22, request="z" * 22), desk.item(at_ms=desk.now - 60_000)]

    rows = desk.answer(calls.submit(0, items, atomic=True))[1:]

    assert [Status(row[0]).name for row in rows] == ["ABORTED", "DUPLICATE", "REUSED", "TOO_OLD"]
    assert desk.dump() == before


def test_an_atomic_bulk_with_one_key_for_two_requests_writes_nothing(desk: Desk) -> None:
    """The two items contradict each other before either is stored."""
    before = desk.dump()
    items = [desk.item(key="k" * 22), desk.item(key="k" * 22), desk.item(key="k" * 22, request="z" * 22)]

    rows = desk.answer(calls.submit(0, items, atomic=True))[1:]

    assert [Status(row[0]).name for row in rows] == ["ABORTED", "ABORTED", "REUSED"]
    assert desk.dump() == before


def test_equal_items_of_one_bulk_make_one_job(desk: Desk) -> None:
    """Same id, or same key and request: the first is stored, the others name it."""
    plain, keyed = desk.item(), desk.item(key="k" * 22)

    rows = desk.answer(calls.submit(0, [plain, plain, keyed, keyed, desk.item(key="k" * 22)]))[1:]

    assert rows[0] == rows[2] == b"w"
    again = [[ALREADY, b"w", plain.id.encode()], [Status.DUPLICATE, b"w", keyed.id.encode()], [Status.DUPLICATE, b"w", keyed.id.encode()]]
    assert [rows[1], *rows[3:]] == again
    desk.dump()


def test_a_thousand_jobs_go_in_with_one_call(desk: Desk) -> None:
    """The largest submission that is allowed."""
    answers = desk.run(calls.submit(0, [desk.item() for _ in range(calls.SUBMIT_MAX)]))

    assert {answer.status for answer in answers} == {OK}
    assert int(desk.dump()["n"]["one/w"]) == 1_000


@pytest.mark.parametrize("ahead_ms", [0, 29_000, -29_000])
def test_an_id_does_not_come_back_after_purge(desk: Desk, ahead_ms: int) -> None:
    """A late copy of a purged submission is refused for as long as its id is young enough to be taken."""
    item = desk.item(at_ms=desk.now + ahead_ms)
    desk.run(calls.submit(0, [item]))
    desk.run(calls.cancel(0, item.id, who="me", key_window_ms=WINDOW_MS))
    desk.run(calls.purge(0, [item.id]))

    (tombstone,) = desk.raw.scan_iter("tm:{0}:gone:*")
    forgotten_at = desk.now + desk.raw.pttl(tombstone)  # the server's own clock stands still here

    for step_ms in (0, 1, *[5_000] * 30):
        desk.now += step_ms
        if desk.now >= forgotten_at:
            desk.raw.delete(tombstone)
        row = desk.answer(calls.submit(0, [item]))[1]

        assert row[0] in (ALREADY, Status.TOO_OLD)
    assert row == [Status.TOO_OLD]


def test_an_id_purged_at_the_last_moment_does_not_come_back(desk: Desk) -> None:
    """The oldest id that is still taken is the oldest that has a tombstone."""
    item = desk.item()
    desk.run(calls.submit(0, [item]))
    desk.run(calls.cancel(0, item.id, who="me", key_window_ms=WINDOW_MS))
    desk.now += 30_000
    desk.run(calls.purge(0, [item.id]))

    assert desk.answer(calls.submit(0, [item]))[1][0] == ALREADY


def test_a_key_remembers_its_job_after_purge(desk: Desk) -> None:
    """The key record outlives the job: the same request names the first id, another one is refused."""
    item = desk.item(key="k" * 22)
    desk.run(calls.submit(0, [item]))
    desk.run(calls.cancel(0, item.id, who="me", key_window_ms=WINDOW_MS))
    desk.run(calls.purge(0, [item.id]))
    desk.now += 3_600_000

    rows = desk.answer(calls.submit(0, [item, desk.item(key="k" * 22), desk.item(key="k" * 22, request="z" * 22)]))[1:]

    assert [(Status(row[0]).name, row[1], row[2].decode()) for row in rows] == [
        ("DUPLICATE", b"", item.id),
        ("DUPLICATE", b"", item.id),
        ("REUSED", b"", item.id),
    ]


@pytest.mark.parametrize("way", ["cancelled", "completed", "failed", "lost"])
def test_a_key_outlives_the_copies_of_its_submission(desk: Desk, way: str) -> None:
    """However short the window is set, a late copy of the submission finds the key of its job, which has ended."""
    item, wid, none = desk.item(key="k" * 22), desk.register("w1"), calls.Limits(key_window_ms=0)
    desk.run(calls.submit(0, [item]))
    if way == "cancelled":
        desk.run(calls.cancel(0, item.id, who="me", key_window_ms=0))
    else:
        desk.claim(wid)
    if way == "lost":
        desk.now += LEASE_MS + GRACE_MS
        desk.run(upkeep.reap(0, grace_ms=GRACE_MS, losses=1, key_window_ms=0))
    elif way != "cancelled":
        outcome = "c" if way == "completed" else "f"
        desk.cycle(wid, finishes=[desk.end(wid, item.id, outcome, reason="fatal", fingerprint="f")], limits=none)

    row = desk.answer(calls.submit(0, [item]))[1]

    assert (row[0], row[2].decode()) == (Status.DUPLICATE, item.id)
    assert 59_000 < desk.raw.pttl("tm:{0}:k:" + "k" * 22) <= 60_000
    desk.dump()


# ---------------------------------------------------------------- whose turn it is
BOUNDS = (3, 5, 9, 17)


@pytest.mark.parametrize("level", range(4), ids=LEVELS)
def test_the_longest_wait_is_reached_and_not_exceeded(desk: Desk, level: int) -> None:
    """Just served, a level waits for as many claims of others as the bound says when all rivals wake up at that moment."""
    wid = desk.register("w1")
    desk.submit(priority=level)
    head = desk.submit(priority=level)
    desk.claim(wid)
    for rival in set(range(4)) - {level}:
        desk.run(calls.submit(0, [desk.item(priority=rival) for _ in range(20)]))

    waited = next(n for n in range(60) if desk.claim(wid) == [head])

    assert waited == BOUNDS[level]


@pytest.mark.parametrize("slots", [1, 3])
def test_no_level_waits_longer_than_its_bound_whatever_arrives(desk: Desk, slots: int) -> None:
    """Random arrivals and claims: while a level has work, others never win more claims in a row than its bound."""
    dice, wid = Random(slots), desk.register("w1")
    level_of: dict[str, int] = {}
    waiting: Counter[int] = Counter()
    overtaken: Counter[int] = Counter()
    for _ in range(250):
        items = [desk.item(priority=dice.randrange(4)) for _ in range(dice.choice((0, 0, 1, 2, 6)))]
        desk.run(calls.submit(0, items))
        level_of |= {item.id: item.priority for item in items}
        waiting.update(item.priority for item in items)
        for job_id in desk.claim(wid, slots):
            won = level_of[job_id]
            waiting[won] -= 1
            overtaken[won] = 0
            for level in range(4):
                overtaken[level] = (
                    overtaken[level] + 1 if waiting[level] and level != won else 0 if not waiting[level] else overtaken[level]
                )
                assert overtaken[level] <= BOUNDS[level]


def test_a_level_saves_up_no_turns_while_it_has_no_work(desk: Desk) -> None:
    """Two levels that come back are equal, however long each was away: the higher one is first."""
    wid = desk.register("w1")

    def served(level: int, jobs: int) -> None:
        desk.run(calls.submit(0, [desk.item(priority=level) for _ in range(jobs)]))
        assert len(desk.claim(wid, jobs)) == jobs

    for level, jobs in ((3, 1), (2, 10), (1, 1), (2, 20)):
        served(level, jobs)
    low, normal, high = (desk.submit(priority=level) for level in (3, 2, 1))

    assert [desk.claim(wid) for _ in range(3)] == [[high], [low], [normal]]


def test_levels_with_work_share_claims_by_weight(desk: Desk) -> None:
    """Critical, high, normal and low are claimed 8 : 4 : 2 : 1."""
    wid = desk.register("w1")
    items = [desk.item(priority=level) for level in range(4) for _ in range(90)]
    desk.run(calls.submit(0, items))
    level_of = {item.id: item.priority for item in items}

    won = Counter(level_of[job_id] for _ in range(30) for job_id in desk.claim(wid, 5))

    assert [won[level] for level in range(4)] == [80, 40, 20, 10]


@pytest.mark.parametrize("slots", [1, 4])
def test_types_of_one_level_share_one_line(desk: Desk, slots: int) -> None:
    """First come, first served, over all types that the worker has."""
    wid = desk.register("w1", "alpha", "beta", "gamma")
    ids = [desk.submit(kind) for kind in ("beta", "alpha", "alpha", "gamma", "beta", "gamma", "alpha", "beta")]

    claimed = [job_id for _ in range(0, 8, slots) for job_id in desk.claim(wid, slots)]

    assert claimed == ids


def test_what_is_handed_back_is_next_again(desk: Desk) -> None:
    """Unstarted jobs go to the front of their level, in their order, whatever types wait there."""
    wid = desk.register("w1", "alpha", "beta")
    ids = [desk.submit(kind) for kind in ("alpha", "beta", "alpha", "beta", "beta")]
    held = desk.claim(wid, 3)
    desk.cycle(wid, finishes=[desk.end(wid, job_id, "h") for job_id in reversed(held)])

    assert desk.claim(wid, 5) == ids
    assert desk.field(ids[0], "hb") == "1"
    desk.dump()


def test_only_loaded_types_are_claimed(desk: Desk) -> None:
    """Older jobs of other types stay where they are; jobs that lost a worker are a type of their own."""
    desk.submit("beta")
    lost = desk.submit("alpha")
    desk.claim(desk.register("w0", "alpha"))
    desk.now += LEASE_MS + GRACE_MS
    assert desk.reap() == (False, (lost,))
    mine = desk.submit("alpha")

    assert desk.claim(desk.register("w1", "alpha"), 5) == [mine]
    assert desk.claim(desk.register("w2", "alpha!"), 5) == [lost]
    desk.dump()


def test_a_group_of_queues_shares_its_slots(desk: Desk) -> None:
    """The queues are served in the order given until the slots are used."""
    wid = desk.register("w1")
    one, two = [desk.submit(queue="one") for _ in range(2)], [desk.submit(queue="two") for _ in range(2)]

    claims = [claim.id for claim in desk.cycle(wid, (3, "two", "one")).claims]

    assert claims == [*two, one[0]]


def test_one_call_claims_no_more_than_its_bound(desk: Desk) -> None:
    """256 a call; the answer says that there is more."""
    wid = desk.register("w1")
    desk.run(calls.submit(0, [desk.item() for _ in range(300)]))

    first, second = desk.cycle(wid, (1_000, "one")), desk.cycle(wid, (1_000, "one"))

    assert (len(first.claims), first.more) == (256, True)
    assert (len(second.claims), second.more) == (44, False)
    desk.dump()


def test_one_call_promotes_no_more_than_its_bound(desk: Desk) -> None:
    """100 a call, from a round as from the tick; both say that there is more."""
    wid = desk.register("w1")
    desk.run(calls.submit(0, [desk.item(delay_ms=5) for _ in range(250)]))
    desk.now += 5

    assert desk.cycle(wid).more is True
    assert desk.run(upkeep.promote(0)) is True
    assert desk.run(upkeep.promote(0)) is False
    assert int(desk.dump()["n"]["one/w"]) == 250


# ---------------------------------------------------------------- who is woken
def test_a_submission_wakes_one_capable_sleeper(desk: Desk) -> None:
    """One of those that have the type and room in the queue; the others sleep on."""
    desk.cycle(desk.register("other", "beta"), (1, "one"))
    desk.cycle(desk.register("elsewhere"), (1, "two"))
    sleepers = [desk.register(f"w{n}") for n in range(3)]
    for wid in sleepers:
        desk.cycle(wid, (1, "one"))
    desk.woken("other")  # the keeper

    desk.submit()

    assert len(desk.woken(*sleepers)) == 1
    assert desk.woken("other", "elsewhere") == []


def test_a_type_that_nobody_has_wakes_nobody(desk: Desk) -> None:
    """Its jobs wait; no worker is disturbed."""
    desk.cycle(desk.register("w1"), (1, "one"))

    desk.submit("beta")

    assert desk.woken("w1") == []


@pytest.mark.parametrize(("jobs", "woken"), [(1, 1), (3, 3), (50, 4)])
def test_a_bulk_wakes_a_few(desk: Desk, jobs: int, woken: int) -> None:
    """As many as there are jobs, four at most: who finds work left over wakes the next."""
    sleepers = [desk.register(f"w{n}") for n in range(6)]
    for wid in sleepers:
        desk.cycle(wid, (1, "one"))

    desk.run(calls.submit(0, [desk.item() for _ in range(jobs)]))

    assert len(desk.woken(*sleepers)) == woken


def test_who_leaves_work_behind_wakes_one_more(desk: Desk) -> None:
    """The chain: each round that cannot take all there is wakes the next sleeper."""
    sleepers = ["w1", "w2", "w3"]
    for wid in sleepers:
        desk.cycle(desk.register(wid), (1, "one"))
    desk.submit()
    (first,) = desk.woken(*sleepers)
    desk.run(calls.submit(0, [desk.item(kind="beta")]))  # nobody has it
    desk.raw.delete("tm:{0}:bands:one")  # the second job comes unseen
    desk.raw.sadd("tm:{0}:bands:one", "2/alpha", "2/beta")
    idle = desk.raw.zrange("tm:{0}:idle:one/cap-alpha", 0, -1)
    desk.raw.delete("tm:{0}:idle:one/cap-alpha")
    desk.submit()
    desk.raw.zadd("tm:{0}:idle:one/cap-alpha", dict.fromkeys(map(str, idle), 1))

    desk.claim(first)

    assert len(desk.woken(*sleepers)) == 1


def test_who_was_picked_for_one_queue_and_filled_from_another_passes_the_call_on(desk: Desk) -> None:
    """Two submissions pick one worker twice, for two queues of one group; it has one slot, so the other job is somebody else's."""
    picked, other = desk.register("a1"), desk.register("b2")
    desk.cycle(picked, (1, "one", "two"))
    desk.submit(queue="two")
    desk.submit(queue="one")
    assert desk.woken(picked) == [picked]
    desk.cycle(other, (1, "three"))
    desk.raw.zadd("tm:{0}:idle:two/cap-alpha", {other: 1})  # as if it had looked before the submission

    claims = desk.cycle(picked, (1, "one", "two")).claims

    assert [claim.queue for claim in claims] == ["one"]
    assert desk.woken(other) == [other]


def test_a_group_without_room_is_off_the_list_and_passes_its_call_on(desk: Desk) -> None:
    """Zero slots: a worker that drains, or has filled up meanwhile, is not picked again; had it been picked, another is."""
    for wid in ("w1", "w2"):
        desk.cycle(desk.register(wid), (1, "one"))
    desk.submit()
    (picked,) = desk.woken("w1", "w2")
    (other,) = {"w1", "w2"} - {picked}

    assert desk.cycle(picked, (0, "one")).claims == []

    assert desk.woken(other) == [other]
    desk.cycle(other, (0, "one"))
    desk.submit()
    assert desk.woken("w1", "w2") == []


@pytest.mark.parametrize("way", ["unregister", "abandon"])
def test_who_goes_passes_its_call_on(desk: Desk, way: str) -> None:
    """A worker picked for work signs off, or is found dead: another one is woken, and it is never picked again."""
    for wid in ("w1", "w2"):
        desk.cycle(desk.register(wid), (1, "one"))
    desk.submit()
    (picked,) = desk.woken("w1", "w2")
    (other,) = {"w1", "w2"} - {picked}

    desk.run(calls.unregister(0, picked) if way == "unregister" else upkeep.abandon(0, picked))

    assert desk.woken("w1", "w2") == [other]


@pytest.mark.parametrize("way", ["unregister", "abandon"])
def test_late_calls_of_who_has_gone_do_nothing(desk: Desk, way: str) -> None:
    """A call that was still in a buffer claims nothing, extends nothing, and a late registration revives nobody."""
    wid = desk.register("w1")
    desk.submit()
    desk.claim(wid)
    desk.run(calls.unregister(0, wid) if way == "unregister" else upkeep.abandon(0, wid))
    desk.submit()
    before = desk.dump()

    assert desk.cycle(wid, (1, "one"), finishes=[desk.end(wid, "x")]).status is Status.UNREGISTERED
    assert desk.run(calls.extend(0, wid, [], lease_ms=LEASE_MS, alive_ms=ALIVE_MS)) is None
    desk.register(wid)
    assert desk.dump() == before


def test_the_keeper_knows_the_next_due_time(desk: Desk) -> None:
    """One consumer is told how long until something is due; of an earlier time it is told by a marker, of a later one not."""
    keeper, other = desk.register("w1"), desk.register("w2")
    desk.submit(delay_ms=60_000)

    assert desk.cycle(keeper, (1, "one")).next_ms == 60_000
    assert desk.cycle(other, (1, "one")).next_ms == -1
    desk.submit(delay_ms=90_000)
    assert desk.woken(keeper, other) == []
    desk.submit(delay_ms=20_000)
    assert desk.woken(keeper, other) == [keeper]
    assert desk.cycle(keeper, (1, "one")).next_ms == 20_000


def test_a_busy_keeper_promotes_and_wakes_another(desk: Desk) -> None:
    """It keeps the role while it works: at the due time it looks, without asking for anything itself."""
    keeper, other = desk.register("w1"), desk.register("w2")
    desk.submit()
    desk.claim(keeper)
    desk.cycle(other, (1, "one"))
    late = desk.submit(delay_ms=1_000)
    desk.woken(keeper)
    desk.now += 1_000

    assert desk.cycle(keeper).claims == []

    assert desk.woken(other) == [other]
    assert desk.claim(other) == [late]


@pytest.mark.parametrize("way", ["unregister", "abandon", "dies"])
def test_a_keeper_that_goes_is_replaced(desk: Desk, way: str) -> None:
    """Some live consumer is marked and takes over in its next round."""
    keeper, other = desk.register("w1"), desk.register("w2")
    desk.submit(delay_ms=60_000)
    desk.cycle(keeper, (1, "one"))
    desk.cycle(other, (1, "one"))

    if way == "dies":
        desk.now += ALIVE_MS
        desk.run(calls.extend(0, other, [], lease_ms=LEASE_MS, alive_ms=ALIVE_MS))
        desk.run(upkeep.tick(0, grace_ms=GRACE_MS))
    else:
        desk.run(calls.unregister(0, keeper) if way == "unregister" else upkeep.abandon(0, keeper))

    assert desk.woken(keeper, other) == [other]
    assert desk.cycle(other, (1, "one")).next_ms == BEGINNING_MS + 60_000 - desk.now


def test_sleepers_that_died_are_passed_over(desk: Desk) -> None:
    """Whoever is picked is alive by the store's clock."""
    for wid in ("w1", "w2", "w3"):
        desk.cycle(desk.register(wid), (1, "one"))
    desk.now += ALIVE_MS
    desk.run(calls.extend(0, "w3", [], lease_ms=LEASE_MS, alive_ms=ALIVE_MS))

    desk.submit()

    assert desk.inbox("w1", "w2", "w3") == [[], [], ["w"]]


def test_the_tick_wakes_somebody_for_work_nobody_was_told_of(desk: Desk) -> None:
    """Whoever was picked and died took its call along; a second later another one is picked."""
    for wid in ("w1", "w2"):
        desk.cycle(desk.register(wid), (1, "one"))
    desk.submit()
    (first,) = desk.woken("w1", "w2")

    desk.run(upkeep.tick(0, grace_ms=GRACE_MS))

    assert set(desk.woken("w1", "w2")) - {first}
    assert desk.run(upkeep.tick(0, grace_ms=GRACE_MS)).mine is False


def test_a_cancel_request_marks_the_one_who_runs_the_job(desk: Desk) -> None:
    """Its owner's inbox names the job, its heartbeat is told as well; then any end of the attempt but success is a cancelled job."""
    held = desk.submit()
    wid = desk.register("w1")
    desk.claim(wid)
    token = desk.token(wid)

    assert desk.run(calls.cancel(0, held, who="me", key_window_ms=WINDOW_MS)).status is Status.CANCELLING

    assert desk.inbox(wid) == [[f"c/{held}"]]
    assert desk.run(calls.extend(0, wid, [(held, token)], lease_ms=LEASE_MS, alive_ms=ALIVE_MS)) == (Status.CANCEL,)
    desk.cycle(wid, finishes=[desk.end(wid, held, "r", token)])
    assert (desk.field(held, "st"), desk.field(held, "rs")) == ("x", "cancelled")


def test_a_success_that_comes_first_beats_a_cancel_request(desk: Desk) -> None:
    """The answer to the request was "asked", never "cancelled": what has been done stays done."""
    held = desk.submit()
    wid = desk.register("w1")
    desk.claim(wid)
    token = desk.token(wid)
    assert desk.run(calls.cancel(0, held, who="me", key_window_ms=WINDOW_MS)).status is Status.CANCELLING

    desk.cycle(wid, finishes=[desk.end(wid, held, "c", token)])

    assert desk.field(held, "st") == "c"
    desk.dump()


# ---------------------------------------------------------------- calls that must do nothing
def test_refused_rounds_do_nothing(desk: Desk) -> None:
    """Another generation, an unknown consumer, a number that is past: no finish, no claim, no key changes."""
    held, wid = desk.submit(), desk.register("w1")
    desk.submit()
    desk.claim(wid)
    end = desk.end(wid, held)
    desk.cycle(wid, (0, "one"))
    before = desk.dump()

    for options, status in (
        ({"gen": "another"}, Status.GENERATION),
        ({"wid": "nobody"}, Status.UNREGISTERED),
        ({"seq": 1}, Status.STALE_OP),
    ):
        assert desk.cycle(wid, (5, "one"), finishes=[end], **options).status is status
        assert desk.dump() == before


def test_a_store_without_a_generation_refuses_rounds(desk: Desk) -> None:
    """An emptied store does not take claims of consumers that registered before."""
    wid = desk.register("w1")
    desk.raw.flushall()

    assert desk.cycle(wid, (1, "one")).status is Status.GENERATION
    assert desk.dump() == {}


def test_a_lost_attempt_changes_nothing(desk: Desk) -> None:
    """After the reaper, whatever the first attempt says is stale, also once the next one has ended."""
    job_id = desk.submit()
    first, second = desk.register("w1"), desk.register("w2", "alpha!")
    desk.claim(first)
    old = desk.token(first)
    desk.now += LEASE_MS + GRACE_MS
    desk.reap()
    desk.claim(second)
    before = desk.dump()

    for outcome in "crfxhs":
        assert list(desk.cycle(first, finishes=[desk.end(first, job_id, outcome, old, reason="x")]).codes) == [STALE]
        assert desk.dump()[f"j:{job_id}"] == before[f"j:{job_id}"]
    assert desk.run(calls.progress(0, [calls.Word(job_id, old, "1", 1, ["[]"])])) == (STALE,)
    desk.cycle(second, finishes=[desk.end(second, job_id)])
    assert list(desk.cycle(first, finishes=[desk.end(first, job_id, "c", old)]).codes) == [STALE]
    assert desk.field(job_id, "st") == "c"


# ---------------------------------------------------------------- ends
def test_a_job_that_loses_too_many_workers_is_dead(desk: Desk) -> None:
    """Three deliveries; the record says why, how often and who had it last."""
    job_id = desk.submit(key="k" * 22)
    for n, kind in enumerate(("alpha", "alpha!", "alpha!")):
        assert desk.claim(desk.register(f"w{n}", kind)) == [job_id]
        desk.now += LEASE_MS + GRACE_MS
        assert desk.reap() == (False, (job_id,))

    snap = desk.dump()

    record = snap[f"d:{job_id}"]
    assert {name: record[name] for name in ("id", "q", "ty", "rs", "at", "ls", "ow", "rt", "er", "b")} == {
        "id": job_id,
        "q": "one",
        "ty": "alpha",
        "rs": "worker_lost",
        "at": "3",
        "ls": "3",
        "ow": "w2",
        "rt": job_id,
        "er": "",
        "b": '["alpha"]',
    }
    assert [msgspec.json.decode(row)[1] for row in snap[f"h:{job_id}"]] == ["lost"] * 3


def test_retries_end_in_the_dead_letter_index(desk: Desk) -> None:
    """The last allowed attempt fails: state, record and error in one step; the default of five attempts is not stored."""
    job_id, wid = desk.submit(), desk.register("w1")
    for attempt in range(1, 6):
        claims = desk.cycle(wid, (1, "one")).claims
        assert [(claim.id, claim.attempt, claim.failures) for claim in claims] == [(job_id, attempt, attempt - 1)]
        desk.cycle(
            wid, finishes=[desk.end(wid, job_id, "r", body=f"error {attempt}", row=f"[{attempt}]", delay_ms=1_000, fingerprint="f1")]
        )
        desk.now += 1_000

    snap = desk.dump()

    assert (snap[f"j:{job_id}"]["st"], snap[f"j:{job_id}"]["rs"], snap[f"r:{job_id}"]) == ("f", "attempts_exhausted", "error 5")
    assert "ma" not in snap[f"j:{job_id}"]
    assert (snap[f"d:{job_id}"]["at"], snap[f"d:{job_id}"]["fp"], snap[f"d:{job_id}"]["er"]) == ("5", "f1", "error 5")
    assert [member for member, _ in snap["dlq:one"]] == [member for member, _ in snap["fp:f1"]] == [job_id]


def test_a_completion_takes_the_error_of_an_earlier_attempt_away(desk: Desk) -> None:
    """What a job that completed at last left behind is its result, or nothing."""
    job_id, wid = desk.submit(), desk.register("w1")
    desk.claim(wid)
    desk.cycle(wid, finishes=[desk.end(wid, job_id, "r", body="error", row="[1]")])
    desk.claim(wid)
    desk.cycle(wid, finishes=[desk.end(wid, job_id, "c", row="[2]")])

    snap = desk.dump()

    assert f"r:{job_id}" not in snap
    assert len(snap[f"h:{job_id}"]) == 2


def test_history_keeps_the_first_and_the_newest(desk: Desk) -> None:
    """50 rows: the first attempt stays, the oldest but one goes."""
    job_id, wid = desk.submit(), desk.register("w1")
    for attempt in range(1, 61):
        desk.claim(wid)
        desk.cycle(wid, finishes=[desk.end(wid, job_id, "s", row=f"[{attempt}]")])

    rows = [msgspec.json.decode(row)[0] for row in desk.dump()[f"h:{job_id}"]]

    assert rows == [1, *range(12, 61)]


def test_an_active_index_of_several_pages_is_abandoned_whole(desk: Desk) -> None:
    """The leases of one dead consumer end, page by page; those of others go on."""
    dead, other = desk.register("w1"), desk.register("w2")
    desk.run(calls.submit(0, [desk.item() for _ in range(500)]))
    for n in range(10):
        desk.claim(dead if n % 2 else other, 50)
        desk.now += 1
    rank, pages = 0, 0
    while rank >= 0:
        rank, pages = desk.run(upkeep.abandon(0, dead, rank)), pages + 1

    expired = sum(score == 0 for _, score in desk.dump()["active"])

    assert (pages, expired) == (3, 250)
    assert [len(desk.reap()[1]) for _ in range(3)] == [100, 100, 50]


# ---------------------------------------------------------------- retention
def _complete(desk: Desk, n: int, limits: calls.Limits | None = None) -> list[str]:
    wid = desk.register("w1")
    desk.run(calls.submit(0, [desk.item() for _ in range(n)]))
    done = desk.claim(wid, n)
    desk.cycle(wid, finishes=[desk.end(wid, job_id) for job_id in done], limits=limits)
    return done


def test_rounds_keep_up_with_retention(desk: Desk) -> None:
    """A round removes the oldest beyond the count, at most twice what it ended and 16 more, so that ends never outrun it."""
    done = _complete(desk, 100)
    desk.now += 1

    more = _complete(desk, 10, keeping(20))

    snap = desk.dump()
    kept = [member for member, _ in snap["fin:one/c"]]
    assert kept == [*done[36:], *more]
    assert int(snap["n"]["alpha/one/purged"]) == 36


def test_prune_goes_by_count_and_age(desk: Desk) -> None:
    """The oldest go while there are too many, or while they are too old; 64 a call at most."""
    done = _complete(desk, 84)
    desk.now += 10_000
    young = _complete(desk, 5)

    assert desk.run(upkeep.prune(0, keeping(1_000, 20_000))) is False
    assert len(desk.dump()["fin:one/c"]) == 89
    assert desk.run(upkeep.prune(0, keeping(84, 20_000))) is False
    assert [member for member, _ in desk.dump()["fin:one/c"]] == [*done[5:], *young]
    assert desk.run(upkeep.prune(0, keeping(1_000, 9_000))) is True
    assert desk.run(upkeep.prune(0, keeping(1_000, 9_000))) is False
    assert [member for member, _ in desk.dump()["fin:one/c"]] == young


def test_dead_letter_records_outlive_their_jobs(desk: Desk) -> None:
    """Purge takes the job, not the record."""
    job_id, wid = desk.submit(), desk.register("w1")
    desk.claim(wid)
    desk.cycle(wid, finishes=[desk.end(wid, job_id, "f", reason="fatal", fingerprint="f")])
    record = desk.dump()[f"d:{job_id}"]

    assert desk.run(calls.purge(0, [job_id])) == (OK,)

    snap = desk.dump()
    assert snap[f"d:{job_id}"] == record
    assert f"j:{job_id}" not in snap


def test_an_id_named_twice_is_purged_once(desk: Desk) -> None:
    """Counters do not fall below what is there."""
    job_id, other = desk.submit(), desk.submit()
    for one in (job_id, other):
        desk.run(calls.cancel(0, one, who="me", key_window_ms=WINDOW_MS))

    assert desk.run(calls.purge(0, [job_id, job_id])) == (OK, GONE)
    assert desk.dump()["n"]["one/x"] == "1"


# ---------------------------------------------------------------- lines
def _lines(desk: Desk, job_id: str, after: int = 0) -> list[bytes]:
    shown = desk.run(reads.show(0, job_id, "l", after))
    assert shown is not None
    return list(shown.lines)


def _running(desk: Desk) -> tuple[str, str]:
    """A job that w1 runs, and the token."""
    desk.submit()
    wid = desk.register("w1")
    (held,) = desk.claim(wid)
    return held, desk.token(wid)


def test_lines_are_numbered_over_all_attempts_and_read_on_from_a_number(desk: Desk) -> None:
    """A second attempt goes on counting; what was lost on the way has its numbers."""
    job_id, token = _running(desk)
    desk.run(calls.progress(0, [calls.Word(job_id, token, "", 1, ["a", "b"])]))
    desk.cycle("w1", finishes=[desk.end("w1", job_id, "r")])
    desk.now += 1
    desk.claim("w1")
    desk.run(calls.progress(0, [calls.Word(job_id, desk.token("w1"), "0.1", 3, ["c", "d"])]))

    assert _lines(desk, job_id) == [b"1 a", b"2 b", b"5 c", b"6 d"]
    assert _lines(desk, job_id, 4) == [b"5 c", b"6 d"]
    assert _lines(desk, job_id, 6) == []
    desk.dump()


@pytest.mark.parametrize(("size", "count", "kept"), [(1, 2_500, 1_000), (1_000, 200, 65)])
def test_a_job_keeps_the_newest_lines_within_its_bounds(desk: Desk, size: int, count: int, kept: int) -> None:
    """1,000 lines or 64 KiB, whichever comes first; they are read 200 at a time."""
    job_id, token = _running(desk)
    for first in range(1, count + 1, 500):
        given = ["x" * size] * min(500, count + 1 - first)
        assert desk.run(calls.progress(0, [calls.Word(job_id, token, "", first, given)])) == (OK,)

    numbers: list[int] = []
    while page := [int(line.partition(b" ")[0]) for line in _lines(desk, job_id, numbers[-1] if numbers else 0)]:
        assert len(page) <= 200
        numbers += page
    assert numbers == list(range(count - kept + 1, count + 1))
    assert desk.raw.llen(f"tm:{{0}}:g:{job_id}") == kept
    desk.dump()


def test_lines_go_with_their_job(desk: Desk) -> None:
    """Whether it is purged, pruned, or discarded with its dead letter."""
    ways: list[Callable[[str], object]] = [
        lambda job_id: desk.run(calls.purge(0, [job_id])),
        lambda _: desk.run(upkeep.prune(0, keeping(0))),
        lambda job_id: desk.run(letters.discard(0, [job_id], who="me", reason="")),
    ]
    desk.register("w1")
    for way in ways:
        job_id = desk.submit()
        desk.claim("w1")
        desk.run(calls.progress(0, [calls.Word(job_id, desk.token("w1"), "", 1, ["a"])]))
        assert f"g:{job_id}" in desk.dump()
        desk.cycle("w1", finishes=[desk.end("w1", job_id, "f", reason="fatal", fingerprint="f")])

        way(job_id)

        assert not [key for key in desk.dump() if key.startswith("g:")]


def test_an_ended_attempt_has_no_more_to_say(desk: Desk) -> None:
    """Once its end is stored, its lines are refused like those of a lost one."""
    job_id, token = _running(desk)
    desk.cycle("w1", finishes=[desk.end("w1", job_id)])

    assert desk.run(calls.progress(0, [calls.Word(job_id, token, "1", 1, ["late"])])) == (STALE,)
    assert _lines(desk, job_id) == []
    desk.dump()


# ---------------------------------------------------------------- a store in trouble
def test_a_full_store_refuses_new_jobs_and_lets_work_end(desk: Desk, clean_server: StoreServer) -> None:
    """Out of memory: submit and progress change nothing; rounds, leases, cancels and purges go on."""
    wid = desk.register("w1")
    held, other = desk.submit(), desk.submit()
    desk.claim(wid)
    before = desk.dump()
    clean_server.call("CONFIG", "SET", "maxmemory", "1000")
    try:
        with pytest.raises(StoreRefused):
            desk.submit()
        with pytest.raises(StoreRefused):
            desk.run(calls.progress(0, [calls.Word(held, desk.token(wid), "1")]))
        assert desk.dump() == before
        assert desk.run(calls.extend(0, wid, [(held, desk.token(wid))], lease_ms=LEASE_MS, alive_ms=ALIVE_MS)) == (OK,)
        answer = desk.cycle(wid, (1, "one"), finishes=[desk.end(wid, held, body="null")])
        assert (list(answer.codes), [claim.id for claim in answer.claims]) == ([OK], [other])
        assert desk.run(calls.cancel(0, other, who="me", key_window_ms=WINDOW_MS)).status is Status.CANCELLING
        desk.now += LEASE_MS + GRACE_MS
        assert desk.reap() == (False, (other,))
        assert desk.run(calls.purge(0, [held, other])) == (OK, OK)
        assert desk.run(upkeep.tick(0, grace_ms=GRACE_MS)).mine
        desk.run(upkeep.promote(0))
        desk.run(calls.unregister(0, wid))
        desk.register("w2")
    finally:
        clean_server.call("CONFIG", "SET", "maxmemory", "0")
    desk.dump()


#: Keys that a script reads, or writes first: foreign ones of a wrong type must stop it before it has changed anything.
WRONG_TYPES = [
    ("submit", "meta"),
    ("submit", "j:{id}"),
    ("submit", "gone:{slice}"),
    ("submit keyed", "k:kkkkkkkkkkkkkkkkkkkkkk"),
    ("cycle", "meta"),
    ("cycle", "w:w1"),
    ("cycle", "j:{id}"),
    ("extend", "w:w1"),
    ("extend", "j:{id}"),
    ("extend", "active"),
    ("progress", "j:{id}"),
    ("promote", "delayed"),
    ("reap", "active"),
    ("reap", "j:{id}"),
    ("abandon", "w:w1"),
    ("cancel", "j:{id}"),
    ("purge", "j:{id}"),
    ("prune", "qs"),
    ("prune", "fin:one/c"),
    ("register", "meta"),
    ("unregister", "w:w1"),
    ("tick", "maint"),
]


@pytest.mark.parametrize(("name", "key"), WRONG_TYPES)
def test_a_foreign_key_stops_a_script_before_its_first_write(desk: Desk, name: str, key: str) -> None:
    """A defect is reported, and every key is as it was."""
    call, _ = REPEATS[name](desk)
    ids = sorted(str(found)[9:] for found in desk.raw.keys("tm:{0}:j:*")) or [desk.last_id]
    full = "tm:{0}:" + key.format(id=ids[0], slice=BEGINNING_MS // 30_000)
    desk.raw.delete(full)
    desk.raw.rpush(full, "foreign")
    before = lasting(snapshot(desk.raw)[0])

    with pytest.raises(StoreDefect):
        desk.run(call)

    assert lasting(snapshot(desk.raw)[0]) == before
    assert desk.raw.lrange(full, 0, -1) == ["foreign"]


# ---------------------------------------------------------------- types and plugins
def test_a_type_that_needs_less_is_free_at_once(desk: Desk) -> None:
    """What waited for the limiter of its type is claimed in the next rounds once the type needs it no more, also by its plugin's word."""
    desk.run(flow.put_limit(0, "shut", {"kind": "slots", "max": 0, "by": "key"}, ORDER))
    wid = desk.register("w1")
    for change in (flow.put_type(0, "alpha", [], ORDER._replace(op="free")), None):
        published = PUBLISHED._replace(limits="shut")
        desk.run(flow.put_type(0, "alpha", None, ORDER._replace(op=f"reset{change}")))
        desk.run(registration(published))
        desk.submit(), desk.submit(lane="k")
        assert desk.claim(wid, 5) == []
        desk.run(change or registration(published._replace(limits="")))

        # One round looks at the limiter, the next at those of single fairness keys.
        assert len(desk.claim(wid, 5) + desk.claim(wid, 5)) == 2
        desk.dump()


def registration(published: calls.Published) -> Call[Any]:
    return calls.register(
        0, wid="other", cap="c", info="{}", plugin_set="{}", types=["alpha"], catalogue=[published], alive_ms=ALIVE_MS, gen="g"
    )


def test_an_operators_word_on_a_type_outlives_registrations(desk: Desk) -> None:
    """What the plugin says is heard again when the operator takes his word back."""
    desk.run(registration(PUBLISHED))
    desk.run(flow.put_type(0, "alpha", ["mine"], ORDER))
    desk.run(registration(PUBLISHED._replace(limits="few,other")))
    during = desk.run(flow.rules(0)).type_limits
    desk.run(flow.put_type(0, "alpha", None, ORDER._replace(op="back")))

    assert during == {"alpha": "mine"}
    assert desk.run(flow.rules(0)).type_limits == {"alpha": "few"}, "as its catalogue entry has it"


def test_a_plugins_pause_is_its_own(desk: Desk) -> None:
    """It ends the pauses that it made, and no other."""
    desk.run(registration(PUBLISHED))
    desk.run(flow.pause(0, "q/one", "pause", ORDER))
    desk.run(flow.pause_plugin(0, "mailer", "pause", ORDER))
    desk.run(registration(PUBLISHED._replace(type="beta")))
    during = set(desk.run(flow.rules(0)).pauses)
    desk.run(flow.pause_plugin(0, "mailer", "resume", ORDER._replace(op="back")))

    assert during == {"q/one", "p/mailer", "t/alpha", "t/beta"}
    assert set(desk.run(flow.rules(0)).pauses) == {"q/one"}


def test_a_job_that_expires_before_it_is_due_is_refused(desk: Desk) -> None:
    """Now or then; whoever is known already gets the old answer."""
    known = desk.item(key="k" * 22, expires_ms=desk.now + 5)
    desk.run(calls.submit(0, [known]))
    desk.now += 10
    ends = ((0, 0), (50, 50), (51, 50))  # when it expires and when it is due, from now
    late = [desk.item(expires_ms=desk.now + expires, delay_ms=delay) for expires, delay in ends]

    again = desk.item(key="k" * 22, expires_ms=known.expires_ms)
    answers = desk.run(calls.submit(0, [*late, known, again]))
    atomic = desk.run(calls.submit(0, [desk.item(), desk.item(expires_ms=desk.now)], atomic=True))

    assert [answer.status.name for answer in answers] == ["REJECTED", "REJECTED", "OK", "OK", "DUPLICATE"]
    assert {answer.why for answer in answers[:2]} == {"late"}
    assert [answer.status.name for answer in atomic] == ["ABORTED", "REJECTED"]
