"""Orders about endpoints that stop on their way through the partitions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from support.servers import StoreServer
from support.worker import Hands
from taskmaster.engine.enqueue import store_jobs
from taskmaster.engine.rules import Word
from taskmaster.engine.webhooks import Endpoint, align_endpoints, change_endpoint, delete_endpoint, disable_endpoint, make_endpoint
from taskmaster.errors import NotFound
from taskmaster.maintenance import webhooks as maintenance
from taskmaster.model.webhooks import new_secret
from taskmaster.store import webhooks
from taskmaster.store.call import Talk
from taskmaster.store.client import SyncStore
from taskmaster.store.flow import Order

PARTITIONS = 3
ANN = Word("ann", "a test")
pytestmark = pytest.mark.server("valkey")


@pytest.fixture
def store(clean_server: StoreServer) -> Iterator[SyncStore]:
    one = SyncStore(clean_server.url)
    yield one
    one.close()


def until_its_first_write(store: SyncStore, talk: Talk[Any]) -> None:
    """Whoever carries it out dies then."""
    call = next(talk)
    while call.script.name != "webhook_put":
        call = talk.send(store.run(call))
    store.run(call)
    talk.close()


def left(store: SyncStore) -> list[int]:
    """Partitions that have an endpoint yet, or something that hears of ends."""
    return [
        p
        for p in range(PARTITIONS)
        if any(row.is_there for row in store.run(webhooks.webhooks(p))) or store.raw().exists(f"tm:{{{p}}}:whl")
    ]


def test_no_secret_is_in_what_python_shows_of_an_endpoint(store: SyncStore) -> None:
    """As it comes from the store, as it is read, and as it is wanted: an error or a log line may show any of them."""
    wanted = Endpoint("https://one.example.com/", secret=new_secret())
    view, secret = store.converse(make_endpoint(wanted, ANN, partitions=1))
    row = store.run(webhooks.webhooks(0))
    call = webhooks.put_webhook(0, view.id, {"sec": secret}, Order("op", None, "ann", ""), "{}")

    assert wanted.secret == secret
    assert [shown for shown in map(repr, (wanted, view, row, call)) if secret in shown] == []


def copies(store: SyncStore) -> list[list[str]]:
    """Where endpoints are, and whether they hear of ends, by partition."""
    found = []
    for p in range(PARTITIONS):
        hear: Any = store.raw().smembers(f"tm:{{{p}}}:whl")
        rows = [row for row in store.run(webhooks.webhooks(p)) if row.is_there]
        found.append([f"{row.fields['url']} {'hears' if row.id.encode() in hear else 'off'}" for row in rows])
    return found


@pytest.mark.parametrize("order", ["make", "change", "disable", "delete"])
def test_an_order_that_stopped_half_way_comes_to_all_partitions(store: SyncStore, order: str) -> None:
    """Whoever gave it may not come again: a worker finds it within a minute. Nothing is written where all are alike."""
    view, _ = store.converse(make_endpoint(Endpoint("https://one.example.com/"), ANN, partitions=PARTITIONS))
    other, now_ms = Endpoint("https://two.example.com/"), store.now_ms()
    talks: dict[str, Talk[Any]] = {
        "make": make_endpoint(other, ANN, partitions=PARTITIONS),
        "change": change_endpoint(view.id, other, ANN, partitions=PARTITIONS, now_ms=now_ms, known=1),
        "disable": disable_endpoint(view.id, ANN, partitions=PARTITIONS, known=1),
        "delete": delete_endpoint(view.id, ANN, partitions=PARTITIONS),
    }
    until_its_first_write(store, talks[order])
    before = copies(store)
    aligned = [store.converse(align_endpoints(PARTITIONS)) for _ in range(2)]
    first, *others = copies(store)

    assert before[0] != before[1] == before[2]
    assert aligned == [2, 0]
    assert before[0] == first
    assert [sorted(some) for some in others] == [sorted(first)] * 2


def test_what_came_meanwhile_is_not_undone(store: SyncStore) -> None:
    """The endpoint is deleted while copies are compared: it stays deleted."""
    view, _ = store.converse(make_endpoint(Endpoint("https://one.example.com/"), ANN, partitions=PARTITIONS))
    other = change_endpoint(view.id, Endpoint("https://two.example.com/"), ANN, partitions=PARTITIONS, now_ms=store.now_ms())
    until_its_first_write(store, other)

    def interrupted() -> Talk[int]:
        talk = align_endpoints(PARTITIONS)
        call = next(talk)
        while call.script.name != "webhook_put":
            call = talk.send((yield call))
        yield from delete_endpoint(view.id, ANN, partitions=PARTITIONS)
        try:
            while True:
                call = talk.send((yield call))
        except StopIteration as end:
            return int(end.value)

    assert store.converse(interrupted()) == 0
    assert left(store) == []


def test_many_ends_for_many_endpoints_are_told_a_part_at_a_time(store: SyncStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page of 200 ends for 50 endpoints is 10,000 deliveries: between some of them the clock is looked at, and none is passed over."""
    made: list[int] = []

    def counted(*args: Any, **options: Any) -> Any:
        made.append(len(args[2]))
        return store_jobs(*args, **options)

    for n in range(50):
        store.converse(make_endpoint(Endpoint(f"https://h{n}.example.com/"), ANN, partitions=1))
    hands = Hands(store.url)
    for job_id in hands.submit_many("quick", [{}] * 200):
        hands.cancel(job_id)
    hands.close()
    monkeypatch.setattr(maintenance, "store_jobs", counted)
    while store.run(webhooks.outbox(0)):
        maintenance.Outbox(store, 0, 1).step()

    assert max(made) <= 2_000
    assert sum(made) == 10_000


@pytest.mark.parametrize("is_known", [True, False])
def test_a_deletion_that_stopped_half_way_is_finished_by_its_repeat(store: SyncStore, is_known: bool) -> None:
    """The other partitions would keep its secrets, and note each end for nobody, for ever: the first one says that there is none."""
    view, _ = store.converse(make_endpoint(Endpoint("https://example.com/"), ANN, partitions=PARTITIONS))
    known = view.revision if is_known else None
    until_its_first_write(store, delete_endpoint(view.id, ANN, partitions=PARTITIONS, known=known))
    before = left(store)
    store.converse(delete_endpoint(view.id, ANN, partitions=PARTITIONS, known=known))

    assert before == [1, 2]
    assert left(store) == []
    with pytest.raises(NotFound):
        store.converse(delete_endpoint(view.id, ANN, partitions=PARTITIONS, known=known))
