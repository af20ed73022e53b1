"""How a text as a whole is described to msgspec and, in the contract, to callers."""

from __future__ import annotations

__all__ = ["whole"]


def whole(pattern: str) -> str:
    """*pattern* for `msgspec.Meta`, which searches: all characters, a line feed at the end too, which `$` alone lets pass.

    Means the same in JSON Schema.
    """
    return rf"^{pattern}(?!\n)$"
