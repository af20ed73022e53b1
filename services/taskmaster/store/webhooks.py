"""Who is told of the ends of jobs, as typed calls (store/PROTOCOL.md, "Webhooks"). Building a call does no I/O; a client runs it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from taskmaster.store.call import Call
from taskmaster.store.flow import Changed, Order
from taskmaster.store.scripts import load
from taskmaster.store.status import Status

__all__ = ["PAGE_MAX", "End", "EndpointRow", "OutboxState", "outbox", "outbox_done", "outbox_state", "put_webhook", "webhooks"]

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
        traceparent: of whoever asked for it, or empty.
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
    traceparent: str


def outbox(partition: int, most: int = PAGE_MAX) -> Call[list[End]]:
    """The oldest ends for which no delivery is known to be submitted."""

    def decode(raw: list[Any]) -> list[End]:
        return [_end(row) for row in raw]

    return Call(load("outbox"), partition, (most,), decode)


def _end(row: Sequence[bytes]) -> End:
    f = {row[i].decode(): row[i + 1].decode("utf-8", "replace") for i in range(1, len(row), 2)}
    return End(row[0].decode(), f["id"], f["st"], f["q"], f["ty"], int(f["at"]), f["rs"], int(f["fa"]), *f["url"].partition(" ")[::2])


def outbox_done(partition: int, entries: Sequence[str]) -> Call[int]:
    """Their deliveries are in the store, at most 200; how many left the outbox now."""
    return Call(load("outbox_done"), partition, (_pack(entries),), int)


class OutboxState(NamedTuple):
    """How it stands with the outbox of one partition.

    Attributes:
        ends: that wait for their deliveries.
        oldest_ms: for how long the oldest of them has; 0: none waits.
        dropped: ever, since nobody took them out and there were too many.
        dropped_ago_ms: since some were last; None: never.
        is_heard: an endpoint, or a job with a callback, is there.
    """

    ends: int = 0
    oldest_ms: int = 0
    dropped: int = 0
    dropped_ago_ms: int | None = None
    is_heard: bool = False


def outbox_state(partition: int) -> Call[OutboxState]:
    """How many ends wait, for how long, and whether some were dropped. Its cost does not grow with them."""

    def decode(raw: list[int]) -> OutboxState:
        return OutboxState(raw[0], raw[1], raw[2], raw[3] if raw[3] >= 0 else None, raw[4] == 1)

    return Call(load("outbox_state"), partition, (), decode)


class EndpointRow(NamedTuple):
    """An endpoint as the store keeps it, or of one that is gone only `rev`. Its secrets are in *fields*: not to be logged or shown."""

    id: str
    fields: dict[str, str]

    def __repr__(self) -> str:
        return f"EndpointRow({self.id!r})"

    @property
    def revision(self) -> int:
        """How often it was changed."""
        return int(self.fields.get("rev", 0))

    @property
    def is_there(self) -> bool:
        """Whether there is such an endpoint."""
        return "url" in self.fields


def webhooks(partition: int, endpoint_id: str = "") -> Call[list[EndpointRow]]:
    """All endpoints, or the one of that id."""

    def decode(raw: list[Any]) -> list[EndpointRow]:
        return [
            EndpointRow(row[0].decode(), {row[i].decode(): row[i + 1].decode("utf-8", "replace") for i in range(1, len(row), 2)})
            for row in raw
        ]

    return Call(load("webhooks"), partition, (endpoint_id,), decode)


def put_webhook(partition: int, endpoint_id: str, fields: Mapping[str, str | int], order: Order, detail: str) -> Call[Changed]:
    """Make an endpoint, change it, or with no *fields* take it away.

    Args:
        fields: as webhook_put.lua takes them.
        detail: JSON for the audit, without secrets.
    """
    known = "" if order.known is None else order.known
    args = (endpoint_id, known, order.op, _pack(fields), order.who, order.reason, detail)
    return Call(load("webhook_put"), partition, args, lambda raw: Changed(Status(raw[0]), raw[1]))
