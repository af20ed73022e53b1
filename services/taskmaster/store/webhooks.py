"""Who is told of the ends of jobs, as typed calls (store/PROTOCOL.md, "Webhooks"). Building a call does no I/O; a client runs it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from taskmaster.store.call import Call
from taskmaster.store.scripts import load

__all__ = ["PAGE_MAX", "End", "outbox", "outbox_done"]

_pack = msgspec.msgpack.Encoder().encode
#: Ends that are read, and told of, at once.
PAGE_MAX = 200


class End(NamedTuple):
    """The end of a job that somebody is to be told of.

    Attributes:
        entry: its place in the outbox.
        state: letter of the state.
        reason: of a failed or cancelled one, a word or empty.
        ended_ms: by the store's clock.
        url: the job's callback, or empty.
    """

    entry: str
    job_id: str
    state: str
    queue: str
    type: str
    attempts: int
    reason: str
    ended_ms: int
    url: str


def outbox(partition: int, most: int = PAGE_MAX) -> Call[list[End]]:
    """The oldest ends for which no delivery is known to be submitted."""

    def decode(raw: list[Any]) -> list[End]:
        return [_end(row) for row in raw]

    return Call(load("outbox"), partition, (most,), decode)


def _end(row: Sequence[bytes]) -> End:
    f = {row[i].decode(): row[i + 1].decode("utf-8", "replace") for i in range(1, len(row), 2)}
    return End(row[0].decode(), f["id"], f["st"], f["q"], f["ty"], int(f["at"]), f["rs"], int(f["fa"]), f["url"])


def outbox_done(partition: int, entries: Sequence[str]) -> Call[int]:
    """Their deliveries are in the store, at most 200; how many left the outbox now."""
    return Call(load("outbox_done"), partition, (_pack(entries),), int)
