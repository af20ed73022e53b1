"""Deliveries to a real receiver on loopback: what is sent, what each answer means, and where none is made."""

from __future__ import annotations

import base64
import datetime as dt
import json
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from taskmaster_webhooks import sending
from taskmaster_webhooks.plugin import DeliveryFailed, WebhooksPlugin
from taskmaster_webhooks.sending import Forbidden, Unreachable, post, resolve

from support.receiver import Receiver, Reply, is_signed
from taskmaster.errors import ConfigurationError
from taskmaster.model.egress import Allowed, parse_allowed, target_of
from taskmaster_sdk import Discard, Fatal, Job, PluginContext, Retry
from taskmaster_sdk.testing import Result, run

OLD, NEW = ("whsec_" + base64.b64encode(bytes([n]) * 32).decode() for n in (1, 2))
EVENT = {"id": "evt_1", "type": "job.completed", "timestamp": "2026-11-27T10:00:00.000Z", "data": {"jobId": "1", "größe": "ä\u2028"}}


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as started:
        yield started


@pytest.fixture
def deliver(tmp_path: Path) -> Job:
    """The handler, with both secrets, where loopback may be called."""
    return started(tmp_path, TASKMASTER_WEBHOOK_ALLOW="127.0.0.1", TASKMASTER_WEBHOOK_SECRETS=f"{NEW},{OLD}")


def started(folder: Path, **environ: str) -> Job:
    made = WebhooksPlugin()
    made.on_init(PluginContext("webhooks", folder, environ))
    (job,) = made.register_jobs()
    return job


def sent(job: Job, url: str, **event: Any) -> Result:
    return run(job, {"event": EVENT | event, "url": url})


def test_the_receiver_gets_the_event_signed_with_each_secret(deliver: Job, receiver: Receiver) -> None:
    result = sent(deliver, receiver.url + "?a=b")

    (request,) = receiver.seen
    assert (result.outcome, result.value["status"], result.value["host"]) == (None, 204, "127.0.0.1")
    assert (request.path, json.loads(request.body)) == ("/hook?a=b", EVENT)
    assert (request.headers["content-type"], request.headers["host"]) == ("application/json", f"127.0.0.1:{receiver.port}")
    assert request.headers["webhook-id"] == "evt_1"
    assert abs(int(request.headers["webhook-timestamp"]) - time.time()) < 60
    assert is_signed(request, NEW)
    assert is_signed(request, OLD)
    assert not is_signed(request._replace(body=request.body + b" "), NEW)


def test_without_a_secret_there_is_no_signature(tmp_path: Path, receiver: Receiver) -> None:
    sent(started(tmp_path, TASKMASTER_WEBHOOK_ALLOW="127.0.0.1"), receiver.url)

    (request,) = receiver.seen
    assert "webhook-signature" not in request.headers
    assert request.headers["webhook-id"] == "evt_1"


@pytest.mark.parametrize("status", [400, 404, 500, 503, 429])
def test_what_is_not_taken_is_retried_by_the_policy(deliver: Job, receiver: Receiver, status: int) -> None:
    receiver.answers.append(Reply(status, body=b"secret of the receiver"))

    with pytest.raises(DeliveryFailed) as failed:
        sent(deliver, receiver.url)

    assert str(failed.value) == f"127.0.0.1 answered {status}"


@pytest.mark.parametrize("status", [429, 503])
def test_a_receiver_that_asks_for_patience_gets_it(deliver: Job, receiver: Receiver, status: int) -> None:
    at = format_datetime(dt.datetime.now(dt.UTC) + dt.timedelta(seconds=600), usegmt=True)
    wanted = ("7", at, "999999999999", "0", "-5", "soon")
    receiver.answers += [Reply(status, {"Retry-After": text}) for text in wanted]

    outcomes = [sent(deliver, receiver.url).outcome for _ in wanted[:4]]
    for _ in wanted[4:]:
        with pytest.raises(DeliveryFailed):
            sent(deliver, receiver.url)

    waits = [outcome.after_s for outcome in outcomes if isinstance(outcome, Retry)]
    assert waits[0] == 7
    assert 500 < waits[1] <= 600
    assert waits[2:] == [sending.RETRY_AFTER_MAX_S, sending.RETRY_AFTER_MIN_S]


