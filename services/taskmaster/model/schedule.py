"""What a schedule is, when it is due, and what becomes of the instants that were missed. Pure: no clock, no store.

An *instant* is the time that the schedule names, Unix milliseconds; with *jitter* it is due a little later, and is still that instant.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from hashlib import blake2b
from itertools import islice
from typing import Annotated, Any, Literal, NamedTuple

import msgspec

from taskmaster.errors import InvalidRequest
from taskmaster.model import cron
from taskmaster.model.cron import Gap, Overlap
from taskmaster.model.patterns import whole
from taskmaster.model.states import Priority
from taskmaster.model.template import TemplateError, check_template
from taskmaster.model.zones import zone, zone_names
from taskmaster_sdk.jobs import NAME

__all__ = [
    "GRACE_MS",
    "Dst",
    "Due",
    "Missed",
    "Run",
    "Schedule",
    "check",
    "due",
    "due_at",
    "explain",
    "local_time",
    "next_instants",
    "runs",
]

#: An instant that is no later than this was not missed. Longer than another scheduler takes to step in.
GRACE_MS = 15_000
#: Most instants that are caught up.
CATCH_UP_MAX = 1_000
#: Instants looked at in one step, and how many of the newest of them stay for the next: more than any policy runs.
LOOK_MAX, KEPT = 10_000, CATCH_UP_MAX + 2 * GRACE_MS // 1_000
EVERY_MIN_MS, EVERY_MAX_MS = 1_000, 3_650 * 86_400_000
DAY_MS = 86_400_000
#: Instants are within these (the years 3 to 9997): a zone is asked about the years around, and the calendar has no others.
FIRST_MS, LAST_MS = -62_072_524_800_000, 253_339_228_799_999
Excluded = Annotated[str, msgspec.Meta(pattern=r"^\d{4}-\d{2}-\d{2}(/\d{4}-\d{2}-\d{2})?$", max_length=21)]
Moment = Annotated[dt.datetime, msgspec.Meta(tz=True)]


class Dst(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What happens on the days when clocks change; an expression that runs in every hour goes by elapsed time instead.

    Attributes:
        gap: a time that does not exist: run right after the gap, or not at all.
        overlap: a time that comes twice: run the first time, or both times.
    """

    gap: Gap = "shift"
    overlap: Overlap = "once"


