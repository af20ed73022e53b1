"""Holds what was written down, what the sink has counted and what the store holds at the end against what is promised. No I/O."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from support.protocol.dump import Snapshot, ids_of, violations
from support.sink import Effect

__all__ = ["Report", "Wrong", "check"]

_WORD = {"c": "completed", "f": "failed", "x": "cancelled"}
#: What a job of each kind may end as, if it lost fewer workers than the cap allows: (state, reason).
_ENDS: dict[str, set[tuple[str, str]]] = {
    "plain": {("completed", "")},
    "once": {("completed", ""), ("failed", "effect_unknown")},
    "isolated": {("completed", ""), ("failed", "effect_unknown")},
    "isolated_crash": {("completed", ""), ("failed", "effect_unknown")},
    "at_least_once": {("completed", "")},
    "verify": {("completed", "")},
    "delayed": {("completed", "")},
    "recovers": {("completed", "")},
    "fails": {("failed", "attempts_exhausted")},
    "cancelled": {("completed", ""), ("cancelled", "cancelled")},
    "huge": {("completed", "")},
    "crashes": {("completed", "")},
    "poison": set(),
}
_LOST = ("failed", "worker_lost")
LOSSES_MAX = 3
#: Kinds whose effect is guarded: at most once.
_GUARDED = ("once", "isolated", "isolated_crash")


@dataclass(frozen=True)
class Wrong:
    """A broken promise; *job*: the id that its slice of the history is about, or empty."""

    text: str
    job: str = ""


@dataclass
class Report:
    """What the checker found."""

    wrong: list[Wrong] = field(default_factory=list)
    identities: dict[str, int] = field(default_factory=dict)

    def say(self, is_so: bool, text: str, job: str = "") -> None:
        """Note *text* unless it is so."""
        if not is_so:
            self.wrong.append(Wrong(text, job))


def check(rows: Iterable[dict[str, Any]], effects: Iterable[Effect], snap: Snapshot, early_records: dict[str, dict[str, str]]) -> Report:
    """Everything that can be checked once all has ended.

    Args:
        rows: the history.
        effects: of the sink.
        snap: all keys of the store, of one partition.
        early_records: dead-letter records as they were seen while the run went on.
    """
    report = Report()
    for line in violations(snap):
        report.say(False, line)
    _Checker(list(rows), list(effects), snap, report).run()
    for job_id, record in early_records.items():
        report.say(snap.get(f"d:{job_id}") == record, "I5 the dead-letter record has changed or gone", job_id)
    return report


class _Checker:
    def __init__(self, rows: list[dict[str, Any]], effects: list[Effect], snap: Snapshot, report: Report) -> None:
        self._snap = snap
        self._report = report
        self._rows = defaultdict(list)
        for row in rows:
            self._rows[row["what"]].append(row)
        self._kinds = {row["n"]: row["kind"] for row in self._rows["invoke"]}
        self._jobs: dict[str, dict[str, str]] = {job_id: snap[f"j:{job_id}"] for job_id in ids_of(snap, "j:")}
        self._numbers = {job_id: int(self._payload(job_id)["key"].removeprefix("job-")) for job_id in self._jobs}
        self._effects = Counter(effect.key for effect in effects)
        self._effects_of = Counter(effect.job for effect in effects)

    def run(self) -> None:
        self._submissions()
        self._ends()
        self._replays()
        self._answers()
        self._identities()

    def _payload(self, job_id: str) -> dict[str, Any]:
        payload: dict[str, Any] = json.loads(self._snap[f"b:{job_id}"])[1]
        return payload

    # ------------------------------------------------------------ G1, G2
    def _submissions(self) -> None:
        say = self._report.say
        firsts: dict[int, set[str]] = defaultdict(set)
        for row in self._rows["accepted"]:
            firsts[row["n"]].add(row["id"])
            say(row["id"] in self._jobs, f"G1 accepted submission {row['n']} is not in the store", row["id"])
        for row in self._rows["refused"]:
            say(False, f"submission {row['n']} was refused: {row['status']} {row['said']}")
        for row in self._rows["server_error"]:
            say(False, f"{row['path']} answered {row['status']}: {row['said']}")
        stored: dict[int, set[str]] = defaultdict(set)
        for job_id, job in self._jobs.items():
            if "rp" not in job:
                stored[self._numbers[job_id]].add(job_id)
        for n, ids in stored.items():
            say(len(ids) == 1, f"G2 submission {n} made {len(ids)} jobs", min(ids))
            say(n in self._kinds, f"a job of submission {n}, which nobody sent", min(ids))
        for n, ids in firsts.items():
            say(len(ids) == 1, f"G2 submission {n} was answered with {len(ids)} ids", min(ids))

    # ------------------------------------------------------------ G3, G5, G6, G7
    def _ends(self) -> None:
        say = self._report.say
        for job_id, job in self._jobs.items():
            kind = self._kinds.get(self._numbers[job_id], "plain")
            state, reason = _WORD.get(job["st"], job["st"]), job.get("rs", "") if job["st"] != "c" else ""
            losses = int(job.get("ls", 0))
            say(job["st"] in _WORD, f"G3 has not ended: {job}", job_id)
            is_lost = (state, reason) == _LOST and losses >= LOSSES_MAX
            say(is_lost or (state, reason) in _ENDS[kind], f"G3 a job of kind {kind} ended as {state}, {reason}", job_id)
            say(losses <= LOSSES_MAX, f"G6 {losses} workers lost", job_id)
            happened = self._effects_of[job_id]
            begun = int(job.get("ep", 0))
            say(happened <= begun, f"B1 {happened} effects of {begun} attempts", job_id)
            if state == "completed":
                needs = kind not in _GUARDED or "rp" not in job  # a replay finds the effect done
                say(
                    happened > 0 or not needs or self._effects[f"job-{self._numbers[job_id]}"] > 0,
                    "claims success, nothing happened",
                    job_id,
                )
            if kind in ("fails", "poison"):
                say(happened == 0, "an effect of a job that never came to it", job_id)
            if state == "cancelled" and begun == 0:
                say(happened == 0, "cancelled before it began, and it happened", job_id)
        for n, kind in self._kinds.items():
            if kind in _GUARDED:
                say(self._effects[f"job-{n}"] <= 1, f"G5 the guarded effect of submission {n} happened {self._effects[f'job-{n}']} times")

    # ------------------------------------------------------------ G8
    def _replays(self) -> None:
        say = self._report.say
        asked: dict[str, set[str]] = defaultdict(set)
        for row in self._rows["replayed"]:
            asked[row["request"]].add(row["id"])
            job = self._jobs.get(row["id"])
            say(job is not None and job.get("rp") == row["source"], f"I10 replay {row['request']} has no lineage", row["id"])
        for request, ids in asked.items():
            say(len(ids) == 1, f"G8 replay {request} made {len(ids)} jobs", min(ids))
        told = {job_id for ids in asked.values() for job_id in ids}
        made = {job_id for job_id, job in self._jobs.items() if "rp" in job}
        say(told <= made, f"G8 replays that are not there: {told - made}")
        for job_id in made:
            job, seen = self._jobs[job_id], {job_id}
            while "rp" in job:
                source = job["rp"]
                say(source not in seen, "I10 the lineage is a circle", job_id)
                if source in seen or source not in self._jobs:
                    break
                seen.add(source)
                job = self._jobs[source]

    # ------------------------------------------------------------ G4
    def _answers(self) -> None:
        say = self._report.say
        for row in self._rows["read"]:
            job = self._jobs.get(row["id"])
            now = _WORD.get(job["st"], job["st"]) if job else "gone"
            say(now == row["state"], f"G4 was read as {row['state']} and is {now}", row["id"])
        for row in self._rows["cancel"]:
            job = self._jobs.get(row["id"])
            if row["word"] == "cancelled" and job:
                say(job["st"] == "x", f"cancelled, said the API; it is {job['st']}", row["id"])

    # ------------------------------------------------------------ accounting
    def _identities(self) -> None:
        states = Counter(_WORD.get(job["st"], "open") for job in self._jobs.values())
        once = [n for n, kind in self._kinds.items() if kind in _GUARDED]
        unknown = {
            self._numbers[job_id]
            for job_id, job in self._jobs.items()
            if job.get("rs") in ("effect_unknown", "worker_lost") and job["st"] == "f"
        }
        done = {self._numbers[job_id] for job_id, job in self._jobs.items() if job["st"] == "c"}
        accepted = {row["n"] for row in self._rows["accepted"]}
        replays = sum("rp" in job for job in self._jobs.values())
        n = self._snap.get("n", {})
        created = sum(int(value) for name, value in n.items() if name.endswith("/created"))
        identities = {
            "submitted": len(self._kinds),
            "accepted": len(accepted),
            "given up": len(self._rows["unknown"]),
            "stored": len(self._jobs) - replays,
            "replays": replays,
            "created": created,
            **{state: states[state] for state in ("completed", "failed", "cancelled", "open")},
            "dead letters": len(ids_of(self._snap, "d:")),
            "effects": sum(self._effects.values()),
            "guarded effects": sum(self._effects[f"job-{number}"] for number in once),
        }
        self._report.identities = identities
        say = self._report.say
        say(created == len(self._jobs), f"created {created}, stored {len(self._jobs)}")
        say(sum(states.values()) == states["completed"] + states["failed"] + states["cancelled"], f"not all have ended: {dict(states)}")
        say(identities["dead letters"] == states["failed"], f"{identities['dead letters']} dead letters, {states['failed']} failed")
        late = len(self._rows["unknown"])
        say(
            len(accepted) <= identities["stored"] <= len(accepted) + late,
            f"stored {identities['stored']}, accepted {len(accepted)} + {late} given up",
        )
        reached = sum(self._effects[f"job-{number}"] for number in unknown & set(once) - done)
        want = len(done & set(once)) + reached
        say(
            identities["guarded effects"] == want,
            f"guarded effects {identities['guarded effects']}, completed and unknown but happened {want}",
        )
