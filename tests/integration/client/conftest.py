"""A store with published job types, and clients of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from support.eventually import eventually
from support.servers import StoreServer
from support.worker import Worker
from taskmaster.client import Backoff, Client
from taskmaster.plugins.catalogue import CatalogueEntry, encode
from taskmaster.store import calls, reads
from taskmaster.store.client import SyncStore
from taskmaster_sdk import Job

SCHEMA = {"type": "object", "properties": {"to": {"type": "string"}, "n": {"type": "integer"}}, "required": ["to"]}


def entry(name: str, schema: dict[str, Any] | None = None, key_required: bool | None = None) -> CatalogueEntry:
    return CatalogueEntry(name, "mails", 5, Backoff(), 30_000, key_required, schema or {"type": "object"}, None, "", "test", "1")


TYPES = [entry("mail", SCHEMA), entry("free", key_required=False), entry("keyed", None, True)]


def publish(url: str, *entries: CatalogueEntry) -> None:
    """Put job types into the catalogue, as a worker does; nobody runs them."""
    rows = [calls.Published(one.type, encode(one).decode(), one.plugin) for one in entries or TYPES]
    store = SyncStore(url)
    known = [one.type for one in rows]
    store.run(calls.register(0, wid="w", cap="c", info="{}", plugin_set="{}", types=known, catalogue=rows, alive_ms=600_000, gen="g"))
    store.close()


def counted(url: str) -> int:
    """How many jobs there are, whatever they are called."""
    store = SyncStore(url)
    found = sum(1 for _ in store.raw().scan_iter("tm:{?}:j:*", count=1_000))
    store.close()
    return found


@contextmanager
def working(url: str, *jobs: Job) -> Iterator[Worker]:
    """A worker that runs *jobs*, once its job types are known."""
    with Worker(url, jobs) as worker:
        eventually(lambda: worker.store.run(reads.catalogue(0)).keys() >= {one.name for one in jobs}, what="the job types are published")
        yield worker


@pytest.fixture
def url(clean_server: StoreServer) -> str:
    publish(clean_server.url)
    return clean_server.url


@pytest.fixture
def client(url: str) -> Iterator[Client]:
    with Client(url) as made:
        yield made
