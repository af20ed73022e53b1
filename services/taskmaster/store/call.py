"""One request to the store as a value: what to run, on which partition, and how to read the answer. Clients run it; no I/O here."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from taskmaster.store.scripts import Script

__all__ = ["Call", "Talk", "meta_key"]

T = TypeVar("T")
Arg = bytes | str | int | float


def meta_key(partition: int) -> str:
    """The one key that every script declares; its tag is the partition's."""
    return f"tm:{{{partition}}}:meta"


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """A script with its arguments.

    Safe to send again after a lost reply: each script's header says how a repeat is recognised.

    Attributes:
        script: what to run.
        partition: 0..partitions-1.
        args: without the trailing `now`, which the client adds.
        decode: raw answer -> value.
    """

    script: Script
    partition: int
    args: tuple[Arg, ...]
    decode: Callable[[Any], T]


#: Several calls, each chosen by the answers to those before: yields them, is sent their answers, and returns what they add up to. The
#: clients' `converse` carries one out, so that it is written once for threads and event loops.
Talk = Generator[Call[Any], Any, T]
