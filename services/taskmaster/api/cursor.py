"""Cursors: where a list goes on, as an opaque word that fits one list and one set of filters only."""

from __future__ import annotations

import binascii
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from urllib.parse import urlencode

from taskmaster.api.problems import BadParameter
from taskmaster.model.ids import digest

__all__ = ["next_link", "pack", "unpack"]

#: A job id, and behind a slash the id of an effect.
_OF_JOB = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}(/[0-9a-f]{0,32})?")
#: As the store writes a score: no other spelling, which Python might take for a number and the store would not.
_SCORE = re.compile(r"-?[0-9]{1,19}(\.[0-9]{1,20})?(e[+-]?[0-9]{1,2})?")
Place = tuple[str, str]
BEGINNING: Place = ("", "")


def pack(place: Place | None, *filters: str) -> str | None:
    """The word for *place* (score, member) in the list with these filters; None for None."""
    if place is None:
        return None
    text = f"{digest(*filters)[:8]} {place[0]} {place[1]}"
    return urlsafe_b64encode(text.encode()).rstrip(b"=").decode()


def unpack(word: str | None, *filters: str, member: re.Pattern[str] = _OF_JOB) -> Place:
    """The place that *word* stands for; the beginning for None.

    *member*: what members of the list look like.

    Raises:
        BadParameter: it is no cursor, or one of another list.
    """
    if word is None:
        return BEGINNING
    try:
        text = urlsafe_b64decode(word.encode("ascii") + b"=" * (-len(word) % 4)).decode("ascii")
    except (ValueError, binascii.Error) as error:
        raise _bad() from error
    mark, _, rest = text.partition(" ")
    score, _, name = rest.partition(" ")
    is_number = len(score) <= 32 and _SCORE.fullmatch(score) is not None and abs(float(score)) < 2**63
    if mark != digest(*filters)[:8] or not is_number or not member.fullmatch(name):
        raise _bad()
    return score, name


def _bad() -> BadParameter:
    return BadParameter("this cursor belongs to no list with these filters; begin without one", parameter="cursor")


def next_link(path: str, word: str, **filters: str | None) -> str:
    """The Link header for the next page."""
    query = urlencode({name: value for name, value in filters.items() if value is not None} | {"cursor": word})
    return f'<{path}?{query}>; rel="next"'
