"""Lists of things that stand in several partitions at once: one page, newest first, each thing once. Pure.

A thing has a place (ms, name) in each partition that knows it; in the list it stands where the latest of them puts it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, TypeVar

__all__ = ["BEGINNING", "Candidates", "Place", "candidates", "page"]

T = TypeVar("T")
Place = tuple[str, str]
BEGINNING: Place = ("", "")


class Candidates(NamedTuple):
    """Names that may be on a page, and the place beyond which some partition has not looked (None: all have seen their end)."""

    names: tuple[str, ...]
    frontier: Place | None


def candidates(pages: Iterable[tuple[bool, Sequence[Place]]]) -> Candidates:
    """Out of a page of each partition: (whether it has more, places)."""
    pages = list(pages)
    frontier = max((places[-1] for has_more, places in pages if has_more), key=_order, default=None)
    found = (place for _, places in pages for place in places if frontier is None or _order(place) >= _order(frontier))
    return Candidates(tuple(sorted({place[1] for place in found})), frontier)


def page(
    things: Sequence[T], place_of: Callable[[T], Place], frontier: Place | None, *, after: Place, limit: int
) -> tuple[list[T], Place | None]:
    """At most *limit* of them behind the place *after*, and where the next page begins (None: nowhere).

    One that a partition shows behind *after* and that another had put before it was on an earlier page.
    """
    behind = [thing for thing in things if not after[0] or _order(place_of(thing)) < _order(after)]
    behind.sort(key=lambda thing: _order(place_of(thing)), reverse=True)
    if len(behind) > limit:
        return behind[:limit], place_of(behind[limit - 1])
    return behind, frontier


def _order(place: Place) -> tuple[float, str]:
    return float(place[0]), place[1]
