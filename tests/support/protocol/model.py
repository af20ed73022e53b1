"""Exhaustive search of the job protocol over small configurations.

    PYTHONPATH=tests python -m support.protocol.model             explore every configuration; exit 1 on a violated invariant or a
                                                                  state that cannot finish
    PYTHONPATH=tests python -m support.protocol.model --mutants   break the protocol on purpose, one rule at a time; exit 1 if a
                                                                  broken variant survives

`core.py`: submit, claim, finish, lease, guard, cancel, replay, purge, pause, rewind. `flow.py`: who is woken when, the timekeeper, lanes
that wait for several limiters, the starvation bound of the weighted choice.

As the oracle of a hypothesis state machine: keep a `core.Store`; for each request that reaches the real server call
`core.run(cfg, store, message, set())` with the same message, compare the answer code and, after every step, hold `core.check_store` and
the dump of the real keys against it. The test's rules map so: `send` adds the message; `deliver` runs it and hands the reply over;
`lose` runs it and drops the reply; `resend` runs it again, at any later moment. Which job a claim takes is an input of the model
(`pick`): take it from the real answer and check that it was `core.claimable`; order and wake-ups are `flow.py`'s subject.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import deque
from collections.abc import Iterator
from functools import partial
from typing import Any

from support.protocol import core, flow


def explore(first: Any, steps: Any, verdict: Any, done: Any, same: Any, room: int) -> tuple[int, str | None]:
    """Breadth first over all worlds. Answers (states, violation). The last check: from every state some fair steps reach the end."""
    number, queue = {first: 0}, deque([first])
    behind: list[list[int]] = [[]]
    ends: list[int] = []
    while queue:
        world = queue.popleft()
        here = number[world]
        if done(world):
            ends.append(here)
        for fair, after, wrong in steps(world):
            after = same(after)
            there = number.get(after)
            if there is None:
                wrong = wrong or verdict(after)
                there = number[after] = len(number)
                behind.append([])
                queue.append(after)
            if wrong:
                return len(number), wrong
            if fair and there != here:
                behind[there].append(here)
        if len(number) > room:
            return len(number), NO_ROOM
    reached = set(ends)
    while ends:
        for before in behind[ends.pop()]:
            if before not in reached:
                reached.add(before)
                ends.append(before)
    stuck = len(number) - len(reached)
    return len(number), f"{stuck} states from which the end cannot be reached" if stuck else None


NO_ROOM = "too many states"
CORE = [  # small ones first
    core.Config("no key, purge", workers=1, purge=True, outcomes=("ok", "fatal")),
    core.Config("same key twice, purge", workers=1, jobs=2, submits=(0, 1), same_key=True, purge=True, outcomes=("ok", "fatal")),
    core.Config("pause, resume", workers=1, operator=(("pause", 0),), max_losses=1),
    core.Config("small writes", touch=True, max_attempts=1),
    core.Config(
        "replay",
        1,
        3,
        effect=True,
        operator=(("replay", 0, 1, "r"), ("replay", 0, 2, "r")),
        purge=True,
        max_losses=1,
        crashes=1,
        max_attempts=1,
    ),
    core.Config("limiter", jobs=2, submits=(0, 1), limiter=1, max_attempts=1, max_losses=1, outcomes=("ok",)),
    core.Config("cancel and force", operator=(("cancel", 0), ("force", 0))),
    core.Config("sign off", 1, crashes=1, max_attempts=1, outcomes=("ok",)),
    core.Config("hand back", outcomes=("ok", "release")),
    core.Config("snooze, discard", 1, outcomes=("snooze", "discard"), operator=(("cancel", 0),)),
    core.Config("lease and retry", crashes=1),
    core.Config("rewind, noticed", 1, rewinds=1, max_attempts=1, outcomes=("ok",)),
    core.Config("rewind", rewinds=1, max_attempts=1, outcomes=("ok",), notices=False),  # what is safe does not hang on it
    core.Config(
        "effect settled by a person",
        jobs=2,
        effect=True,
        person=True,
        operator=(("replay", 0, 1, "r"),),
        max_losses=1,
        max_attempts=1,
        outcomes=("ok",),
    ),
    core.Config("effect, at least once", effect=True, again=True, crashes=1, max_losses=1),
    core.Config("effect, at most once", effect=True, crashes=1, max_losses=1),
]
#: Rules that can be broken, by the configuration that gives them away.
MUTANTS = {
    "no key, purge": (
        "finish_without_token",
        "fail_without_token",
        "finish_without_state",
        "op_id_not_stored",
        "dlq_before_state",
        "late_call_runs",
        "claims_not_remembered",
        "claim_pops_before_lease",
        "reap_without_cas",
        "losses_not_counted",
        "submit_without_memory",
        "purge_without_tombstone",
    ),
    "rewind": ("epoch_without_token",),
    "rewind, noticed": ("rewind_unseen",),
    "cancel and force": (
        "retry_forgets_cancel",
        "cancel_beats_finish",
        "cancel_without_cas",
        "cancel_keeps_index",
    ),
    "pause, resume": (
        "retries_unbounded",
        "pause_ignored",
        "pause_without_rev",
    ),
    "limiter": (
        "limit_read_before",
        "reap_keeps_slot",
    ),
    "replay": (
        "reserve_without_token",
        "guard_per_job",
        "reserved_is_free",
        "reserved_is_done",
        "guard_owned_by_attempt",
        "guard_expires",
        "guard_dies_with_job",
        "replay_draws_id",
        "gone_may_claim",
    ),
    "effect settled by a person": ("settle_while_owner_lives",),
    "effect, at most once": ("giveback_by_anyone",),
    "small writes": ("extend_without_token",),
    "same key twice, purge": ("purge_frees_key",),
    "two plugin sets": (
        "wake_any",
        "idle_told_later",
    ),
    "due times": (
        "no_chain",
        "earlier_due_unsaid",
    ),
    "draining": ("no_handover",),
    "two queues": ("no_pass_on",),
    "several limiters": (
        "release_without_kick",
        "kick_once",
    ),
    "room for another type": ("used_up_unsaid",),
    "woken worker dies": ("no_tick",),
    "longest wait": ("credit_for_idling",),
}


def runs(bad: set[str], room: int, keep: bool = False, only: str = "") -> Iterator[tuple[str, int, str | None]]:
    """Every configuration in turn, or those whose name begins with *only*: (name, states, violation).

    Args:
        bad: rules that are broken on purpose.
        room: states at most; more is `NO_ROOM`.
        keep: do not merge worlds by `forget`.
    """
    if "longest wait".startswith(only) or not only:
        yield from flow.bounds(bad)
    for world in flow.WORLDS:
        if world.name.startswith(only):
            yield world.name, *explore(*flow.machine(world, bad), lambda f: f, room)
    for cfg in CORE:
        if cfg.name.startswith(only):
            same = (lambda world: world) if keep else partial(core.forget, cfg)
            steps, verdict = partial(core.core_steps, cfg, bad=bad), partial(core.core_verdict, cfg)
            yield cfg.name, *explore(core.first_world(cfg), steps, verdict, core.core_done, same, room)


def catch(mutant: str, only: str = "") -> str | None:
    """What gives the broken variant away, or None. Running out of room is not a catch."""
    for room, keep in ((15_000, True), (15_000, False), (400_000, False)):
        for world, _, wrong in runs({mutant}, room, keep, only):
            if wrong and wrong != NO_ROOM:
                return f"{world}: {wrong}"
    return None


def main() -> int:
    """Explore, print, answer the exit code."""
    parser = argparse.ArgumentParser(description="Explore the job protocol exhaustively.")
    parser.add_argument("--mutants", action="store_true", help="check that every broken variant is caught")
    failed, total, started = 0, 0, time.monotonic()
    if parser.parse_args().mutants:
        mutants = [(mutant, world) for world, names in MUTANTS.items() for mutant in names]
        for mutant, world in mutants:
            caught = catch(mutant, world)
            failed += caught is None
            print(f"{'caught  ' if caught else 'SURVIVED'} {mutant:24} {caught or ''}", flush=True)
        print(f"{len(mutants) - failed} of {len(mutants)} mutants caught in {time.monotonic() - started:.0f} s")
        return int(failed > 0)
    for name, states, wrong in runs(set(), 2_000_000):
        total += states
        failed += wrong is not None
        took = time.monotonic() - started
        print(f"{'FAIL' if wrong else 'ok  '} {states:9,} states {took:6.1f} s  {name}{': ' + wrong if wrong else ''}", flush=True)
    print(f"{total:,} states, {failed} configurations failed")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
