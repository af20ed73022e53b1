"""What the checklist finds in a real store: each fault is put there, and found by the facts that are gathered."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec
import pytest

from support.desk import WINDOW_MS, Desk, desk_at
from support.servers import StoreServer
from support.worker import registry_of
from taskmaster.engine import limits, queue_rules, rules
from taskmaster.engine.checklist.examine import examine
from taskmaster.engine.checklist.facts import Facts, StoreFacts
from taskmaster.engine.checklist.findings import Finding
from taskmaster.engine.checklist.gather import OLD_MS, gather
from taskmaster.engine.rules import Word
from taskmaster.model.retry import Backoff
from taskmaster.model.webhooks import DELIVERY
from taskmaster.plugins.catalogue import CatalogueEntry, encode, entries
from taskmaster.plugins.registry import PluginReport, Registry
from taskmaster.settings import Settings
from taskmaster.store import calls, letters, schedules, webhooks
from taskmaster.store.flow import Order
from taskmaster.worker.identity import identity_of
from taskmaster_sdk import job

pytestmark = pytest.mark.server("valkey")

WORD = Word("ann", "why not")


@pytest.fixture
def desk(clean_server: StoreServer) -> Iterator[Desk]:
    with desk_at(clean_server) as one:
        yield one


def looked(desk: Desk, partitions: int = 1, since: Sequence[int] = ()) -> StoreFacts:
    return desk.store.converse(gather(partitions, desk.now, since))


def told(desk: Desk) -> dict[str, Finding]:
    return {finding.rule: finding for finding in examine(Facts(store=looked(desk)))}


def published(name: str = "mail", queue: str = "mails", **fields: Any) -> CatalogueEntry:
    schema = {"type": "object", "properties": {"email": {"type": "string"}}}
    return msgspec.structs.replace(CatalogueEntry(name, queue, 5, Backoff(), 30_000, None, schema, None, "", "post", "1"), **fields)


def work(desk: Desk, *entries: CatalogueEntry, wid: str = "w", version: str = "1", **info: Any) -> None:
    """A worker process that runs and publishes these types."""
    facts = {"host": "here", "pid": 7, "name": "1", "slots": 8, "cores": 2, "drain": 30_000, "metrics": 3_001, "cap": wid} | info
    desk.run(
        calls.register(
            0,
            wid=wid,
            cap=wid,
            info=msgspec.json.encode(facts).decode(),
            plugin_set=msgspec.json.encode({entry.type: f"post=={version}" for entry in entries}).decode(),
            types=[entry.type for entry in entries],
            catalogue=[calls.Published(entry.type, encode(entry).decode(), entry.plugin, ",".join(entry.limits)) for entry in entries],
            alive_ms=60_000,
            gen="g",
        )
    )


def schedule(desk: Desk, schedule_id: str, kind: str, spec: str = "") -> None:
    spec = spec or msgspec.json.encode({"type": kind, "everyMs": 60_000}).decode()
    due_ms = desk.now + 60_000
    desk.run(schedules.put(0, schedule_id, op="o", known=None, last="", spec=spec, next_ms=due_ms, due_ms=due_ms, enabled=True, who="ann"))


def bury_and_forget(desk: Desk) -> None:
    desk.bury(2)
    desk.now += OLD_MS + 60_000


def wait_too_long(desk: Desk) -> None:
    change = queue_rules.QueueChange(sla_ms=1_000)
    desk.store.converse(queue_rules.change_queue("mails", change, WORD, partitions=1))
    desk.submit("mail", "mails")
    desk.now += 5_000


def pause(desk: Desk) -> None:
    desk.store.converse(rules.set_pause("q/mails", "pause", 1, WORD))


def name_no_limiter(desk: Desk) -> None:
    desk.store.converse(queue_rules.change_queue("mails", queue_rules.QueueChange(limits=("typo",)), WORD, partitions=1))


def two(desk: Desk, **second: Any) -> None:
    work(desk, published())
    work(desk, published(), wid="x", **({"pid": 8} | second))


FAULTS: list[tuple[str, str, Callable[[Desk], object], str]] = [
    ("workers", "warning", lambda desk: None, "no process is alive"),
    ("worker-types", "warning", lambda desk: desk.submit("mail", "mails"), "waiting, and no live worker has it: mail"),
    ("scaling", "warning", lambda desk: work(desk, published()), "one worker process, on here"),
    ("scaling", "warning", two, "2 worker processes, all on here"),
    ("concurrency", "warning", lambda desk: two(desk, slots=500), "here: 508 at once on 2"),
    ("shutdown", "warning", lambda desk: work(desk, published(timeout_ms=90_000)), "30 s to drain, the longest time-out is 90 s: mail"),
    ("metrics", "warning", lambda desk: two(desk, metrics=0), "no metrics: here-8"),
    ("plugin-loading", "error", lambda desk: two(desk, failed={"fax": "ImportError: no"}), "fax in here-8: ImportError: no"),
    ("plugin-sets", "warning", lambda desk: two(desk, version="2"), "here-8: post 2"),
    ("dead-letters", "warning", bury_and_forget, "2, 2 of them failed more than a day ago, the oldest 1.0 days ago"),
    ("queue-sla", "warning", wait_too_long, "mails: waiting for 5000 ms, promised 1000 ms"),
    ("queue-length", "warning", lambda desk: work(desk, published()), "no maxLength: mails"),
    ("limiters", "warning", name_no_limiter, "no rule for typo"),
    ("pauses", "ok", pause, "queue mails"),
    ("schedule-types", "error", lambda desk: schedule(desk, "daily", "gone"), "daily: nobody has published its type gone"),
    ("schedule-types", "error", lambda desk: schedule(desk, "odd", "", "[1]"), "odd: its definition cannot be read"),
    ("webhook-worker", "warning", lambda desk: listen(desk), "no live worker has the type taskmaster-webhook"),
    ("webhook-outbox", "warning", lambda desk: tell_nobody(desk), "1 ends wait, the oldest for 6 minutes"),
    ("webhook-outbox", "warning", lambda desk: drop(desk), "7 ends were dropped, the last 1 minutes ago"),
    ("catalogue", "warning", lambda desk: publish_nonsense(desk), "cannot be read: odd"),
    ("retries", "warning", lambda desk: work(desk, published(attempts=1, dependency="smtp")), "has one attempt: mail"),
    ("timeouts", "warning", lambda desk: work(desk, published(timeout_ms=60_000)), "at the default of 60 s: mail"),
    ("dependency-limits", "warning", lambda desk: work(desk, published(dependency="smtp", limits=("smtp",))), "mail (smtp)"),
    ("idempotency", "warning", lambda desk: work(desk, published(key_required=False)), "no key is needed: mail"),
    ("pii-marks", "warning", lambda desk: work(desk, published()), "mail: email"),
    ("sweep", "skipped", lambda desk: None, "no sweep has ended yet"),
]


def listen(desk: Desk) -> None:
    """An endpoint, and a worker without the plugin."""
    work(desk, published())
    desk.run(webhooks.put_webhook(0, "we_0123456789abcdef", {"url": "https://a.example/", "off": ""}, Order("o", None, "ann", ""), "{}"))


def tell_nobody(desk: Desk) -> None:
    job_id = desk.submit(callback="https://a.example/")
    desk.run(calls.cancel(0, job_id, who="ann", key_window_ms=WINDOW_MS))
    desk.now += 360_000


def drop(desk: Desk) -> None:
    desk.raw.hset("tm:{0}:obd", mapping={"n": 7, "at": desk.now - 60_000})


def publish_nonsense(desk: Desk) -> None:
    call = calls.register(
        0,
        wid="w",
        cap="c",
        info="{}",
        plugin_set="{}",
        types=["odd"],
        catalogue=[calls.Published("odd", "[1]", "p")],
        alive_ms=9_000,
        gen="g",
    )
    desk.run(call)


@pytest.mark.parametrize(("rule", "severity", "spoil", "says"), FAULTS, ids=[f"{one[0]}-{number}" for number, one in enumerate(FAULTS)])
def test_a_fault_in_the_store_is_found(desk: Desk, rule: str, severity: str, spoil: Callable[[Desk], object], says: str) -> None:
    """By the typed calls that the doctor makes, on a real server."""
    spoil(desk)

    finding = told(desk)[rule]

    assert (finding.severity, says in finding.observed) == (severity, True), finding


def test_a_well_kept_store_has_nothing_to_report(desk: Desk) -> None:
    """The faults above put right."""
    entry = published(schema={"type": "object"}, dependency="smtp", limits=("smtp",))
    work(desk, entry)
    work(desk, entry, wid="x", host="there")
    rule = limits.LimitRule(kind="rate", max=100, per_ms=1_000)
    desk.store.converse(limits.put_limit("smtp", rule, WORD, partitions=1))
    change = queue_rules.QueueChange(max_length=1_000, sla_ms=60_000)
    desk.store.converse(queue_rules.change_queue("mails", change, WORD, partitions=1))
    schedule(desk, "daily", "mail")
    desk.submit("mail", "mails")

    found = told(desk)

    assert {name: one.observed for name, one in found.items() if one.severity in ("warning", "error")} == {}
    assert {name for name, one in found.items() if one.severity == "skipped"} == {"owners", "scaling-endpoint", "sweep"}


def test_with_a_worker_that_delivers_webhooks_are_well(desk: Desk) -> None:
    """The plugin is there, and what ended lately waits for its second."""
    listen(desk)
    work(desk, published(DELIVERY, "webhooks"), wid="x")
    desk.run(calls.cancel(0, desk.submit(), who="ann", key_window_ms=WINDOW_MS))

    found = told(desk)

    assert [found[rule].severity for rule in ("webhook-worker", "webhook-outbox")] == ["ok", "ok"]
    assert found["webhook-outbox"].facts["ends"] == 1


def test_a_limiter_of_the_queue_is_enough(desk: Desk) -> None:
    """The type has none of its own."""
    work(desk, published(dependency="smtp"))
    before = told(desk)["dependency-limits"].severity
    desk.store.converse(limits.put_limit("all", limits.LimitRule(kind="concurrency", max=5), WORD, partitions=1))
    desk.store.converse(queue_rules.change_queue("mails", queue_rules.QueueChange(limits=("all",)), WORD, partitions=1))

    assert (before, told(desk)["dependency-limits"].severity) == ("warning", "ok")


def test_letters_are_no_fault_on_their_first_day_nor_once_they_are_discarded(desk: Desk) -> None:
    """What became old is told with its age."""
    ids = desk.bury(2)
    young = told(desk)["dead-letters"]
    desk.now += 3 * OLD_MS
    old = told(desk)["dead-letters"]
    desk.run(letters.discard(0, ids, who="ann", reason="seen"))
    gone = told(desk)["dead-letters"]

    assert [one.severity for one in (young, old, gone)] == ["ok", "warning", "ok"]
    assert old.facts == {"total": 2, "olderThanADay": 2, "oldestMs": 3 * OLD_MS, "queues": {"one": 2}}


def test_schedules_that_stand_still_are_not_judged(desk: Desk) -> None:
    """Paused: nothing is due, so nothing can be missing."""
    schedule(desk, "daily", "gone")
    known = desk.run(schedules.schedules(0, one="daily")).rows[0].version
    call = schedules.put(0, "daily", op="p", known=known, last="", spec="", next_ms=None, due_ms=None, enabled=False, who="ann")
    before = told(desk)["schedule-types"].severity
    desk.run(call)

    assert desk.run(schedules.schedules(0, one="daily")).rows[0].due_ms is None
    assert (before, told(desk)["schedule-types"].severity) == ("error", "ok")


def test_what_a_process_says_of_itself_is_what_is_judged(desk: Desk) -> None:
    """The very words with which a worker registers: slots of groups once, its drain, its port, what it could not load."""
    handler = job("mail", queue="mails", timeout_s=45)(lambda payload, ctx: None)

    loaded = registry_of([handler])
    registry = Registry(loaded.handlers, (PluginReport("tests"), PluginReport("fax", state="failed", error="ImportError: " + "x" * 1_000)))
    settings = Settings(queue_groups={"mails+sms": 3}, queue_concurrency={"other": 2}, drain_ms=9_000, worker_metrics_port=0)
    who = identity_of(settings, registry, name="1", suspects=False)
    desk.run(
        calls.register(
            0,
            wid="w",
            cap=who.cap,
            info=who.info,
            plugin_set=who.plugin_set,
            types=who.types,
            catalogue=who.catalogue,
            alive_ms=60_000,
            gen="g",
        )
    )

    (view,) = looked(desk).workers
    found = told(desk)

    assert (view.slots, view.drain_ms, view.metrics_port, view.types) == (5, 9_000, 0, ("mail",))
    assert view.queues == {"mails": 3, "other": 2, "sms": 3}
    assert view.cores is not None
    assert view.cores >= 1
    assert len(view.failed["fax"]) == 300
    assert [found[name].severity for name in ("shutdown", "metrics", "plugin-loading")] == ["warning", "warning", "error"]


def test_a_time_out_that_was_said_is_told_from_the_usual_one(desk: Desk) -> None:
    """Also when it is the same: what a plugin declares is published."""
    jobs = [job(name, **said)(lambda payload, ctx: None) for name, said in {"said": {"timeout_s": 60.0}, "unsaid": {}}.items()]
    work(desk, *entries(registry_of(jobs)))

    assert told(desk)["timeouts"].facts == {"onTheDefault": ["unsaid"]}


def test_partitions_are_added_up(desk: Desk) -> None:
    """One finding for the queue, one a partition for sweeps."""
    for partition in range(2):
        item = desk.item("mail", "mails")
        desk.run(calls.submit(partition, [item]))

    facts = looked(desk, partitions=2)
    found = examine(Facts(store=facts))

    assert [view.counts.waiting for view in facts.queues] == [2]
    assert [one.facts["partition"] for one in found if one.rule == "sweep"] == [0, 1]
