"""What counts as a trace context."""

from __future__ import annotations

import pytest

from taskmaster.model import trace

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (f"00-{TRACE}-{SPAN}-01", f"00-{TRACE}-{SPAN}-01"),
        (f"00-{TRACE}-{SPAN}-02", f"00-{TRACE}-{SPAN}-02"),
        (f"cc-{TRACE}-{SPAN}-03-more", f"00-{TRACE}-{SPAN}-01"),
        (f"cc-{TRACE}-{SPAN}-00", f"00-{TRACE}-{SPAN}-00"),
        (f"00-{TRACE}-{SPAN}-01-more", ""),
        (f"ff-{TRACE}-{SPAN}-01", ""),
        (f"00-{'0' * 32}-{SPAN}-01", ""),
        (f"00-{TRACE}-{'0' * 16}-01", ""),
        (f"00-{TRACE.upper()}-{SPAN}-01", ""),
        ("", ""),
        (None, ""),
    ],
)
def test_contexts_are_read_as_w3c_says(given, kept) -> None:
    """Malformed ones count as none; later versions are read as the first."""
    assert trace.accepted(given) == kept


def test_the_parts_of_a_context() -> None:
    """Its trace, and whether that is recorded."""
    assert trace.trace_id_of(f"00-{TRACE}-{SPAN}-01") == TRACE
    assert trace.trace_id_of("") == ""
    assert [trace.is_sampled(f"00-{TRACE}-{SPAN}-{flags}") for flags in ("00", "01", "02", "03")] == [False, True, False, True]
    assert not trace.is_sampled("")


def test_the_address_of_a_trace_needs_both_halves() -> None:
    """No template or no trace: no address."""
    assert trace.url_of("http://j/{trace_id}?x", TRACE) == f"http://j/{TRACE}?x"
    assert trace.url_of(None, TRACE) is None
    assert trace.url_of("http://j/{trace_id}", "") is None
