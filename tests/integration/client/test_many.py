"""Submitting many: in order, lazily, each by itself or all or none; and the store killed in the middle."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from typing import Any

import pytest

from integration.client.conftest import counted, publish
from support.eventually import eventually
from support.proxy import StoreProxy
from support.servers import StoreServer
from taskmaster.client import AsyncClient, Client, Submission, SubmittedJob
from taskmaster.engine import enqueue
from taskmaster.engine.gather import CHUNK
from taskmaster.errors import InvalidPayload, InvalidRequest, KeyReused, StoreUnavailable, TaskMasterError, UnknownJobType
from taskmaster.settings import Settings


def mails(count: int, start: int = 0) -> Iterator[Submission]:
    return (Submission("mail", f"k{n}", {"to": "a", "n": n}) for n in range(start, start + count))


def test_each_is_told_of_in_its_place(client: Client, url: str) -> None:
    """Whatever is wrong with one, the others are stored; a repeat finds them, and one key twice in a batch is one job."""
    bad: list[Any] = [
        {"type": "mail", "idempotencyKey": "b1", "payload": {}},
        {"type": "nothing", "idempotencyKey": "b2"},
        Submission("mail", "k1", {"to": "other"}),
        {"type": "mail", "idempotencyKey": "b4", "payload": {"to": "a"}, "delayMs": "soon"},
        Submission("mail", "b5", {"to": "a"}, attempts="many"),  # type: ignore[arg-type]
        Submission(5, "b6"),  # type: ignore[arg-type]
    ]
    items = [*mails(1_200), *bad, *mails(3, 600), {"type": "free", "payload": {}}]

    first = list(client.submit_many(items))
    again = list(client.submit_many(items))

    good = [*range(1_200), *range(1_206, 1_210)]
    errors = [InvalidPayload, UnknownJobType, KeyReused, InvalidRequest, InvalidRequest, InvalidRequest]
    assert [isinstance(one, SubmittedJob) for one in first] == [n in good for n in range(1_210)]
    assert [type(one) for one in first[1_200:1_206]] == [type(one) for one in again[1_200:1_206]] == errors
    assert [first[n].id for n in good[:-1]] == [again[n].id for n in good[:-1]]  # type: ignore[union-attr]
    assert {one.duplicate for one in again if isinstance(one, SubmittedJob) and one.type == "mail"} == {True}
    assert [one.id for one in first[1_206:1_209] if isinstance(one, SubmittedJob)] == [first[n].id for n in (600, 601, 602)]  # type: ignore[union-attr]
    assert counted(url) == 1_200 + 2


def test_it_is_lazy_and_takes_little_ahead(client: Client) -> None:
    """Nothing before the first is asked for, and never more than two calls' worth beyond what was told."""
    taken = itertools.count()
    items = (Submission("mail", f"k{next(taken)}", {"to": "a"}) for _ in range(10_000))

    told = client.submit_many(items)
    before = next(taken)
    seen = [next(told) for _ in range(CHUNK + 1)]
    after = next(taken)
    told.close()  # type: ignore[attr-defined]

    assert before == 0
    assert all(isinstance(one, SubmittedJob) for one in seen)
    assert after <= 1 + CHUNK + 2 * CHUNK


def test_what_the_caller_raises_comes_back_to_him(client: Client, url: str) -> None:
    def items() -> Iterator[Submission]:
        yield from mails(CHUNK)
        raise RuntimeError("the file ended")

    with pytest.raises(RuntimeError, match="the file ended"):
        list(client.submit_many(items()))

    assert counted(url) == CHUNK


@pytest.mark.parametrize("partitions", [1, 5])
def test_batches_spread_over_partitions(url: str, partitions: int) -> None:
    with Client(Settings(redis_url=url, partitions=partitions)) as client:
        told = list(client.submit_many(mails(1_500)))

        assert all(isinstance(one, SubmittedJob) for one in told)
        assert len({one.id for one in told if isinstance(one, SubmittedJob)}) == 1_500
        assert client.status(told[-1].id).state == "waiting"  # type: ignore[union-attr]


def test_checking_stores_nothing(client: Client, url: str) -> None:
    items: list[Any] = [*mails(700), {"type": "mail", "idempotencyKey": "x"}, {"type": "mail", "payload": {"to": "a"}}]

    found = list(client.check_many(items))

    assert found[:700] == [None] * 700
    assert [error.code for error in found[700:] if error] == ["invalid-payload", "idempotency-key-missing"]
    assert counted(url) == 0


