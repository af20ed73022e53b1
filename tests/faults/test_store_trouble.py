"""F13-F15, F21-F27: the store stops, fills up, goes back in time, is emptied, becomes a replica: nothing is lost unsaid.

Workers run in the test's process, the API in the test's loop: neither is restarted in any of these tests.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import shutil
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis

from integration.api.conftest import HandWorker, running
from support.eventually import eventually, eventually_async
from support.protocol.dump import snapshot, violations
from support.proxy import StoreProxy
from support.servers import StoreServer
from support.worker import Worker
from taskmaster.settings import Settings
from taskmaster.store import reads
from taskmaster_sdk import job

pytestmark = pytest.mark.anyio
runs: Counter[str] = Counter()
#: How long the store is away; more by hand, to see what takes longer than the suite has.
OUTAGE_S = float(os.environ.get("OUTAGE_S", "4"))


@job("count")
def count(payload, ctx):
    runs[ctx.job_id] += 1
    time.sleep(payload.get("s", 0))
    return payload.get("n")


@pytest.fixture(autouse=True)
def _forget_runs() -> None:
    runs.clear()


def sound(server: StoreServer) -> None:
    """Every key keeps every invariant."""
    with contextlib.closing(redis.Redis.from_url(server.url, decode_responses=True, protocol=2)) as raw:
        snap, wrong = snapshot(raw)
    assert not wrong + violations(snap)


def body(n: int, **payload: Any) -> dict[str, Any]:
    return {"type": "count", "idempotencyKey": f"key-{n}", "payload": payload}


async def meanwhile(fn: Callable[[], Any], within_s: float = 10.0) -> None:
    """`eventually`, while the API's loop goes on: one that stands still takes calls of its own for unanswered."""
    await asyncio.to_thread(eventually, fn, within_s)


@contextlib.asynccontextmanager
async def serving(store: StoreServer | StoreProxy, **settings: Any) -> AsyncIterator[httpx.AsyncClient]:
    """An API that has heard of the worker's type."""
    async with running(Settings(redis_url=store.url, **settings)) as client:

        async def is_known() -> bool:
            return any(one["type"] == "count" for one in (await client.get("/job-types")).json()["items"])

        await eventually_async(is_known, what="the worker's type is known")
        yield client


async def status(client: httpx.AsyncClient) -> dict[str, Any]:
    answer: dict[str, Any] = (await client.get("/health")).json()
    return answer


async def until(client: httpx.AsyncClient, wanted: str, rule: str = "", within_s: float = 20) -> dict[str, Any]:
    """/health until it says *wanted*; with *rule*, until that one is broken or, if *wanted* is healthy, kept."""
    last: dict[str, Any] = {}

    async def is_so() -> bool:
        last.update(await status(client))
        broken = {one["rule"] for one in last["rules"] if not one["ok"]}
        return last["status"] == wanted and (not rule or rule in broken)

    await eventually_async(is_so, within_s, lambda: f"{wanted} {rule}; it is {last}")
    return last


@contextlib.contextmanager
def on_disk(kind: str, *options: str) -> Iterator[StoreServer]:
    with StoreServer(kind, aof=True, options=list(options)) as server:  # type: ignore[arg-type]
        yield server


@pytest.mark.parametrize("kind", ["valkey", "redis"])
async def test_a_store_that_is_down_for_seconds_under_load(kind: str) -> None:
    """503 with Retry-After in bounded time, handlers end and their results are kept; afterwards everything accepted completes once."""
    lease_ms = int(20_000 + OUTAGE_S * 1_000)
    with on_disk(kind, "--appendfsync", "always") as server, Worker(server.url, [count], lease_ms=lease_ms) as worker:
        async with serving(server, store_timeout_ms=800) as client:
            accepted = [(await client.post("/jobs", json=body(n, s=0.1))).json()["jobId"] for n in range(40)]
            await meanwhile(lambda: len(runs) > 4)
            server.kill()
            down, slowest, codes = time.monotonic(), 0.0, Counter[int]()
            n = 1_000
            while time.monotonic() < down + OUTAGE_S:
                began = time.monotonic()
                answer = await client.post("/jobs", json=body(n))
                slowest, n = max(slowest, time.monotonic() - began), n + 1
                codes[answer.status_code] += 1
                assert answer.headers["retry-after"]
            assert (await status(client))["status"] == "unhealthy"
            assert set(codes) == {503}
            assert slowest < 2.0
            held = {message.claim.id for message in worker.held if message.finish}
            assert held, "results are held"
            server.start()
            ended = worker.all_ended(accepted, 30)
            assert {seen.state for seen in ended} == {"completed"}
            assert {(seen.deliveries, seen.losses) for seen in ended} == {(1, 0)}
            assert set(runs.values()) == {1}
            assert (await client.post("/jobs", json=body(2_000))).status_code == 202
            await until(client, "healthy")
        sound(server)


