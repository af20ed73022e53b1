"""F16, F17, F20: answers are lost after scripts ran, requests are torn, a road is open in one direction: each call takes effect once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from integration.store.test_scripts import REPEATS
from support.desk import Desk
from support.eventually import eventually
from support.proxy import StoreProxy
from support.servers import StoreServer
from support.worker import Worker
from taskmaster.errors import StoreUnavailable
from taskmaster.store import calls
from taskmaster.store.client import SyncStore
from taskmaster.store.scripts import load
from taskmaster_sdk import job


@pytest.mark.parametrize("name", REPEATS)
def test_the_reply_of_every_script_may_be_lost(desk: Desk, clean_server: StoreServer, name: str) -> None:
    """It ran, and nobody was told: the same call again says what its header promises, and not one key is another."""
    call, expected = REPEATS[name](desk)
    with StoreProxy(clean_server) as proxy:
        far = SyncStore(proxy.url, now_ms=lambda: desk.now)
        proxy.drop_reply(call.script.name)
        with pytest.raises(StoreUnavailable):
            far.run(call)
        assert proxy.lost[call.script.name] == 1
        after = desk.dump()

        again = desk.answer(call)

        assert expected is None or again == expected
        assert desk.dump() == after
        far.close()


@pytest.mark.server("valkey")
def test_a_lost_reply_is_that_of_a_script_that_ran(desk: Desk, clean_server: StoreServer) -> None:
    """A server that has not the script yet says so and runs nothing: that answer is passed on, and the one after it is lost."""
    clean_server.call("SCRIPT", "FLUSH")
    clean_server.call("FUNCTION", "FLUSH")
    item = desk.item()
    with StoreProxy(clean_server) as proxy:
        far = SyncStore(proxy.url, now_ms=lambda: desk.now)
        proxy.drop_reply("submit")

        with pytest.raises(StoreUnavailable):
            far.run(calls.submit(0, [item]))

        assert (proxy.seen["submit"], proxy.lost["submit"]) == (2, 1)
        assert desk.field(item.id, "st") == "w"
        far.close()


@pytest.mark.parametrize("fault", ["drop_reply", "halve_request", "close_after_request"])
@pytest.mark.parametrize("name", REPEATS)
@pytest.mark.server("valkey")
def test_a_client_that_resends_is_none_the_wiser(desk: Desk, clean_server: StoreServer, name: str, fault: str) -> None:
    """Torn request, request whose connection is gone, reply lost: the client's own resend ends with one effect and sound keys."""
    call, _ = REPEATS[name](desk)
    with StoreProxy(clean_server) as proxy:
        far = SyncStore(proxy.url, now_ms=lambda: desk.now)
        script = load(call.script.name)
        far.raw().script_load(script.text)
        if script.function is not None:
            far.raw().function_load(script.function.code.decode(), replace=True)
        getattr(proxy, fault)(call.script.name)
        far.run(call, within_s=5)
        after = desk.dump()

        desk.answer(call)

        assert proxy.seen[call.script.name] >= 2
        assert desk.dump() == after
        far.close()


@job("echo")
def echo(payload: dict[str, Any], ctx: Any) -> Any:
    return payload["n"]


@pytest.mark.parametrize(
    "disturb",
    [
        pytest.param(lambda proxy: proxy.split_bytes(7), id="answers in pieces of 7 bytes"),
        pytest.param(lambda proxy: proxy.latency(0.02, 0.05), id="20 to 70 ms a command"),
    ],
)
@pytest.mark.server("valkey")
def test_a_slow_road_costs_time_only(clean_server: StoreServer, disturb: Callable[[StoreProxy], None]) -> None:
    """No lease is lost, nothing runs twice, and every answer belongs to its question."""
    with StoreProxy(clean_server) as proxy:
        disturb(proxy)
        with Worker(proxy.url, [echo], direct=clean_server.url, lease_ms=1_500) as worker:
            ids = worker.submit_many("echo", [{"n": n} for n in range(100)])
            seen = worker.all_ended(ids, 30)

            assert [(one.result, one.deliveries) for one in seen] == [(n, 1) for n in range(100)]


@pytest.mark.server("valkey")
def test_requests_pass_and_answers_do_not(clean_server: StoreServer) -> None:
    """Longer than a lease: what was claimed by calls that were never answered comes back, and each job ends once."""
    runs: list[int] = []
    lock = threading.Lock()

    @job("count")
    def count(payload: dict[str, Any], ctx: Any) -> None:
        with lock:
            runs.append(payload["n"])

    with (
        StoreProxy(clean_server) as proxy,
        Worker(proxy.url, [count], direct=clean_server.url, lease_ms=1_000, store_timeout_ms=500) as deaf,
    ):
        eventually(lambda: proxy.seen["bzpopmin"] > 0)
        proxy.mute()
        ids = deaf.submit_many("count", [{"n": n} for n in range(20)])
        eventually(lambda: deaf.counters().get("default/a"), 15, "claimed by a call whose answer never came")
        with (
            Worker(clean_server.url, [count], lease_ms=1_000),
            Worker(clean_server.url, [count], lease_ms=1_000, suspects=True) as other,
        ):
            seen = other.all_ended(ids, 40)
            proxy.restore()
            eventually(lambda: not deaf.held)

        assert {one.state for one in seen} == {"completed"}
        assert deaf.counters()["default/c"] == 20
        assert sorted(runs) == list(range(20))
