"""No payload makes a message into something else: one recipient, the headers that we wrote, plain text."""

from __future__ import annotations

import email
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import default

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from taskmaster_email.message import checked_address, compose

from taskmaster_sdk import Fatal

SENDER = Address("TaskMaster", "no-reply", "example.org")
ROOT = "01932c07-209e-7bbd-8c5a-6d9f1e5bf3e4"
HEADERS = {
    "From", "To", "Subject", "Date", "Message-ID", "Auto-Submitted", "Content-Type", "Content-Transfer-Encoding", "MIME-Version",
}  # fmt: skip


def made(**change: str) -> EmailMessage:
    return compose(
        **{"sender": SENDER, "address": "albert@example.com", "name": "Albert", "subject": "Welcome!", "text": "Hello", "root_id": ROOT}
        | change
    )


def parsed(message: EmailMessage) -> EmailMessage:
    """As a mail program reads it."""
    read = email.message_from_bytes(message.as_bytes(), policy=default)
    assert isinstance(read, EmailMessage)
    return read


def test_a_message_has_what_it_needs():
    message = parsed(made(text="Grüße,\nAlbert\n"))

    assert set(message.keys()) == HEADERS
    assert message["From"] == "TaskMaster <no-reply@example.org>"
    assert message["To"] == "Albert <albert@example.com>"
    assert message["Message-ID"] == f"<{ROOT}@example.org>"
    assert message.get_content_type() == "text/plain"
    assert message.get_content().replace("\r\n", "\n") == "Grüße,\nAlbert\n"


def test_lines_end_as_smtp_wants_them():
    assert b"\n" not in made(text="a\nb\r\nc\rd").as_bytes().replace(b"\r\n", b"")


INJECTIONS = [
    "Albert\r\nBcc: victim@example.com",
    "Albert\nBcc: victim@example.com",
    "Albert\rBcc: victim@example.com",
    "Albert\0",
    "Albert\r\n\r\n<script>",
    "Albert\x0bBcc: victim@example.com",
    "Albert\x0cBcc: x",
    "Albert\x85Bcc: x",
    "Albert\u2028Bcc: x",
    "Albert\u2029Bcc: x",
    "Albert\x1b[31m",
    "\ud800",
    "x" * 201,
]


@pytest.mark.parametrize("name", INJECTIONS, ids=ascii)
def test_a_name_that_would_be_more_than_a_name_is_refused_for_good(name):
    with pytest.raises(Fatal):
        made(name=name)


@pytest.mark.parametrize("subject", INJECTIONS[:-1], ids=ascii)
def test_a_subject_that_would_be_more_than_a_subject_is_refused_for_good(subject):
    with pytest.raises(Fatal):
        made(subject=subject)


@pytest.mark.parametrize(
    "name",
    ['Al "the" Bert', "Bert, Al", "<victim@example.com>", "a@b.c, d@e.f", "=?utf-8?q?x?=", "Grüße 🎉", "\\", '"', "", "(comment)", "a;b:c"],
)
def test_a_name_with_special_characters_is_only_a_name(name):
    message = parsed(made(name=name, subject=f"Welcome, {name}!"))

    assert [address.addr_spec for address in message["To"].addresses] == ["albert@example.com"]
    assert set(message.keys()) == HEADERS


@settings(deadline=None)
@given(name=st.text(max_size=200), text=st.text(max_size=300))
def test_whatever_the_name_and_the_text_one_recipient_gets_plain_text(name, text):
    try:
        message = made(name=name, subject=f"Welcome, {name}!", text=text)
    except Fatal:
        return

    read = parsed(message)
    assert [address.addr_spec for address in read["To"].addresses] == ["albert@example.com"]
    assert set(read.keys()) == HEADERS
    assert read.get_content_type() == "text/plain"
    assert not read.is_multipart()


@pytest.mark.parametrize("text", ["a\0b", "\ud800"], ids=ascii)
def test_a_text_that_is_none_is_refused_for_good(text):
    with pytest.raises(Fatal):
        made(text=text)


GOOD = {
    "albert@example.com": "albert@example.com",
    "al.bert+tag@sub.example.com": "al.bert+tag@sub.example.com",
    "o'neil@example.com": "o'neil@example.com",
    "root@localhost": "root@localhost",
    "albert@bücher.example": "albert@xn--bcher-kva.example",
}
WRONG = [
    "",
    "albert",
    "@example.com",
    "albert@",
    "albert@@example.com",
    "a b@example.com",
    ".a@example.com",
    "a.@example.com",
    "a..b@example.com",
    "albert@example..com",
    "albert@-example.com",
    "albert@exam_ple.com",
    "albert@[127.0.0.1]",
    '"a b"@example.com',
    "älbert@example.com",
    "albert@example.com, victim@example.com",
    "albert@example.com\r\nBcc: victim@example.com",
    "albert@example.com\n",
    "albert\x00@example.com",
    "<albert@example.com>",
    "Albert <albert@example.com>",
    "albert@example.com (comment)",
    "albert@example.com.",
    "albert@\ud800.com",
    "albert@xn--\u2028.com",
    "a" * 65 + "@example.com",
    "a@" + ".".join(["b" * 60] * 5),
    "albert@" + "b" * 64 + ".com",
]


@pytest.mark.parametrize(("address", "sent_to"), GOOD.items())
def test_an_address_that_people_have_is_taken(address, sent_to):
    assert "@".join(checked_address(address)) == sent_to
    assert [one.addr_spec for one in parsed(made(address=address))["To"].addresses] == [sent_to]


@pytest.mark.parametrize("address", WRONG, ids=ascii)
def test_an_invalid_address_is_refused_for_good(address):
    with pytest.raises(Fatal, match="invalid address"):
        made(address=address)


def test_the_message_id_depends_on_the_root_job_only():
    assert made(name="Albert")["Message-ID"] == made(name="Berta", text="x")["Message-ID"]
    assert made(root_id=ROOT[:-1] + "5")["Message-ID"] != made()["Message-ID"]