@pytest.mark.parametrize("kind", ["valkey", "redis"])
async def test_a_store_without_memory_drains(kind: str) -> None:
    """Submissions are refused whole, what runs ends, what waits is claimed and ends; with memory again all is as before."""
    with on_disk(kind) as server, Worker(server.url, [count]) as worker:
        async with serving(server) as client:
            many = [body(n, s=0.05) for n in range(60)]
            accepted = [row["job"]["jobId"] for row in (await client.post("/jobs/bulk", json={"jobs": many})).json()["items"]]
            server.call("CONFIG", "SET", "maxmemory", "1mb")
            one = await client.post("/jobs", json=body(900))
            bulk = await client.post("/jobs/bulk", json={"jobs": [body(901), body(902)], "mode": "atomic"})
            for answer in (one, bulk):
                assert (answer.status_code, answer.json()["type"]) == (503, "/problems/store-refused")
                assert answer.headers["retry-after"]
            await until(client, "degraded", "storeMemory")
            assert {seen.state for seen in worker.all_ended(accepted, 30)} == {"completed"}
            assert len(server.call("KEYS", "tm:{0}:k:*")) == 60, "nothing of what was refused is there"
            assert (await client.post("/jobs", json=body(900))).status_code == 503
            sound(server)
            server.call("CONFIG", "SET", "maxmemory", "0")
            await until(client, "healthy")

            async def submit_again() -> Any:
                answer = await client.post("/jobs", json=body(900))
                return answer if answer.status_code == 202 else None

            taken = await eventually_async(submit_again, what="the figures by which the API sheds are up to a second old")
            assert worker.ended(taken.json()["jobId"]).state == "completed"
        sound(server)


@pytest.mark.parametrize("kind", ["valkey", "redis"])
async def test_a_full_disk_refuses_and_recovers(kind: str) -> None:
    """The append-only file can grow no more: writes are refused, /health and /readyz say so; with room again nothing is lost or stuck."""
    with on_disk(kind) as server, Worker(server.url, [count], lease_ms=20_000) as worker:
        async with serving(server) as client:
            accepted = [(await client.post("/jobs", json=body(n, s=0.3))).json()["jobId"] for n in range(12)]
            await meanwhile(lambda: len(runs) >= 4)
            size = max(path.stat().st_size for path in server.folder.rglob("*.aof*") if path.is_file())
            _, hard = resource.prlimit(server.pid, resource.RLIMIT_FSIZE)
            resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (size + 2_000, hard))
            n, refused = 100, None
            deadline = time.monotonic() + 20
            while refused is None:
                assert time.monotonic() < deadline, "the disk never filled"
                answer = await client.post("/jobs", json=body(n, pad="x" * 200))
                if answer.status_code == 202:
                    accepted.append(answer.json()["jobId"])
                else:
                    refused = answer
                n += 1
            assert (refused.status_code, refused.json()["type"]) == (503, "/problems/store-refused")
            assert refused.headers["retry-after"]
            await unready(client)
            assert (await status(client))["status"] == "unhealthy"
            await meanwhile(lambda: all(message.finish for message in worker.held), 20)
            resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (hard, hard))
            assert {seen.state for seen in worker.all_ended(accepted, 30)} == {"completed"}
            assert {runs[job_id] for job_id in accepted} == {1}
            await until(client, "healthy")
        sound(server)


