"""One request to the store as a value: what to run, on which partition, and how to read the answer. Clients run it; no I/O here."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from taskmaster.store.scripts import Script

__all__ = ["Call", "Meter", "Talk", "meta_key"]

T = TypeVar("T")
Arg = bytes | str | int | float


def meta_key(partition: int) -> str:
    """The one key that every script declares; its tag is the partition's."""
    return f"tm:{{{partition}}}:meta"


@dataclass(slots=True, eq=False)
class Call(Generic[T]):
    """A script with its arguments. Not changed once it is made; a frozen class would take four times as long to make.

    Safe to send again after a lost reply: each script's header says how a repeat is recognised.

    Attributes:
        script: what to run.
        partition: 0..partitions-1.
        args: without the trailing `now`, which the client adds. Payloads and secrets are among them: not shown.
        decode: raw answer -> value.
    """

    script: Script
    partition: int
    args: tuple[Arg, ...] = field(repr=False)
    decode: Callable[[Any], T]


class Meter(Protocol):
    """Told of calls by their scripts' names, each time that one is sent."""

    def called(self, script: str, seconds: float) -> None:
        """It was answered, after so long."""

    def failed(self, script: str) -> None:
        """It was not, or with an error."""


#: Several calls, each chosen by the answers to those before: yields them, is sent their answers, and returns what they add up to. The
#: clients' `converse` carries one out, so that it is written once for threads and event loops.
Talk = Generator[Call[Any], Any, T]
