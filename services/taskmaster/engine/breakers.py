"""Circuit breakers: what all partitions say of one, and orders to it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from taskmaster.errors import Conflict, NotFound
from taskmaster.model.breaker import BreakerRule, rule_of
from taskmaster.store.breakers import BreakerRow
from taskmaster.store.flow import Changed
from taskmaster.store.status import Status

__all__ = ["BreakerState", "BreakerView", "changed", "merge_breakers", "unknown"]

BreakerState = Literal["closed", "probing", "open"]
_RANK: dict[BreakerState, int] = {"closed": 0, "probing": 1, "open": 2}


class BreakerView(NamedTuple):
    """A breaker over all partitions. Each judges by the calls that it sees; the worst of their states is shown.

    Attributes:
        until_ms: of an open one: when it is probed; None: by order.
        since_ms: since it is open or closed; 0: it has always been closed.
        cause: of an open one: failures, rate_limited or order; who and why of an order.
        calls, failures: in the window.
        probing: probes under way, of *probes* at a time.
        waiting: units of work that wait: queues, types or lanes.
    """

    dependency: str
    state: BreakerState
    until_ms: int | None
    since_ms: int
    cause: str
    who: str
    why: str
    calls: int
    failures: int
    probing: int
    probes: int
    waiting: int
    types: tuple[str, ...]
    rule: BreakerRule
    revision: int


def state_of(fields: dict[str, str], now_ms: int) -> BreakerState:
    """What it does with a call now."""
    if fields.get("state", "closed") == "closed":
        return "closed"
    till = fields.get("till")
    return "probing" if till and int(till) <= now_ms else "open"


def merge_breakers(rows: Sequence[BreakerRow], now_ms: int) -> list[BreakerView]:
    """One view a dependency, sorted by name."""
    by_name: dict[str, list[BreakerRow]] = {}
    for row in rows:
        by_name.setdefault(row.dependency, []).append(row)
    return [_view(name, by_name[name], now_ms) for name in sorted(by_name)]


def _view(name: str, rows: Sequence[BreakerRow], now_ms: int) -> BreakerView:
    worst = max(rows, key=lambda row: _RANK[state_of(row.fields, now_ms)])
    fields = worst.fields
    state, till = state_of(fields, now_ms), fields.get("till")
    rule = rule_of(fields)
    is_order = fields.get("how") == "order"
    return BreakerView(
        dependency=name,
        state=state,
        until_ms=int(till) if till and state == "open" else None,
        since_ms=int(fields.get("since") or 0),
        cause=fields.get("how", "") if state != "closed" else "",
        who=fields.get("who", "") if is_order else "",
        why=fields.get("why", "") if is_order else "",
        calls=sum(row.calls for row in rows),
        failures=sum(row.failures for row in rows),
        probing=sum(row.probing for row in rows),
        probes=int(fields.get("probes") or rule.probes) if state == "probing" else 0,
        waiting=sum(row.waiting for row in rows),
        types=tuple(sorted({job_type for row in rows for job_type in row.types})),
        rule=rule,
        revision=max(int(row.fields.get("rev") or 0) for row in rows),
    )


def unknown(dependency: str) -> NotFound:
    """The error for a dependency without a breaker."""
    shown = dependency[:64].encode("utf-8", "backslashreplace").decode()
    return NotFound(f"there is no breaker of {shown!r}: no type that is loaded depends on it, and nobody has set it up", breaker=shown)


def changed(dependency: str, answers: Sequence[Changed]) -> int:
    """The revision that is in force, from the answers of all partitions to one order.

    Raises:
        NotFound: there is no such breaker.
        Conflict: it was changed since; fact `revision`.
    """
    if all(answer.status is Status.GONE for answer in answers):
        raise unknown(dependency)
    revision = max(answer.revision for answer in answers)
    if any(answer.status is Status.CONFLICT for answer in answers):
        raise Conflict(f"the breaker of {dependency!r} was changed since: it has revision {revision}; look again", revision=revision)
    return revision
