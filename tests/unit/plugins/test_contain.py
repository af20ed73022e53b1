"""What foreign code raises becomes one bounded, printable line."""

from __future__ import annotations

import pytest

from taskmaster.plugins.contain import LONGEST, reason


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ValueError("plain"), "ValueError: plain"),
        (ValueError(), "ValueError"),
        (ValueError("two\nlines\x1b[31m\0"), "ValueError: two lines [31m"),
        (SystemExit(3), "SystemExit: 3"),
    ],
)
def test_an_error_is_one_printable_line(error, text):
    assert reason(error) == text


def test_a_long_message_is_cut():
    assert len(reason(ValueError("x" * 10_000_000))) == LONGEST


def test_a_message_that_raises_is_left_out():
    class OddError(Exception):
        def __str__(self) -> str:
            raise SystemExit

    assert reason(OddError()) == "OddError: (its message cannot be shown)"
