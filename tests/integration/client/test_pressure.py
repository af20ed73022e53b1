"""Submissions of the Python clients under pressure: the rules of the API, on a real store."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, TypeVar

import pytest

from support.eventually import eventually
from support.servers import StoreServer
from taskmaster.client import AsyncClient, Client, SubmittedJob
from taskmaster.engine.pressure import BlockingPressureGauge
from taskmaster.errors import Overloaded, StoreFilling, StoreUnavailable
from taskmaster.settings import Settings
from taskmaster.store import calls
from taskmaster.store.client import SyncStore

T = TypeVar("T")


def _blocking(settings: Settings, steps: Callable[[Callable[..., Any], Callable[..., list[Any]]], T]) -> T:
    with Client(settings) as client:
        return steps(client.submit, lambda *given, **more: list(client.submit_many(*given, **more)))


def _on_a_loop(settings: Settings, steps: Callable[[Callable[..., Any], Callable[..., list[Any]]], T]) -> T:
    with asyncio.Runner() as runner:
        client = AsyncClient(settings)

        async def many(*given: Any, **more: Any) -> list[Any]:
            return [one async for one in client.submit_many(*given, **more)]

        def now(work: Callable[..., Awaitable[Any]]) -> Callable[..., Any]:
            async def run(given: Any, more: Any) -> Any:
                return await work(*given, **more)

            return lambda *given, **more: runner.run(run(given, more))

        try:
            return steps(now(client.submit), now(many))
        finally:
            runner.run(client.close())


@pytest.fixture(params=[_blocking, _on_a_loop], ids=["sync", "async"])
def use(request: pytest.FixtureRequest) -> Any:
    """Does steps with one client's `submit` and `submit_many`."""
    return request.param


@pytest.fixture
def tight(clean_server: StoreServer) -> Iterator[StoreServer]:
    """The store's memory limit can be set, and is taken away in the end. It holds so much that a few buffers more or less do not matter."""
    for n in range(50):
        clean_server.call("SET", f"ballast:{n}", "x" * 1_000_000)
    yield clean_server
    clean_server.call("CONFIG", "SET", "maxmemory", "0")


def refusal(submit: Callable[..., Any], priority: str) -> StoreFilling | Overloaded:
    """What refuses a job of this priority, once the figures have caught up: they are a second old at most."""
    refused: list[StoreFilling | Overloaded] = []

    def is_refused() -> bool:
        try:
            submit("free", {}, priority=priority)
        except (StoreFilling, Overloaded) as error:
            refused.append(error)
        return bool(refused)

    eventually(is_refused, what=f"{priority} is refused")
    return refused[0]


def test_memory_is_kept_for_higher_priorities(use: Any, tight: StoreServer, url: str) -> None:
    """As the API has it: at 84 % low is refused with figures and a time to come back, the others are stored."""

    def steps(submit: Callable[..., Any], _: Any) -> None:
        used = int(tight.call("INFO", "memory")["used_memory"])
        tight.call("CONFIG", "SET", "maxmemory", str(int(used / 0.84)))

        error = refusal(submit, "low")

        assert isinstance(error, StoreFilling)
        assert (error.facts["rule"], error.facts["priority"], error.facts["limit"], error.facts["retryAfterS"]) == ("memory", "low", 0.8, 5)
        assert {type(submit("free", {}, priority=name)) for name in ("normal", "high", "critical")} == {SubmittedJob}

    use(Settings(redis_url=url), steps)


def test_a_queue_that_is_behind_takes_no_low_priority(use: Any, url: str) -> None:
    """Another queue is not concerned; a bulk is refused item by item, an atomic one as a whole."""

    def steps(submit: Callable[..., Any], many: Callable[..., list[Any]]) -> None:
        for _ in range(6):
            submit("free", {}, priority="critical")

        error = refusal(submit, "low")
        told = many([{"type": "free", "priority": name} for name in ("critical", "low", "high")])
        with pytest.raises(Overloaded) as atomic:
            many([{"type": "free", "priority": name} for name in ("critical", "low")], mode="atomic")

        assert isinstance(error, Overloaded)
        facts = tuple(error.facts[name] for name in ("rule", "queue", "limit", "retryAfterS"))
        assert facts == ("waiting", "mails", 5, 10)
        assert [type(one) for one in told] == [SubmittedJob, Overloaded, SubmittedJob]
        assert atomic.value.facts["retryAfterS"] == 10
        assert isinstance(submit("free", {}, priority="low", queue="calm"), SubmittedJob)

    use(Settings(redis_url=url, shed_waiting=5), steps)


def test_memory_refuses_items_of_a_bulk_by_themselves(use: Any, tight: StoreServer, url: str) -> None:
    """That the store is short of memory for one of them is no failure of the call."""

    def steps(submit: Callable[..., Any], many: Callable[..., list[Any]]) -> None:
        used = int(tight.call("INFO", "memory")["used_memory"])
        tight.call("CONFIG", "SET", "maxmemory", str(int(used / 0.84)))
        refusal(submit, "low")

        told = many([{"type": "free", "priority": name} for name in ("low", "normal", "low", "critical")])

        assert [type(one) for one in told] == [StoreFilling, SubmittedJob, StoreFilling, SubmittedJob]

    use(Settings(redis_url=url), steps)


def test_the_store_is_asked_once_a_second_and_never_for_critical_jobs(use: Any, url: str, clean_server: StoreServer) -> None:
    """Many submissions share one look; who sends critical jobs alone, or sheds nothing, makes none."""

    def looks() -> int:
        return int(clean_server.call("INFO", "commandstats").get("cmdstat_info", {}).get("calls", 0))

    def sent(priority: str, **settings: Any) -> int:
        before = looks()
        asked = use(
            Settings(redis_url=url, **settings),
            lambda submit, many: [
                *(submit("free", {}, priority=priority) for _ in range(20)),
                many([{"type": "free", "priority": priority}] * 1_200),
            ],
        )
        assert len(asked) == 21
        return looks() - before - 1  # our own

    assert sent("critical") == 0
    assert sent("low", shed_memory_percent=0, shed_waiting=0) == 0
    began = clean_server.call("TIME")[0]
    made = sent("low")
    assert 1 <= made <= int(clean_server.call("TIME")[0]) - int(began) + 2


def test_a_store_that_hangs_is_told_of_by_the_look(url: str, clean_server: StoreServer) -> None:
    """Who waited for the figures does not wait again for the submission; a look that fails at once leaves it to that."""
    low = (0, calls.NewJob("0" * 36, "mails", "free", 3, 0, 0, 5, "", "", ""))
    store = SyncStore(url, timeout_s=0.3)
    gone, hung = (BlockingPressureGauge(store, Settings(redis_url=url), 0.15) for _ in range(2))

    store.ping()
    clean_server.call("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    assert gone.sift([low]) == [low]
    clean_server.call("CLIENT", "PAUSE", "2000", "ALL")
    with pytest.raises(StoreUnavailable):
        hung.sift([low])
    store.close()
