"""How lanes are named. The jobs of one queue, priority and type with one fairness key and the same limiters of their own stand in one."""

from __future__ import annotations

import re
from collections.abc import Iterable

from taskmaster.model.ids import digest

__all__ = ["KEY_MAX", "LIMITS_MAX", "NO_KEY", "key_name", "lane_name", "split"]

#: A fairness key has at most this many characters; a job at most so many limiters of its own.
KEY_MAX, LIMITS_MAX = 256, 4
#: Whose turn it is when jobs have no key.
NO_KEY = "-"
_PLAIN = re.compile(r"[A-Za-z0-9._@-]{1,64}")


def key_name(key: str) -> str:
    """How the store spells the fairness key *key*: as it is where it can be part of a name, else 22 characters of its digest."""
    return key if _PLAIN.fullmatch(key) and key != NO_KEY else digest(key)


def lane_name(key: str | None, limits: Iterable[str] = ()) -> str:
    """The lane of jobs with this fairness key and these limiters, in any order; empty with neither: the default lane."""
    return "~".join((key_name(key) if key else "", *sorted(set(limits))))


def split(lane: str) -> tuple[str, tuple[str, ...]]:
    """Key as the store spells it (empty: none), and limiters, of a lane."""
    key, *limits = lane.split("~")
    return key, tuple(limits)
