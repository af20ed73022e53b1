"""Hearing of all jobs: what happens in every partition, from a place on that its hearer can come back to. What is lost is said."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from taskmaster.engine.waiting import LOOK_EVERY_S, PAUSE_S, Waiting
from taskmaster.errors import InvalidRequest, StoreError
from taskmaster.model.happenings import LETTERS, WORDS
from taskmaster.model.ids import is_job_id
from taskmaster.model.lanes import key_name
from taskmaster.store.call import Call
from taskmaster.store.client import SyncStore
from taskmaster.store.events import OLDEST, Happened, Place, Wanted, events

__all__ = ["GAP", "Feed", "FeedEvent", "beginning_of", "follow_feed", "follow_feed_blocking", "places_of", "wanted_of"]

#: The kind of an event that says: some are lost.
GAP = "gap"
#: At least so long from one look to the next, however much happens.
LOOK_LEAST_S = 0.1
#: Names that one filter takes.
NAMES_MAX = 100
_NAME = re.compile(r"[a-z0-9._-]{1,64}")
#: Milliseconds and number of an entry, and how many of its transitions were told where that is not all; in hexadecimal digits.
_PLACE = re.compile(r"([0-9a-f]{1,12})-([0-9a-f]{1,16})(?:~([0-9a-f]{1,6}))?")


class FeedEvent(NamedTuple):
    """Something that happened.

    Attributes:
        kind: a word of `model.happenings`, or GAP: events of *partition* are lost, and nobody knows which.
        id: the place behind this event, over all partitions: whoever goes on from there gets what came later.
        at_ms: when, by the store's clock; 0 of a gap.
        type, queue: empty when nothing is left of the job.
    """

    kind: str
    id: str
    partition: int
    job_id: str = ""
    type: str = ""
    queue: str = ""
    at_ms: int = 0


def wanted_of(
    *, types: Sequence[str] = (), queues: Sequence[str] = (), jobs: Sequence[str] = (), kinds: Sequence[str] = (), fairness_key: str = ""
) -> Wanted:
    """A filter: of each list any, of the lists all. A name that cannot be one matches nothing.

    Raises:
        InvalidRequest: it makes no sense; says what.
    """
    for name, given in {"type": types, "queue": queues, "job": jobs, "event": kinds}.items():
        if len(given) > NAMES_MAX:
            raise InvalidRequest(f"{name} is given {len(given)} times; {NAMES_MAX} are the most", parameter=name)
    unknown = [kind for kind in kinds if kind not in LETTERS]
    if unknown:
        raise InvalidRequest(f"there is no event {unknown[0][:32]!a}; there are {', '.join(LETTERS)}", parameter="event")
    bad = [job for job in jobs if not is_job_id(job)]
    if bad:
        raise InvalidRequest(f"{bad[0][:64]!a} is no job id", parameter="job")
    of_types, of_queues = ([name if _NAME.fullmatch(name) else "-" for name in names] for names in (types, queues))
    return Wanted(jobs, of_types, of_queues, [LETTERS[kind] for kind in kinds], key_name(fairness_key) if fairness_key else "")


def places_of(word: str, partitions: int) -> list[Place]:
    """The places that an event's id stands for.

    Raises:
        InvalidRequest: it is none, or one of a store with another number of partitions.
    """
    parts = word.split(".")
    if len(parts) != partitions:
        raise InvalidRequest(
            f"this is the id of no event here: it has {len(parts)} places, and the store {partitions} partitions; begin without one",
            parameter="Last-Event-ID",
        )
    return [_place_of(part) for part in parts]


def beginning_of(after: str, partitions: int) -> list[Place]:
    """Where a client begins: behind the event with the id *after*, or with the `oldest` that is kept; empty: with what comes from now on.

    Raises:
        InvalidRequest: as `places_of`.
    """
    if after == "oldest":
        return [OLDEST] * partitions
    return places_of(after, partitions) if after else []


def _place_of(part: str) -> Place:
    found = _PLACE.fullmatch(part)
    if found is None:
        raise InvalidRequest("this is the id of no event; send one as it was told, or begin without one", parameter="Last-Event-ID")
    return Place(f"{int(found[1], 16)}-{int(found[2], 16)}", int(found[3], 16) if found[3] else -1)


def _spelt(place: Place) -> str:
    ms, _, number = place.entry.partition("-")
    told = f"~{place.told:x}" if place.told >= 0 else ""
    return f"{int(ms or 0):x}-{int(number or 0):x}{told}"


class Feed:
    """Where one hearer stands. No I/O.

    Args:
        places: of each partition.
        wanted: which events it is to hear of.
    """

    def __init__(self, places: Sequence[Place], wanted: Wanted) -> None:
        self._places = list(places)
        self._spelt = [_spelt(place) for place in places]
        self._wanted = wanted
        self.unread = set(range(len(places)))

    @property
    def id(self) -> str:
        """The place behind all that was told."""
        return ".".join(self._spelt)

    @property
    def entries(self) -> list[str]:
        """Ids of the last entries that were told, by partition."""
        return [place.entry for place in self._places]

    def look(self, partition: int) -> Call[Happened]:
        """What to ask a partition."""
        return events(partition, self._places[partition], self._wanted)

    def news(self, answers: Mapping[int, Happened]) -> list[FeedEvent]:
        """What the partitions that were asked have to tell, gaps first, then in order of time; `unread`: those with more to tell."""
        told = [FeedEvent(GAP, self.id, partition) for partition, answer in answers.items() if answer.is_lost]
        rows = [(row.at_ms, partition, row) for partition, answer in answers.items() for row in answer.rows]
        rows.sort(key=lambda row: row[:2])  # stable: those of one partition keep their order
        for at_ms, partition, row in rows:
            self._move(partition, row.place)
            told.append(FeedEvent(WORDS.get(row.letter, row.letter), self.id, partition, row.job_id, row.type, row.queue, at_ms))
        for partition, answer in answers.items():
            self._move(partition, answer.place)
        self.unread = {partition for partition, answer in answers.items() if answer.has_more}
        return told

    def _move(self, partition: int, place: Place) -> None:
        self._places[partition] = place
        self._spelt[partition] = _spelt(place)


async def follow_feed(
    waiting: Waiting, feed: Feed, ask: Callable[[Call[Happened]], Awaitable[Happened]], *, idle_s: float
) -> AsyncGenerator[list[FeedEvent]]:
    """What is new each time that something is, until this process shuts down; nothing when *idle_s* have passed so.

    A store that is away is waited for.
    """
    told_at = time.monotonic()
    async with waiting.hear_all() as bell:
        while not waiting.is_closed:
            due, news = feed.unread | bell.take(), []
            try:
                news = feed.news({partition: await ask(feed.look(partition)) for partition in sorted(due)})
            except StoreError:
                bell.ring(due)
                await asyncio.sleep(PAUSE_S)
            if news:
                yield news
                told_at = time.monotonic()
            if not feed.unread:
                await asyncio.sleep(LOOK_LEAST_S)
                await bell.wait(LOOK_EVERY_S)
            if time.monotonic() - told_at >= idle_s:
                yield []
                told_at = time.monotonic()


def follow_feed_blocking(
    store: SyncStore, feed: Feed, ask: Callable[[Call[Happened]], Happened], *, block_ms: int, goes_on: bool = True
) -> Iterator[FeedEvent]:
    """As `follow_feed`, without shutdown and idle times, on a connection of its own. Unless it *goes_on*, ends with what there is.

    Raises:
        StoreError: at the first look; unless it goes on, at any.
    """
    due, has_begun = set(feed.unread), False
    while True:
        try:
            news = feed.news({partition: ask(feed.look(partition)) for partition in sorted(due)})
            has_begun = True
            yield from news
            due = feed.unread
            if due:
                continue
            if not goes_on:
                return
            time.sleep(LOOK_LEAST_S)
            while not due:
                due = set(store.newer_events(feed.entries, block_ms))
        except StoreError:
            if not has_begun or not goes_on:
                raise
            due = set(range(len(feed.entries)))
            time.sleep(PAUSE_S)