@pytest.mark.parametrize("kind", ["valkey", "redis"])
async def test_a_store_that_went_back_in_time_is_noticed_and_swept(kind: str, tmp_path: Path) -> None:
    """An older append-only file is restored: a new generation, a report, a sweep; workers go on, and every job is in one index."""
    with on_disk(kind) as server, Worker(server.url, [count], lease_ms=1_500) as worker:
        async with serving(server, store_timeout_ms=800) as client:
            kept = [(await client.post("/jobs", json=body(n))).json()["jobId"] for n in range(5)]
            worker.all_ended(kept)
            await until(client, "healthy")
            server.call("CONFIG", "SET", "appendfsync", "always")
            copy = tmp_path / "copy"
            shutil.copytree(server.folder, copy, ignore=lambda _, names: [name for name in names if name in ("s", "log")])
            gen = server.call("HGET", "tm:{0}:meta", "gen")
            lost = [(await client.post("/jobs", json=body(n))).json()["jobId"] for n in range(100, 120)]
            worker.all_ended(lost)
            server.kill()
            for path in server.folder.iterdir():
                if path.name not in ("log", "s"):
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
            shutil.copytree(copy, server.folder, dirs_exist_ok=True)
            server.start()
            seen = await loss_of(client, "rewound")
            assert seen["generation"] != gen
            job_id = (await client.post("/jobs", json=body(500))).json()["jobId"]
            assert worker.ended(job_id, 20).state == "completed"
            await checked(client)
            assert {one.state for one in worker.all_ended(kept)} == {"completed"}
            assert all(worker.find(job_id) is None for job_id in lost), "what was lost is not made up"
            await meanwhile(lambda: not worker.held)
        sound(server)


async def accepted_in_the_end(client: httpx.AsyncClient, what: dict[str, Any], within_s: float = 10) -> str:
    """The id, once a request that is repeated after each 503 is taken."""

    async def answered() -> httpx.Response | None:
        answer = await client.post("/jobs", json=what)
        return answer if answer.status_code != 503 else None

    answer = await eventually_async(answered, within_s, "the submission is answered")
    assert answer.status_code == 202, answer.text
    return str(answer.json()["jobId"])


async def unready(client: httpx.AsyncClient, within_s: float = 10) -> None:
    """Until /readyz says 503."""

    async def is_so() -> bool:
        return (await client.get("/readyz")).status_code == 503

    await eventually_async(is_so, within_s, "/readyz says 503")


async def loss_of(client: httpx.AsyncClient, how: str, within_s: float = 20) -> dict[str, Any]:
    """The partition's state once the loss is told."""

    async def told() -> dict[str, Any] | None:
        (partition, *_) = (await status(client))["store"].get("partitions") or [{}]
        return partition if (partition.get("loss") or {}).get("how") == how else None

    return await eventually_async(told, within_s, f"a loss is told: {how}")


async def checked(client: httpx.AsyncClient, within_s: float = 20) -> None:
    """Until the sweep after the loss has ended."""

    async def is_so() -> bool:
        return bool((await status(client))["store"]["partitions"][0]["loss"]["isChecked"])

    await eventually_async(is_so, within_s, "the sweep has ended")
    await until(client, "healthy")


@pytest.mark.server("valkey")
async def test_an_emptied_store_is_told_not_passed_over(clean_server: StoreServer) -> None:
    """FLUSHALL by mistake: /health says what happened until a sweep has ended, and new work is served."""
    with Worker(clean_server.url, [count], lease_ms=1_500) as worker:
        async with serving(clean_server) as client:
            worker.ended((await client.post("/jobs", json=body(1))).json()["jobId"])
            await until(client, "healthy")
            clean_server.flush()
            await loss_of(client, "emptied")
            await checked(client)
            job_id = (await client.post("/jobs", json=body(2))).json()["jobId"]
            assert worker.ended(job_id).state == "completed"
            sound(clean_server)