def test_an_atomic_batch_is_stored_whole(client: Client, url: str) -> None:
    told = list(client.submit_many(mails(1_000), mode="atomic"))
    again = list(client.submit_many(mails(1_000), mode="atomic"))

    assert [one.id for one in told if isinstance(one, SubmittedJob)] == [one.id for one in again if isinstance(one, SubmittedJob)]
    assert counted(url) == len(told) == 1_000
    assert list(client.submit_many([], mode="atomic")) == []


@pytest.mark.parametrize(
    "bad",
    [Submission("mail", "x", {}), Submission("nothing", "x"), Submission("mail", "known", {"to": "other"})],
    ids=["payload", "type", "key"],
)
def test_an_atomic_batch_with_one_that_may_not_be_stores_none(client: Client, url: str, bad: Submission) -> None:
    """The error names the guilty one; the others were not stored for its sake."""
    client.submit("mail", {"to": "a"}, key="known")

    with pytest.raises(InvalidRequest, match="none was stored") as caught:
        list(client.submit_many([*mails(10), bad], mode="atomic"))

    items = caught.value.facts["items"]
    assert [item["index"] for item in items] == list(range(11))
    assert [item["index"] for item in items if "another item" not in item["message"]] == [10]
    assert counted(url) == 1


def test_an_atomic_batch_is_at_most_a_thousand(client: Client, url: str) -> None:
    with pytest.raises(InvalidRequest, match="at most 1000"):
        list(client.submit_many(mails(1_001), mode="atomic"))

    assert counted(url) == 0


def test_keys_of_several_partitions_cannot_be_atomic(url: str) -> None:
    with Client(Settings(redis_url=url, partitions=5)) as client, pytest.raises(InvalidRequest, match="several partitions"):
        list(client.submit_many(mails(50), mode="atomic"))


def test_ids_that_came_too_late_are_renewed(client: Client, url: str) -> None:
    """A clock that ran away costs a batch one call more."""
    list(client.submit_many(mails(10)))
    for count, mode in ((20, "independent"), (30, "atomic")):
        client._here().store._skew_ms = 900_000

        told = list(client.submit_many(mails(count), mode=mode))  # type: ignore[arg-type]

        assert all(isinstance(one, SubmittedJob) and abs(one.created_ms - time.time() * 1_000) < 60_000 for one in told)
        assert counted(url) == count


@pytest.mark.parametrize("partitions", [1, 5])
def test_the_store_takes_a_chunk_while_the_next_one_is_made(url: str, partitions: int) -> None:
    """All of it, in whatever partitions, before the caller's next item is asked for; nothing is awaited for that."""

    def items() -> Iterator[Submission]:
        yield from mails(CHUNK)
        eventually(lambda: counted(url) == CHUNK, what="the store has the first chunk")
        yield from mails(10, CHUNK)

    with Client(Settings(redis_url=url, partitions=partitions)) as client:
        told = list(client.submit_many(items()))

    assert len(told) == counted(url) == CHUNK + 10


@pytest.mark.anyio
async def test_the_store_takes_a_chunk_while_the_loops_next_one_is_made(url: str) -> None:
    """The same where making items holds the loop, once there are connections."""

    def items() -> Iterator[Submission]:
        yield from mails(CHUNK, 100)
        eventually(lambda: counted(url) == 100 + CHUNK, what="the store has the first chunk")
        yield from mails(10, 100 + CHUNK)

    async with AsyncClient(Settings(redis_url=url, partitions=5)) as client:
        told = [one async for one in client.submit_many(mails(100))]
        told += [one async for one in client.submit_many(items())]

    assert len(told) == counted(url) == 100 + CHUNK + 10


def test_who_goes_away_leaves_what_was_sent(client: Client, url: str, clean_server: StoreServer) -> None:
    """Whole chunks, and a connection that serves the next call."""
    told = client.submit_many(mails(10_000))
    next(told)
    told.close()  # type: ignore[attr-defined]
    before = clean_server.call("INFO", "clients")["connected_clients"]

    client.submit("mail", {"to": "a"}, key="another")

    assert counted(url) == 2 * CHUNK + 1
    assert clean_server.call("INFO", "clients")["connected_clients"] == before


