"""Named limiters: what a rule may say, how several partitions share one, and how they stand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal, NamedTuple

import msgspec

from taskmaster.engine.options import out_of_range
from taskmaster.engine.rules import Word, give, shares
from taskmaster.errors import Conflict, NotFound
from taskmaster.model.lanes import KEY_MAX, key_name
from taskmaster.store import flow
from taskmaster.store.call import Talk
from taskmaster.store.flow import LimitRow
from taskmaster_sdk.jobs import NAME

__all__ = ["LimitRule", "LimitView", "delete_limit", "limit_name", "list_limits", "put_limit"]

#: Bounds of a rule: how much, in how long, for how many fairness keys apart.
COUNT_MAX, PER_MAX_MS, OVERRIDES_MAX = 1_000_000_000, 31 * 86_400_000, 1_000
_STORED: dict[str, str] = {"rate": "rate", "concurrency": "slots"}
_KIND: dict[str, Literal["rate", "concurrency"]] = {"rate": "rate", "slots": "concurrency"}
Count = Annotated[int, msgspec.Meta(ge=1, le=COUNT_MAX)]


class LimitRule(msgspec.Struct, rename="camel", forbid_unknown_fields=True, frozen=True, omit_defaults=True):
    """What a limiter allows to all workers together.

    Attributes:
        kind: rate: attempts begun in a time; concurrency: attempts that run at once.
        max: how many.
        per_ms: of a rate: in how many milliseconds, at most 31 days.
        burst: of a rate: the bucket that fills at max/per_ms holds so many, and so many may begin at once; without it no window of per_ms
            ever has more than max (above 10,000 a bucket of max stands in for that).
        by: fairnessKey: each fairness key for itself; jobs without one count as one key.
        overrides: max of single fairness keys, where by is given.
    """

    kind: Literal["rate", "concurrency"]
    max: Count
    per_ms: Annotated[int, msgspec.Meta(ge=1, le=PER_MAX_MS)] | None = None
    burst: Count | None = None
    by: Literal["fairnessKey"] | None = None
    overrides: Annotated[
        dict[Annotated[str, msgspec.Meta(min_length=1, max_length=KEY_MAX)], Count], msgspec.Meta(max_length=OVERRIDES_MAX)
    ] = {}


class LimitView(NamedTuple):
    """A limiter as it stands over all partitions.

    Attributes:
        in_use: slots in use, or what counts of the rate now; None where each fairness key has its own.
        waiting: queues, bands and lanes that wait for it; by fairness key: keys that do.
        room_ms: until there is room by itself; 0: there is; None: not before an attempt ends.
    """

    name: str
    rule: LimitRule
    revision: int
    in_use: int | None
    waiting: int
    room_ms: int | None


def limit_name(text: str) -> str:
    """*text*, if it can name a limiter.

    Raises:
        InvalidRequest: it cannot.
    """
    if not NAME.fullmatch(text):
        raise out_of_range("name", "1 to 64 of a-z 0-9 . _ - that begin with a letter or digit")
    return text


def put_limit(name: str, rule: LimitRule, word: Word, *, partitions: int, known: int | None = None) -> Talk[LimitView]:
    """Make a limiter or change it; whoever waits for it is looked at anew.

    Args:
        name: of the limiter.
        rule: what it allows.
        word: whose order it is.
        partitions: of the store: they share it.
        known: only if it still has this revision; 0: only if there is none.

    Raises:
        InvalidRequest: the rule cannot be; with several partitions each needs one of whatever is counted.
        RevisionMismatch: it was changed since.
        Conflict: a circuit breaker has this name.
    """
    fields = _fields(rule, partitions)
    yield from _give(name, fields, word, known)
    return (yield from _find(name, partitions))


def delete_limit(name: str, word: Word, *, partitions: int, known: int | None = None) -> Talk[None]:
    """Take a limiter away: what names it is not limited by it any more.

    Raises:
        NotFound: there is none.
        RevisionMismatch: it was changed since.
    """
    yield from _find(name, partitions)
    yield from _give(name, [{}] * partitions, word, known)


def list_limits(partitions: int, name: str = "") -> Talk[list[LimitView]]:
    """All rates and concurrencies, sorted by name; or the one of that name.

    Raises:
        NotFound: there is none of that name.
    """
    if name:
        return [(yield from _find(name, partitions))]
    rows: list[LimitRow] = []
    for partition in range(partitions):
        rows += yield flow.limits(partition)
    by_name: dict[str, list[LimitRow]] = {}
    for row in rows:
        if row.fields.get("kind") in _KIND:
            by_name.setdefault(row.name, []).append(row)
    return [_view(by_name[name]) for name in sorted(by_name)]


def _find(name: str, partitions: int) -> Talk[LimitView]:
    rows: list[LimitRow] = []
    for partition in range(partitions) if NAME.fullmatch(name) else ():
        rows += yield flow.limits(partition, name)
    if not rows or rows[0].fields.get("kind") not in _KIND:
        shown = name[:64].encode("utf-8", "backslashreplace").decode()
        raise NotFound(f"there is no limiter {shown!r}; GET /limits lists those there are", limit=shown)
    return _view(rows)


def _give(name: str, fields: Sequence[Mapping[str, str | int]], word: Word, known: int | None) -> Talk[int]:
    def revision(rows: list[LimitRow]) -> int:
        kind = rows[0].fields.get("kind", "rate")
        if kind not in _KIND:
            raise Conflict(f"{name} is a {kind}, and no limiter", limit=name)
        return int(rows[0].fields.get("rev", 0))

    revision((yield flow.limits(0, name)))
    return (
        yield from give(
            len(fields),
            lambda partition, order: flow.put_limit(partition, name, fields[partition], order),
            word,
            read=lambda partition: flow.limits(partition, name),
            revision=revision,
            known=known,
        )
    )


def _fields(rule: LimitRule, partitions: int) -> list[dict[str, str | int]]:
    """What limit_put.lua takes, for each partition."""
    if rule.kind == "rate" and rule.per_ms is None:
        raise out_of_range("perMs", f"1 to {PER_MAX_MS}: in how many milliseconds max may begin")
    if rule.kind == "concurrency" and (rule.per_ms is not None or rule.burst is not None):
        raise out_of_range("perMs" if rule.per_ms is not None else "burst", "nothing with kind concurrency")
    if rule.overrides and rule.by is None:
        raise out_of_range("overrides", "nothing, unless by is fairnessKey")
    counts = {"max": rule.max, "burst": rule.burst} | {f"overrides/{key}": most for key, most in rule.overrides.items()}
    for field, count in counts.items():
        if count is not None and count < partitions:
            raise out_of_range(field, f"{partitions} at least: the store has so many partitions, and each needs a share of one")
    hashed = {key_name(key): key for key in rule.overrides if key_name(key) != key}
    made: list[dict[str, str | int]] = []
    for number in range(partitions):
        fields: dict[str, str | int] = {"kind": _STORED[rule.kind], "max": shares(rule.max, partitions)[number]}
        if rule.per_ms is not None:
            fields["per"] = rule.per_ms
        if rule.burst is not None:
            fields["burst"] = shares(rule.burst, partitions)[number]
        if rule.by is not None:
            fields["by"] = "key"
        if hashed:
            fields["keys"] = msgspec.json.encode(hashed).decode()
        made.append(fields | {f"max/{key_name(key)}": shares(most, partitions)[number] for key, most in rule.overrides.items()})
    return made


def _view(rows: Sequence[LimitRow]) -> LimitView:
    """One limiter from what the partitions say of it."""

    def total(field: str) -> int:
        return sum(int(row.fields.get(field, 0)) for row in rows)

    fields = rows[0].fields
    keys: dict[str, str] = msgspec.json.decode(fields.get("keys") or "{}")
    named = [field.removeprefix("max/") for field in fields if field.startswith("max/")]
    rule = LimitRule(
        kind=_KIND[fields["kind"]],
        max=total("max"),
        per_ms=int(fields["per"]) if "per" in fields else None,
        burst=total("burst") or None,
        by="fairnessKey" if fields.get("by") == "key" else None,
        overrides={keys.get(name, name): total(f"max/{name}") for name in sorted(named)},
    )
    # Of a bucket the store tells max less what is in it.
    in_use = sum(row.in_use for row in rows) + (total("burst") - total("max") if "burst" in fields else 0)
    rooms = [row.room_ms for row in rows if row.room_ms >= 0]
    return LimitView(
        rows[0].name,
        rule,
        int(fields.get("rev", 0)),
        None if rule.by else in_use,
        in_use if rule.by else sum(row.waiting for row in rows),
        min(rooms, default=None),
    )
