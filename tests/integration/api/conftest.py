"""The application over a real store, in the test's own loop, and a worker played by hand."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import httpx
import msgspec
import pytest

from support.servers import StoreServer
from taskmaster.api.app import create_app
from taskmaster.model.retry import Backoff
from taskmaster.plugins.catalogue import CatalogueEntry, encode
from taskmaster.settings import Settings
from taskmaster.store import calls
from taskmaster.store.calls import Claim, Finish
from taskmaster.store.client import SyncStore

WELCOME_SCHEMA = {
    "type": "object",
    "properties": {"email": {"type": "string"}, "name": {"type": "string"}, "message": {"type": "string"}},
    "required": ["email", "name"],
}
WELCOME: dict[str, Any] = {
    "type": "welcome-email",
    "idempotencyKey": "user-123-welcome-v1",
    "payload": {"email": "albert@example.com", "name": "Albert", "message": "Congratulations!"},
}


def entry(name: str, queue: str, schema: dict[str, Any] | None = None, key_required: bool | None = None) -> CatalogueEntry:
    return CatalogueEntry(
        name, queue, 5, Backoff(), 30_000, key_required, schema or {"type": "object"}, None, f"about {name}", "test", "1.0"
    )


TYPES = [
    entry("welcome-email", "email-queue", WELCOME_SCHEMA),
    entry("free", "default", key_required=False),
    entry("keyed", "default", None, True),
]


class HandWorker:
    """Claims and ends attempts when told to."""

    def __init__(self, url: str, wid: str = "handworker") -> None:
        self.store = SyncStore(url)
        self.wid = wid
        self._seq = 0
        registered = self.store.run(
            calls.register(
                0,
                wid=wid,
                cap="cap0",
                info='{"host":"testhost","pid":4711,"name":"worker 1","cap":"cap0"}',
                plugin_set='{"welcome-email":"test==1.0"}',
                types=[one.type for one in TYPES],
                catalogue=[calls.Published(one.type, encode(one).decode(), one.plugin, ",".join(one.limits)) for one in TYPES],
                alive_ms=600_000,
                gen="gen",
            )
        )
        self._gen = registered.gen

    def _cycle(self, finishes: list[Finish], wants: list[tuple[int | str, ...]]) -> calls.Cycle:
        self._seq += 1
        return self.store.run(calls.cycle(0, gen=self._gen, wid=self.wid, seq=self._seq, lease_ms=60_000, finishes=finishes, wants=wants))

    def claim(self, queue: str = "email-queue", slots: int = 1) -> list[tuple[Claim, str]]:
        claims = self._cycle([], [(slots, queue)]).claims
        token = calls.token_of(self.wid, self._seq)
        return [(claim, token) for claim in claims]

    def end(self, claimed: tuple[Claim, str], outcome: str = "c", body: str = "", **more: Any) -> None:
        claim, token = claimed
        codes = self._cycle([Finish(claim.id, token, outcome, body, **more)], []).codes
        assert list(codes) == [0], codes

    def kill_job(self, queue: str = "email-queue") -> str:
        """One attempt that fails for good; the job's id."""
        (claimed,) = self.claim(queue)
        failure = msgspec.json.encode(["ValueError", "no such mailbox", "fp1", "Traceback …", "test==1.0"]).decode()
        row = msgspec.json.encode([1, "failed", 1, 2, self.wid, "ValueError", "no such mailbox", "test==1.0"]).decode()
        self.end(claimed, "f", failure, row=row, reason="fatal", fingerprint="fp1")
        return claimed[0].id


@pytest.fixture
def worker(clean_server: StoreServer) -> Iterator[HandWorker]:
    one = HandWorker(clean_server.url)
    yield one
    one.store.close()


@contextlib.asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(settings)
    transport = httpx.ASGITransport(app=app)
    async with app.lifespan(), httpx.AsyncClient(transport=transport, base_url="http://test", timeout=30) as client:
        yield client


Serve = Callable[..., contextlib.AbstractAsyncContextManager[httpx.AsyncClient]]


@pytest.fixture
def serve(clean_server: StoreServer, worker: HandWorker) -> Serve:
    """What `async with` turns into a client of an API that is a process of its own, as far as the store can tell."""

    def start(**settings: Any) -> contextlib.AbstractAsyncContextManager[httpx.AsyncClient]:
        return running(Settings(redis_url=clean_server.url, **settings))

    return start