@pytest.mark.parametrize("is_late", [False, True])
def test_a_lost_answer_is_asked_for_again_while_that_is_safe(url: str, clean_server: StoreServer, is_late: bool, monkeypatch: Any) -> None:
    """Nothing is doubled, though these have no keys; too late for that, the caller is told which may have been stored."""
    monkeypatch.setattr(enqueue, "RESEND_WITHIN_S", 0.0 if is_late else 10.0)
    with StoreProxy(clean_server) as road, Client(road.url) as client:
        list(client.submit_many([Submission("free")]))

        def items() -> Iterator[Submission]:
            road.drop_reply("submit")
            yield from (Submission("free") for _ in range(CHUNK))
            eventually(lambda: road.lost["submit"] == 1, what="the answer for the first chunk is lost")
            yield from (Submission("free") for _ in range(CHUNK + 1))

        if is_late:
            with pytest.raises(StoreUnavailable, match="may have taken effect") as caught:
                list(client.submit_many(items()))
            assert caught.value.facts["index"] == 0
        else:
            assert {one.duplicate for one in client.submit_many(items()) if isinstance(one, SubmittedJob)} == {False}
    assert counted(url) == 1 + (CHUNK if is_late else 2 * CHUNK + 1)


@pytest.fixture
def lasting() -> Iterator[StoreServer]:
    """A store that keeps on disk what it has answered."""
    with StoreServer("valkey", aof=True, options=["--appendfsync", "always"]) as server:
        publish(server.url)
        yield server


def test_a_store_killed_in_the_middle_costs_no_job_and_no_double(lasting: StoreServer) -> None:
    """What was told is there; the error says where to look; the same batch again, once the store is back, makes the rest."""
    told: list[Any] = []

    def items() -> Iterator[Submission]:
        for n, one in enumerate(mails(5_000)):
            if n == 2_600:
                lasting.kill()
            yield one

    with Client(lasting.url) as client:
        with pytest.raises(StoreUnavailable) as caught:
            told.extend(client.submit_many(items()))  # what was told before the error stays
        lasting.start()
        again = list(client.submit_many(mails(5_000)))

    assert caught.value.facts["index"] == len(told)
    assert 1_500 <= len(told) <= 2_500
    assert [one.id for one in told] == [one.id for one in again[: len(told)] if isinstance(one, SubmittedJob)]
    assert all(one.duplicate for one in again[: len(told)] if isinstance(one, SubmittedJob))
    assert len({one.id for one in again if isinstance(one, SubmittedJob)}) == counted(lasting.url) == 5_000


def test_a_store_that_is_soon_back_is_waited_for(lasting: StoreServer) -> None:
    """A restart in the middle of a batch is not even noticed."""

    def items() -> Iterator[Submission]:
        for n, one in enumerate(mails(3_000)):
            if n == 1_700:
                lasting.kill()
                lasting.start()
            yield one

    with Client(lasting.url) as client:
        told = list(client.submit_many(items()))

    assert all(isinstance(one, SubmittedJob) for one in told)
    assert counted(lasting.url) == 3_000


@pytest.mark.anyio
async def test_the_loops_client_does_the_same(url: str) -> None:
    """Items from an asynchronous source as well; independent and atomic."""

    async def items() -> Any:
        for one in mails(1_300):
            yield one

    async with AsyncClient(url) as client:
        told = [one async for one in client.submit_many(items())]
        again = [one async for one in client.submit_many([*mails(1_300), Submission("mail", "x", {})])]
        whole = [one async for one in client.submit_many(mails(1_000), mode="atomic")]
        with pytest.raises(InvalidRequest):
            [one async for one in client.submit_many(itertools.chain(mails(3, 5_000), [Submission("mail", "x", {})]), mode="atomic")]
        with pytest.raises(InvalidRequest, match="at most 1000"):
            [one async for one in client.submit_many(items(), mode="atomic")]

    ids = [one.id for one in told if isinstance(one, SubmittedJob)]
    assert len(set(ids)) == 1_300 == counted(url)
    assert [one.id for one in again if isinstance(one, SubmittedJob)] == ids
    assert isinstance(again[-1], TaskMasterError)
    assert [one.id for one in whole if isinstance(one, SubmittedJob)] == ids[:1_000]
