"""Mail is handed to a real SMTP peer on loopback, or lies whole in the outbox."""

from __future__ import annotations

import email
import logging
import os
import socket
from collections.abc import Iterator
from email.policy import default
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult
from taskmaster_email import delivery
from taskmaster_email.delivery import DeliveryFailed, DeliveryUnknown
from taskmaster_email.plugin import EmailPlugin

from taskmaster_sdk import EffectUnknown, Fatal, Job, PluginContext
from taskmaster_sdk.testing import Ledger, run

URL = "TASKMASTER_PLUGIN_EMAIL_SMTP_URL"
PAYLOAD = {"email": "albert@example.com", "name": "Albert", "message": "Congratulations!"}
ROOT = "01932c07-209e-7bbd-8c5a-6d9f1e5bf3e4"


class Peer:
    """Keeps what it is given; answers as the test says."""

    def __init__(self) -> None:
        self.envelopes: list[Any] = []
        self.answers: dict[str, str] = {}
        self.hangs_up = False  # takes the message, and does not say so

    async def handle_RCPT(self, server, session, envelope, address, options):  # noqa: N802 - the library's spelling
        if "RCPT" in self.answers:
            return self.answers["RCPT"]
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_MAIL(self, server, session, envelope, address, options):  # noqa: N802
        if "MAIL" in self.answers:
            return self.answers["MAIL"]
        envelope.mail_from = address
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):  # noqa: N802
        if "DATA" not in self.answers:
            self.envelopes.append(envelope)
        if self.hangs_up:
            server.transport.abort()
        return self.answers.get("DATA", "250 OK")


@pytest.fixture
def peer() -> Iterator[tuple[Peer, str]]:
    """A server that takes mail from anybody, and its `host:port`."""
    handler = Peer()
    controller = Controller(handler, hostname="127.0.0.1", port=free_port())
    controller.start()
    yield handler, f"127.0.0.1:{controller.port}"
    controller.stop()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def started(data_dir: Path, **environ: str) -> Job:
    plugin = EmailPlugin()
    plugin.on_init(PluginContext("email", data_dir, environ))
    (job,) = plugin.register_jobs()
    return job


def test_the_job_type_is_what_the_readme_says():
    (job,) = EmailPlugin().register_jobs()

    assert (job.name, job.queue, job.attempts, job.timeout_s, job.is_async) == ("welcome-email", "email-queue", 5, 30, True)
    assert job.description == "Send a welcome e-mail."


def test_without_on_init_nothing_is_sent():
    (job,) = EmailPlugin().register_jobs()

    with pytest.raises(RuntimeError, match="not initialised"):
        run(job, PAYLOAD)


def test_a_message_reaches_the_server(peer, tmp_path):
    handler, at = peer

    result = run(
        started(tmp_path, **{URL: f"smtp://{at}", "TASKMASTER_PLUGIN_EMAIL_FROM": "Shop <shop@example.org>"}), PAYLOAD, root_id=ROOT
    )

    assert result.value == {"messageId": f"<{ROOT}@example.org>", "delivered": "smtp"}
    (envelope,) = handler.envelopes
    assert (envelope.mail_from, envelope.rcpt_tos) == ("shop@example.org", ["albert@example.com"])
    message = email.message_from_bytes(envelope.content, policy=default)
    assert message["Subject"] == "Welcome, Albert!"
    assert message["Message-ID"] == f"<{ROOT}@example.org>"
    assert "Congratulations!" in message.get_content()
    assert not (tmp_path / "outbox").exists()


def test_text_beyond_ascii_arrives_as_it_was(peer, tmp_path):
    handler, at = peer

    run(
        started(tmp_path, **{URL: f"smtp://{at}"}),
        {"email": "albert@bücher.example", "name": "Älbert 🎉", "message": ".\n..\nGrüße " + "x" * 2_000},
    )

    (envelope,) = handler.envelopes
    message = email.message_from_bytes(envelope.content, policy=default)
    assert envelope.rcpt_tos == ["albert@xn--bcher-kva.example"]
    assert message["To"].addresses[0].display_name == "Älbert 🎉"
    assert ".\n..\nGrüße " + "x" * 2_000 in message.get_content().replace("\r\n", "\n")


@pytest.mark.parametrize("step", ["MAIL", "RCPT", "DATA"])
def test_a_refusal_for_good_is_fatal(peer, tmp_path, step):
    handler, at = peer
    handler.answers[step] = "550 no such user"

    result = run(started(tmp_path, **{URL: f"smtp://{at}"}), PAYLOAD)

    assert isinstance(result.outcome, Fatal)
    assert "550 no such user" in result.outcome.reason


@pytest.mark.parametrize("step", ["MAIL", "RCPT", "DATA"])
def test_a_refusal_for_now_is_tried_again(peer, tmp_path, step):
    handler, at = peer
    handler.answers[step] = "451 try later"

    with pytest.raises(DeliveryFailed, match="try later"):
        run(started(tmp_path, **{URL: f"smtp://{at}"}), PAYLOAD)


def test_mail_goes_out_once_over_attempts(peer, tmp_path):
    handler, at = peer
    job, ledger = started(tmp_path, **{URL: f"smtp://{at}"}), Ledger()

    first, second = (run(job, PAYLOAD, attempt=n, ledger=ledger) for n in (1, 2))

    assert first.value["delivered"] == second.value["delivered"] == "smtp"
    assert len(handler.envelopes) == 1


