"""Failures with one cause have one fingerprint, whatever single case their messages tell of."""

from __future__ import annotations

import time

import pytest

from taskmaster.model.fingerprint import fingerprint_of, template

FRAMES = ("mail.py:send",)


def print_of(error: BaseException, message: str = "") -> str:
    return fingerprint_of("welcome-email", error, type(error).__name__, message or str(error), FRAMES)


#: Two cases of one cause each.
ALIKE = [
    ("order 17 not found", "order 12345 not found"),
    ("order 17 not found " + "x" * 300, "order 9 not found " + "x" * 300),
    ("id 0190a5b2-1111-7abc-8def-000000000001 is gone", "id ffffffff-2222-4abc-9def-00000000abcd is gone"),
    ("<Client object at 0x7f31c0a1d2b0> is closed", "<Client object at 0x55d0> is closed"),
    ("commit deadbeefcafe is unknown", "commit 4b825dc642cb is unknown"),
    ("card cus_9s6XKzkNRiz8i3 was declined", "card cus_B4 was declined"),
    ("mail to alice@example.com refused", "mail to bob.smith+x@mail.example.org refused"),
    ("connect to 10.0.0.1:5432 failed", "connect to 192.168.17.230:5433 failed"),
    ("connect to [fe80::1%eth0]:80 failed", "connect to [2001:db8::ff00:42:8329]:443 failed"),
    ("connect to smtp.example.com failed", "connect to mail.internal failed"),
    ("GET https://shop.example/a/b?x=1 answered 502", "GET https://shop.example/c answered 504"),
    ("cannot open /var/data/alice/in", "cannot open /tmp/tmpabcxyz/out"),
    ("no user 'alice'", "no user 'bob the builder'"),
    ('no user "alice"', 'no user "o\'neill"'),
    ("took 3 s of 30", "took 3.25 s of 1_000"),
    ("-5 is too small", "12 is too small"),
    ("missing: [1, 2, 3]", "missing: [7]"),
    ("missing: 'a', 'b'", "missing: 'c'"),
    ("at 2026-11-22T22:21:12.068Z it broke", "at 2027-01-01T00:00:00Z it broke"),
]


@pytest.mark.parametrize(("one", "other"), ALIKE)
def test_a_single_case_does_not_split_a_group(one: str, other: str) -> None:
    """Numbers, ids, addresses, paths, quoted data and their lengths do not count."""
    assert print_of(ValueError(one)) == print_of(ValueError(other)), (template(one, names_code=False), template(other, names_code=False))


UNLIKE = [
    ("the mailbox is full", "the mailbox is locked"),
    ("can't connect to 'db'", "can't resolve 'db'"),
    ("order 17 not found", "order 17 not paid"),
]


@pytest.mark.parametrize(("one", "other"), UNLIKE)
def test_what_is_said_of_all_cases_counts(one: str, other: str) -> None:
    """Another sentence is another cause."""
    assert print_of(ValueError(one)) != print_of(ValueError(other))


def test_names_of_the_code_are_not_data() -> None:
    """The attribute that is missing is the cause; the key that is missing is the case."""
    attributes = {print_of(AttributeError(f"'NoneType' object has no attribute '{name}'")) for name in ("send", "close")}
    modules = {print_of(ModuleNotFoundError(f"No module named '{name}'")) for name in ("redis", "boto")}
    keys = {print_of(KeyError(name)) for name in ("alice", "bob")}

    assert (len(attributes), len(modules), len(keys)) == (2, 2, 1)


def test_type_class_and_place_count() -> None:
    """The same words elsewhere are something else."""
    error = ValueError("no")
    prints = {
        fingerprint_of("a", error, "ValueError", "no", FRAMES),
        fingerprint_of("b", error, "ValueError", "no", FRAMES),
        fingerprint_of("a", error, "KeyError", "no", FRAMES),
        fingerprint_of("a", error, "ValueError", "no", ("mail.py:connect",)),
    }

    assert len(prints) == 4


@pytest.mark.parametrize("evil", ["a", "'", '"', "1", "a.", "/a", "# ,", "a@", "-", "a://", "a-", "\\", "0x", "é"])
def test_no_message_takes_long(evil: str) -> None:
    """Whatever a handler says is normalised in linear time."""
    started = time.process_time()
    for _ in range(20):
        template(evil * 100_000, names_code=False)

    assert time.process_time() - started < 0.5
