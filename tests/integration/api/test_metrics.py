"""`GET /metrics`: the store's own counts, and what the process saw."""

from __future__ import annotations

import asyncio
import time

import anyio
import httpx
import pytest

from integration.api.conftest import WELCOME, running
from support.prometheus import Samples, promtool, samples_of
from support.proxy import StoreProxy
from support.servers import StoreServer
from taskmaster.settings import Settings
from taskmaster.store import calls

pytestmark = pytest.mark.anyio
EMAIL = (("queue", "email-queue"), ("type", "welcome-email"))


async def scrape(client: httpx.AsyncClient, **headers: str) -> Samples:
    answer = await client.get("/metrics", headers=headers)
    assert answer.status_code == 200
    return samples_of(answer.text)


async def submit(client: httpx.AsyncClient, n: int) -> None:
    for i in range(n):
        answer = await client.post("/jobs", json=WELCOME | {"idempotencyKey": f"k{i}"})
        assert answer.status_code in (200, 201, 202)


async def test_the_stores_counts_are_exported_as_they_are(serve, worker, clean_server):
    """Created, completed, failed attempts and dead letters are those of the store's own hash."""
    async with serve() as client:
        await submit(client, 4)
        worker.end(worker.claim()[0], "c")
        worker.end(worker.claim()[0], "r", "{}", delay_ms=60_000, reason="retrying", fingerprint="f")
        worker.kill_job()

        found = await scrape(client)

        assert found["taskmaster_store_up"][()] == 1
        assert found["taskmaster_jobs_created_total"][EMAIL] == 4
        assert found["taskmaster_jobs_completed_total"][EMAIL] == 1
        assert found["taskmaster_jobs_failed_total"][EMAIL] == 1
        assert found["taskmaster_job_attempts_failed_total"][EMAIL] == 2
        assert found["taskmaster_job_attempts_retried_total"][EMAIL] == 1
        assert found["dlq_jobs_total"][(("type", "welcome-email"),)] == 1
        assert found["taskmaster_jobs_cancelled_total"][EMAIL] == 0, (
            "what has not happened yet is there, so that its first time is an increase"
        )
        assert found["taskmaster_dlq_records"][(("queue", "email-queue"),)] == 1
        jobs = {dict(labels)["state"] + "/" + dict(labels)["priority"]: n for labels, n in found["taskmaster_queue_jobs"].items() if n}
        assert jobs == {"waiting/normal": 1, "delayed/any": 1, "completed/any": 1, "failed/any": 1}
        assert found["taskmaster_queue_oldest_waiting_seconds"][(("queue", "email-queue"),)] > 0
        counted = clean_server.call("HGET", "tm:{0}:n", "welcome-email/email-queue/attempts_failed")
        assert int(counted) == 2


async def test_what_is_counted_survives_retention(serve, worker, clean_server):
    """A job that is purged stays counted."""
    async with serve() as client:
        await submit(client, 1)
        worker.end(worker.claim()[0], "c")
        job_id = (await client.get("/jobs")).json()["items"][0]["jobId"]
        worker.store.run(calls.purge(0, [job_id]))

        found = await scrape(client)

        assert found["taskmaster_jobs_completed_total"][EMAIL] == 1
        assert found["taskmaster_queue_jobs"][(("priority", "any"), ("queue", "email-queue"), ("state", "completed"))] == 0


async def test_breakers_limiters_pauses_and_schedules_are_shown(serve, worker):
    async with serve() as client:
        await submit(client, 1)
        assert (await client.put("/breakers/stripe", json={})).status_code == 200
        assert (await client.post("/breakers/stripe/force-open", json={"reason": "test"})).status_code == 200
        assert (await client.put("/limits/mail", json={"kind": "concurrency", "max": 3})).status_code in (200, 201)
        assert (await client.post("/queues/email-queue/pause", json={})).status_code == 200
        assert (await client.patch("/queues/email-queue", json={"slaMs": 1500})).status_code == 200

        found = await scrape(client)

        assert found["taskmaster_breaker_state"][(("dependency", "stripe"), ("state", "open"))] == 1
        assert found["taskmaster_limiter_in_use"] == {(("limiter", "mail"),): 0}
        assert found["taskmaster_queue_paused"][(("queue", "email-queue"),)] == 1
        assert found["taskmaster_queue_sla_seconds"] == {(("queue", "email-queue"),): 1.5}
        assert found["taskmaster_schedules"][()] == 0
        assert found["taskmaster_workers"][()] == 1


