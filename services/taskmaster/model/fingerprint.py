"""Which failures have one cause: alike in job type, class, innermost frames, and in what their messages say of no single case."""

from __future__ import annotations

import re
from collections.abc import Sequence

from taskmaster.model.ids import digest

__all__ = ["fingerprint_of", "template"]

#: So much of a message is looked at, and so much of its template counts.
_LOOKED_AT, _COUNTS = 1_000, 200
#: Quoted, but not the apostrophe within a word.
_QUOTED = re.compile(r"(?<!\w)(?:'[^']*'|\"[^\"]*\")(?!\w)")
#: URLs, e-mail addresses, paths, host names: one case's, whether or not there is a digit in them. Possessive: each byte is looked at once.
_ADDRESS = re.compile(
    r"(?<!\w)\w++://[^\s'\"<>]+|(?<![\w.+-])[\w.+-]++@[\w.-]+|(?<![\w/])(?:/[\w.@%+~-]++){2,}/?|(?<![\w.-])[\w-]++(?:\.[\w-]++)+(?![\w.])"
)
#: A word; with a digit in it, it is a number, an id, a memory address, a version, a date. What is joined to it by signs goes along.
_WORD = re.compile(r"[\w.:@/+%=~-]+")
_HEX = re.compile(r"(?<!\w)[0-9a-fA-F]{8,}(?!\w)")
#: Several cases in a row, as in a list, count as one.
_ROW = re.compile(r"#(?:[\s,;:|()\[\]{}]*+#)+")


def template(message: str, *, names_code: bool) -> str:
    """*message* with `#` in the place of whatever belongs to a single case.

    *names_code*: what it quotes are names of the code (an attribute, a module), not data.
    """
    text = message[:_LOOKED_AT]
    if not names_code:
        text = _QUOTED.sub("#", text)
    text = _WORD.sub(lambda found: "#" if any(char.isdigit() for char in found[0]) else found[0], _ADDRESS.sub("#", text))
    return _ROW.sub("#", _HEX.sub("#", text))[:_COUNTS]


def fingerprint_of(job_type: str, error: BaseException, name: str, message: str, frames: Sequence[str]) -> str:
    """16 characters.

    Args:
        job_type: of the job that failed.
        error: decides what the quotes in its message are.
        name: the class, qualified.
        message: as it is kept.
        frames: `file:function` of the innermost frames. Line numbers would make each release's failures new ones.
    """
    names_code = isinstance(error, AttributeError | NameError | ImportError | TypeError)
    return digest(job_type, name, template(message, names_code=names_code), *frames)[:16]