def test_a_receiver_that_is_gone_is_told_no_more(deliver: Job, receiver: Receiver) -> None:
    receiver.answers.append(Reply(410))

    assert isinstance(sent(deliver, receiver.url).outcome, Discard)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_no_redirect_is_followed(deliver: Job, receiver: Receiver, status: int) -> None:
    """Not even to where one may go: the address behind it was not what somebody asked for."""
    receiver.answers.append(Reply(status, {"Location": f"http://127.0.0.1:{receiver.port}/inner"}))

    with pytest.raises(DeliveryFailed, match="redirects are not followed"):
        sent(deliver, receiver.url)

    assert [request.path for request in receiver.seen] == ["/hook"]


def test_silence_ends_in_time(deliver: Job, receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sending, "TIMEOUT_S", 0.3)
    answered = threading.Event()
    receiver.answers.append(Reply(waits=answered))

    with pytest.raises(Unreachable, match="no answer within"):
        sent(deliver, receiver.url)
    answered.set()


def test_bytes_that_come_one_by_one_end_in_time() -> None:
    """Each wait for a byte is short, all together are not: the whole has a limit."""
    target = target_of("http://127.0.0.1:1/")
    stop = threading.Event()

    def drip(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            connection.sendall(b"HTTP/1.1 200 OK\r\nX-Slow: ")
            while not stop.wait(0.02):
                try:
                    connection.sendall(b"x")
                except OSError:
                    return

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=drip, args=(listener,))
        thread.start()
        try:
            with pytest.raises(Unreachable, match="no answer within"):
                post(target._replace(port=listener.getsockname()[1]), ["127.0.0.1"], b"{}", {}, timeout_s=0.4)
        finally:
            stop.set()
            thread.join(10)


def test_an_endless_body_is_not_read(deliver: Job, receiver: Receiver) -> None:
    receiver.answers.append(Reply(200, {"Content-Length": str(10**12)}, body=b"x" * 1_000_000))

    assert sent(deliver, receiver.url).value["status"] == 200


