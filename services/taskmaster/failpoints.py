"""Named points in the code where a test can kill, stop or fail this very process; nothing at all unless TM_FAILPOINTS is set.

    TM_FAILPOINTS=effect.reserved:kill9            SIGKILL between the reservation of an effect and the effect
    TM_FAILPOINTS=attempt.finished:raise@3,cycle.sent:stop

`name:action@n` acts at the n-th hit in a process (the first, if n is left out). With TM_FAILPOINTS_DIR it acts on every hit from the n-th
on for which it can create the file `<name>` there: so once over all processes, a replacement for the killed one included, until somebody
removes the file, which arms it again. A file that is there before means: not yet armed.

Actions: `kill9` (SIGKILL), `exit` (no clean-up, code 70), `raise` (`FailpointHit`), `stop` (SIGSTOP), `pause` (until its file is removed;
needs the folder).
"""

from __future__ import annotations

import itertools
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from taskmaster.errors import ConfigurationError

__all__ = ["DIRECTORY", "NAMES", "VARIABLE", "FailpointHit", "Failpoints", "hit", "is_on"]

VARIABLE: Final = "TM_FAILPOINTS"
DIRECTORY: Final = "TM_FAILPOINTS_DIR"
#: Where each point is.
NAMES: Final[Mapping[str, str]] = {
    "attempt.started": "the handler is about to be called; its lease is held",
    "attempt.finished": "the handler has ended and its outcome is decided; the store has not been told",
    "cycle.sent": "the store has carried out a round; its answer has not been looked at",
    "cycle.answered": "what a round brought is known to this process; nothing of it has begun",
    "effect.before_reserve": "a handler has asked for an effect; nothing is reserved",
    "effect.reserved": "the effect is reserved; it has not happened",
    "effect.before_done": "the effect has happened; the store has not been told",
    "effect.done": "the store knows that the effect happened; the attempt goes on",
    "operation.step": "a step of an operation over many jobs has run; its progress has not been looked at",
    "schedule.before_fire": "the job of an instant is decided; the store has not been asked",
    "schedule.fired": "the store has carried out a step of a schedule; its answer has not been looked at",
    "submit.before_store": "submissions were checked; the store has not been asked",
    "submit.stored": "the store has taken submissions; their senders have not been answered",
    "webhook.before_submit": "ends have been read from the outbox; no delivery of theirs is in the store",
    "webhook.submitted": "deliveries are in the store; the ends that they tell of have not left the outbox",
}
ACTIONS: Final = ("kill9", "exit", "raise", "stop", "pause")
_LOOK_EVERY_S: Final = 0.01


class FailpointHit(Exception):
    """What `raise` raises. Args: the name of the point."""


@dataclass
class _Point:
    action: str
    at: int
    count: Iterator[int] = field(default_factory=lambda: itertools.count(1))


class Failpoints:
    """The points of one process that do something. Thread-safe.

    Args:
        text: as in the environment.
        folder: where files say which have acted; None: each process counts for itself.

    Raises:
        ConfigurationError: an unknown name or action, or one that needs the folder.
    """

    def __init__(self, text: str, folder: Path | None = None) -> None:
        self._folder = folder
        self._points = {name: point for name, point in map(self._read, text.split(",")) if name}

    def _read(self, part: str) -> tuple[str, _Point]:
        name, _, what = part.strip().partition(":")
        action, _, at = what.partition("@")
        if not name and not what:
            return "", _Point("", 0)
        if name not in NAMES:
            raise ConfigurationError(f"{VARIABLE}: there is no failpoint {name!r}; there are {', '.join(NAMES)}", name=VARIABLE)
        if action not in ACTIONS or not (at or "1").isdecimal() or (at and int(at) < 1):
            raise ConfigurationError(f"{VARIABLE}: {part.strip()!r}: expected {name}:<action>[@n], {', '.join(ACTIONS)}", name=VARIABLE)
        if action == "pause" and self._folder is None:
            raise ConfigurationError(f"{VARIABLE}: {name}:pause waits for a file to go; {DIRECTORY} must name its folder", name=VARIABLE)
        return name, _Point(action, int(at or 1))

    def hit(self, name: str) -> None:
        """The code has come to the point *name*.

        Raises:
            FailpointHit: as asked for.
            KeyError: no such name: a mistake in the code that calls.
        """
        NAMES[name]  # a misspelt one must not pass in silence
        point = self._points.get(name)
        if point is None:
            return
        n = next(point.count)
        if (n == point.at) if self._folder is None else (n >= point.at and _create(self._folder / name)):
            self._act(name, point.action)

    def _act(self, name: str, action: str) -> None:
        if action == "kill9":
            os.kill(os.getpid(), signal.SIGKILL)
        elif action == "exit":
            os._exit(70)
        elif action == "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        elif action == "raise":
            raise FailpointHit(name)
        elif self._folder is not None:
            while (self._folder / name).exists():
                time.sleep(_LOOK_EVERY_S)


def _create(path: Path) -> bool:
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    except FileExistsError:
        return False
    return True


def _off(name: str) -> None:
    """No failpoint is set in this process."""


def _bind(environ: Mapping[str, str]) -> Callable[[str], None]:
    folder = environ.get(DIRECTORY)
    return Failpoints(environ[VARIABLE], Path(folder) if folder else None).hit if environ.get(VARIABLE) else _off


#: Bound once, so that a point costs an empty call where there are none, and code that is run for every job need not even call.
hit: Final[Callable[[str], None]] = _bind(os.environ)
is_on: Final = hit is not _off
