"""The server under test, as the measurements see it: its CPU time and its memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import redis

from support.servers import Kind, StoreServer
from taskmaster.store.embedded import ALLOCATOR, SMALL_SET

__all__ = ["Store", "fresh_store"]


@dataclass(frozen=True, slots=True)
class Store:
    """A running server with nothing in it, and a client for counting."""

    server: StoreServer
    client: redis.Redis

    @property
    def url(self) -> str:
        return self.server.url

    @property
    def socket_path(self) -> str:
        return str(self.server.socket_path)

    def cpu_s(self) -> float:
        """User and system seconds that the server process has used."""
        info = self.client.info("cpu")
        return float(info["used_cpu_user"]) + float(info["used_cpu_sys"])

    def used_bytes(self) -> int:
        """Bytes the server has allocated for data and clients."""
        return int(self.client.info("memory")["used_memory"])


@contextmanager
def fresh_store(kind: Kind, *, aof: bool) -> Iterator[Store]:
    """An empty server of this kind on a unix socket, gone at the end, with the settings that the embedded one has.

    A new one each time: a flushed server stays slow for a while.
    """
    with (
        StoreServer(kind, aof=aof, options=("--zset-max-listpack-entries", SMALL_SET), environ=ALLOCATOR) as server,
        redis.Redis.from_url(server.url, decode_responses=True, protocol=2) as client,
    ):
        yield Store(server, client)
