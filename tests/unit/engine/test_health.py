"""Rules of health, and the alarm that tells of a broken one."""

from __future__ import annotations

import pytest

from taskmaster.engine.deliveries import alarm_of
from taskmaster.engine.health import HealthRule, Stand, rules_of
from taskmaster.engine.queries import empty_queue
from taskmaster.model.job import Counts
from taskmaster.store.flow import Rules
from taskmaster.store.webhooks import OutboxState

HOUR = 3_600_000


@pytest.mark.parametrize(
    ("change", "broken"),
    [
        ({}, []),
        ({"counts": Counts(waiting=1_000)}, ["waiting"]),
        ({"failure_ratio": 0.5}, ["failureRate"]),
        ({"orphan_types": ("t",)}, ["noWorker"]),
    ],
)
def test_rules_of_health(change: dict[str, object], broken: list[str]) -> None:
    found = rules_of(Stand([empty_queue("q")._replace(**change)], [Rules({}, {}, {}, {}, frozenset())], (), 1, ()))

    assert [rule.rule for rule in found if not rule.ok] == broken


@pytest.mark.parametrize(
    ("outboxes", "found"),
    [
        ([OutboxState()], []),
        ([OutboxState(is_heard=True)], [("webhookLag", 0, True), ("webhookDropped", 0, True)]),
        ([OutboxState(ends=1, oldest_ms=299_999)], [("webhookLag", 299_999, True), ("webhookDropped", 0, True)]),
        ([OutboxState(), OutboxState(ends=1, oldest_ms=300_000)], [("webhookLag", 300_000, False), ("webhookDropped", 0, True)]),
        ([OutboxState(dropped=5, dropped_ago_ms=HOUR)], [("webhookLag", 0, True), ("webhookDropped", 0, True)]),
        ([OutboxState(dropped=5, dropped_ago_ms=HOUR - 1)] * 2, [("webhookLag", 0, True), ("webhookDropped", 2, False)]),
    ],
)
def test_ends_that_become_no_deliveries_are_a_broken_rule(outboxes: list[OutboxState], found: list[tuple[str, float, bool]]) -> None:
    """Where anybody is to be told; one partition that does not get on is enough, and a drop is told for an hour."""
    rules = rules_of(Stand([], [Rules({}, {}, {}, {}, frozenset())], (), 1, outboxes))

    assert [(rule.rule, rule.observed, rule.ok) for rule in rules] == found


def test_an_alarm_is_one_event_of_its_rule_queue_and_hour() -> None:
    """Whoever looks, and whatever is observed then: within the hour it is the same event."""
    rule = HealthRule("waiting", "q", 1_200, 1_000, ok=False)
    one = alarm_of(rule, 10 * HOUR)
    same = alarm_of(rule._replace(observed=5_000), 11 * HOUR - 1)
    others = [alarm_of(rule, 11 * HOUR), alarm_of(rule._replace(queue="r"), 10 * HOUR), alarm_of(rule._replace(rule="noWorker"), 10 * HOUR)]

    assert one["data"] == {"rule": "waiting", "queue": "q", "observed": 1_200, "limit": 1_000}
    assert one["timestamp"] == "1970-01-01T10:00:00.000Z"
    assert same["id"] == one["id"]
    assert len({event["id"] for event in (one, *others)}) == 4
