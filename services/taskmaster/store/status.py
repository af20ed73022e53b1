"""The answers of scripts, as small integers. Scripts are loaded with these numbers in the place of `STATUS.OK` and the others."""

from __future__ import annotations

from enum import IntEnum

__all__ = ["Status"]


class Status(IntEnum):
    """What became of one request."""

    OK = 0
    ALREADY = 1
    DUPLICATE = 2
    REUSED = 3
    STALE = 4
    STALE_OP = 5
    GONE = 6
    CONFLICT = 7
    REJECTED = 8
    TOO_OLD = 9
    UNREGISTERED = 10
    GENERATION = 11
    CANCELLING = 12
    CANCEL = 13
    ABORTED = 14
    REWOUND = 15
    DONE = 16
    UNKNOWN = 17