@pytest.mark.server("valkey")
@pytest.mark.parametrize("what", ["emptied", "rewound"])
async def test_the_api_notices_a_loss_by_itself(clean_server: StoreServer, what: str) -> None:
    """No worker runs: the arrival counter has fallen, or the generation is gone."""
    by_hand = HandWorker(clean_server.url)
    async with running(Settings(redis_url=clean_server.url)) as client:
        assert (await client.post("/jobs", json=body(1) | {"type": "free"})).status_code == 202
        await until(client, "healthy")

        async def counted() -> dict[str, Any] | None:
            (partition,) = (await status(client))["store"]["partitions"]
            return partition if partition["arrivals"] else None

        seen = await eventually_async(counted, what="the arrival is counted")
        assert seen["loss"] is None
        if what == "emptied":
            clean_server.flush()
        else:
            clean_server.call("HINCRBY", "tm:{0}:meta", "seq", -1)
        lost = await loss_of(client, what)
        assert lost["generation"] not in (None, seen["generation"])
    by_hand.store.close()


@pytest.mark.server("redis")
async def test_a_lagging_replica_is_promoted(clean_server: StoreServer) -> None:
    """The old primary's last seconds are lost at failover: told as a loss, swept, and no job is in two places or in none."""
    with StoreServer("redis") as replica, StoreProxy(clean_server) as address:
        port = free_port()
        clean_server.call("CONFIG", "SET", "port", str(port))
        try:
            replica.call("REPLICAOF", "127.0.0.1", str(port))
            await meanwhile(lambda: "master_link_status:up" in str(replica_info(replica)), 20)
            with Worker(address.url, [count], direct=replica.url, lease_ms=1_500) as worker:
                async with serving(address, store_timeout_ms=800) as client:
                    kept = [(await client.post("/jobs", json=body(n))).json()["jobId"] for n in range(5)]
                    await meanwhile(lambda: sum(runs.values()) == 5)
                    await until(client, "healthy")
                    await meanwhile(lambda: {one.state for one in map(worker.look, kept)} == {"completed"}, 20)
                    clean_server.call("CONFIG", "SET", "port", "0")  # the replica lags from here on
                    clean_server.call("CLIENT", "KILL", "TYPE", "replica")
                    await meanwhile(lambda: "master_link_status:down" in str(replica_info(replica)), 20)
                    lost = [(await client.post("/jobs", json=body(n))).json()["jobId"] for n in range(100, 110)]
                    await meanwhile(lambda: sum(runs.values()) == 15)
                    replica.call("REPLICAOF", "NO", "ONE")
                    clean_server.call("REPLICAOF", "127.0.0.1", "1")  # the old primary takes no writes any more
                    await meanwhile(lambda: clean_server.call("ROLE")[0] == "slave")
                    refused = await client.post("/jobs", json=body(300))
                    assert refused.status_code == 503
                    await unready(client)
                    address._server = replica
                    address.cut()
                    await loss_of(client, "rewound")
                    job_id = await accepted_in_the_end(client, body(400))
                    assert worker.ended(job_id, 20).state == "completed"
                    await checked(client)
                    await meanwhile(lambda: not worker.held)
                    assert sum(1 for one in lost if worker.find(one) is None) > 0
                sound(replica)
        finally:
            clean_server.call("REPLICAOF", "NO", "ONE")
            clean_server.call("CONFIG", "SET", "port", "0")


def replica_info(server: StoreServer) -> Any:
    """INFO as text: the client's parser drops what it does not know."""
    return "\n".join(f"{name}:{value}" for name, value in server.call("INFO", "replication").items())


def free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.server("valkey")
async def test_a_policy_that_is_changed_later_is_told(clean_server: StoreServer) -> None:
    """Eviction switched on under a running service: degraded, with what to do, until it is off again."""
    async with running(Settings(redis_url=clean_server.url)) as client:
        await until(client, "healthy")
        clean_server.call("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
        try:
            seen = await until(client, "degraded", "storePolicy")
            assert "CONFIG SET maxmemory-policy noeviction" in seen["store"]["unsafe"][0]
            report = (await client.get("/doctor")).json()
            assert [check["severity"] for check in report["checks"] if check["rule"] == "eviction"] == ["error"]
        finally:
            clean_server.call("CONFIG", "SET", "maxmemory-policy", "noeviction")
        await until(client, "healthy")


@pytest.mark.server("valkey")
async def test_strict_durability_takes_nothing_that_would_not_be_on_disk() -> None:
    """Strict promises appendfsync always: without it the API is not ready and accepts nothing, and says how to change that."""
    with on_disk("valkey", "--appendfsync", "always") as server, Worker(server.url, [count]):
        async with serving(server, durability="strict") as client:
            assert (await client.post("/jobs", json=body(1))).status_code == 202
            assert (await client.get("/readyz")).status_code == 200
            server.call("CONFIG", "SET", "appendfsync", "everysec")
            seen = await until(client, "degraded", "storePolicy")
            assert "CONFIG SET appendfsync always" in seen["store"]["unsafe"][0]
            answers = [
                await client.post("/jobs", json=body(2)),
                await client.post("/jobs/bulk", json={"jobs": [body(3)]}),
                await client.get("/readyz"),
            ]
            assert {(answer.status_code, answer.json()["type"]) for answer in answers} == {(503, "/problems/store-unsafe")}
            server.call("CONFIG", "SET", "appendfsync", "always")
            await until(client, "healthy")
            assert (await client.post("/jobs", json=body(2))).status_code == 202


@pytest.mark.server("valkey")
async def test_a_foreign_script_that_blocks_is_waited_for(clean_server: StoreServer) -> None:
    """BUSY: the API says 503 in time, workers wait, and nothing is lost when the script is killed."""
    with Worker(clean_server.url, [count]) as worker:
        async with serving(clean_server, store_timeout_ms=800) as client:
            first = (await client.post("/jobs", json=body(1, s=0.2))).json()["jobId"]
            await meanwhile(lambda: runs)
            clean_server.call("CONFIG", "SET", "busy-reply-threshold", "50")
            import socket

            with socket.socket(socket.AF_UNIX) as foreign:
                foreign.connect(str(clean_server.socket_path))
                foreign.sendall(b"EVAL 'while true do end' 0\r\n")

                async def refused() -> httpx.Response | None:
                    answer = await client.post("/jobs", json=body(2))
                    return answer if answer.status_code == 503 else None

                assert (await eventually_async(refused)).headers["retry-after"]
                await meanwhile(lambda: all(message.finish for message in worker.held))
                clean_server.call("SCRIPT", "KILL")
            clean_server.call("CONFIG", "SET", "busy-reply-threshold", "5000")
            assert worker.ended(first).state == "completed"
            assert worker.ended((await client.post("/jobs", json=body(2))).json()["jobId"]).state == "completed"
            sound(clean_server)


@pytest.mark.server("valkey")
async def test_a_damaged_store_under_running_workers_is_swept_and_told(clean_server: StoreServer) -> None:
    """Keys that somebody deletes are missed, put back as far as they can be, and shown with what was done."""
    with Worker(clean_server.url, [count], lease_ms=1_500, sweep_every_ms=1_000) as worker:
        async with serving(clean_server) as client:
            made = [
                row["job"]["jobId"]
                for row in (await client.post("/jobs/bulk", json={"jobs": [body(n) | {"delayMs": 600_000} for n in range(20)]})).json()[
                    "items"
                ]
            ]
            gone = made[3]
            clean_server.call("DEL", "tm:{0}:delayed")
            clean_server.call("DEL", f"tm:{{0}}:j:{gone}")
            await meanwhile(lambda: clean_server.call("ZCARD", "tm:{0}:delayed") == 19, 20)
            await meanwhile(lambda: not clean_server.call("EXISTS", f"tm:{{0}}:b:{gone}"), 20)

            def told() -> set[tuple[str, str]]:
                return {(row.what, row.id) for row in worker.store.run(reads.integrity(0, repairs=200)).repairs}

            await meanwhile(lambda: {("index_missing", made[0]), ("record_lost", gone)} <= told(), 20)
            rows = (await client.get("/doctor")).json()["partitions"][0]["repairs"]
            assert {"record_lost", "index_missing"} <= {row["what"] for row in rows}
            await meanwhile(lambda: worker.counters()["default/d"] == 19)
            sound(clean_server)


def test_the_signal_of_a_file_that_may_not_grow_is_ignored_by_test_servers() -> None:
    """What the full disk is played with must not kill the server instead."""
    with StoreServer("valkey", aof=True) as server:
        ignored = next(line for line in Path(f"/proc/{server.pid}/status").read_text().splitlines() if line.startswith("SigIgn"))
        assert int(ignored.split()[1], 16) >> (signal.SIGXFSZ - 1) & 1
