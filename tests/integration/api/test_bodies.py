"""Bodies that are no good: each a clear problem document, none a 500, and nothing stored."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest

from integration.api.conftest import WELCOME, Serve
from support.servers import StoreServer
from taskmaster.api import bodies

pytestmark = pytest.mark.anyio


def _with_payload(text: str) -> bytes:
    return f'{{"type":"welcome-email","idempotencyKey":"k","payload":{text}}}'.encode()


GOOD = json.dumps(WELCOME).encode()
BAD: dict[str, tuple[bytes, int]] = {
    "empty": (b"", 400),
    "no json": (b"{nope", 400),
    "two values": (GOOD + b"{}", 400),
    "an array": (b"[]", 422),
    "a string": (b'"x"', 422),
    "null": (b"null", 422),
    "no type": (b'{"payload":{}}', 422),
    "unknown field": (json.dumps(WELCOME | {"epoch": 5}).encode(), 422),
    "field of the engine": (json.dumps(WELCOME | {"replayedFrom": "x"}).encode(), 422),
    "unknown type": (json.dumps(WELCOME | {"type": "nope"}).encode(), 422),
    "type is a number": (json.dumps(WELCOME | {"type": 5}).encode(), 422),
    "type of 1 MB": (json.dumps(WELCOME | {"type": "x" * 200_000}).encode(), 422),
    "type with braces": (json.dumps(WELCOME | {"type": "{1}:*"}).encode(), 422),
    "queue with braces": (json.dumps(WELCOME | {"queue": "q}:{1"}).encode(), 422),
    "queue with newline": (json.dumps(WELCOME | {"queue": "q\n"}).encode(), 422),
    "empty key": (json.dumps(WELCOME | {"idempotencyKey": ""}).encode(), 422),
    "long key": (json.dumps(WELCOME | {"idempotencyKey": "k" * 256}).encode(), 422),
    "key missing": (json.dumps({"type": "welcome-email", "payload": WELCOME["payload"]}).encode(), 400),
    "priority number": (json.dumps(WELCOME | {"priority": 1}).encode(), 422),
    "attempts 0": (json.dumps(WELCOME | {"attempts": 0}).encode(), 422),
    "attempts 101": (json.dumps(WELCOME | {"attempts": 101}).encode(), 422),
    "timeout a day and a bit": (json.dumps(WELCOME | {"timeoutMs": 86_400_001}).encode(), 422),
    "delay beyond ten years": (json.dumps(WELCOME | {"delayMs": 3_650 * 86_400_000 + 1}).encode(), 422),
    "delay and runAt": (json.dumps(WELCOME | {"delayMs": 1, "runAt": "2035-01-01T00:00:00Z"}).encode(), 422),
    "backoff kind": (json.dumps(WELCOME | {"backoff": {"kind": "magic"}}).encode(), 422),
    "backoff list without delays": (json.dumps(WELCOME | {"backoff": {"kind": "list"}}).encode(), 422),
    "callbackUrl with a password": (json.dumps(WELCOME | {"callbackUrl": "https://a:b@example.com"}).encode(), 422),
    "callbackUrl no text": (json.dumps(WELCOME | {"callbackUrl": ["https://example.com"]}).encode(), 422),
    "NaN": (_with_payload('{"email":NaN,"name":"n"}'), 400),
    "-Infinity": (_with_payload("-Infinity"), 400),
    "1e999": (_with_payload('{"email":"e","name":"n","x":1e999}'), 400),
    "big int": (_with_payload('{"email":"e","name":"n","x":18446744073709551616}'), 400),
    "5000 digits": (_with_payload(f'{{"email":"e","name":"n","x":{"9" * 5_000}}}'), 400),
    "duplicate name": (_with_payload('{"email":"e","name":"n","name":"m"}'), 400),
    "duplicate at the top": (b'{"type":"free","type":"free"}', 400),
    "lone surrogate": (_with_payload('{"email":"\\ud800","name":"n"}'), 400),
    "lone surrogate in a key": (GOOD.replace(b"user-123", b"\\udfff"), 400),
    "invalid utf-8": (_with_payload('{"email":"e","name":"n"}').replace(b'"e"', b'"\xff\xfe"'), 400),
    "encoded surrogate": (_with_payload('{"email":"e","name":"n"}').replace(b'"e"', b'"\xed\xa0\x80"'), 400),
    "utf-16": (GOOD.decode().encode("utf-16"), 400),
    "depth 33": (_with_payload("[" * 32 + "]" * 32), 400),
    "depth 10,000": (_with_payload("[" * 10_000 + "]" * 10_000), 400),
    "depth 100,000 and open": (b'{"a":' * 40_000, 400),
    "too many members": (_with_payload("[" + "1," * 110_000 + "1]"), 400),
    "1 MB": (_with_payload(json.dumps("x" * 1_000_000)), 413),
}


@pytest.mark.server("valkey")
@pytest.mark.parametrize(("body", "status"), BAD.values(), ids=BAD.keys())
async def test_bad_body_is_a_problem_and_stores_nothing(serve: Serve, clean_server: StoreServer, body: bytes, status: int) -> None:
    async with serve() as client:
        answer = await client.post("/jobs", content=body, headers={"content-type": "application/json"})
        jobs = clean_server.call("KEYS", "tm:{0}:[jbk]:*")

    problem = answer.json()
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert problem["status"] == status
    assert {"type", "title", "status", "detail", "instance", "traceId"} <= problem.keys()
    assert problem["type"].startswith("/problems/")
    assert problem["instance"] == "/jobs"
    assert len(problem["detail"]) < 1_000
    assert jobs == []


@pytest.mark.server("valkey")
@pytest.mark.parametrize(
    "headers",
    [{"content-type": "text/plain"}, {"content-type": "application/x-www-form-urlencoded"}, {"content-encoding": "gzip"}],
    ids=["text", "form", "gzip"],
)
async def test_other_media_types_are_415(serve: Serve, headers: dict[str, str]) -> None:
    async with serve() as client:
        answer = await client.post("/jobs", content=GOOD, headers={"content-type": "application/json"} | headers)

    assert (answer.status_code, answer.json()["type"]) == (415, "/problems/unsupported-media-type")


@pytest.mark.server("valkey")
@pytest.mark.parametrize(
    "payload",
    [
        {"email": "Ærø 🎈 \x00 \u2028", "name": ""},
        {"email": "e", "name": "n", "n": [2**63, -(2**63), 2**64 - 1, 0.1, -0.0, 1e308, 5e-324, True, None]},
        {"email": "e", "name": "n", "deep": [[[[[[{"a": {}}]]]]]], "": {"a/b~c": 1}},
        {"email": '😀 "[{[{[{[{' * 20, "name": "\\"},
    ],
    ids=["text", "numbers", "nesting", "brackets in a string"],
)
async def test_accepted_payload_comes_back_equal(serve: Serve, payload: object) -> None:
    """What is accepted is stored as it was sent."""
    async with serve() as client:
        answer = await client.post(
            "/jobs", content=json.dumps(WELCOME | {"payload": payload}).encode(), headers={"content-type": "application/json"}
        )
        job = await client.get(answer.headers["location"])

    assert job.json()["payload"] == payload


FROM_ELSEWHERE: dict[str, dict[str, str]] = {
    "a form of another page": {"origin": "https://evil.example", "sec-fetch-site": "cross-site"},
    "an old browser, which says the origin alone": {"origin": "https://evil.example"},
    "a sandboxed frame": {"origin": "null"},
    "a page of a sibling host": {"origin": "http://other.test", "sec-fetch-site": "same-site"},
    "the same host by another port": {"origin": "http://test:81"},
}


@pytest.mark.parametrize("headers", FROM_ELSEWHERE.values(), ids=FROM_ELSEWHERE)
@pytest.mark.parametrize("path", ["/jobs", "/jobs/bulk", "/schedules/daily/pause", "/nowhere"])
async def test_pages_of_others_order_nothing(serve: Serve, clean_server: StoreServer, headers: dict[str, str], path: str) -> None:
    """A browser sends a form, or a body without a type, wherever a page tells it to, and only says from where."""
    async with serve() as client:
        answer = await client.post(path, content=GOOD, headers=headers)

    assert (answer.status_code, answer.json()["type"]) == (403, "/problems/cross-site")
    assert clean_server.call("KEYS", "tm:{0}:[jbk]:*") == []


@pytest.mark.parametrize(
    "headers", [{"origin": "http://test"}, {"origin": "http://test", "sec-fetch-site": "same-origin"}, {"sec-fetch-site": "none"}, {}]
)
async def test_pages_of_its_own_and_programs_do(serve: Serve, headers: dict[str, str]) -> None:
    """And whoever only reads may come from anywhere: the answer is shown to no other page."""
    async with serve() as client:
        accepted = await client.post("/jobs", content=GOOD, headers=headers)
        shown = await client.get(accepted.headers["location"], headers=FROM_ELSEWHERE["a form of another page"])

    assert (accepted.status_code, shown.status_code) == (202, 200)


async def test_a_body_that_does_not_come_is_not_waited_for(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether none of it comes or the rest of it."""
    monkeypatch.setattr(bodies, "BODY_S", 0.05)

    async def stalled(*parts: bytes) -> AsyncIterator[bytes]:
        for part in parts:
            yield part
        await asyncio.Event().wait()

    async with serve() as client:
        answers = [await client.post("/jobs", content=stalled(*parts)) for parts in ((), (GOOD[:20],))]

    assert [(answer.status_code, answer.json()["type"]) for answer in answers] == [(408, "/problems/body-too-slow")] * 2
