"""Bodies: what is read, and that refusing is quick."""

from __future__ import annotations

import contextlib
import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskmaster.engine.strict import DEPTH_MAX, ITEMS_MAX, convert, decode
from taskmaster.engine.submit import Submission
from taskmaster.errors import InvalidRequest, MalformedBody

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(JSON)
def test_what_is_json_is_read_as_it_is(value: Any) -> None:
    """Whatever RFC 8259 allows within the limits comes out equal."""
    assert decode(json.dumps(value).encode()) == value
    assert decode(json.dumps(value, ensure_ascii=False).encode()) == value


@given(st.binary(max_size=200))
def test_noise_is_read_or_refused(body: bytes) -> None:
    """Never another error."""
    with contextlib.suppress(MalformedBody):
        decode(body)


@pytest.mark.parametrize("depth", [DEPTH_MAX, DEPTH_MAX + 1])
@pytest.mark.parametrize("pair", ["[]", "{}"])
def test_depth_has_a_limit(depth: int, pair: str) -> None:
    """N levels are read, n + 1 are not."""
    opener = "[" if pair == "[]" else '{"a":'
    body = (opener * depth + ("1" if pair == "{}" else "") + pair[1] * depth).encode()

    if depth == DEPTH_MAX:
        assert decode(body)
    else:
        with pytest.raises(MalformedBody, match="levels"):
            decode(body)


def test_brackets_and_commas_in_strings_do_not_count() -> None:
    body = json.dumps({"text": '[{,\\"' * (ITEMS_MAX // 2)}).encode()

    assert decode(body)["text"].startswith("[{,")


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 262_144,
        b'{"a":' * 52_000,
        b'"\\' * 131_072,
        b'["' + b'\\"' * 131_000,
        b"[" * 40 + b'"' + b"\\" * 262_000,
        b"[" * 40 + b'""' * 131_000,
    ],
    ids=["arrays", "objects", "escapes", "open string", "backslashes", "empty strings"],
)
def test_hostile_body_is_refused_quickly(body: bytes) -> None:
    """Time grows with the length, not with its square: 256 KiB take milliseconds."""
    started = time.perf_counter()
    with pytest.raises(MalformedBody):
        decode(body)

    assert time.perf_counter() - started < 1.0


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"a":1,"a":2}', "twice"),
        (b'[{"x":{"y":1,"\\u0079":2}}]', "twice"),
        (b"[NaN]", "NaN"),
        (b"[1e400]", "double"),
        (b"[18446744073709551616]", "64 bits"),
        (b"[-9223372036854775809]", "64 bits"),
        (b'"\\ud83d"', "surrogate"),
        (b'{"\\udc00":1}', "surrogate"),
        (b"\xff", "UTF-8"),
        (b"", "not JSON"),
        ("\ufeff1".encode(), "not JSON"),
    ],
)
def test_refusal_says_why(body: bytes, words: str) -> None:
    with pytest.raises(MalformedBody, match=words):
        decode(body)


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"type": 5}, "/type"),
        ({}, "/type"),
        ({"type": "t", "nope": 1}, "/nope"),
        ({"type": "t", "backoff": {"delayMs": "1"}}, "/backoff/delayMs"),
        ({"type": "t", "backoff": {"kind": "list", "delaysMs": [1, -1]}}, "/backoff/delaysMs/1"),
        ({"type": "t", "attempts": 1.5}, "/attempts"),
        ([], ""),
    ],
)
def test_wrong_shape_is_told_by_pointer(body: Any, pointer: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        convert(body, Submission)

    assert [error["pointer"] for error in caught.value.facts["errors"]] == [pointer]
