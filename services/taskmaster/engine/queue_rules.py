"""Settings of queues and job types that operators change while all runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, NamedTuple

import msgspec
from msgspec import UNSET, UnsetType

from taskmaster.engine.options import out_of_range
from taskmaster.engine.rules import By, Pause, Reason, Word, give, pause_of, set_pause, shares
from taskmaster.errors import InvalidRequest
from taskmaster.model.lanes import KEY_MAX, key_name
from taskmaster.model.patterns import whole
from taskmaster.store import flow
from taskmaster.store.call import Talk
from taskmaster.store.flow import Rules
from taskmaster_sdk.jobs import LIMITS_MAX, NAME

__all__ = [
    "QueueChange",
    "QueueRules",
    "TypeChange",
    "TypeRules",
    "change_queue",
    "change_type",
    "drain_queue",
    "queue_rules",
    "resume_queue",
    "type_rules",
    "unknown_limits",
]

LENGTH_MAX, WEIGHT_MAX, WEIGHTS_MAX, CONCURRENCY_MAX = 1_000_000_000, 1_000, 1_000, 10_000
SLA_MAX_MS = 31_622_400_000
Names = Annotated[tuple[Annotated[str, msgspec.Meta(pattern=whole(NAME.pattern), max_length=64)], ...], msgspec.Meta(max_length=LIMITS_MAX)]
Key = Annotated[str, msgspec.Meta(min_length=1, max_length=KEY_MAX)]
Weight = Annotated[int, msgspec.Meta(ge=1, le=WEIGHT_MAX)]
Revision = Annotated[int, msgspec.Meta(ge=0)] | None


class QueueChange(msgspec.Struct, rename="camel", forbid_unknown_fields=True, frozen=True, omit_defaults=True):
    """What of a queue is to be changed; left out: as it is, null: the default.

    Attributes:
        limits: names of limiters that every job of the queue needs.
        strict: always the highest priority that has work, so that lower ones may starve; by default they take turns by weight.
        weights: turns of fairness keys, 1 where none is given: a key with 3 is served three times as often as one with 1.
        weight: turns of the queue among those that share slots with it (`queue_groups` of the workers), 1 where none is given.
        max_length: jobs that may wait or be delayed in it; more are refused.
        concurrency: jobs of it that one worker process runs at once, instead of what the workers' settings say; of a queue that shares
            slots the settings hold.
        sla_ms: how long a job may wait in it; what `/health` and alerts measure by, and nothing else.
        revision: only if the queue's settings still have this revision.
        by, reason: who wants it and why, for the audit.
    """

    limits: Names | UnsetType | None = UNSET
    strict: bool | UnsetType | None = UNSET
    weights: Annotated[dict[Key, Weight], msgspec.Meta(max_length=WEIGHTS_MAX)] | UnsetType | None = UNSET
    weight: Weight | UnsetType | None = UNSET
    max_length: Annotated[int, msgspec.Meta(ge=1, le=LENGTH_MAX)] | UnsetType | None = UNSET
    concurrency: Annotated[int, msgspec.Meta(ge=1, le=CONCURRENCY_MAX)] | UnsetType | None = UNSET
    sla_ms: Annotated[int, msgspec.Meta(ge=1, le=SLA_MAX_MS)] | UnsetType | None = UNSET
    revision: Revision = None
    by: By | None = None
    reason: Reason = ""


class QueueRules(NamedTuple):
    """What operators have ordered for one queue.

    Attributes:
        concurrency: None: what the workers' settings say.
        sla_ms: how long a job may wait; None: nobody has said.
        paused, draining: None: it is not.
        revision: of the settings, not of the pause.
    """

    limits: tuple[str, ...] = ()
    strict: bool = False
    weights: Mapping[str, int] = {}
    weight: int = 1
    max_length: int | None = None
    concurrency: int | None = None
    sla_ms: int | None = None
    paused: Pause | None = None
    draining: Pause | None = None
    revision: int = 0


class TypeChange(msgspec.Struct, rename="camel", forbid_unknown_fields=True, frozen=True, omit_defaults=True):
    """What of a job type is to be changed.

    Attributes:
        limits: names of limiters that every job of the type needs, whatever its plugin says, also after that comes anew; null: as the
            plugin says.
        revision: only if the type's limits still have this revision.
        by, reason: who wants it and why, for the audit.
    """

    limits: Names | None
    revision: Revision = None
    by: By | None = None
    reason: Reason = ""


class TypeRules(NamedTuple):
    """What holds for all jobs of a type. `is_ordered`: its limits are an operator's, not its plugin's."""

    limits: tuple[str, ...] = ()
    is_ordered: bool = False
    paused: Pause | None = None
    revision: int = 0


def queue_rules(found: Sequence[Rules], queue: str) -> QueueRules:
    """What holds for *queue*, from the rules of all partitions."""
    first = found[0]
    f = first.queues.get(queue, {})
    return QueueRules(
        limits=_names(f.get("lm")),
        strict="strict" in f,
        weights=msgspec.json.decode(f["raw"], type=dict[str, int]) if f.get("raw") else {},
        weight=int(f.get("share", 1)),
        max_length=sum(int(rules.queues.get(queue, {}).get("max", 0)) for rules in found) or None,
        concurrency=int(f["conc"]) if f.get("conc") else None,
        sla_ms=int(f["sla"]) if f.get("sla") else None,
        paused=pause_of(first.pauses.get(f"q/{queue}")),
        draining=pause_of(f.get("drain")),
        revision=int(f.get("rev", 0)),
    )


def type_rules(found: Sequence[Rules], job_type: str) -> TypeRules:
    """What holds for *job_type*."""
    first = found[0]
    return TypeRules(
        limits=_names(first.type_limits.get(job_type)),
        is_ordered=f"l/{job_type}/names" in first.orders,
        paused=pause_of(first.pauses.get(f"t/{job_type}")),
        revision=first.revision(f"l/{job_type}"),
    )


def unknown_limits(found: Sequence[Rules], names: Iterable[str]) -> list[str]:
    """Those of *names* that no limiter has: they limit nothing."""
    return sorted(set(names) - found[0].limiters)


def change_queue(queue: str, wanted: QueueChange, word: Word, *, partitions: int) -> Talk[int]:
    """Change settings of a queue, which need not have had a job yet; their revision. Workers follow within seconds.

    Raises:
        InvalidRequest: the change cannot be, or there is none.
        RevisionMismatch: the settings were changed since.
    """
    fields = _fields(queue, wanted, partitions)
    return (yield from _put(queue, fields, word, wanted.revision))


def drain_queue(queue: str, word: Word, *, partitions: int, now_ms: int) -> Talk[None]:
    """Take no new jobs for *queue*, and work off those it has. Already so: the first one's word stands."""
    rules: Rules = yield flow.rules(0, [queue])
    if not rules.queues.get(queue, {}).get("drain"):
        entry = msgspec.json.encode({"who": word.by, "reason": word.reason, "since": now_ms}).decode()
        yield from _put(queue, [{"drain": entry}] * partitions, word, None)


