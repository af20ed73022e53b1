"""The checklist on plain facts: one failing fixture a rule, and one where nothing is to be done."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from taskmaster.engine.checklist.examine import examine, has
from taskmaster.engine.checklist.facts import Facts, Letters, Own, Planned, Reach, StoreFacts, Swept
from taskmaster.engine.checklist.findings import Finding
from taskmaster.engine.checklist.types import is_telling
from taskmaster.engine.queries import QueueView, empty_queue
from taskmaster.engine.workers import WorkerView
from taskmaster.model.job import Counts
from taskmaster.model.retry import Backoff
from taskmaster.model.webhooks import DELIVERY
from taskmaster.plugins.catalogue import CatalogueEntry
from taskmaster.plugins.marks import KEY, unmarked
from taskmaster.plugins.registry import PluginReport
from taskmaster.store.flow import Rules
from taskmaster.store.reads import Integrity, LastSweep
from taskmaster.store.safety import Finding as StoreFinding
from taskmaster.store.safety import Level, judge
from taskmaster.store.upkeep import Repair
from taskmaster.store.webhooks import OutboxState

NOW_MS = 1_800_000_000_000
DAY_MS = 86_400_000
SOUND = {"maxmemory": "0", "maxmemory-policy": "noeviction", "appendonly": "yes", "appendfsync": "everysec"}
SCHEMA = {"type": "object", "properties": {"email": {"type": "string", KEY: "pii"}, "title": {"type": "string"}}}


def entry(name: str = "mail", **fields: Any) -> CatalogueEntry:
    facts: dict[str, Any] = {
        "type": name,
        "queue": "mails",
        "attempts": 5,
        "backoff": Backoff(),
        "timeout_ms": 20_000,
        "key_required": None,
        "schema": SCHEMA,
        "example": None,
        "description": "",
        "plugin": "post",
        "version": "1",
        "dependency": "smtp",
        "limits": ("smtp",),
    }
    return CatalogueEntry(**(facts | fields))


def worker(number: int = 1, **fields: Any) -> WorkerView:
    facts: dict[str, Any] = {
        "id": f"host{number}-7",
        "host": f"host{number}",
        "pid": 7,
        "name": "1",
        "is_suspects": False,
        "queues": {"mails": 8},
        "plugins": {"post": "1"},
        "since_ms": NOW_MS,
        "alive_until_ms": NOW_MS + 30_000,
        "consumers": (f"w{number}",),
        "types": ("mail",),
        "slots": 8,
        "cores": 4,
        "drain_ms": 30_000,
        "metrics_port": 3001,
        "failed": {},
    }
    return WorkerView(**(facts | fields))


def orders(**fields: Any) -> list[Rules]:
    facts: dict[str, Any] = {
        "queues": {"mails": {"max": "1000", "sla": "60000"}},
        "pauses": {},
        "type_limits": {"mail": "smtp"},
        "orders": {},
        "limiters": frozenset({"smtp"}),
    }
    return [Rules(**(facts | fields))]


def waiting(name: str = "mails", *, oldest_ms: int = 10, orphans: tuple[str, ...] = ()) -> QueueView:
    return empty_queue(name)._replace(counts=Counts(1, 0, 0, 0, 0, 0, 0), oldest_ms=oldest_ms, orphan_types=orphans)


def swept(*, last: bool = True, repairs: tuple[Repair, ...] = (), lost_at: int = 0, is_checked: bool = True) -> Swept:
    ended = LastSweep(NOW_MS - 2_000, NOW_MS - 1_000, 7, len(repairs), 0) if last else None
    return Swept(Integrity("g", 1, ended, False, lost_at, "rewound", "arrivals", is_checked, repairs), NOW_MS - 2_000)


STORE = StoreFacts(
    now_ms=NOW_MS,
    types=(entry(),),
    orders=orders(),
    workers=(worker(1), worker(2)),
    queues=(waiting(),),
    letters=Letters({"mails": 3}),
    schedules=(Planned("daily", "mail"),),
    swept=(swept(),),
)
FINE = Facts(
    store=STORE,
    own=Own("127.0.0.1", ("jobs:submit",), True, 1_000_000),
    policy=judge(SOUND),
    skew_ms=3,
    scaling=Reach(True, "answers"),
    plugins=(PluginReport("post", "taskmaster-post", "1", types=("mail",)),),
)


def store(**fields: Any) -> Facts:
    return msgspec.structs.replace(FINE, store=STORE._replace(**fields))


def changed(**fields: Any) -> Facts:
    return msgspec.structs.replace(FINE, **fields)


def types(**fields: Any) -> Facts:
    return store(types=(entry(**fields),))


def fleet(*workers: WorkerView) -> Facts:
    return store(workers=workers)


def own(**fields: Any) -> Facts:
    return changed(own=FINE.own._replace(**fields))


def told(facts: Facts, rule: str) -> Finding:
    found = [finding for finding in examine(facts) if finding.rule == rule]
    return max(found, key=lambda finding: ("ok", "skipped", "warning", "error").index(finding.severity))


def field(name: str, kind: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": {name: kind}}


TEXT = {"type": "string"}

#: rule, severity, facts, and what the line must say.
BROKEN: list[tuple[str, str, Facts, str]] = [
    ("readable", "skipped", changed(policy=judge(None)), "CONFIG GET denied"),
    ("readable", "error", changed(policy=judge(None, strict=True)), "CONFIG GET denied"),
    ("eviction", "error", changed(policy=judge(SOUND | {"maxmemory-policy": "allkeys-lru"})), "allkeys-lru"),
    ("persistence", "error", changed(policy=judge(SOUND | {"appendonly": "no"})), "appendonly no"),
    ("persistence", "skipped", changed(policy=judge({"maxmemory": "0"})), "not shown"),
    ("fsync", "warning", changed(policy=judge(SOUND | {"appendfsync": "no"})), "appendfsync no"),
    ("fsync", "error", changed(policy=judge(SOUND, strict=True)), "appendfsync everysec"),
    ("clock-skew", "warning", changed(skew_ms=2_000), "2.0 s ahead of ours"),
    ("clock-skew", "warning", changed(skew_ms=-31_000), "31.0 s behind ours"),
    ("sweep", "warning", store(swept=(swept(repairs=(Repair(NOW_MS, "index_missing", "job1", "delayed", True),)),)), "index_missing job1"),
    ("sweep", "skipped", store(swept=(swept(last=False),)), "no sweep has ended yet"),
    ("sweep", "skipped", store(swept=(swept(), swept(last=False))), "partition 1: no sweep"),
    ("loss", "warning", store(swept=(swept(lost_at=NOW_MS - 5_000, is_checked=False),)), "5 s ago the store was rewound"),
    ("plugins", "error", changed(plugins=(PluginReport("post", state="failed", error="ImportError: no"),)), "ImportError: no"),
    ("plugins", "warning", changed(plugins=()), "none is installed"),
    ("workers", "warning", fleet(), "no process is alive"),
    ("workers", "warning", fleet(worker(is_suspects=True)), "no process is alive"),
    ("worker-types", "warning", store(queues=(waiting(orphans=("gone",)),)), "waiting, and no live worker has it: gone"),
    ("worker-types", "warning", fleet(worker(types=())), "in the catalogue, and no live worker has it: mail"),
    ("worker-types", "skipped", fleet(), "no worker is alive"),
    ("plugin-loading", "error", fleet(worker(), worker(2, failed={"fax": "ImportError: no"})), "fax in host2-7: ImportError: no"),
    ("plugin-loading", "error", fleet(worker(), worker(2, is_suspects=True, failed={"fax": "no"})), "fax in host2-7"),
    ("plugin-sets", "warning", fleet(worker(), worker(2, plugins={"post": "2"})), "host2-7: post 2"),
    ("plugin-sets", "warning", fleet(worker(), worker(2, plugins={})), "host2-7: none"),
    ("scaling", "warning", fleet(worker()), "one worker process, on host1"),
    ("scaling", "warning", fleet(worker(), worker(2, host="host1")), "2 worker processes, all on host1"),
    ("scaling-endpoint", "warning", changed(scaling=Reach(False, "answers 503")), "answers 503"),
    ("scaling-endpoint", "skipped", changed(scaling=Reach(None, "no API answers")), "no API answers"),
    ("concurrency", "warning", fleet(worker(slots=200), worker(2, host="host1", slots=57)), "host1: 257 at once on 4"),
    ("concurrency", "skipped", fleet(worker(slots=None)), "no live worker tells"),
    ("shutdown", "warning", store(types=(entry(timeout_ms=31_000),)), "30 s to drain, the longest time-out is 31 s: mail"),
    ("shutdown", "skipped", fleet(worker(drain_ms=None)), "no live worker tells"),
    ("metrics", "warning", fleet(worker(), worker(2, metrics_port=0)), "no metrics: host2-7"),
    ("metrics", "skipped", fleet(worker(metrics_port=None)), "no live worker tells"),
    ("api-exposure", "warning", own(host="0.0.0.0"), "listens on 0.0.0.0, without authentication; callers may jobs:submit"),
    ("api-exposure", "warning", own(host="example.org"), "listens on example.org"),
    ("api-exposure", "skipped", own(host=None), "not set here"),
    (
        "dead-letters",
        "warning",
        store(letters=Letters({"mails": 3}, 2, 3 * DAY_MS)),
        "3, 2 of them failed more than a day ago, the oldest 3.0",
    ),
    ("dead-letters", "warning", store(letters=Letters({"a": 600, "b": 400})), "1000, 0 of them"),
    ("queue-sla", "warning", store(queues=(waiting(oldest_ms=60_001),)), "mails: waiting for 60001 ms, promised 60000 ms"),
    ("queue-length", "warning", store(queues=(waiting(), waiting("other"))), "no maxLength: other"),
    ("limiters", "warning", store(orders=orders(type_limits={"mail": "smtp,typo"})), "no rule for typo"),
    ("limiters", "warning", store(orders=orders(queues={"mails": {"lm": "typo", "max": "9"}})), "no rule for typo"),
    ("schedule-types", "error", store(schedules=(Planned("daily", "gone"),)), "daily: nobody has published its type gone"),
    ("schedule-types", "error", store(schedules=(Planned("daily", None),)), "daily: its definition cannot be read"),
    ("schedule-types", "warning", fleet(worker(types=())), "daily: no live worker has its type mail"),
    ("webhook-worker", "warning", store(outboxes=(OutboxState(is_heard=True),)), "no live worker has the type taskmaster-webhook"),
    ("webhook-worker", "warning", store(workers=(), outboxes=(OutboxState(ends=1),)), "no live worker has the type taskmaster-webhook"),
    ("webhook-outbox", "warning", store(outboxes=(OutboxState(9), OutboxState(3, 420_000))), "12 ends wait, the oldest for 7 minutes"),
    (
        "webhook-outbox",
        "warning",
        store(outboxes=(OutboxState(dropped=2, dropped_ago_ms=2 * DAY_MS), OutboxState(dropped=5, dropped_ago_ms=DAY_MS - 1))),
        "7 ends were dropped, the last 1439 minutes ago",
    ),
    ("catalogue", "warning", store(unreadable=("new",)), "cannot be read: new"),
    ("retries", "warning", types(attempts=0), "attempts not within 1 to 100: mail"),
    ("retries", "warning", types(attempts=10**9), "attempts not within 1 to 100: mail"),
    ("retries", "warning", types(attempts=1), "has one attempt: mail"),
    ("retries", "warning", types(backoff=Backoff(kind="fixed", delay_ms=0)), "is repeated at once: mail"),
    ("retries", "warning", types(backoff=Backoff(kind="fixed", delay_ms=3 * DAY_MS, max_ms=3 * DAY_MS)), "for more than a week: mail"),
    ("timeouts", "warning", types(timeout_ms=60_000), "at the default of 60 s: mail"),
    ("timeouts", "warning", types(timeout_ms=60_000, is_timed=False), "at the default of 60 s: mail"),
    ("timeouts", "warning", types(timeout_ms=3_600_001), "may take more than an hour: mail"),
    ("dependency-limits", "warning", store(orders=orders(type_limits={})), "without a limiter: mail (smtp)"),
    ("dependency-limits", "warning", store(orders=orders(limiters=frozenset())), "without a limiter: mail (smtp)"),
    ("idempotency", "warning", types(key_required=False), "no key is needed: mail"),
    ("idempotency", "warning", own(is_key_required=False), "no key is needed: mail"),
    ("pii-marks", "warning", types(schema=field("email", TEXT)), "mail: email"),
    ("owners", "skipped", FINE, "no field for owners"),
]


@pytest.mark.parametrize(("rule", "severity", "facts", "says"), BROKEN, ids=[f"{one[0]}-{number}" for number, one in enumerate(BROKEN)])
def test_each_rule_finds_its_fault(rule: str, severity: str, facts: Facts, says: str) -> None:
    """Told with what was seen, why it matters, and, of a fault, what to do."""
    finding = told(facts, rule)

    assert finding.severity == severity
    assert says in finding.observed
    assert finding.why
    assert finding.fix or severity == "skipped"


def test_where_all_is_fine_nothing_is_reported() -> None:
    """Only what nobody can know here is skipped; nothing that is well says what to do."""
    found = examine(FINE)

    assert not has(found, "warning", "error")
    assert [finding.rule for finding in found if finding.severity == "skipped"] == ["owners"]
    assert [finding.rule for finding in found if finding.fix] == []


def test_every_rule_has_a_failing_fixture() -> None:
    """But for `pauses`, which tells and judges nothing."""
    rules = {finding.rule for facts in (FINE, *(one[2] for one in BROKEN)) for finding in examine(facts)}

    assert rules - {one[0] for one in BROKEN} == {"pauses"}


def test_the_table_of_rules_has_them_all() -> None:
    """`settings` and `store` are the command's own."""
    page = (Path(__file__).parents[3] / "services" / "README.md").read_text("utf-8")
    table = page.partition("## The production checklist")[2].partition("\n## ")[0]
    names = {name for line in table.splitlines() if line.startswith("| `") for name in re.findall(r"`([a-z-]+)`", line.split("|")[1])}

    assert names == {one[0] for one in BROKEN} | {"pauses", "settings", "store"}


