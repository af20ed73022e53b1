"""Flow control as typed calls (store/PROTOCOL.md, "Limiters", "Pause"). Building a call does no I/O; a client runs it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import msgspec

from taskmaster.model.states import State, state_of
from taskmaster.store.call import Call
from taskmaster.store.scripts import load
from taskmaster.store.status import Status

__all__ = ["Changed", "LimitRow", "Order", "Patched", "limits", "patch", "pause", "put_limit", "put_queue"]

_pack = msgspec.msgpack.Encoder().encode


class Order(NamedTuple):
    """Who orders what on which ground.

    Attributes:
        op: random, of this request: a repeat answers ALREADY.
        known: revision that was seen when it was decided; None: whatever is there.
        who, reason: for the audit.
    """

    op: str
    known: int | None
    who: str
    reason: str


class Changed(NamedTuple):
    """OK, ALREADY or CONFLICT, and the revision that is in force."""

    status: Status
    revision: int


def _changed(raw: list[Any]) -> Changed:
    return Changed(Status(raw[0]), raw[1])


def _known(order: Order) -> int | str:
    return "" if order.known is None else order.known


def put_limit(partition: int, name: str, rule: Mapping[str, str | int | float], order: Order) -> Call[Changed]:
    """Make a limiter, change it, or with an empty *rule* take it away.

    Args:
        rule: fields as limit_put.lua takes them.
    """
    args = (name, _known(order), order.op, _pack(rule), order.who, order.reason)
    return Call(load("limit_put"), partition, args, _changed)


class LimitRow(NamedTuple):
    """A limiter as it stands. `room_ms`: ms until there is room by itself, 0 now, -1 when somebody has to give back."""

    name: str
    fields: dict[str, str]
    in_use: int
    waiting: int
    room_ms: int


def limits(partition: int, name: str = "") -> Call[list[LimitRow]]:
    """All limiters, or the one of that name."""

    def decode(raw: list[Any]) -> list[LimitRow]:
        rows = []
        for its_name, pairs, in_use, waiting, room_ms in raw:
            fields = {pairs[i].decode(): pairs[i + 1].decode() for i in range(0, len(pairs), 2)}
            rows.append(LimitRow(its_name.decode(), fields, in_use, waiting, room_ms))
        return rows

    return Call(load("limits"), partition, (name,), decode)


def pause(partition: int, scope: str, what: Literal["pause", "resume"], order: Order) -> Call[Changed]:
    """Claim nothing more of *scope*, `q/<queue>` or `t/<type>`; or go on."""
    return Call(load("pause"), partition, (scope, what, _known(order), order.op, order.who, order.reason), _changed)


def put_queue(partition: int, queue: str, settings: Mapping[str, str | int], order: Order) -> Call[Changed]:
    """Change settings of a queue; an empty value means the default."""
    args = (queue, _known(order), order.op, _pack(settings), order.who, order.reason)
    return Call(load("queue_put"), partition, args, _changed)


class Patched(NamedTuple):
    """OK; ALREADY; CONFLICT: it runs or has ended (`state`), or was changed since (`revision`); GONE."""

    status: Status
    state: State | None = None
    revision: int = 0


def patch(partition: int, job_id: str, changes: Mapping[str, Any], *, op: str, known: int | None = None) -> Call[Patched]:
    """Change a job that has not begun: `pr` priority, `due` ms (0: at once), `tg` tags, `b` blob; those that are given."""

    def decode(raw: list[Any]) -> Patched:
        return Patched(Status(raw[0]), state_of(raw[1].decode()), raw[2]) if len(raw) > 1 else Patched(Status(raw[0]))

    return Call(load("patch"), partition, (job_id, "" if known is None else known, op, _pack(changes)), decode)
