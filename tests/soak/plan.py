"""What happens in a run, as a function of its seed: the jobs that are submitted and the faults that strike meanwhile."""

from __future__ import annotations

from random import Random
from typing import Any, NamedTuple

__all__ = ["FAILPOINTS", "KINDS", "REPLIES", "Fault", "Task", "faults", "tasks"]

#: Points at which workers are killed, by turns.
FAILPOINTS = (
    "attempt.started",
    "attempt.finished",
    "cycle.sent",
    "cycle.answered",
    "effect.before_reserve",
    "effect.reserved",
    "effect.before_done",
    "effect.done",
)
#: Scripts whose answers are lost.
REPLIES = ("cycle", "extend", "submit", "tick", "reap", "promote", "register")


class Fault(NamedTuple):
    """One fault.

    Attributes:
        kind: one of `KINDS`.
        hold_s: how long it lasts.
        at: which of the processes, roads or names it strikes: a number, to be taken modulo how many there are.
    """

    kind: str
    hold_s: float
    at: int


#: Kinds, and how long they last: shortest and longest, seconds.
KINDS: dict[str, tuple[float, float]] = {
    "worker_kill": (0.0, 0.0),
    "worker_stop": (4.0, 5.0),  # longer than lease, grace and a tick
    "service_kill": (0.0, 0.5),
    "api_kill": (0.0, 0.5),
    "store_kill": (0.1, 1.5),
    "store_pause": (0.5, 2.5),
    "store_full": (0.5, 1.5),
    "scripts_flushed": (0.0, 0.0),
    "cut": (0.0, 0.0),
    "reply_lost": (0.2, 1.0),
    "half_request": (0.2, 1.0),
    "latency": (1.0, 2.0),
    "blackhole": (1.0, 4.0),
    "mute": (1.0, 3.5),
    **{f"kill_at:{point}": (2.0, 4.0) for point in FAILPOINTS},
}


class Task(NamedTuple):
    """One submission.

    Attributes:
        n: its number; `key` of its effect is `job-<n>`.
        kind: what is expected of it.
        type: of the job.
        payload, options: of the submission.
        cancel: somebody cancels it as soon as it was taken.
        again: it is sent a second time.
    """

    n: int
    kind: str
    type: str
    payload: dict[str, Any]
    options: dict[str, Any]
    cancel: bool = False
    again: bool = False


#: Out of a thousand submissions. Crashes are few: each costs its process, and the supervisor's backoff the ones behind it.
_MIX = (
    ("plain", 460),
    ("once", 200),
    ("at_least_once", 50),
    ("verify", 50),
    ("isolated", 30),
    ("isolated_crash", 10),
    ("delayed", 60),
    ("recovers", 50),
    ("fails", 40),
    ("cancelled", 30),
    ("huge", 12),
    ("crashes", 5),
    ("poison", 3),
)
_SHAPES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "plain": ("plain", {}, {}),
    "once": ("once", {}, {}),
    "at_least_once": ("at-least-once", {}, {}),
    "verify": ("verify", {}, {}),
    "isolated": ("isolated", {}, {}),
    "isolated_crash": ("isolated", {"n": 1}, {}),
    "delayed": ("plain", {}, {"delayMs": 1_500}),
    "recovers": ("failing", {"n": 2}, {"attempts": 5}),
    "fails": ("failing", {"n": 99}, {"attempts": 2}),
    "cancelled": ("nap", {"n": 4_000}, {}),
    "huge": ("huge", {}, {}),
    "crashes": ("crash-once", {}, {}),
    "poison": ("poison", {}, {}),
}


def tasks(seed: int, number: int) -> list[Task]:
    """The first *number* submissions of this seed. Every kind is among the first hundred or so."""
    dice = Random(f"tasks {seed}")
    kinds = [kind for kind, _ in _MIX]
    first = dice.sample(kinds, len(kinds))
    made = []
    for n in range(number):
        kind = first[n // 8] if n % 8 == 7 and n // 8 < len(first) else dice.choices(kinds, [weight for _, weight in _MIX])[0]
        type_, payload, options = _SHAPES[kind]
        key = {"key": f"job-{n}"}
        more = {"priority": dice.choice(("normal", "normal", "high", "low"))}
        made.append(Task(n, kind, type_, key | payload, options | more, kind == "cancelled", dice.random() < 0.1))
    return made


def faults(seed: int, seconds: float, kinds: list[str]) -> list[Fault]:
    """Faults one after the other for about *seconds*: each kind once before any comes again."""
    dice = Random(f"faults {seed}")
    planned: list[Fault] = []
    left = seconds
    while True:
        for kind in dice.sample(kinds, len(kinds)):
            low, high = KINDS[kind]
            fault = Fault(kind, round(dice.uniform(low, high), 2), dice.randrange(1_000_000))
            left -= fault.hold_s + 0.6  # with the pause behind it
            if left < 0:
                return planned
            planned.append(fault)