def test_findings_are_plain_json() -> None:
    """Whatever is wrong, programs can read it."""
    for _, _, facts, _ in BROKEN:
        for finding in examine(facts):
            assert msgspec.json.decode(msgspec.json.encode(finding))["rule"] == finding.rule


@pytest.mark.parametrize(
    ("facts", "rule"),
    [
        (types(attempts=1, dependency=""), "retries"),
        (types(dependency="", limits=()), "dependency-limits"),
        (store(orders=orders(type_limits={}, queues={"mails": {"lm": "smtp", "max": "9"}})), "dependency-limits"),
        (store(types=(entry(key_required=True),)), "idempotency"),
        (types(timeout_ms=30_000, is_timed=True), "timeouts"),
        (types(timeout_ms=60_000, is_timed=True), "timeouts"),
        (store(swept=(swept(lost_at=NOW_MS - 9_000),)), "loss"),
        (own(host="::1"), "api-exposure"),
        (own(host="localhost"), "api-exposure"),
        (fleet(worker(), worker(2), worker(3, is_suspects=True, plugins={}, metrics_port=0, slots=999)), "metrics"),
        (fleet(worker(), worker(2), worker(3, is_suspects=True, plugins={}, slots=999)), "plugin-sets"),
        (fleet(worker(), worker(2), worker(3, is_suspects=True, slots=999)), "concurrency"),
        (store(letters=Letters()), "dead-letters"),
        (store(workers=(worker(), worker(2, types=(DELIVERY,))), outboxes=(OutboxState(ends=4, is_heard=True),)), "webhook-worker"),
        (store(outboxes=(OutboxState(ends=100, oldest_ms=299_999),)), "webhook-outbox"),
        (store(outboxes=(OutboxState(dropped=5, dropped_ago_ms=DAY_MS),)), "webhook-outbox"),
    ],
)
def test_what_is_no_fault_is_not_told_as_one(facts: Facts, rule: str) -> None:
    """The near neighbours of the faults above."""
    assert told(facts, rule).severity == "ok"