def resume_queue(queue: str, word: Word, *, partitions: int) -> Talk[None]:
    """End a pause and a draining."""
    rules: Rules = yield flow.rules(0, [queue])
    if rules.queues.get(queue, {}).get("drain"):
        yield from _put(queue, [{"drain": ""}] * partitions, word, None)
    yield from set_pause(f"q/{queue}", "resume", partitions, word)


def change_type(job_type: str, wanted: TypeChange, word: Word, *, partitions: int) -> Talk[int]:
    """Say which limiters a job type needs; the revision of that.

    Raises:
        RevisionMismatch: they were changed since.
    """
    limits = None if wanted.limits is None else tuple(dict.fromkeys(wanted.limits))
    return (
        yield from give(
            partitions,
            lambda partition, order: flow.put_type(partition, job_type, limits, order),
            word,
            read=flow.rules,
            revision=lambda rules: rules.revision(f"l/{job_type}"),
            known=wanted.revision,
        )
    )


def _put(queue: str, fields: Sequence[Mapping[str, str | int]], word: Word, known: int | None) -> Talk[int]:
    return (
        yield from give(
            len(fields),
            lambda partition, order: flow.put_queue(partition, queue, fields[partition], order),
            word,
            read=lambda partition: flow.rules(partition, [queue]),
            revision=lambda rules: int(rules.queues.get(queue, {}).get("rev", 0)),
            known=known,
        )
    )


def _fields(queue: str, wanted: QueueChange, partitions: int) -> list[dict[str, str | int]]:
    """What queue_put.lua takes, for each partition; '' is the default."""
    if not NAME.fullmatch(queue):
        raise out_of_range("name", "1 to 64 of a-z 0-9 . _ - that begin with a letter or digit")
    common: dict[str, str | int] = {}
    if wanted.limits is not UNSET:
        common["lm"] = ",".join(dict.fromkeys(wanted.limits or ()))
    if wanted.strict is not UNSET:
        common["strict"] = 1 if wanted.strict else ""
    if wanted.weights is not UNSET:
        weights = wanted.weights or {}
        common["weights"] = _json({key_name(key): weight for key, weight in weights.items()})
        common["raw"] = _json(weights)
    if wanted.weight is not UNSET:
        common["share"] = wanted.weight or ""
    if wanted.concurrency is not UNSET:
        common["conc"] = wanted.concurrency or ""
    if wanted.sla_ms is not UNSET:
        common["sla"] = wanted.sla_ms or ""
    made = [dict(common) for _ in range(partitions)]
    if wanted.max_length is not UNSET:
        most = wanted.max_length
        if most is not None and most < partitions:
            raise out_of_range("maxLength", f"{partitions} at least: the store has so many partitions, and each needs a share of one")
        for fields, share in zip(made, shares(most or 0, partitions), strict=True):
            fields["max"] = share or ""
    if not made[0]:
        raise InvalidRequest("nothing is to be changed: give limits, strict, weights, weight, maxLength, concurrency or slaMs")
    return made


def _json(value: Mapping[str, Any]) -> str:
    return msgspec.json.encode(value).decode() if value else ""


def _names(text: str | None) -> tuple[str, ...]:
    return tuple(text.split(",")) if text else ()
