"""How much is kept of jobs that have ended: by count, age and bytes, for each queue and state."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Final, Literal, get_args

import msgspec
from msgspec import Meta

__all__ = ["ENDED", "ENTRY", "EVERY_QUEUE", "Ended", "Kept", "Rule", "Rules", "in_force", "parse", "spell"]

Ended = Literal["completed", "failed", "cancelled"]
ENDED: Final[tuple[Ended, ...]] = get_args(Ended)
DAY_MS: Final = 86_400_000
#: In the place of a queue's name: all queues that have no rule of their own.
EVERY_QUEUE: Final = "*"
#: How one rule is written as text.
ENTRY: Final = "queue.state.count=n, .age_ms=n or .bytes=n, such as email-queue.completed.count=1000,*.failed.bytes=50000000"


class Kept(msgspec.Struct, frozen=True, array_like=True):
    """What is kept of one queue's jobs of one state: the oldest go beyond any of the three. `bytes` -1: any number.

    Bytes are those of payload and policies as stored, and of the result or error.
    """

    count: int
    age_ms: int = 7 * DAY_MS
    bytes: int = -1


class Rule(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A deviation from what is usual; what is None stays as it is."""

    count: Annotated[int, Meta(ge=0, le=100_000_000)] | None = None
    age_ms: Annotated[int, Meta(ge=1_000, le=3_660 * DAY_MS)] | None = None
    bytes: Annotated[int, Meta(ge=0, le=2**50)] | None = None


#: By queue (or `*`) and state.
Rules = dict[str, dict[Ended, Rule]]


def in_force(rules: Mapping[str, Mapping[Ended, Rule]], queue: str, usual: Mapping[Ended, Kept]) -> dict[Ended, Kept]:
    """What is kept of the jobs of *queue*: *usual*, changed by the rule for every queue, then by its own."""
    found = dict(usual)
    for name in (EVERY_QUEUE, queue):
        for state, rule in rules.get(name, {}).items():
            changes: dict[str, int] = {field: value for field in Kept.__struct_fields__ if (value := getattr(rule, field)) is not None}
            found[state] = msgspec.structs.replace(found[state], **changes)
    return found


def parse(text: str) -> dict[str, dict[str, dict[str, str]]]:
    """The rules in *text* (see ENTRY), their values still text.

    Raises:
        ValueError: it is not written so.
    """
    rules: dict[str, dict[str, dict[str, str]]] = {}
    for entry in filter(None, map(str.strip, text.split(","))):
        place, equals, value = entry.partition("=")
        parts = place.strip().rsplit(".", 2)  # queues may have dots in their names
        if not equals or len(parts) != 3 or not all(parts):
            raise ValueError(entry)
        queue, state, what = parts
        rules.setdefault(queue, {}).setdefault(state, {})[what] = value.strip()
    return rules


def spell(rules: Mapping[str, Mapping[Ended, Rule]]) -> str:
    """The text that `parse` reads."""
    return ",".join(
        f"{queue}.{state}.{what}={value}"
        for queue, states in rules.items()
        for state, rule in states.items()
        for what, value in msgspec.structs.asdict(rule).items()
        if value is not None
    )