def test_pauses_are_told_by_kind_and_are_no_fault() -> None:
    """They are somebody's order."""
    pause = b'{"who":"ann","reason":"quota","since":1,"name":"Kunde 7"}'
    finding = told(store(orders=orders(pauses={"q/mails": pause, "t/mail": pause, "k/x-key": pause})), "pauses")

    assert (finding.severity, finding.observed) == ("ok", "queue mails, tenant Kunde 7, type mail")


@pytest.mark.parametrize("level", ["ok", "info", "warn", "refuse"])
def test_every_level_of_the_store_has_a_severity(level: Level) -> None:
    """Facts tell whether workers refuse to start with it."""
    finding = told(changed(policy=[StoreFinding("eviction", level, "x", "y", "z")]), "eviction")

    assert finding.severity == {"ok": "ok", "info": "skipped", "warn": "warning", "refuse": "error"}[level]
    assert finding.facts == {"refused": level == "refuse"}


@pytest.mark.parametrize(
    ("name", "kind", "is_found"),
    [
        ("email", TEXT, True),
        ("e_mail", TEXT, True),
        ("userEmail", TEXT, True),
        ("customerEMailAddress", TEXT, True),
        ("passwords", TEXT, True),
        ("accessToken", TEXT, True),
        ("APIKey", TEXT, True),
        ("card", {"type": "integer"}, True),
        ("cardNumber", {}, True),
        ("email", {"type": "boolean"}, False),
        ("max_tokens", {"type": "integer"}, False),
        ("token", {"anyOf": [TEXT]}, False),  # what it may be is looked at by itself
        ("discard", TEXT, False),
        ("emailed_at", TEXT, False),
        ("template", TEXT, False),
        ("panel", TEXT, False),
    ],
)
def test_names_that_look_like_secrets(name: str, kind: dict[str, Any], is_found: bool) -> None:
    """Whole words count, in whatever spelling; flags and counts do not."""
    assert is_telling(name, kind) is is_found


