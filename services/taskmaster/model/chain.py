"""The chain of the audit: the hash of a row, over that of the row before it and all that it says. SHA-1 is what scripts have."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

__all__ = ["FIELDS", "hash_of", "number_of"]

#: What a row is made of, in the order in which it is hashed, and the hash of the row before it.
_SAID = ("n", "at", "who", "action", "target", "reason", "detail")
FIELDS = frozenset((*_SAID, "p"))


def hash_of(entry: str, fields: Mapping[str, bytes]) -> str:
    """The hash of a row: 40 hexadecimal digits. A field that is missing counts as empty.

    Args:
        entry: id of its entry in the stream.
        fields: as stored.
    """
    parts = [entry.encode(), *(fields.get(name, b"") for name in _SAID)]
    text = fields.get("p", b"") + b"".join(b"%d:%s" % (len(part), part) for part in parts)
    return hashlib.sha1(text, usedforsecurity=False).hexdigest()


def number_of(fields: Mapping[str, bytes]) -> int:
    """The number of a row in its chain; 0: it is in none."""
    text = fields.get("n", b"")
    return int(text) if text.isdigit() and len(text) <= 15 else 0
