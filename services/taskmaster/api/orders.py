"""What routes that give orders have in common: who gives them, and on what they were decided."""

from __future__ import annotations

import re

import msgspec

from taskmaster.api import bodies
from taskmaster.api.problems import BadParameter
from taskmaster.api.service import AnyRequest
from taskmaster.engine import strict
from taskmaster.engine.rules import By, Reason, Word

__all__ = ["OrderBody", "etag", "known_revision", "word", "word_of"]

BODY_MAX = 4_096
_ETAG = re.compile(r'(?:W/)?"(\d{1,15})"')


class OrderBody(msgspec.Struct, forbid_unknown_fields=True):
    """Optional body of an order: who gives it, and why. Both are shown as long as it is in force, and kept in the audit."""

    by: By | None = None
    reason: Reason = ""


def word_of(by: str | None, reason: str) -> Word:
    """Whose order it is; the API's, where nobody is named."""
    return Word(by or "api", reason)


async def word(request: AnyRequest) -> Word:
    """The same from the request's body, which may be empty."""
    body = await bodies.read(request, BODY_MAX)
    given = strict.convert(strict.decode(body), OrderBody) if body.strip() else OrderBody()
    return word_of(given.by, given.reason)


def etag(revision: int) -> dict[str, str]:
    """The headers of something with a revision."""
    return {"etag": f'"{revision}"'}


def known_revision(request: AnyRequest) -> int | None:
    """The revision that If-Match names; None: it names none, or any.

    Raises:
        BadParameter: it is no ETag of ours.
    """
    given = request.headers.get("if-match")
    if given is None or given.strip() == "*":
        return None
    found = _ETAG.fullmatch(given.strip())
    if found is None:
        raise BadParameter("If-Match is the ETag that GET answers, one alone, or *", parameter="If-Match")
    return int(found[1])
