"""A unique text in every marked field of a payload: nobody finds it anywhere but in the store and where it is revealed on purpose."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import httpx
import pytest

from support.collector import Collector
from support.processes import environ_of
from support.traced import World, world

pytestmark = [pytest.mark.server("valkey"), pytest.mark.timeout(180)]

CANARY = "canary-7d1f3c"
PAYLOAD: dict[str, Any] = {
    "card": {"number": f"{CANARY}-1", "brand": "visible"},
    "cards": {"x": {"number": f"{CANARY}'-2\n", "brand": "visible"}},
    "tokens": [f"{CANARY}-3", f"{CANARY}-4"],
    "email": f"{CANARY}-5@example.com",
    "either": {"number": f"{CANARY}-6", "brand": "visible"},
}
MASKED = {
    "card": {"number": "***", "brand": "visible"},
    "cards": {"x": {"number": "***", "brand": "visible"}},
    "tokens": "***",
    "email": "***",
    "either": {"number": "***", "brand": "visible"},
}
TYPES = ("marked", "marked-coroutine", "marked-isolated")


def test_a_secret_is_nowhere_but_in_the_store(clean_server, tmp_path) -> None:
    """Views of jobs, dead letters, groups and schedules, problems, the command line, logs and spans: none has it; masked fields say so."""
    with Collector() as collector, world(clean_server.url, tmp_path, otlp_endpoint=collector.endpoint) as it:
        ids = [it.submit(job_type, PAYLOAD, key=job_type) for job_type in TYPES]
        jobs = [it.ended(job_id) for job_id in ids]
        collector.wait_for("pay", 2 * len(TYPES))
        told = [json.dumps(jobs), *views_of(it, ids), *problems_of(it), *commands(clean_server.url, tmp_path, ids[0])]
        told += [span.text for span in collector.spans]
        told += [it.worker.log(), it.api.log()]

        assert [text for text in told if CANARY in text] == []
        assert [job["payload"] for job in jobs] == [MASKED] * 3
        assert {job["state"] for job in jobs} == {"failed"}
        for job in jobs:
            assert job["failedReason"].count("***") >= 6
            assert "visible" in job["failedReason"]
        assert sum("visible" in text for text in told) > 6
        assert CANARY in clean_server.call("HGET", "tm:{0}:d:" + ids[0], "b")


def test_revealing_needs_a_scope_and_is_audited(clean_server, tmp_path) -> None:
    """Without `payload:reveal` 403; with it the payload as it was submitted, and a row in the audit, before it is shown."""
    scopes = "jobs:submit,payload:reveal"
    with world(clean_server.url, tmp_path / "shut") as shut, world(clean_server.url, tmp_path / "open", scopes=scopes) as it:
        job_id = shut.submit("marked", PAYLOAD)
        shut.ended(job_id)

        for path in (f"/jobs/{job_id}", f"/dlq/{job_id}"):
            refused = httpx.get(f"{shut.address}{path}?reveal=true")
            assert (refused.status_code, refused.json()["scope"]) == (403, "payload:reveal")
            assert httpx.get(f"{it.address}{path}?reveal=perhaps").status_code == 400
            assert httpx.get(f"{it.address}{path}?reveal=true").json()["payload"] == PAYLOAD
            assert httpx.get(f"{it.address}{path}", timeout=30).json()["payload"] == MASKED
        run(clean_server.url, tmp_path, "job", job_id, "--json", "--reveal")
        rows = [row for _, row in clean_server.call("XRANGE", "tm:{0}:audit", "-", "+")]
        told = [(row["who"], row["action"], row["target"]) for row in rows]
        assert told == [(who, "payload.revealed", job_id) for who in ("api", "api", "cli")]


def test_a_masked_payload_is_not_taken_back(clean_server, tmp_path) -> None:
    """Who copies what is shown into a new submission or a change is told, and no secret is overwritten with stars."""
    with world(clean_server.url, tmp_path) as it:
        sent = {"type": "marked", "payload": MASKED | {"tokens": []}, "idempotencyKey": "k"}
        answer = httpx.post(f"{it.address}/jobs", json=sent)

        assert (answer.status_code, answer.json()["type"]) == (422, "/problems/invalid-payload")
        assert "'***'" in answer.json()["detail"]


def views_of(it: World, ids: list[str]) -> list[str]:
    schedule = {"type": "marked", "payload": PAYLOAD, "everyMs": 3_600_000}
    made = httpx.put(f"{it.address}/schedules/pay", json=schedule)
    assert made.status_code == 201, made.text
    paths = ["/jobs", "/dlq", "/dlq/groups", "/schedules", "/schedules/pay", "/job-types/marked", "/openapi.json", "/health"]
    for job_id in ids:
        paths += [f"/jobs/{job_id}{part}" for part in ("", "/status", "/attempts", "/why", "/effects")] + [f"/dlq/{job_id}"]
    answers = [httpx.get(f"{it.address}{path}", timeout=30) for path in paths]
    assert {answer.status_code for answer in answers} == {200}
    assert json.loads(made.text)["payload"] == MASKED
    return [made.text, *(answer.text for answer in answers)]


def problems_of(it: World) -> list[str]:
    """Payloads that do not fit, with the secret where it does the most harm."""
    wrong: list[Any] = [
        PAYLOAD | {"gentle": CANARY},
        PAYLOAD | {"card": CANARY},
        PAYLOAD | {"either": [CANARY]},
        PAYLOAD | {"tokens": {"a": CANARY}},
        [CANARY],
    ]
    answers = [httpx.post(f"{it.address}/jobs", json={"type": "marked", "idempotencyKey": "w", "payload": one}) for one in wrong]
    assert {answer.status_code for answer in answers} == {422}
    many = {"jobs": [{"type": "marked", "idempotencyKey": "w", "payload": one} for one in wrong]}
    bulk = httpx.post(f"{it.address}/jobs/bulk", json=many, timeout=30)
    return [*(answer.text for answer in answers), bulk.text]


def commands(url: str, folder: Any, job_id: str) -> list[str]:
    asked = [("job", job_id), ("job", job_id, "--json"), ("dlq", "show", job_id), ("dlq", "list", "--json")]
    asked.append(("schedules", "show", "pay", "--json"))
    return [run(url, folder, *words) for words in asked]


def run(url: str, folder: Any, *words: str) -> str:
    command = [sys.executable, "-m", "taskmaster", *words]
    done = subprocess.run(command, env=environ_of(redis_url=url, data_dir=folder), capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr
