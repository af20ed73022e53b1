"""Filters over dead letters, as parameters of a request give them."""

from __future__ import annotations

import datetime as dt
import re
from typing import Annotated

import msgspec

from taskmaster.api.problems import BadParameter
from taskmaster.model.letters import LetterFilter

__all__ = ["FINGERPRINT", "PARAMETERS", "instant_of", "letters_of", "milliseconds"]

#: The query parameters of a filter.
PARAMETERS = ("type", "queue", "fingerprint", "reason", "failedAfter", "failedBefore", "text", "pluginVersion")
FINGERPRINT = re.compile(r"[A-Za-z0-9_:.!-]{1,100}")
_NAME = re.compile(r"[a-z0-9._-]{1,64}")
_VERSION = re.compile(r"[^\"\\\x00-\x1f]{1,100}")
_Instant = Annotated[dt.datetime, msgspec.Meta(tz=True)]


def letters_of(
    *,
    type: str | None = None,  # noqa: A002  # as the parameter is called
    queue: str | None = None,
    fingerprint: str | None = None,
    reason: str | None = None,
    failed_after: str | None = None,
    failed_before: str | None = None,
    text: str | None = None,
    plugin_version: str | None = None,
) -> LetterFilter:
    """The filter. A name that cannot be one matches nothing.

    Raises:
        BadParameter: an instant, text or version that makes no sense.
    """
    if text is not None and not 1 <= len(text) <= 200:
        raise BadParameter("text has 1 to 200 characters", parameter="text")
    return LetterFilter(
        type=_matching(type, _NAME),
        queue=_matching(queue, _NAME),
        fingerprint=_matching(fingerprint, FINGERPRINT),
        reason=_matching(reason, _NAME),
        failed_after_ms=instant_of(failed_after, "failedAfter"),
        failed_before_ms=instant_of(failed_before, "failedBefore"),
        text=text or "",
        version=_matching(plugin_version, _VERSION),
    )


def _matching(text: str | None, pattern: re.Pattern[str]) -> str:
    return "" if text is None else text if pattern.fullmatch(text) else "-"


def instant_of(text: str | None, name: str) -> int:
    """The instant of a parameter as Unix milliseconds; 0: it was not given.

    Raises:
        BadParameter: it is none.
    """
    if text is None:
        return 0
    try:
        moment = msgspec.convert(text, _Instant)
    except msgspec.ValidationError as error:
        raise BadParameter(f"{name} is an instant with its offset from UTC, such as 2027-01-31T09:00:00Z", parameter=name) from error
    return milliseconds(moment)


def milliseconds(moment: dt.datetime) -> int:
    """Unix milliseconds, not below 1: 0 would mean that none was given."""
    return max(1, int(moment.timestamp() * 1_000))
