"""Which dead letters are meant, as scripts read it."""

from __future__ import annotations

import msgspec

__all__ = ["LetterFilter"]


class LetterFilter(msgspec.Struct, frozen=True, omit_defaults=True, rename={"failed_after_ms": "after", "failed_before_ms": "before"}):
    """All that is given must hold.

    Attributes:
        failed_after_ms: failed at that time or later, Unix ms.
        failed_before_ms: failed earlier than that.
        text: is found in class or message of the error, whatever its case (of ASCII letters).
        version: of the plugin that ran the last attempt.
    """

    type: str = ""
    queue: str = ""
    fingerprint: str = ""
    reason: str = ""
    failed_after_ms: int = 0
    failed_before_ms: int = 0
    text: str = ""
    version: str = ""

    def spelled(self) -> str:
        """For scripts: JSON, the text as JSON has it, since errors are kept as JSON; empty when everything is meant."""
        text = msgspec.json.encode(self.text)[1:-1].lower().decode()
        found = msgspec.json.encode(msgspec.structs.replace(self, text=text)).decode()
        return "" if found == "{}" else found
