"""Flow control as typed calls (store/PROTOCOL.md, "Limiters", "Pause"). Building a call does no I/O; a client runs it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import msgspec

from taskmaster.model.states import State, state_of
from taskmaster.store.call import Call
from taskmaster.store.scripts import load
from taskmaster.store.status import Status

__all__ = [
    "Changed",
    "LimitRow",
    "Order",
    "Patched",
    "Rules",
    "limits",
    "patch",
    "pause",
    "pause_plugin",
    "put_limit",
    "put_queue",
    "put_type",
    "rules",
]

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
    """All limiters, or the one of that name; a name without a rule (any more) has no field but `rev`, if that."""

    def decode(raw: list[Any]) -> list[LimitRow]:
        rows = []
        for its_name, pairs, in_use, waiting, room_ms in raw:
            fields = {pairs[i].decode(): pairs[i + 1].decode() for i in range(0, len(pairs), 2)}
            rows.append(LimitRow(its_name.decode(), fields, in_use, waiting, room_ms))
        return rows

    return Call(load("limits"), partition, (name,), decode)


def pause(partition: int, scope: str, what: Literal["pause", "resume"], order: Order, name: str = "") -> Call[Changed]:
    """Claim nothing more of *scope*, `q/<queue>`, `t/<type>` or `k/<fairness key>`; or go on.

    Args:
        scope: a fairness key as lanes spell it (`model.lanes.key_name`).
        name: the same as people spell it, where that differs.
    """
    return Call(load("pause"), partition, (scope, what, _known(order), order.op, order.who, order.reason, name), _changed)


def put_queue(partition: int, queue: str, settings: Mapping[str, str | int], order: Order) -> Call[Changed]:
    """Change settings of a queue; an empty value means the default."""
    args = (queue, _known(order), order.op, _pack(settings), order.who, order.reason)
    return Call(load("queue_put"), partition, args, _changed)


def pause_plugin(partition: int, plugin: str, what: Literal["pause", "resume"], order: Order) -> Call[Changed]:
    """The same for all types of a plugin, those that it registers later too. A type that was paused by itself stays so."""
    return Call(load("plugin_pause"), partition, (plugin, what, _known(order), order.op, order.who, order.reason), _changed)


def put_type(partition: int, job_type: str, limits: Sequence[str] | None, order: Order) -> Call[Changed]:
    """Which limiters all jobs of a type need, whatever its plugin says; None: as the plugin says."""
    names = "*" if limits is None else ",".join(limits)
    return Call(load("type_put"), partition, (job_type, _known(order), order.op, names, order.who, order.reason), _changed)


class Rules(NamedTuple):
    """What operators have ordered, in one partition.

    Attributes:
        queues: settings as queue_put.lua takes them, of those that have any.
        pauses: by scope (`q/<queue>`, `t/<type>`, `p/<plugin>`, `k/<fairness key>`): JSON of who, reason, since ms, `plugin` where it is
            that one's, `name` of a key that people spell otherwise.
        type_limits: names with commas, by type.
        orders: revisions and such, `<scope>/rev`.
        limiters: those there are.
    """

    queues: dict[str, dict[str, str]]
    pauses: dict[str, bytes]
    type_limits: dict[str, str]
    orders: dict[str, str]
    limiters: frozenset[str]

    def revision(self, scope: str) -> int:
        """How often what stands under *scope* was changed: `q/`, `t/`, `p/`, `k/` pauses, `l/<type>` limiters of a type."""
        return int(self.orders.get(f"{scope}/rev", 0))


def _pairs(raw: Sequence[bytes]) -> dict[str, str]:
    return {raw[i].decode(): raw[i + 1].decode() for i in range(0, len(raw), 2)}


def rules(partition: int, queues: Sequence[str] = ()) -> Call[Rules]:
    """The orders that are in force; of these queues, or of all."""

    def decode(raw: list[Any]) -> Rules:
        return Rules(
            {row[0].decode(): _pairs(row[1:]) for row in raw[0]},
            {raw[1][i].decode(): raw[1][i + 1] for i in range(0, len(raw[1]), 2)},
            _pairs(raw[2]),
            _pairs(raw[3]),
            frozenset(name.decode() for name in raw[4]),
        )

    return Call(load("rules"), partition, (_pack(queues),), decode)


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
