"""Settings of a circuit breaker: when it opens, for how long, and how it closes again. The rule itself is store/lua/lib/breaker.lua."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import msgspec

__all__ = ["BreakerRule", "as_fields", "rule_of"]

_DAY_MS = 86_400_000


class BreakerRule(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """What a dependency's health is judged by. Times in milliseconds.

    Attributes:
        failure_ratio: opens when at least this share of the calls in the window has failed; of a step of probes as well.
        minimum_calls: … and there were at least so many.
        window_ms: what counts; it moves on by tenths.
        cooldown_ms: how long it stays open first.
        cooldown_growth: … times this for each probing that fails in a row.
        cooldown_max_ms: … but no longer than that.
        probes: calls that are let through at a time when the cooldown is over.
        probes_max: each step that goes well doubles them; after one of so many it is closed.
        retry_ratio: at most this share of the calls are retries, 10 in a window always; what is beyond it waits its turn.
    """

    failure_ratio: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.5
    minimum_calls: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] = 10
    window_ms: Annotated[int, msgspec.Meta(ge=100, le=_DAY_MS)] = 10_000
    cooldown_ms: Annotated[int, msgspec.Meta(ge=10, le=_DAY_MS)] = 5_000
    cooldown_growth: Annotated[float, msgspec.Meta(ge=1, le=10)] = 2.0
    cooldown_max_ms: Annotated[int, msgspec.Meta(ge=10, le=_DAY_MS)] = 60_000
    probes: Annotated[int, msgspec.Meta(ge=1, le=1_000)] = 1
    probes_max: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 8
    retry_ratio: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.2


#: What the scripts call them.
_FIELDS = {
    "failure_ratio": "ratio",
    "minimum_calls": "least",
    "window_ms": "window",
    "cooldown_ms": "cooldown",
    "cooldown_growth": "growth",
    "cooldown_max_ms": "longest",
    "probes": "first",
    "probes_max": "full",
    "retry_ratio": "share",
}


def as_fields(rule: BreakerRule) -> dict[str, int | float]:
    """The rule by the names of the store."""
    return {field: getattr(rule, name) for name, field in _FIELDS.items()}


def rule_of(fields: Mapping[str, str]) -> BreakerRule:
    """The rule that the store has; what it does not say is as usual."""
    known = {field.name: field.encode_name for field in msgspec.structs.fields(BreakerRule)}
    said = {known[name]: fields[short] for name, short in _FIELDS.items() if short in fields}
    return msgspec.convert(said, BreakerRule, strict=False)
