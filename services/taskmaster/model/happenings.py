"""What can happen to a job, by the letters of the store's stream of events (store/PROTOCOL.md) and the words that people hear."""

from __future__ import annotations

from typing import Final

__all__ = ["LETTERS", "WORDS"]

#: Letter -> word. `lost`: its worker was; `promoted`: a delayed job became due; `mended`: the sweeper put its record right; `news`: its
#: attempt told progress or logged lines.
WORDS: Final = {
    "s": "submitted",
    "d": "delayed",
    "p": "promoted",
    "a": "claimed",
    "n": "news",
    "h": "handed_back",
    "r": "retrying",
    "l": "lost",
    "c": "completed",
    "f": "failed",
    "x": "cancelled",
    "g": "purged",
    "m": "mended",
}
LETTERS: Final = {word: letter for letter, word in WORDS.items()}
