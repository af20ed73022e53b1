"""What a person asks of many jobs at once: checked, and as the store keeps it. Pure."""

from __future__ import annotations

import datetime as dt
import json
import secrets
from typing import Annotated, Any, Final, Literal, NamedTuple, get_args

import msgspec
from msgspec import Meta

from taskmaster.errors import InvalidRequest
from taskmaster.model.ids import digest, is_job_id, partition_of
from taskmaster.model.letters import LetterFilter
from taskmaster.model.patterns import whole

__all__ = ["ACTIONS", "IDS_MAX", "RATE_MAX", "Action", "Order", "OrderFilter", "Plan", "identify", "letters_of", "plan"]

Action = Literal["replay", "discard", "cancel"]
ACTIONS: Final[tuple[Action, ...]] = get_args(Action)
IDS_MAX, RATE_MAX = 1_000, 1_000
_Instant = Annotated[dt.datetime, Meta(tz=True)]
_Text = Annotated[str, Meta(min_length=1, max_length=200)]
#: As a foreign word may be: it becomes part of the name of an index, or is compared.
_Word = Annotated[str, Meta(pattern=whole(r"[A-Za-z0-9_:.!-]{1,100}"))]


class OrderFilter(msgspec.Struct, rename="camel", forbid_unknown_fields=True, frozen=True, omit_defaults=True):
    """Which dead letters are meant; for cancel which jobs: state, type and queue. All that is given must hold; nothing given: all."""

    queue: _Word | None = None
    type: _Word | None = None
    fingerprint: _Word | None = None
    reason: _Word | None = None
    failed_after: _Instant | None = None
    failed_before: _Instant | None = None
    text: _Text | None = None
    plugin_version: Annotated[str, Meta(pattern=whole(r'[^"\\\x00-\x1f]{1,100}'))] | None = None
    state: Literal["waiting", "delayed"] | None = None


class Order(msgspec.Struct, rename="camel", forbid_unknown_fields=True, frozen=True, omit_defaults=True):
    """One action on many jobs.

    Attributes:
        action: replay or discard dead letters, cancel jobs that are not running.
        filter: which; instead of `ids`.
        ids: of dead letters or jobs, at most 1,000.
        dry_run: only say how many are meant.
        rate_per_s: entries a second at most.
        stop_on_failures: replay: end the operation when so many of its new jobs have had a failed attempt.
        accept_unknown: replay: also while an effect of the lineage is not settled.
        reason: why; required but for a dry run.
        by: who.
    """

    action: str
    filter: OrderFilter | None = None
    ids: Annotated[list[str], Meta(min_length=1, max_length=IDS_MAX)] | None = None
    dry_run: bool = False
    rate_per_s: Annotated[float, Meta(gt=0, le=RATE_MAX)] = 50
    stop_on_failures: Annotated[int, Meta(ge=1, le=1_000_000)] | None = None
    accept_unknown: bool = False
    reason: Annotated[str, Meta(max_length=200)] = ""
    by: Annotated[str, Meta(max_length=100)] = ""


class Plan(NamedTuple):
    """An order that was checked. Letters: of a filter on dead letters; `ids` by partition, None for a filter."""

    order: Order
    action: Action
    letters: LetterFilter
    ids: dict[int, list[str]] | None


def _wrong(pointer: str, message: str) -> InvalidRequest:
    return InvalidRequest(f"{pointer.lstrip('/')}: {message}", errors=[{"pointer": pointer, "message": message}])


def plan(order: Order, partitions: int) -> Plan:
    """Check *order*.

    Raises:
        InvalidRequest: it makes no sense, or asks for what is not there yet; says what and where.
    """
    action = next((known for known in ACTIONS if known == order.action), None)
    if action is None:
        raise _wrong("/action", f"{order.action[:32]!r} is no action over many jobs; there are {', '.join(ACTIONS)}")
    if (order.filter is None) == (order.ids is None):
        raise _wrong("/filter", "give either a filter (an empty one means everything) or ids")
    if not order.reason.strip() and not order.dry_run:
        raise _wrong("/reason", "say why; it is kept with the operation and in the audit")
    if action != "replay" and (order.stop_on_failures is not None or order.accept_unknown):
        raise _wrong("/stopOnFailures", f"stopOnFailures and acceptUnknown belong to a replay, not to {action}")
    wanted = order.filter or OrderFilter()
    given = [name for name in OrderFilter.__struct_fields__ if getattr(wanted, name) is not None]
    if action == "cancel" and order.filter is not None:
        if wanted.state is None:
            raise _wrong("/filter/state", "say which jobs: waiting or delayed")
        if set(given) - {"state", "type", "queue"}:
            raise _wrong("/filter", "jobs that have not ended are chosen by state, type and queue")
    elif wanted.state is not None:
        raise _wrong("/filter/state", "dead letters have no state")
    return Plan(order, action, letters_of(wanted), None if order.ids is None else _by_partition(order.ids, partitions))


def _by_partition(ids: list[str], partitions: int) -> dict[int, list[str]]:
    found: dict[int, list[str]] = {}
    for n, job_id in enumerate(dict.fromkeys(ids)):
        if not is_job_id(job_id):
            raise _wrong(f"/ids/{n}", "is no job id")
        found.setdefault(partition_of(job_id, partitions), []).append(job_id)
    return found


def letters_of(wanted: OrderFilter) -> LetterFilter:
    """The filter as scripts read it."""
    return LetterFilter(
        type=wanted.type or "",
        queue=wanted.queue or "",
        fingerprint=wanted.fingerprint or "",
        reason=wanted.reason or "",
        failed_after_ms=_ms(wanted.failed_after),
        failed_before_ms=_ms(wanted.failed_before),
        text=wanted.text or "",
        version=wanted.plugin_version or "",
    )


def _ms(moment: dt.datetime | None) -> int:
    return max(1, int(moment.timestamp() * 1_000)) if moment else 0  # 0 would mean that none is given


def identify(order: Order, key: str) -> tuple[str, str]:
    """The operation's id and the digest of what is asked for: with a *key* of the request, equal keys are one operation."""
    request = digest(msgspec.json.encode(msgspec.structs.replace(order, dry_run=False)))
    return digest("operation", key or secrets.token_bytes(16)), request


def record(plan: Plan, partition: int, places: int, *, total: int, is_exact: bool) -> dict[str, str]:
    """The fields of the operation in one partition of the *places* that have a part in it, as operation_open.lua takes them.

    The rate is shared out evenly.
    """
    order = plan.order
    fields: dict[str, Any] = {
        "ac": plan.action,
        "ra": f"{order.rate_per_s / places:.6g}",
        "rt": f"{order.rate_per_s:g}",
        "tot": str(total),
        "tx": "1" if is_exact else "",
        "au": "1" if order.accept_unknown else "",
    }
    if order.stop_on_failures is not None:
        fields["so"] = str(order.stop_on_failures)
    if plan.ids is not None:
        fields["ids"] = json.dumps(plan.ids[partition])
    else:
        fields["fo"] = given = msgspec.json.encode(order.filter).decode()
        fields["fl"] = given if plan.action == "cancel" else plan.letters.spelled()
    return fields
