"""Words in the payload of a schedule that stand for the instant of each run: `{{localDate}}` in a text becomes `2026-12-24`.

Plain substitution: no expressions, no nesting, and what is put in is not looked at again.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["WORDS", "TemplateError", "check_template", "render", "utc_text", "words_of"]

#: One quantifier, so that a text is looked through once whatever stands in it.
_WORD = re.compile(r"\{\{([^{}]*)\}\}")
#: What may stand there.
WORDS: Mapping[str, str] = {
    "instant": "the instant in UTC, 2026-12-24T14:00:00Z",
    "instantMs": "the instant in milliseconds since 1970",
    "localDate": "its date in the schedule's zone, 2026-12-24",
    "localTime": "its time there, 09:00:00",
    "local": "both with the offset, 2026-12-24T09:00:00-05:00",
    "scheduleId": "the schedule's id",
}


class TemplateError(ValueError):
    """A word that is not known."""


def check_template(value: Any) -> None:
    """Whether only known words stand in *value*.

    Raises:
        TemplateError: another one does.
    """
    _walk(value, lambda _: "")


def words_of(schedule_id: str, at_ms: int, local: dt.datetime) -> dict[str, str]:
    """What the words stand for."""
    return {
        "instant": utc_text(at_ms),
        "instantMs": str(at_ms),
        "localDate": f"{local:%Y-%m-%d}",
        "localTime": f"{local:%H:%M:%S}",
        "local": local.isoformat(),
        "scheduleId": schedule_id,
    }


def utc_text(at_ms: int) -> str:
    """2026-12-24T14:00:00Z, with milliseconds if there are any."""
    return (
        dt.datetime.fromtimestamp(at_ms / 1_000, dt.UTC)
        .isoformat(timespec="milliseconds" if at_ms % 1_000 else "seconds")
        .replace("+00:00", "Z")
    )


def render(value: Any, words: Mapping[str, str]) -> Any:
    """*value* with the words replaced in all its texts; names of members stay as they are."""
    return _walk(value, words.__getitem__)


def _walk(value: Any, of: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return _WORD.sub(lambda match: of(_known(match[1])), value) if "{{" in value else value
    if isinstance(value, list):
        return [_walk(one, of) for one in value]
    if isinstance(value, dict):
        return {name: _walk(one, of) for name, one in value.items()}
    return value


def _known(word: str) -> str:
    word = word.strip()
    if word not in WORDS:
        raise TemplateError(f"{{{{{word[:40]}}}}} stands for nothing; known are {', '.join(WORDS)}")
    return word
