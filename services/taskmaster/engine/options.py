"""What a submission may say of its place among others: fairness key, limiters, expiry, tags, unique work. Pure."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Sequence
from typing import Annotated, Literal

import msgspec

from taskmaster.errors import InvalidRequest
from taskmaster.model.ids import digest
from taskmaster.model.lanes import KEY_MAX, LIMITS_MAX, lane_name
from taskmaster.model.patterns import whole
from taskmaster.store.calls import Unique
from taskmaster_sdk.jobs import NAME

__all__ = [
    "FAR_MAX_MS",
    "Instant",
    "Key",
    "LimitNames",
    "OnConflict",
    "Tags",
    "UniqueWork",
    "Until",
    "instant_ms",
    "lane_of",
    "out_of_range",
    "tags_of",
    "unique_of",
]

#: Ten years: nothing is planned further ahead.
FAR_MAX_MS = 3_650 * 86_400_000
TAGS_MAX, UNIQUE_KEY_MAX = 10, 255
_TAG = re.compile(r"[A-Za-z0-9._:@-]{1,64}")

Until = Literal["started", "finished", "ttl"]
OnConflict = Literal["reject", "return-existing", "replace", "debounce", "throttle"]
Instant = Annotated[dt.datetime, msgspec.Meta(tz=True)]
Key = Annotated[str, msgspec.Meta(min_length=1, max_length=KEY_MAX)]
Tags = Annotated[tuple[Annotated[str, msgspec.Meta(pattern=whole(_TAG.pattern))], ...], msgspec.Meta(max_length=TAGS_MAX)]
LimitNames = Annotated[
    tuple[Annotated[str, msgspec.Meta(pattern=whole(NAME.pattern), max_length=64)], ...], msgspec.Meta(max_length=LIMITS_MAX)
]


class UniqueWork(msgspec.Struct, rename="camel", forbid_unknown_fields=True, frozen=True, omit_defaults=True):
    """The work that a job does: no other job of its type for the same work is taken meanwhile.

    Attributes:
        key: names the work, 1..255 characters.
        until: how long the job has it: until its first attempt has started, until it has ended (the usual), or for ttl_ms.
        ttl_ms: only with until ttl: 1 ms .. 10 years from the submission.
        on_conflict: what becomes of another one: refused (the usual); answered with the job that has the work; it takes the place of one
            that has not started; debounce: it takes the place of one that waits out its delay, so that the last of a burst runs, until is
            started by default; throttle: answered with the job that has the work, for ttl_ms.
    """

    key: Annotated[str, msgspec.Meta(min_length=1, max_length=UNIQUE_KEY_MAX)]
    until: Until | None = None
    ttl_ms: Annotated[int, msgspec.Meta(ge=1, le=FAR_MAX_MS)] | None = None
    on_conflict: OnConflict = "reject"


#: How the script spells what becomes of another job, and until when the work is taken unless that is said.
_CONFLICT: dict[str, tuple[str, str]] = {
    "reject": ("reject", "finished"),
    "return-existing": ("existing", "finished"),
    "replace": ("replace", "finished"),
    "debounce": ("replace", "started"),
    "throttle": ("existing", "ttl"),
}


def out_of_range(field: str, allowed: str) -> InvalidRequest:
    """The error for a *field* (its JSON pointer without the first slash) that is out of its limits."""
    return InvalidRequest(f"{field}: allowed is {allowed}", errors=[{"pointer": f"/{field}", "message": f"allowed is {allowed}"}])


def instant_ms(field: str, at: dt.datetime, now_ms: int) -> int:
    """An instant that a caller gave, Unix milliseconds, at least 1.

    Raises:
        InvalidRequest: it has no offset from UTC, or is more than ten years ahead.
    """
    if at.tzinfo is None:
        raise out_of_range(field, "an instant with its offset from UTC, such as 2027-01-31T09:00:00Z")
    ms = int(at.timestamp() * 1_000)
    if ms > now_ms + FAR_MAX_MS:
        raise out_of_range(field, "at most 10 years from now")
    return max(ms, 1)


def tags_of(tags: Sequence[str]) -> tuple[str, ...]:
    """Tags, each once, in the order given.

    Raises:
        InvalidRequest: too many, or one cannot be.
    """
    unique = tuple(dict.fromkeys(tags))
    if len(unique) > TAGS_MAX or not all(isinstance(tag, str) and _TAG.fullmatch(tag) for tag in unique):
        raise out_of_range("tags", f"at most {TAGS_MAX} of 1 to 64 of A-Z a-z 0-9 . _ : @ -")
    return unique


def lane_of(fairness_key: str | None, limits: Sequence[str]) -> str:
    """The lane of a job that says these.

    Raises:
        InvalidRequest: the key or a limiter's name cannot be.
    """
    if fairness_key is not None and not 1 <= len(fairness_key) <= KEY_MAX:
        raise out_of_range("fairnessKey", f"1 to {KEY_MAX} characters")
    if len(limits) > LIMITS_MAX or not all(isinstance(name, str) and NAME.fullmatch(name) for name in limits):
        raise out_of_range("limits", f"at most {LIMITS_MAX} names of limiters: 1 to 64 of a-z 0-9 . _ - that begin with a letter or digit")
    try:
        return lane_name(fairness_key, limits)
    except UnicodeEncodeError as error:
        raise out_of_range("fairnessKey", "text without lone surrogates") from error


def unique_of(work: UniqueWork, tenant: str, job_type: str, *, is_delayed: bool, window_ms: int) -> Unique:
    """The work as the script reads it. Its name is over tenant, type and key.

    Args:
        is_delayed: the submission has a delay or a time.
        window_ms: how long an idempotency key outlives its job.

    Raises:
        InvalidRequest: what it says does not go together.
    """
    if not 1 <= len(work.key) <= UNIQUE_KEY_MAX:
        raise out_of_range("unique/key", f"1 to {UNIQUE_KEY_MAX} characters")
    if work.on_conflict not in _CONFLICT:
        raise out_of_range("unique/onConflict", ", ".join(_CONFLICT))
    otherwise, usual = _CONFLICT[work.on_conflict]
    until = work.until or usual
    if until not in ("started", "finished", "ttl"):
        raise out_of_range("unique/until", "started, finished, ttl")
    if work.on_conflict == "throttle" and until != "ttl":
        raise out_of_range("unique/until", "ttl, or nothing, with onConflict throttle")
    if work.on_conflict == "debounce" and not is_delayed:
        raise out_of_range("unique/onConflict", "debounce only with delayMs or runAt: it is the delay that begins anew")
    if (until == "ttl") != (work.ttl_ms is not None) or not 1 <= (1 if work.ttl_ms is None else work.ttl_ms) <= FAR_MAX_MS:
        raise out_of_range("unique/ttlMs", f"1 to {FAR_MAX_MS} (10 years) with until ttl or onConflict throttle, nothing without")
    try:
        name = digest("unique", tenant, job_type, work.key)
    except UnicodeEncodeError as error:
        raise out_of_range("unique/key", "text without lone surrogates") from error
    return Unique(name, until[0], work.ttl_ms or 0, otherwise, window_ms)
