"""Whoever wants to hear of ends, with real processes: API, worker, command line and a receiver. No secret is where people look."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import redis

from support import web
from support.eventually import eventually
from support.processes import Processes, environ_of, serve_api
from support.receiver import Receiver, is_signed
from support.servers import StoreServer
from support.service import WorkerService, install_plugin
from support.worker import Hands
from taskmaster.engine.rules import Word
from taskmaster.engine.webhooks import Endpoint, make_endpoint
from taskmaster.model.webhooks import new_secret

SECRETIVE = """
from dataclasses import dataclass
from typing import Annotated

from taskmaster_sdk import Secret, hookimpl, job


@dataclass
class Login:
    user: str
    password: Annotated[str, Secret]


@job("login", attempts=1)
def login(payload: Login, ctx):
    raise ValueError(f"{payload.user} cannot log in with {payload.password}")


@hookimpl
def register_jobs():
    return [login]
"""


@pytest.mark.timeout(120)
@pytest.mark.server("valkey")
def test_ends_are_told_and_no_secret_is(clean_server: StoreServer, tmp_path: Path) -> None:
    """A callback and an endpoint are told of a job with a secret in its payload. Its value, and what signs, are nowhere but in the job's
    own submission and the endpoint's record: not in logs, answers, deliveries, dead letters, or anything else that the store keeps.
    """
    url, password, signing = clean_server.url, "canary-password-41c7", new_secret()
    plugins = tmp_path / "plugins"
    plugins.mkdir()
    install_plugin(plugins, "secretive", SECRETIVE)
    environ = environ_of(redis_url=url, data_dir=tmp_path / "data")
    settings = {"plugins": "demo,secretive,webhooks", "webhook_allow": "127.0.0.1", "webhook_secrets": signing, "worker_processes": 1}
    said: list[str] = []

    def taskmaster(*words: str) -> str:
        command = [sys.executable, "-m", "taskmaster", *words]
        done = subprocess.run(command, env=environ, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        said.append(done.stderr)
        return done.stdout

    with Receiver() as receiver, Receiver() as other, Processes(tmp_path / "processes") as processes:
        _, base = serve_api(processes, "api", url)

        def get(path: str) -> Any:
            answer = web.get(f"{base}{path}").raise_for_status()
            said.append(answer.text)
            return answer.json()

        with WorkerService(url, tmp_path / "worker", plugins_folder=plugins, **settings) as service:
            endpoint, secret = taskmaster("webhooks", "add", other.url, "--event", "job.failed").splitlines()
            eventually(lambda: "login" in {one["type"] for one in get("/job-types")["items"]}, 20, "the type is published")
            wanted = {"type": "login", "idempotencyKey": "k", "payload": {"user": "ann", "password": password}, "callbackUrl": receiver.url}
            job_id = web.post(f"{base}/jobs", json=wanted).raise_for_status().json()["jobId"]
            eventually(lambda: receiver.ids and other.ids, 30, lambda: f"both are told; {service.log()[-3_000:]}")
            tested = taskmaster("webhooks", "test", endpoint).strip()
            eventually(lambda: len(other.ids) == 2, 30, "the test arrives")
            path = f"/webhooks/{endpoint}/deliveries"
            eventually(lambda: {row["state"] for row in get(path)["items"]} == {"completed"}, 20, "both deliveries have ended")
            rows = get(path)["items"]
            for path in ("/webhooks", f"/webhooks/{endpoint}", f"/jobs/{job_id}", "/dlq", f"/dlq/{job_id}", "/jobs", "/openapi.json"):
                get(path)
            for row in rows:
                get(f"/jobs/{row['jobId']}"), get(f"/jobs/{row['jobId']}/attempts"), get(f"/jobs/{row['jobId']}/logs")
            said.append(taskmaster("webhooks", "list", "--json"))
            said.append(service.log())
        said += [path.read_text(errors="replace") for path in (tmp_path / "processes").rglob("*") if path.is_file()]

    (callback,), (first, second) = receiver.seen, other.seen
    assert is_signed(callback, signing)
    assert is_signed(first, secret)
    assert is_signed(second, secret)
    assert (callback.event, first.event["id"], second.event["type"]) == (first.event, f"evt_{job_id}", "webhook.test")
    assert first.event["data"]["reason"] == "attempts_exhausted"
    assert {row["about"] for row in rows} == {job_id, None}
    assert tested in {row["jobId"] for row in rows}
    told = "".join(said) + json.dumps([request.event for request in (callback, first, second)])
    assert [canary for canary in (password, secret, signing, secret[6:], signing[6:]) if canary in told] == []
    places = {canary: kept(clean_server, canary) for canary in (password, secret, signing)}
    assert places == {password: {f"b:{job_id}", f"d:{job_id}"}, secret: {f"wh:{endpoint}"}, signing: set()}


def kept(server: StoreServer, canary: str) -> set[str]:
    """The keys of the store that have it."""
    found = set()
    with redis.Redis.from_url(server.url, protocol=2) as client:
        read = {
            b"hash": client.hgetall,
            b"string": client.get,
            b"list": lambda key: client.lrange(key, 0, -1),
            b"set": client.smembers,
            b"zset": lambda key: client.zrange(key, 0, -1),
            b"stream": client.xrange,
        }
        for key in client.scan_iter(count=1_000):
            if canary.encode() in repr(read[client.type(key)](key)).encode():
                found.add(key.decode().removeprefix("tm:{0}:"))
    return found


@pytest.mark.timeout(60)
@pytest.mark.server("valkey")
def test_a_worker_that_has_its_settings_from_the_command_line_delivers(clean_server: StoreServer, tmp_path: Path) -> None:
    """Store, addresses and secrets are in no environment and no file: the plugin finds them all the same."""
    options = {
        "plugins": "demo,webhooks",
        "webhook-allow": "127.0.0.1",
        "worker-processes": "1",
        "webhook-secrets": (signing := new_secret()),
    }
    words = [part for name, value in options.items() for part in (f"--{name}", value)]
    with Receiver() as receiver, Processes(tmp_path) as processes:
        processes.start("worker", ["-m", "taskmaster", "worker", "--redis-url", clean_server.url, *words], environ_of())
        hands = Hands(clean_server.url)
        endpoint, secret = hands.store.converse(make_endpoint(Endpoint(url=receiver.url), Word("test"), partitions=1))
        hands.submit("dummy", {"result": 1}, callback=receiver.url)
        eventually(lambda: len(receiver.ids) == 2, 30, lambda: f"callback and {endpoint.id} are told: {receiver.ids}")
        hands.close()

    assert len(set(receiver.ids)) == 1
    assert sorted((is_signed(request, secret), is_signed(request, signing)) for request in receiver.seen) == [(False, True), (True, False)]
