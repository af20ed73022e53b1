"""Orders of operators that hold in every partition: what they are, who gave them, and how they are given."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal, NamedTuple

import msgspec

from taskmaster.engine.options import out_of_range
from taskmaster.errors import Conflict, RevisionMismatch
from taskmaster.model.lanes import KEY_MAX, key_name
from taskmaster.store import flow
from taskmaster.store.call import Call, Talk
from taskmaster.store.flow import Changed, Rules
from taskmaster.store.status import Status

__all__ = ["By", "Pause", "Reason", "Word", "give", "pause_of", "paused_tenants", "read_rules", "set_pause", "shares"]

#: How often an order is decided anew when somebody else was faster.
TRIES = 5
By = Annotated[str, msgspec.Meta(min_length=1, max_length=40)]
Reason = Annotated[str, msgspec.Meta(max_length=200)]


class Word(NamedTuple):
    """Who orders something, and why; both for the audit and for those who wonder."""

    by: str
    reason: str = ""


class Pause(NamedTuple):
    """Whose order it is that something stands still.

    Attributes:
        plugin: it is a pause of that plugin, of which the thing is a part.
        name: of a tenant whose name the store cannot spell as people do.
    """

    by: str
    reason: str
    since_ms: int
    plugin: str = ""
    name: str = ""


class _Entry(msgspec.Struct):
    who: str
    reason: str = ""
    since: float = 0
    plugin: str = ""
    name: str = ""


def pause_of(raw: bytes | str | None) -> Pause | None:
    """What the store keeps of a pause; None for nothing."""
    if not raw:
        return None
    entry = msgspec.json.decode(raw, type=_Entry)
    return Pause(entry.who, entry.reason, int(entry.since), entry.plugin, entry.name)


def paused_tenants(found: Sequence[Rules]) -> dict[str, Pause]:
    """The tenants that are paused, by name and sorted, from the rules of all partitions."""
    pauses = {scope[2:]: pause_of(raw) for scope, raw in found[0].pauses.items() if scope.startswith("k/")}
    return dict(sorted((pause.name or key, pause) for key, pause in pauses.items() if pause))


def shares(total: int, partitions: int) -> list[int]:
    """*total* in whole parts that differ by one at most, the larger ones first."""
    return [total // partitions + (number < total % partitions) for number in range(partitions)]


def read_rules(partitions: int, queues: Sequence[str] = ()) -> Talk[list[Rules]]:
    """The orders in force, by partition; of these queues, or of all."""
    found: list[Rules] = []
    for partition in range(partitions):
        found += [(yield flow.rules(partition, queues))]
    return found


def give(
    partitions: int,
    write: Callable[[int, flow.Order], Call[Changed]],
    word: Word,
    *,
    read: Callable[[int], Call[Any]],
    revision: Callable[[Any], int],
    known: int | None = None,
) -> Talk[int]:
    """Give the same order in every partition; the revision that the first one has then.

    Each is bound to the revision that was read just before, so that a copy of it that comes late does nothing.

    Args:
        partitions: of the store.
        write: the order for one partition.
        word: whose it is.
        read: the call that tells what is there.
        revision: of that answer.
        known: only if the first partition still has this revision.

    Raises:
        RevisionMismatch: it has another; fact `revision`.
        Conflict: others were faster again and again.
    """
    op, first = secrets.token_hex(8), 0
    for partition in range(partitions):
        for _ in range(TRIES):
            seen = known if partition == 0 and known is not None else revision((yield read(partition)))
            answer: Changed = yield write(partition, flow.Order(op, seen, *word))
            if answer.status is not Status.CONFLICT:
                break
            if partition == 0 and known is not None:
                raise RevisionMismatch(f"it was changed since revision {known}: it has {answer.revision}", revision=answer.revision)
        else:
            raise Conflict("others change it all the time; repeat the request")
        first = answer.revision if partition == 0 else first
    return first


def set_pause(scope: str, what: Literal["pause", "resume"], partitions: int, word: Word) -> Talk[int]:
    """Pause or resume `q/<queue>`, `t/<type>`, `p/<plugin>` or `k/<tenant>`. Already so: nothing happens, and the first one's word stands.

    A tenant is who has the fairness key of that name.

    Raises:
        InvalidRequest: no fairness key can be as that tenant is called.
        Conflict: a type is to go on whose plugin is paused.
    """
    kind, _, name = scope.partition("/")
    spelled = name
    if kind == "k":
        if not 1 <= len(name) <= KEY_MAX:
            raise out_of_range("tenant", f"1 to {KEY_MAX} characters")
        spelled = key_name(name)
        scope = f"k/{spelled}"
    if kind == "t" and what == "resume":
        rules: Rules = yield flow.rules(0)
        pause = pause_of(rules.pauses.get(scope))
        if pause is not None and pause.plugin:
            raise Conflict(f"{name} is paused with its plugin {pause.plugin}; resume that", plugin=pause.plugin)

    def write(partition: int, order: flow.Order) -> Call[Changed]:
        if kind == "p":
            return flow.pause_plugin(partition, name, what, order)
        return flow.pause(partition, scope, what, order, name if name != spelled else "")

    return (yield from give(partitions, write, word, read=flow.rules, revision=lambda seen: seen.revision(scope)))