@pytest.mark.parametrize(
    ("schema", "paths"),
    [
        (field("email", TEXT), ["email"]),
        (field("email", TEXT | {KEY: "pii"}), []),
        (field("email", {"anyOf": [TEXT, {"type": "null"}]}), ["email"]),
        (field("emails", {"type": "array", "items": TEXT}), ["emails[]"]),
        (field("emails", {"type": "array", "items": TEXT, KEY: "pii"}), []),
        (field("tokens", {"type": "object", "additionalProperties": TEXT}), ["tokens[]"]),
        (field("pair", {"type": "array", "prefixItems": [field("token", TEXT), TEXT]}), ["pair[].token"]),
        (field("user", field("token", TEXT)), ["user.token"]),
        (field("user", {"$ref": "#/$defs/User"}) | {"$defs": {"User": field("token", TEXT)}}, ["user.token"]),
        (field("user", {"$ref": "#/$defs/User"}) | {"$defs": {"User": field("token", TEXT) | {KEY: "secret"}}}, []),
        ({"$ref": "#/$defs/Node", "$defs": {"Node": field("next", {"$ref": "#/$defs/Node"})}}, []),
        (field("email", TEXT) | {KEY: "secret"}, []),
    ],
)
def test_what_is_not_marked_is_found_wherever_it_stands(schema: dict[str, Any], paths: list[str]) -> None:
    """In lists, mappings, choices and named parts; a mark above hides all below."""
    assert unmarked(schema, is_telling) == paths