def test_a_server_that_hangs_up_may_have_taken_the_message(peer, tmp_path):
    handler, at = peer
    handler.hangs_up = True
    job, ledger = started(tmp_path, **{URL: f"smtp://{at}"}), Ledger()

    with pytest.raises(DeliveryUnknown):
        run(job, PAYLOAD, ledger=ledger)
    second = run(job, PAYLOAD, attempt=2, ledger=ledger)

    assert isinstance(second.outcome, EffectUnknown)
    assert len(handler.envelopes) == 1


def test_after_a_refusal_for_now_the_next_attempt_sends(peer, tmp_path):
    handler, at = peer
    job, ledger = started(tmp_path, **{URL: f"smtp://{at}"}), Ledger()
    handler.answers["DATA"] = "451 try later"

    with pytest.raises(DeliveryFailed):
        run(job, PAYLOAD, ledger=ledger)
    handler.answers.clear()

    assert run(job, PAYLOAD, attempt=2, ledger=ledger).value["delivered"] == "smtp"


def test_a_server_that_is_not_there_is_tried_again(tmp_path):
    with pytest.raises(DeliveryFailed, match=r"127\.0\.0\.1"):
        run(started(tmp_path, **{URL: f"smtp://127.0.0.1:{free_port()}"}), PAYLOAD)


def test_a_server_that_says_nothing_is_left_in_time(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(DeliveryFailed):
        run(started(tmp_path, **{URL: f"smtp://127.0.0.1:{silent.getsockname()[1]}"}), PAYLOAD, timeout_s=0.2)


def test_without_the_starttls_that_was_asked_for_no_mail_goes_out(peer, tmp_path):
    handler, at = peer

    with pytest.raises(DeliveryFailed):
        run(started(tmp_path, **{URL: f"smtp+starttls://{at}"}), PAYLOAD)
    assert handler.envelopes == []


@pytest.mark.filterwarnings("ignore:Requiring AUTH while not requiring TLS")
def test_a_failed_log_in_is_tried_again_and_a_good_one_sends(tmp_path):
    def log_in(server, session, envelope, mechanism, data) -> AuthResult:
        return AuthResult(success=(data.login, data.password) == (b"al@example.com", b"p/w"), handled=False)

    handler = Peer()
    controller = Controller(
        handler, hostname="127.0.0.1", port=free_port(), authenticator=log_in, auth_required=True, auth_require_tls=False
    )
    controller.start()
    at = f"127.0.0.1:{controller.port}"
    try:
        with pytest.raises(DeliveryFailed, match="535") as caught:
            run(started(tmp_path, **{URL: f"smtp://al%40example.com:s3cret@{at}"}), PAYLOAD)
        good = run(started(tmp_path, **{URL: f"smtp://al%40example.com:p%2Fw@{at}"}), PAYLOAD)
    finally:
        controller.stop()

    assert "s3cret" not in str(caught.value)
    assert good.value["delivered"] == "smtp"
    assert len(handler.envelopes) == 1


def test_an_invalid_address_never_reaches_the_server(peer, tmp_path):
    handler, at = peer

    result = run(started(tmp_path, **{URL: f"smtp://{at}"}), PAYLOAD | {"email": "albert@example.com>\r\nRCPT TO:<victim@example.com"})

    assert isinstance(result.outcome, Fatal)
    assert handler.envelopes == []


def test_a_password_over_an_open_line_is_warned_of_without_showing_it(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        started(tmp_path, **{URL: "smtp://al:s3cret@mail.example.com"})

    assert [record.message for record in caplog.records] == ["email_password_in_clear"]
    assert "s3cret" not in caplog.text


def test_without_a_server_the_message_lies_in_the_outbox(tmp_path):
    result = run(started(tmp_path), PAYLOAD, root_id=ROOT)

    path = tmp_path / "outbox" / f"{ROOT}.eml"
    assert result.value == {"messageId": f"<{ROOT}@localhost>", "delivered": "outbox", "path": str(path)}
    message = email.message_from_bytes(path.read_bytes(), policy=default)
    assert message["To"] == "Albert <albert@example.com>"
    assert message.get_content().replace("\r\n", "\n") == "Hello Albert,\n\nwelcome!\n\nCongratulations!\n"
    assert os.listdir(path.parent) == [path.name]


def test_retries_and_replays_replace_the_one_file(tmp_path):
    job = started(tmp_path)

    first = run(job, PAYLOAD, job_id=ROOT)
    second = run(job, PAYLOAD, job_id=ROOT[:-1] + "5", root_id=ROOT, attempt=2)

    assert first.value == second.value
    assert len(os.listdir(tmp_path / "outbox")) == 1


def test_a_file_that_could_not_be_finished_leaves_nothing_behind(tmp_path, monkeypatch):
    def full(number: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(delivery.os, "fsync", full)

    with pytest.raises(OSError, match="No space left"):
        run(started(tmp_path), PAYLOAD, root_id=ROOT)
    assert os.listdir(tmp_path / "outbox") == []


@pytest.mark.parametrize("root_id", ["../../etc/passwd", "", "a/b", ".hidden", "x" * 101])
def test_an_id_that_is_no_file_name_is_refused(tmp_path, root_id):
    result = run(started(tmp_path), PAYLOAD, root_id=root_id)

    assert isinstance(result.outcome, Fatal)
    assert list(tmp_path.rglob("*.eml")) == []
