"""Circuit breakers as typed calls (store/PROTOCOL.md, "Breakers"). Building a call does no I/O; a client runs it."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

from taskmaster.model.breaker import BreakerRule, as_fields
from taskmaster.store.call import Call
from taskmaster.store.flow import Changed, Order, put_limit
from taskmaster.store.scripts import load
from taskmaster.store.status import Status

__all__ = ["BreakerRow", "breakers", "force", "put_breaker"]


class BreakerRow(NamedTuple):
    """A breaker as it stands in one partition. Fields as in its hash; calls and failures of the window."""

    dependency: str
    fields: dict[str, str]
    calls: int
    failures: int
    probing: int
    waiting: int
    types: tuple[str, ...]


def breakers(partition: int, dependency: str = "") -> Call[list[BreakerRow]]:
    """All breakers, or that of one dependency."""

    def decode(raw: list[Any]) -> list[BreakerRow]:
        rows = []
        for name, pairs, calls, failures, probing, waiting, types in raw:
            fields = {pairs[i].decode(): pairs[i + 1].decode("utf-8", "replace") for i in range(0, len(pairs), 2)}
            known = tuple(sorted(job_type.decode() for job_type in types))
            rows.append(BreakerRow(name.decode(), fields, calls, failures, probing, waiting, known))
        return rows

    return Call(load("breakers"), partition, (dependency,), decode)


def force(partition: int, dependency: str, what: Literal["open", "close"], order: Order) -> Call[Changed]:
    """Open it until it is closed by order; or close it, to be judged anew. OK, ALREADY, CONFLICT or GONE."""

    def decode(raw: list[Any]) -> Changed:
        return Changed(Status(raw[0]), raw[1] if len(raw) > 1 else 0)

    args = (dependency, what, "" if order.known is None else order.known, order.op, order.who, order.reason)
    return Call(load("breaker_force"), partition, args, decode)


def put_breaker(partition: int, dependency: str, rule: BreakerRule, order: Order) -> Call[Changed]:
    """Make a breaker or change its settings; its state stays."""
    return put_limit(partition, f"!{dependency}", {"kind": "breaker", **as_fields(rule)}, order)