class Schedule(msgspec.Struct, rename="camel", frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """What to run and when: exactly one of *cron*, *every_ms* and *run_at*.

    Attributes:
        type: job type.
        payload: for each job; texts in it may hold {{instant}} and other words of `model.template`.
        cron: five fields (minute hour day month weekday), six of which the first is seconds, or @daily and its like.
        every_ms: from *start_at*, or else from the beginning of 1970; 1 s to 10 years.
        run_at: once.
        timezone: IANA name; for *cron* and for *exclude*.
        queue, priority: of the jobs; None: the type's, normal.
        catch_up: instants missed by more than 15 s: none is run, the latest is, or all are, but the newest *catch_up_max* at most.
        overlap: when the job before has not ended: allow, skip this one, queue one to follow it, or cancel the one before.
        dst: on the days when clocks change.
        jitter_ms: due up to so much later, always the same for one schedule and instant.
        start_at, end_at: no instant before, none after.
        max_runs: jobs at most, those made by hand not counted.
        exclude: local days without a run: 2026-12-25, or 2026-12-24/2026-12-31.
    """

    type: str
    payload: Any = msgspec.field(default_factory=dict)
    cron: Annotated[str, msgspec.Meta(max_length=256)] | None = None
    every_ms: Annotated[int, msgspec.Meta(ge=EVERY_MIN_MS, le=EVERY_MAX_MS)] | None = None
    run_at: Moment | None = None
    timezone: str = "UTC"
    queue: Annotated[str, msgspec.Meta(pattern=whole(NAME.pattern), max_length=64)] | None = None
    priority: Priority | None = None
    catch_up: Literal["none", "latest", "all"] = "latest"
    catch_up_max: Annotated[int, msgspec.Meta(ge=1, le=CATCH_UP_MAX)] = 10
    overlap: Literal["allow", "skip", "queue-one", "cancel-previous"] = "allow"
    dst: Dst = Dst()
    jitter_ms: Annotated[int, msgspec.Meta(ge=0, le=DAY_MS)] = 0
    start_at: Moment | None = None
    end_at: Moment | None = None
    max_runs: Annotated[int, msgspec.Meta(ge=1, le=1_000_000_000)] | None = None
    exclude: Annotated[tuple[Excluded, ...], msgspec.Meta(max_length=366)] = ()


class Run(NamedTuple):
    """One instant. `note`: what is special about it because of clocks that change, or empty."""

    at_ms: int
    note: str = ""


class Missed(NamedTuple):
    """Instants that are not run: how many, the first and the last."""

    total: int
    first_ms: int
    last_ms: int


class Due(NamedTuple):
    """What to do now.

    Attributes:
        missed: come before all of *fire*; None: none.
        fire: to be run now, oldest first.
        next_ms: the instant after all these; None: there is none. Not later than now: there is more to do, ask again.
    """

    missed: Missed | None
    fire: tuple[int, ...]
    next_ms: int | None


def check(schedule: Schedule) -> None:
    """Whether the schedule can be carried out; its type and the shape of its payload are the catalogue's matter.

    Raises:
        InvalidRequest: it cannot; fact `errors` says why.
    """
    wrong: list[tuple[str, str]] = []
    if sum(given is not None for given in (schedule.cron, schedule.every_ms, schedule.run_at)) != 1:
        wrong.append(("", "exactly one of cron, everyMs and runAt is meant"))
    if schedule.timezone not in zone_names():
        wrong.append(("/timezone", "an IANA time zone is meant, such as America/New_York"))
    if schedule.cron is not None:
        try:
            cron.check(schedule.cron)
        except cron.CronError as error:
            wrong.append(("/cron", str(error)))
    for pointer, moment in (("/runAt", schedule.run_at), ("/startAt", schedule.start_at), ("/endAt", schedule.end_at)):
        if moment is not None and not FIRST_MS <= _ms(moment) <= LAST_MS:
            wrong.append((pointer, "an instant of the years 3 to 9997 is meant"))
    if schedule.start_at and schedule.end_at and schedule.end_at < schedule.start_at:
        wrong.append(("/endAt", "it is before startAt"))
    try:
        for text in schedule.exclude:
            first, last = _days(text)
            if last < first:
                raise ValueError(f"{text} ends before it begins")
    except ValueError as error:
        wrong.append(("/exclude", f"local days are meant, such as 2026-12-25 or 2026-12-24/2026-12-31: {error}"))
    try:
        check_template(schedule.payload)
    except TemplateError as error:
        wrong.append(("/payload", str(error)))
    if wrong:
        words = "; ".join(f"{pointer.lstrip('/') or 'the schedule'}: {message}" for pointer, message in wrong)
        raise InvalidRequest(words, errors=[{"pointer": pointer, "message": message} for pointer, message in wrong])


def runs(schedule: Schedule, after_ms: int) -> Iterator[Run]:
    """The instants later than *after_ms*, in order, without jitter; *max_runs* is not looked at."""
    start_ms = _ms(schedule.start_at) if schedule.start_at else None
    end_ms = _ms(schedule.end_at) if schedule.end_at else None
    after_ms = max(after_ms, FIRST_MS, start_ms - 1 if start_ms is not None else FIRST_MS)
    if after_ms >= LAST_MS:
        return
    excluded = [_days(text) for text in schedule.exclude]
    while after_ms < LAST_MS:
        for run, local in _all_runs(schedule, after_ms, start_ms or 0):
            if run.at_ms > (LAST_MS if end_ms is None else end_ms):
                return
            day = (local or local_time(schedule, run.at_ms)).date() if excluded else None
            last = max((last for first, last in excluded if day is not None and first <= day <= last), default=None)
            if last is not None:
                after_ms = max(run.at_ms, _end_of(last, schedule.timezone) - 1)
                break
            yield run
        else:
            return


def next_instants(schedule: Schedule, after_ms: int, n: int) -> list[Run]:
    """The next *n* instants after *after_ms*, or as many as there are."""
    return list(islice(runs(schedule, after_ms), n))


def due(schedule: Schedule, schedule_id: str, next_ms: int, now_ms: int) -> Due:
    """What becomes of the instants from *next_ms* on that are due by *now_ms*, by the schedule's catch-up policy.

    Of 10,000 and more the oldest are missed in steps of nearly as many: no policy would run them.
    """
    seen = [next_ms]
    following: int | None = None
    for run in runs(schedule, next_ms):
        if len(seen) == LOOK_MAX or due_at(schedule, schedule_id, run.at_ms) > now_ms:
            following = run.at_ms
            break
        seen.append(run.at_ms)
    if len(seen) == LOOK_MAX:
        cut = LOOK_MAX - KEPT
        return Due(Missed(cut, seen[0], seen[cut - 1]), (), seen[cut])
    in_time = [at for at in seen if now_ms - due_at(schedule, schedule_id, at) <= GRACE_MS]
    late = seen[: len(seen) - len(in_time)]  # jitter may put one out of order: the newest are those that are run
    if schedule.catch_up == "all":
        kept = late[-schedule.catch_up_max :]
    else:
        kept = late[-1:] if schedule.catch_up == "latest" and not in_time else []
    missed = late[: len(late) - len(kept)]
    return Due(Missed(len(missed), missed[0], missed[-1]) if missed else None, (*kept, *seen[len(late) :]), following)


def due_at(schedule: Schedule, schedule_id: str, instant_ms: int) -> int:
    """When that instant is due: the same in every process, and whenever it is asked."""
    if not schedule.jitter_ms:
        return instant_ms
    drawn = int.from_bytes(blake2b(f"{schedule_id}@{instant_ms}".encode(), digest_size=8).digest(), "big")
    return instant_ms + drawn % (schedule.jitter_ms + 1)


def local_time(schedule: Schedule, at_ms: int) -> dt.datetime:
    """The instant in the schedule's zone."""
    return dt.datetime.fromtimestamp(at_ms / 1_000, zone(schedule.timezone))


def explain(schedule: Schedule) -> str:
    """When it runs, in words."""
    if schedule.cron is not None:
        words = cron.explain(schedule.cron)
        words += f", {schedule.timezone} time"
        return words + (": every hour, by elapsed time" if cron.is_hourly(schedule.cron) and schedule.timezone != "UTC" else "")
    if schedule.every_ms is not None:
        beginning = _utc(schedule.start_at) if schedule.start_at else "the beginning of 1970 UTC"
        return f"Every {_duration(schedule.every_ms)}, counted from {beginning}"
    return f"Once, at {_utc(schedule.run_at)}" if schedule.run_at else ""


def _all_runs(schedule: Schedule, after_ms: int, anchor_ms: int) -> Iterator[tuple[Run, dt.datetime | None]]:
    if schedule.cron is not None:
        rules = schedule.dst
        for found in cron.instants(schedule.cron, schedule.timezone, after_ms // 1_000, rules.gap, rules.overlap):
            yield Run(found.at_s * 1_000, found.note), found.local
    elif schedule.every_ms is not None:
        at_ms = anchor_ms + ((after_ms - anchor_ms) // schedule.every_ms + 1) * schedule.every_ms
        while at_ms <= LAST_MS:
            yield Run(at_ms), None
            at_ms += schedule.every_ms
    elif schedule.run_at is not None and _ms(schedule.run_at) > after_ms:
        yield Run(_ms(schedule.run_at)), None


def _days(text: str) -> tuple[dt.date, dt.date]:
    first, _, last = text.partition("/")
    return dt.date.fromisoformat(first), dt.date.fromisoformat(last or first)


def _end_of(day: dt.date, zone_name: str) -> int:
    """When the local *day* is over for the first time; clocks that are set back at midnight show its last hour again."""
    if day.year > 9_997:
        return LAST_MS
    return _ms(dt.datetime.combine(day + dt.timedelta(1), dt.time(), zone(zone_name)))


def _ms(moment: dt.datetime) -> int:
    return round(moment.timestamp() * 1_000)


def _utc(moment: dt.datetime) -> str:
    return moment.astimezone(dt.UTC).isoformat().replace("+00:00", "Z")


def _duration(ms: int) -> str:
    for unit, size in (("days", DAY_MS), ("hours", 3_600_000), ("minutes", 60_000), ("seconds", 1_000)):
        if ms % size == 0:
            return unit[:-1] if ms == size else f"{ms // size} {unit}"
    return f"{ms} ms"
