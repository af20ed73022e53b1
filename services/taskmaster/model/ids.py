"""Job ids, and the digests that foreign strings become.

A job id is a UUIDv7 (RFC 9562) whose last 16 bits are a *slot*; the partition of a job is slot modulo the number of partitions. A keyed
submission takes its slot from the key, so the job lands beside its idempotency record; a replay takes its source's.
"""

from __future__ import annotations

import hashlib
from base64 import urlsafe_b64encode

from uuid_utils import uuid7

__all__ = ["created_ms", "digest", "digest_slot", "is_job_id", "new_job_id", "partition_of", "slot_of"]

_HEX = frozenset("0123456789abcdef")
_SIX_BITS = {char: value for value, char in enumerate("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")}


def new_job_id(now_ms: int, slot: int | None = None) -> str:
    """A new id carrying *now_ms* (by the store's clock, which refuses ids that are too old) and, if given, a slot of 0..65535."""
    text = str(uuid7(nanoseconds=now_ms * 1_000_000))
    return text if slot is None else f"{text[:-4]}{slot:04x}"


def slot_of(job_id: str) -> int:
    """The 16 bits at the end of the id."""
    return int(job_id[-4:], 16)


def created_ms(job_id: str) -> int:
    """When the job was made, Unix milliseconds: the first 48 bits of the id."""
    return int(job_id[:8] + job_id[9:13], 16)


def partition_of(job_id: str, partitions: int) -> int:
    """Which partition holds the job."""
    return slot_of(job_id) % partitions


def is_job_id(text: str) -> bool:
    """Whether *text* is spelt as this module spells ids. Nothing else is looked up: no foreign string becomes part of a key."""
    return (
        len(text) == 36
        and text[8] == text[13] == text[18] == text[23] == "-"
        and text[14] == "7"
        and _HEX.issuperset(text.replace("-", ""))
    )


def digest(*parts: str | bytes) -> str:
    """22 characters of base64url: the first 128 bits of SHA-256 over the parts, each after its length so that no two lists collide."""
    h = hashlib.sha256()
    for part in parts:
        raw = part.encode() if isinstance(part, str) else part
        h.update(b"%d:" % len(raw))
        h.update(raw)
    return urlsafe_b64encode(h.digest()[:16])[:22].decode()


def digest_slot(digest_text: str) -> int:
    """The slot that a keyed submission takes from its key's digest: its first 16 bits."""
    a, b, c = digest_text[0], digest_text[1], digest_text[2]
    return _SIX_BITS[a] << 10 | _SIX_BITS[b] << 4 | _SIX_BITS[c] >> 2