def test_a_resolver_that_does_not_answer_ends_in_time(deliver: Job, receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its thread is left behind: the handler's own must not be stuck where nothing reaches it."""
    monkeypatch.setattr(sending, "TIMEOUT_S", 0.2)
    over = threading.Event()

    def silent(*_: Any, **__: Any) -> list[Any]:
        over.wait(30)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", silent)

    with pytest.raises(Unreachable, match="could not be found within"):
        sent(deliver, "http://hooks.example.com/")
    over.set()


def test_tls_is_with_the_name_at_the_address_that_was_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The certificate is for the host of the URL; a certificate for another name is refused before anything is sent."""
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl here to make a certificate with")
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    wanted = ["-days", "1", "-subj", "/CN=hooks.example.com", "-addext", "subjectAltName=DNS:hooks.example.com"]
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", *wanted]
    subprocess.run([*command, "-keyout", str(key), "-out", str(cert)], check=True, capture_output=True)
    monkeypatch.setenv("SSL_CERT_FILE", str(cert))
    names(monkeypatch, "127.0.0.1")
    deliver = started(tmp_path, TASKMASTER_WEBHOOK_ALLOW="127.0.0.1")

    with Receiver(cert, key) as receiver:
        result = sent(deliver, f"https://hooks.example.com:{receiver.port}/")
        with pytest.raises(Unreachable, match="certificate"):
            sent(deliver, f"https://other.example.com:{receiver.port}/")

    assert result.value["status"] == 204
    assert [request.headers["host"] for request in receiver.seen] == [f"hooks.example.com:{receiver.port}"]


def test_nobody_there_is_a_failure(deliver: Job) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

    with pytest.raises(Unreachable, match="refused"):
        sent(deliver, f"http://127.0.0.1:{port}/")


def test_what_is_no_tls_is_a_failure(deliver: Job, receiver: Receiver) -> None:
    with pytest.raises(Unreachable):
        sent(deliver, f"https://127.0.0.1:{receiver.port}/")


def test_proxies_of_the_environment_are_not_used(deliver: Job, receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")

    assert sent(deliver, receiver.url).value["status"] == 204


# ---------------------------------------------------------------- where nothing goes
@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.8.9.1",
        "0.0.0.0",
        "localhost",
        "LOCALHOST",
        "[::1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[::127.0.0.1]",
        "[64:ff9b::7f00:1]",
        "[2002:7f00:1::]",
        "2130706433",
        "0x7f000001",
        "017700000001",
        "0177.0.0.1",
        "127.1",
        "169.254.169.254",
        "100.100.100.200",
        "10.0.0.1",
        "192.168.0.1",
        "172.16.0.1",
        "224.0.0.1",
        "[fe80::1]",
        "[fd00:ec2::254]",
        "user:password@127.0.0.1",
        "example.com@127.0.0.1",
    ],
)
def test_hostile_urls_reach_nobody(tmp_path: Path, receiver: Receiver, host: str) -> None:
    """Whatever way a private address is spelt, the receiver that listens on this very machine hears nothing, and no retry is made."""
    result = sent(started(tmp_path), f"http://{host}:{receiver.port}/hook")

    assert isinstance(result.outcome, Fatal)
    assert receiver.seen == []
    assert "password" not in result.outcome.reason.replace("no user or password may", "")


def names(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> list[str]:
    """Let every name have these addresses; the names that are looked up, in order."""
    asked: list[str] = []

    def found(host: str, port: int, *_: Any, **__: Any) -> list[Any]:
        if host not in addresses:  # what is an address already is no question to anybody
            asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", found)
    return asked


def test_a_public_name_of_a_private_address_reaches_nobody(tmp_path: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    names(monkeypatch, "127.0.0.1")

    result = sent(started(tmp_path), f"http://hooks.example.com:{receiver.port}/")

    assert isinstance(result.outcome, Fatal)
    assert "TASKMASTER_WEBHOOK_ALLOW" in result.outcome.reason
    assert receiver.seen == []


def test_all_addresses_of_a_name_must_be_public(monkeypatch: pytest.MonkeyPatch) -> None:
    names(monkeypatch, "8.8.8.8", "127.0.0.1")

    with pytest.raises(Forbidden, match=r"127\.0\.0\.1"):
        resolve(target_of("http://hooks.example.com/"), Allowed(), timeout_s=5)


def test_the_address_that_was_checked_is_the_one_that_is_called(
    tmp_path: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that answers otherwise the second time is never asked a second time."""
    asked = names(monkeypatch, "127.0.0.1")
    deliver = started(tmp_path, TASKMASTER_WEBHOOK_ALLOW="hooks.example.com")

    assert sent(deliver, f"http://hooks.example.com:{receiver.port}/").value["status"] == 204
    assert asked == ["hooks.example.com"]
    assert receiver.seen[0].headers["host"] == f"hooks.example.com:{receiver.port}"


def test_networks_may_be_allowed() -> None:
    target = target_of("http://127.0.0.1:8000/")

    assert resolve(target, parse_allowed(["127.0.0.0/8"]), timeout_s=5) == ["127.0.0.1"]
    with pytest.raises(Forbidden):
        resolve(target, parse_allowed(["127.0.0.2"]), timeout_s=5)


# ---------------------------------------------------------------- the plugin
def test_the_job_type_is_what_the_engine_makes() -> None:
    (job,) = WebhooksPlugin().register_jobs()

    assert (job.name, job.queue, job.attempts, job.timeout_s) == ("taskmaster-webhook", "webhooks", 12, 30)


def test_without_on_init_nothing_is_sent(receiver: Receiver) -> None:
    (job,) = WebhooksPlugin().register_jobs()

    with pytest.raises(RuntimeError, match="not initialised"):
        sent(job, receiver.url)


@pytest.mark.parametrize(("name", "value"), [("ALLOW", "10.0.0.0/99"), ("SECRETS", "whsec_c2hvcnQ=")])
def test_wrong_settings_are_refused_and_no_secret_is_shown(tmp_path: Path, name: str, value: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        started(tmp_path, **{f"TASKMASTER_WEBHOOK_{name}": value})

    assert "c2hvcnQ" not in refused.value.message