async def test_ends_that_wait_to_be_told_of_are_seen_over_all_partitions(serve, worker, clean_server):
    """Their sum, the age of the oldest, and what was dropped; from the first scrape on, so that the first loss is an increase."""
    async with serve(partitions=2) as client:
        before = await scrape(client)
    now_ms = clean_server.call("TIME")[0] * 1_000
    async with serve(partitions=2) as client:
        for partition, age_ms in ((0, 700_000), (0, 1_000), (1, 400_000)):
            clean_server.call("XADD", f"tm:{{{partition}}}:ob", "*", "id", "x", "fa", now_ms - age_ms)
        for partition in (0, 1):
            clean_server.call("HSET", f"tm:{{{partition}}}:obd", "n", 4, "at", now_ms)
        found = await scrape(client)
        health = (await client.get("/health")).json()

    names = [f"taskmaster_webhook_{name}" for name in ("outbox_ends", "outbox_oldest_seconds", "ends_dropped_total")]
    assert [before[name] for name in names] == [{(): 0}] * 3
    assert (found[names[0]], found[names[2]]) == ({(): 3}, {(): 8})
    assert 700 <= found[names[1]][()] < 900
    broken = {rule["rule"]: (rule["queue"], rule["limit"]) for rule in health["rules"] if not rule["ok"]}
    assert (health["status"], broken) == ("degraded", {"webhookLag": (None, 300_000), "webhookDropped": (None, 0)})


async def test_requests_are_counted_by_route_and_not_by_path(serve):
    """Ids of jobs are no labels; what no route takes is `other`, also with a method that nobody knows."""
    async with serve() as client:
        for job_id in ("a", "b"):
            await client.get(f"/jobs/{job_id}")
        await client.get("/jobs")
        await client.get("/no/such/path/4711")
        await client.request("BREW", "/jobs")

        found = (await scrape(client))["taskmaster_api_requests_observed_total"]

        assert found[("method", "GET"), ("route", "/jobs/{job_id}"), ("status", "4xx")] == 2
        assert found[("method", "GET"), ("route", "/jobs"), ("status", "2xx")] == 1
        assert found[("method", "GET"), ("route", "other"), ("status", "4xx")] == 1
        assert not [labels for labels in found if "4711" in str(labels) or "BREW" in str(labels)]


async def test_scrapes_do_not_load_the_store(serve, clean_server):
    """However many scrape, the store is asked once a second."""
    async with serve() as client:
        before = clean_server.call("INFO", "stats")["total_commands_processed"]
        began = time.monotonic()
        await asyncio.gather(*(client.get("/metrics") for _ in range(100)))
        seconds = time.monotonic() - began + 1

        asked = clean_server.call("INFO", "stats")["total_commands_processed"] - before

        assert asked < 40 + 30 * seconds


async def test_without_the_store_the_process_tells_of_itself(clean_server: StoreServer):
    """200, in bounded time, store_up 0, and no number of the store that might be taken for a fresh one."""
    with StoreProxy(clean_server) as proxy:
        async with running(Settings(redis_url=proxy.url, store_timeout_ms=10_000)) as client:
            await client.get("/jobs")
            assert "taskmaster_jobs_created_total" in (await client.get("/metrics")).text
            proxy.blackhole()
            found, took_s = {"taskmaster_store_up": {(): 1}}, 0.0

            with anyio.fail_after(20):
                while found["taskmaster_store_up"] != {(): 0}:  # what was asked before is shown for a second
                    began = time.monotonic()
                    found = await scrape(client)
                    took_s = time.monotonic() - began

            assert took_s < 5
            assert found["taskmaster_store_up"] == {(): 0}
            assert not [name for name in found if name.startswith(("taskmaster_queue", "taskmaster_jobs", "dlq"))]
            assert found["taskmaster_api_requests_observed_total"]
            assert found["taskmaster_store_call_duration_seconds_count"]
            proxy.restore()


async def test_a_real_page_passes_promtool(serve, worker):
    async with serve() as client:
        await submit(client, 2)
        worker.kill_job()

        checked = promtool("check", "metrics", text=(await client.get("/metrics")).text)

        assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")


async def test_openmetrics_is_told_when_it_is_asked_for(serve):
    async with serve() as client:
        answer = await client.get("/metrics", headers={"accept": "application/openmetrics-text;version=1.0.0,text/plain;q=0.5"})

        assert answer.headers["content-type"].startswith("application/openmetrics-text")
        assert answer.text.endswith("# EOF\n")
