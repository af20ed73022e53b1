"""Orders of operators: what becomes of them in the store, how partitions share them, and how they are read back."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.servers import StoreServer
from taskmaster.engine.limits import LimitRule, LimitView, list_limits, put_limit
from taskmaster.engine.queue_rules import QueueChange, change_queue, queue_rules
from taskmaster.engine.rules import Word, pause_of, read_rules, shares
from taskmaster.errors import Conflict, InvalidRequest, RevisionMismatch
from taskmaster.model.lanes import KEY_MAX
from taskmaster.store import flow
from taskmaster.store.call import Call
from taskmaster.store.client import SyncStore

pytestmark = pytest.mark.server("valkey")

KEYS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=KEY_MAX)
WORD = Word("ann", "why")
NAMES = map("few{}".format, itertools.count())  # each example has limiters and queues of its own
many = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def store(clean_server: StoreServer) -> Iterator[SyncStore]:
    made = SyncStore(clean_server.url)
    yield made
    made.close()


class Faster(SyncStore):
    """Somebody else gives an order for the same limiter just before ours, so many times."""

    def __init__(self, url: str, times: int) -> None:
        super().__init__(url)
        self._left = times

    def run(self, call: Call[Any], **how: Any) -> Any:
        if call.script.name == "limit_put" and self._left:
            self._left -= 1
            rival = flow.Order(f"rival{self._left}", None, "b", "")
            super().run(flow.put_limit(call.partition, str(call.args[0]), {"kind": "slots", "max": 1}, rival))
        return super().run(call, **how)


class Recorded(SyncStore):
    """Keeps the calls that it runs."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.sent: list[Call[Any]] = []

    def run(self, call: Call[Any], **how: Any) -> Any:
        self.sent.append(call)
        return super().run(call, **how)


def put(store: SyncStore, name: str, rule: LimitRule, partitions: int = 1, known: int | None = None) -> LimitView:
    return store.converse(put_limit(name, rule, WORD, partitions=partitions, known=known))


@given(st.integers(0, 10**9), st.integers(1, 1_024))
def test_shares_are_the_whole_and_nearly_equal(total: int, partitions: int) -> None:
    """Nothing is lost or made; nobody has more than one above another."""
    parts = shares(total, partitions)

    assert sum(parts) == total
    assert max(parts) - min(parts) <= 1


@many
@given(
    st.integers(1, 4),
    st.integers(4, 10**6),
    st.none() | st.integers(4, 10**6),
    st.none() | st.dictionaries(KEYS, st.integers(4, 10**6), max_size=5),
)
def test_a_rule_comes_back_as_it_was_given(
    store: SyncStore, partitions: int, most: int, burst: int | None, overrides: dict[str, int] | None
) -> None:
    """However many partitions share it, and whatever its fairness keys are called."""
    rule, name = LimitRule("rate", most, 1_000, burst, None if overrides is None else "fairnessKey", overrides or {}), next(NAMES)

    view = put(store, name, rule, partitions)
    [listed] = store.converse(list_limits(partitions, name))

    assert view.rule == listed.rule == rule
    assert sum(int(store.run(flow.limits(number, name))[0].fields["max"]) for number in range(partitions)) == most


@pytest.mark.parametrize("field", ["max", "burst", "overrides"])
def test_each_partition_needs_one_of_everything(store: SyncStore, field: str) -> None:
    """A limit that cannot be shared is refused with its place, and nothing is written."""
    rule: dict[str, Any] = {"max": 9, "burst": 9, "overrides": {"k": 9}} | {field: {"k": 2} if field == "overrides" else 2}

    with pytest.raises(InvalidRequest) as caught:
        put(store, "few", LimitRule("rate", per_ms=5, by="fairnessKey", **rule), 3)

    assert caught.value.facts["errors"][0]["pointer"].startswith(f"/{field}")
    assert store.converse(list_limits(3)) == []


def test_an_order_is_decided_anew_when_somebody_was_faster(store: SyncStore) -> None:
    """Without a revision the last one wins, in every partition; with one, whoever has seen less is refused; and nobody tries for ever."""
    with closing(Faster(store.url, 3)) as beaten, closing(Faster(store.url, 99)) as always_beaten:
        assert put(beaten, "few", LimitRule("concurrency", 5), 2).rule.max == 5
        now = store.converse(list_limits(2, "few"))[0].revision
        with pytest.raises(RevisionMismatch) as caught:
            put(store, "few", LimitRule("concurrency", 6), 2, known=now - 1)
        assert caught.value.facts["revision"] == now
        with pytest.raises(Conflict, match="all the time"):
            put(always_beaten, "few", LimitRule("concurrency", 7))


def test_a_late_copy_of_an_order_does_nothing(store: SyncStore) -> None:
    """An order that was sent twice and overtaken by another one is not carried out again."""
    with closing(Recorded(store.url)) as first:
        put(first, "few", LimitRule("concurrency", 5))
        put(store, "few", LimitRule("concurrency", 6))
        for call in first.sent:
            store.run(call)

    assert first.sent
    assert store.converse(list_limits(1, "few"))[0].rule.max == 6


@many
@given(st.integers(1, 4), st.dictionaries(KEYS, st.integers(1, 1_000), max_size=5), st.none() | st.integers(4, 10**6))
def test_settings_of_a_queue_come_back_as_they_were_given(
    store: SyncStore, partitions: int, weights: dict[str, int], length: int | None
) -> None:
    """What is left out of a later change stays."""
    name = next(NAMES)
    wanted = QueueChange(limits=("b", "a"), strict=True, weights=weights, max_length=length, concurrency=3, sla_ms=1_500)
    store.converse(change_queue(name, wanted, WORD, partitions=partitions))
    store.converse(change_queue(name, QueueChange(strict=None), WORD, partitions=partitions))

    rules = queue_rules(store.converse(read_rules(partitions)), name)

    assert (rules.limits, rules.strict, rules.weights, rules.max_length, rules.concurrency) == (("b", "a"), False, weights, length, 3)
    assert (rules.sla_ms, rules.revision) == (1_500, 2)


def test_a_pause_is_read_as_the_store_writes_it() -> None:
    """Lua writes large numbers as floats."""
    pause = pause_of(b'{"who":"ann","since":1.79e+12,"reason":"","plugin":"mailer"}')

    assert pause is not None
    assert (pause.by, pause.since_ms, pause.plugin) == ("ann", 1_790_000_000_000, "mailer")
    assert pause_of("") is None
